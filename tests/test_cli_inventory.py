"""Making an inventory: tables, sealed keys, addresses to look at, and what each device may have of its own."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import learning
from gateway.cli.commands import app
from gateway.config import Config, find_findings, load
from gateway.config.document import SMALL_FILE
from gateway.config.sealing import CREDENTIALS, HEAD, Sealing, opened, seal
from gateway.config.secrets import read_secret
from gateway.core.errors import ConfigError
from gateway.core.model import AnchorKind, Device, DeviceId
from gateway.sediment.keys import is_published_hmac_key
from tests.e2e.installed import Installed
from tests.sediment.recorded import published_hmac_keys

HEAD_LINE = "id,addresses,source,anchor,labels,max_age,recovery_passes,hmac_key"


def key(name: str) -> str:
    return sha256(name.encode()).hexdigest()


@pytest.fixture
def site(tmp_path: Path) -> Installed:
    return Installed(tmp_path / "site", devices={"cam-1": ("10.77.1.11",), "cam-2": ("10.77.1.12", "fd77::12")})


def call(site: Installed, *arguments: str | Path) -> Result:
    options = [str(each) for each in arguments]
    return CliRunner().invoke(app, [*options, "--config", str(site.config)], env={"NO_COLOR": "1"})


def table(site: Installed, *rows: str, head: str = HEAD_LINE) -> Path:
    path = site.folder / "new.csv"
    path.write_text("\n".join((head, *rows)) + "\n", encoding="utf-8")
    return path


def loaded(site: Installed) -> Config:
    return load(site.config)


def device(site: Installed, name: str) -> Device:
    return next(each for each in loaded(site).devices if each.id == name)


KNOWN = ("cam-1,10.77.1.11,,upstream,class=camera,,,", "cam-2,10.77.1.12 fd77::12,,upstream,class=camera,,,")


# --- tables -------------------------------------------------------------------------------------------------------


def test_a_table_adds_devices_with_all_that_they_have(site: Installed) -> None:
    new = f'door-1,"10.77.1.21;fd77:0:0:1::/64",verifier,l2,class=door;hall=3,30m,3,{key("door-1")}'
    done = call(site, "devices", "import", table(site, *KNOWN, new))
    assert done.exit_code == 0, done.output
    assert "devices: 1 new, 0 changed, 0 gone" in done.output
    found = device(site, "door-1")
    assert [str(each) for each in found.binding.addresses] == ["10.77.1.21", "fd77:0:0:1::/64"]
    assert found.binding.anchor is AnchorKind.L2
    assert found.labels == (("class", "door"), ("hall", "3"))
    assert (found.max_age, found.recovery_passes) == (1_800.0, 3)
    config = loaded(site)
    assert config.hmac_keys[DeviceId("door-1")].hex() == key("door-1")
    assert config.hmac_keys[DeviceId("cam-1")] == site.keys.hmac["cam-1"]
    assert key("door-1") not in done.output


def test_a_dry_run_shows_and_writes_nothing(site: Installed) -> None:
    before = {path: path.read_bytes() for path in site.folder.iterdir() if path.is_file()}
    file = table(site, *KNOWN, f"door-1,10.77.1.21,,,,,,{key('door-1')}")
    done = call(site, "devices", "import", file, "--dry-run")
    assert done.exit_code == 0
    assert "+ door-1 verifier 10.77.1.21 none" in done.output
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        (KNOWN[:1], "- cam-2 "),
        ((KNOWN[0].replace("10.77.1.11", "10.77.1.99"), KNOWN[1]), "~ cam-1 "),
        ((f"{KNOWN[0]}{key('x')}", KNOWN[1]), "~ cam-1 another key"),
        ((KNOWN[0].replace(",,,", ",1h,2,"), KNOWN[1]), "max_age=3600s recovery_passes=2"),
    ],
)
def test_nothing_known_changes_or_goes_without_consent(site: Installed, rows: tuple[str, ...], shown: str) -> None:
    file = table(site, *rows)
    refused = call(site, "devices", "import", file)
    assert refused.exit_code == 1
    assert shown in refused.output
    assert len(loaded(site).devices) == 2
    assert call(site, "devices", "import", file, "--overwrite").exit_code == 0
    assert len(loaded(site).devices) == len(rows)


PUBLISHED = next(key.hex() for key in published_hmac_keys().values() if is_published_hmac_key(key))


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        ("bad id,10.77.1.21,,,,,,{key}", 1, "must be 1 to 64"),
        ("c\u0430m-1,10.77.1.21,,,,,,{key}", 1, "must be 1 to 64"),
        ("=cmd()|x,10.77.1.21,,,,,,{key}", 1, "must be 1 to 64"),
        ("door-1,,,,,,,{key}", 1, "1 to 16 addresses"),
        ("door-1,10.77.1.0/24,,,,,,{key}", 1, "single IPv4"),
        ("door-1,10.77.1.21,other,,,,,{key}", 1, "no source is named 'other'"),
        ("door-1,10.77.1.21,,l4,,,,{key}", 1, "anchor 'l4' is not known"),
        ("door-1,10.77.1.21,,,class,,,{key}", 1, "NAME=VALUE"),
        ("door-1,10.77.1.21,,,a=1;a=2,,,{key}", 1, "NAME=VALUE"),
        ("door-1,10.77.1.21,,,,never,,{key}", 1, "no duration"),
        ("door-1,10.77.1.21,,,,8d,,{key}", 1, "out of range"),
        ("door-1,10.77.1.21,,,,,0,{key}", 1, "whole number"),
        ("door-1,10.77.1.21,,,,,,", 1, "no key here"),
        ("door-1,10.77.1.21,,,,,,abcd", 1, "hmac_key"),
        ("door-1,10.77.1.21,,,,,," + PUBLISHED, 2, "published demo keys"),
        ("cam-1,10.77.1.11,,upstream,class=camera,,,", 1, "row 2 already"),
    ],
)
def test_a_row_that_cannot_be_used_is_told_of_and_never_dropped_silently(
    site: Installed, row: str, code: int, said: str
) -> None:
    file = table(site, *KNOWN, row.format(key=key("door-1")))
    refused = call(site, "devices", "import", file)
    assert refused.exit_code == code
    assert "row 4" in refused.output
    assert said in refused.output
    assert key("door-1") not in refused.output
    assert call(site, "devices", "import", file, "--partial").exit_code == 0
    assert len(loaded(site).devices) == 2
    assert "# left out: row 4" in (site.folder / "devices.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column 'id'"),
        ("id\n", "no column 'addresses'"),
        ("id,addresses,colour\n", "column 'colour' is not known"),
        ("id,addresses,id\n", "stands here twice"),
        ("id,addresses\ncam-1,10.0.0.1,l2\n", ":2: 3 fields"),
        ('id,addresses\ncam-1,"10.0.0.1\n', "is no CSV"),
        ("id,addresses\n\ncam-1," + "a" * 5_000 + "\n", ":3: a field has more"),
        ("id,addresses\n", "no device that can be taken over"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(site: Installed, text: str, said: str) -> None:
    path = site.folder / "new.csv"
    path.write_text(text)
    done = call(site, "devices", "import", path)
    assert done.exit_code == 2
    assert said in done.output


def test_a_table_of_a_spreadsheet_with_its_mark_and_line_ends(site: Installed) -> None:
    path = site.folder / "new.CSV"
    text = f"\ufeffid,addresses,hmac_key\r\ndoor-1,10.77.1.21,{key('door-1')}\r\n"
    path.write_bytes(text.encode())
    done = call(site, "devices", "import", path, "--overwrite")
    assert done.exit_code == 0, done.output
    assert [each.id for each in loaded(site).devices] == ["door-1"]


# --- sealed keys --------------------------------------------------------------------------------------------------


@pytest.fixture
def sealing_key(site: Installed) -> Path:
    path = site.folder / "sealing.key"
    made = CliRunner().invoke(app, ["devices", "make-key", str(path)])
    assert made.exit_code == 0, made.output
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    site.settings["sealing"] = {"file": "sealing.key"}
    site.write("ragate.yaml", site.settings)
    return path


def keys_at_rest(site: Installed) -> bytes:
    return (site.folder / "devices.keys").read_bytes()


def test_plain_keys_become_sealed_ones_and_the_service_reads_them(site: Installed, sealing_key: Path) -> None:
    before = loaded(site)
    assert [finding.what for finding in find_findings(before) if "sealing" in finding.what]
    done = call(site, "devices", "seal")
    assert done.exit_code == 0, done.output
    assert keys_at_rest(site).startswith(HEAD)
    for secret in site.keys.hmac.values():
        assert secret.hex().encode() not in keys_at_rest(site)
        assert secret.hex() not in done.output
    after = loaded(site)
    assert after.hmac_keys == before.hmac_keys
    assert not [finding for finding in find_findings(after) if "sealing" in finding.what]
    again = keys_at_rest(site)
    assert call(site, "devices", "seal").exit_code == 0
    assert keys_at_rest(site) != again  # another nonce
    assert loaded(site).hmac_keys == before.hmac_keys


def test_a_new_key_seals_what_the_old_one_opens(site: Installed, sealing_key: Path) -> None:
    assert call(site, "devices", "seal").exit_code == 0
    before = loaded(site).hmac_keys
    new = site.folder / "new.key"
    assert CliRunner().invoke(app, ["devices", "make-key", str(new)]).exit_code == 0
    done = call(site, "devices", "seal", "--new-key", new)
    assert done.exit_code == 0, done.output
    assert "name the new key" in done.output
    with pytest.raises(ConfigError, match="another key sealed it"):
        loaded(site)
    site.settings["sealing"] = {"file": "new.key"}
    site.write("ragate.yaml", site.settings)
    assert loaded(site).hmac_keys == before


def test_sealing_gathers_keys_from_files_of_their_own(site: Installed, sealing_key: Path) -> None:
    inventory = site.folder / "devices.yaml"
    own = site.folder / "cam-2.key"
    own.write_text(site.keys.hmac["cam-2"].hex())
    own.chmod(0o600)
    lines = (site.folder / "devices.keys").read_text().splitlines()
    (site.folder / "some.keys").write_text("\n".join(line for line in lines if not line.startswith("cam-2")) + "\n")
    (site.folder / "some.keys").chmod(0o600)
    (site.folder / "devices.keys").unlink()
    text = inventory.read_text().replace("hmac_keys: devices.keys", "hmac_keys: some.keys")
    inventory.write_text(text.replace("- id: cam-2\n", "- id: cam-2\n  hmac_key_file: cam-2.key\n"))
    before = loaded(site).hmac_keys
    tried = call(site, "devices", "seal", "--dry-run")
    assert tried.exit_code == 0, tried.output
    assert not (site.folder / "devices.keys").exists()
    done = call(site, "devices", "seal")
    assert done.exit_code == 0, done.output
    assert f"shred -u {own}" in done.output
    assert f"shred -u {site.folder / 'some.keys'}" in done.output
    own.unlink()
    (site.folder / "some.keys").unlink()
    assert loaded(site).hmac_keys == before


def test_an_import_keeps_keys_sealed(site: Installed, sealing_key: Path) -> None:
    assert call(site, "devices", "seal").exit_code == 0
    done = call(site, "devices", "import", table(site, *KNOWN, f"door-1,10.77.1.21,,,,,,{key('door-1')}"))
    assert done.exit_code == 0, done.output
    assert keys_at_rest(site).startswith(HEAD)
    assert loaded(site).hmac_keys[DeviceId("door-1")].hex() == key("door-1")


def test_a_credential_of_systemd_opens_them_too(
    site: Installed, sealing_key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(site, "devices", "seal").exit_code == 0
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    shutil.copy(sealing_key, credentials / "inventory.key")
    (credentials / "inventory.key").chmod(0o400)
    site.settings["sealing"] = {"credential": "inventory.key"}
    site.write("ragate.yaml", site.settings)
    monkeypatch.delenv(CREDENTIALS, raising=False)
    with pytest.raises(ConfigError, match=r"LoadCredentialEncrypted=inventory\.key"):
        loaded(site)
    monkeypatch.setenv(CREDENTIALS, str(credentials))
    assert set(loaded(site).hmac_keys) == {"cam-1", "cam-2"}


def edit(path: Path, data: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(data)


def changed(data: bytes) -> Iterator[bytes]:
    body = len(HEAD)
    yield data[:body]  # nothing sealed at all
    yield data[: body + 10]
    yield data[:-8]
    yield data[:body] + b"A" * 8 + data[body + 8 :]  # another nonce
    yield data[:body] + b"!" + data[body + 1 :]
    middle = len(data) // 2
    flipped = b"A" if data[middle : middle + 1] != b"A" else b"B"
    yield data[:middle] + flipped + data[middle + 1 :]


def test_sealed_keys_that_were_changed_open_nothing(site: Installed, sealing_key: Path) -> None:
    assert call(site, "devices", "seal").exit_code == 0
    good = keys_at_rest(site)
    for bad in changed(good):
        edit(site.folder / "devices.keys", bad)
        with pytest.raises(ConfigError, match="another key sealed it, or it was changed"):
            loaded(site)
    edit(site.folder / "devices.keys", good)
    edit(sealing_key, b"ab" * 32)
    with pytest.raises(ConfigError, match="another key sealed it"):
        loaded(site)
    edit(sealing_key, b"short")
    with pytest.raises(ConfigError, match="is no sealing key"):
        loaded(site)
    sealing_key.chmod(0o644)
    with pytest.raises(ConfigError, match="others may use this key file"):
        loaded(site)
    del site.settings["sealing"]
    site.write("ragate.yaml", site.settings)
    with pytest.raises(ConfigError, match="is sealed, and no key is configured"):
        loaded(site)


@pytest.mark.parametrize(
    ("sealing", "said"),
    [
        ({}, "needs a file or a credential"),
        ({"file": "a", "credential": "b"}, "only one"),
        ({"credential": "../x"}, "is no name"),
        ({"path": "x"}, "did you mean"),
    ],
)
def test_mistakes_in_sealing_have_their_line(site: Installed, sealing: dict[str, str], said: str) -> None:
    site.settings["sealing"] = sealing
    site.write("ragate.yaml", site.settings)
    with pytest.raises(ConfigError, match=r"ragate\.yaml:[0-9]+:[0-9]+: ") as caught:
        loaded(site)
    assert said in str(caught.value) or "is not known in sealing" in str(caught.value)


def test_without_a_key_nothing_is_sealed_and_a_key_is_never_overwritten(site: Installed) -> None:
    done = call(site, "devices", "seal")
    assert done.exit_code == 2
    assert "make-key" in done.output
    existing = site.folder / "verifier.pem"
    before = existing.read_bytes()
    refused = CliRunner().invoke(app, ["devices", "make-key", str(existing)])
    assert refused.exit_code == 2
    assert existing.read_bytes() == before


def test_what_is_sealed_is_read_back_whatever_its_size(tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.write_text("11" * 32)
    path.chmod(0o400)
    sealing = Sealing(path)
    for size in (0, 1, 75, 76, 77, 5_000):
        text = seal(b"x" * size, sealing).encode()
        assert opened(text, path, sealing) == b"x" * size
    assert read_secret(path, SMALL_FILE) == b"11" * 32
    assert "11" not in repr(sealing).replace(str(path), "")


# --- addresses to look at -----------------------------------------------------------------------------------------


class Claims:
    def __init__(self, *claims: dict[str, object]) -> None:
        self._claims = list(claims)

    def claims(self) -> list[dict[str, object]]:
        return self._claims


SEEN = {
    "device": "cam-2",
    "source": "verifier",
    "address": "10.77.1.99",
    "times": 3,
    "first": 1_795_283_400,
    "last": 1_795_283_999,
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    neighbours = tmp_path / "arp"
    neighbours.write_text(
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "10.77.1.99       0x1         0x2         02:00:00:00:00:63     *        eth1\n"
        "10.77.1.98       0x1         0x0         00:00:00:00:00:00     *        eth1\n"
    )
    monkeypatch.setattr(learning, "NEIGHBOURS", neighbours)
    monkeypatch.setattr(learning, "client", lambda _config, _socket: Claims(SEEN))


@pytest.mark.usefixtures("seen")
def test_learn_shows_where_devices_are_seen_and_changes_nothing(site: Installed) -> None:
    before = (site.folder / "devices.yaml").read_bytes()
    done = call(site, "devices", "learn")
    assert done.exit_code == 0
    assert "cam-2: verifier sees it at 10.77.1.99, 3 times" in done.output
    assert "a neighbour on eth1, 02:00:00:00:00:63" in done.output
    (proposal,) = json.loads(call(site, "devices", "learn", "-o", "json").output)["proposals"]
    assert proposal == {**SEEN, "neighbour": {"interface": "eth1", "mac": "02:00:00:00:00:63"}}
    assert (site.folder / "devices.yaml").read_bytes() == before


@pytest.mark.usefixtures("seen")
def test_what_was_learnt_is_taken_over_by_an_import_alone_and_has_no_anchor(site: Installed) -> None:
    file = site.folder / "learnt.yaml"
    assert call(site, "devices", "learn", "--write", file).exit_code == 0
    assert [str(each) for each in device(site, "cam-2").binding.addresses] == ["10.77.1.12", "fd77::12"]
    assert call(site, "devices", "learn", "--write", file).exit_code == 1  # never over a file that was edited
    assert call(site, "devices", "import", file).exit_code == 1
    done = call(site, "devices", "import", file, "--overwrite")
    assert done.exit_code == 0, done.output
    assert "~ cam-2" in done.output
    found = device(site, "cam-2")
    assert [str(each) for each in found.binding.addresses] == ["10.77.1.12", "fd77::12", "10.77.1.99"]
    assert found.binding.anchor is AnchorKind.NONE
    assert device(site, "cam-1").binding.anchor is AnchorKind.UPSTREAM


@pytest.mark.usefixtures("seen")
def test_the_file_must_lie_where_the_key_files_are_named_from(site: Installed, tmp_path: Path) -> None:
    done = call(site, "devices", "learn", "--write", tmp_path / "elsewhere.yaml")
    assert done.exit_code == 2
    assert not (tmp_path / "elsewhere.yaml").exists()


def test_a_host_without_that_table_has_no_neighbours(tmp_path: Path) -> None:
    assert learning.read_neighbours(tmp_path / "none") == {}
