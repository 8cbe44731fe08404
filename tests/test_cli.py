"""The command line, against real files and a real operator socket."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import sqlite3
import stat
import sys
import types
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from typer.testing import CliRunner, Result

import gateway
from gateway.cli import importing
from gateway.cli.commands import app
from gateway.cli.importing import write_whole
from gateway.config import Inventory, load, load_inventory
from gateway.config.settings import read_settings
from gateway.console.operator import OperatorWindow
from gateway.control.ports import Entry
from gateway.core.errors import BackendError, ConfigError, RagateError
from gateway.core.model import Standing
from gateway.journal import SqliteJournal
from tests.console.conftest import windows
from tests.fakes.clock import ManualClock
from tests.fakes.directory import FakeSite, make_view

SEDIMENT_DB = Path(__file__).parent / "fixtures" / "sediment" / "sediment.db"

#: Digests, because keys that repeat or count are refused.
KEY_1, KEY_2 = hashlib.sha256(b"1").hexdigest(), hashlib.sha256(b"2").hexdigest()
KEY_3 = hashlib.sha256(b"3").hexdigest()

SETTINGS = """
journal: var/journal.db
operator: {socket: var/op.sock}
doors: {sediment: {listen: "127.0.0.1:8000"}}
sources:
  - {name: verifier, format: sediment, public_key: verifier.pem, verifier_id: RAP_Server, peers: [127.0.0.2]}
targets: [{name: gateway, path_gate: nft}]
inventory: devices.yaml
book: book.yaml
"""

INVENTORY = """
hmac_keys: devices.keys
devices:
  - {id: cam-1, source: verifier, addresses: [10.77.1.11], anchor: upstream}
  - {id: cam-2, source: verifier, addresses: [10.77.1.12], anchor: upstream}
"""

CAM_2 = "  - {id: cam-2, source: verifier, addresses: [10.77.1.12], anchor: upstream}\n"

BOOK = """
services:
  - {name: feed, address: 10.77.3.2, port: 8001, protocol: tcp, path: routed}
corridor:
  - {name: verifier, address: 10.77.2.2, port: 8100, protocol: tcp}
node_default: admitted
"""


@pytest.fixture(scope="session")
def public_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def home(tmp_path: Path, public_key: bytes) -> Path:
    """A folder with a usable configuration."""
    (tmp_path / "ragate.yaml").write_text(SETTINGS)
    (tmp_path / "devices.yaml").write_text(INVENTORY)
    (tmp_path / "book.yaml").write_text(BOOK)
    (tmp_path / "verifier.pem").write_bytes(public_key)
    keys = tmp_path / "devices.keys"
    keys.write_text(f"cam-1 {KEY_1}\ncam-2 {KEY_2}\n")
    keys.chmod(0o600)
    return tmp_path


@pytest.fixture
def site() -> FakeSite:
    return FakeSite((make_view("cam-1"), make_view("cam-2", Standing.DISTRUSTED, "10.77.1.12")))


@pytest.fixture
async def service(home: Path, site: FakeSite) -> AsyncIterator[Path]:
    """A service answering at the socket that ``home``'s configuration names."""
    path = home / "var" / "op.sock"
    window = OperatorWindow(windows(site), site, site, path)
    await window.start()
    yield path
    await window.stop()


def call(*arguments: str | Path, **environment: str) -> Result:
    clean = {"RAGATE_SOCKET": None, "RAGATE_CONFIG": None, "NO_COLOR": "1"}
    return CliRunner().invoke(app, [str(each) for each in arguments], env={**clean, **environment})


async def ask(*arguments: str | Path, **environment: str) -> Result:
    """Call from a thread: the service that answers lives on this one's loop."""
    return await asyncio.to_thread(call, *arguments, **environment)


# --- questions and acts ------------------------------------------------------------------------------------


async def test_list(service: Path, home: Path) -> None:
    result = await ask("devices", "list", "--config", home / "ragate.yaml")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["DEVICE", "STANDING", "PROFILE"]
    assert lines[1].split()[:3] == ["cam-1", "trusted", "admitted"]
    assert lines[2].split()[:3] == ["cam-2", "distrusted", "deny"]
    assert lines[3] == "2 devices: 1 trusted, 1 distrusted"
    assert "\x1b" not in result.stdout


async def test_list_one_standing_as_json(service: Path) -> None:
    result = await ask("devices", "list", "-s", "distrusted", "-o", "json", RAGATE_SOCKET=str(service))
    assert [each["id"] for each in json.loads(result.stdout)] == ["cam-2"]
    wrong = await ask("devices", "list", "-s", "good", "--socket", service)
    assert wrong.exit_code == 1
    assert "standing must be one of" in wrong.stderr


@pytest.mark.parametrize("command", [("devices", "show"), ("explain",)])
async def test_one_device(service: Path, command: tuple[str, ...]) -> None:
    told = await ask(*command, "cam-1", "--socket", service)
    assert told.exit_code == 0
    assert told.stdout.startswith("cam-1 is trusted and has profile admitted.\nWhy: a signed pass from verifier\n")
    assert ("node default" in told.stdout) == (command == ("explain",))
    raw = await ask(*command, "cam-1", "--socket", service, "-o", "json")
    assert json.loads(raw.stdout)["chain"] == ["built-in: deny", "node default: admitted"]


async def test_unknown_device(service: Path) -> None:
    result = await ask("explain", "nobody", "--socket", service)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "ragate: device 'nobody' is not in the inventory\n"


async def test_hold_and_release(service: Path, site: FakeSite) -> None:
    held = await ask("devices", "hold", "cam-1", "--reason", "lens replaced", "--socket", service)
    assert held.exit_code == 0
    assert held.stdout.startswith("cam-1: trusted → held: held by unix:")
    released = await ask("devices", "release", "cam-1", "-r", "done", "--socket", service, "-o", "json")
    assert json.loads(released.stdout)["after"] == "lapsed"
    assert [(act[0], act[3]) for act in site.acts] == [("hold", "lens replaced"), ("release", "done")]


async def test_override_and_its_end(service: Path, site: FakeSite) -> None:
    done = await ask("devices", "override", "cam-1", "probation", "--for", "2h", "-r", "lens", "--socket", service)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("cam-1: admitted → probation: overridden by unix:")
    shown = await ask("devices", "show", "cam-1", "--socket", service)
    assert "Override  probation until " in shown.stdout
    ended = await ask("devices", "override", "cam-1", "--end", "-r", "done", "--socket", service, "-o", "json")
    assert (ended.exit_code, json.loads(ended.stdout)["after"]) == (0, "admitted")
    assert [(act[0], act[3]) for act in site.acts] == [
        ("override probation 7200", "lens"),
        ("end-override", "done"),
    ]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("probation",),
        ("--for", "2h"),
        ("probation", "--end"),
        ("--for", "2h", "--end"),
        ("probation", "--for", "2h", "--end"),
        ("probation", "--for", "soon"),
    ],
)
async def test_an_override_needs_a_profile_and_an_end(
    service: Path, site: FakeSite, words: tuple[str, ...]
) -> None:
    result = await ask("devices", "override", "cam-1", *words, "-r", "x", "--socket", service)
    assert result.exit_code == 2
    assert "--for" in result.stderr
    assert site.acts == []


async def test_an_override_that_is_refused(service: Path, site: FakeSite) -> None:
    line = ("devices", "override", "cam-1", "gone", "--for", "2h", "--socket", service)
    assert (await ask(*line)).exit_code == 2, "an act needs a reason"
    result = await ask(*line, "-r", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "profile 'gone' must be one of deny, probation, admitted" in result.stderr
    assert site.acts == []


async def test_a_reason_is_needed(service: Path, site: FakeSite) -> None:
    assert (await ask("devices", "hold", "cam-1", "--socket", service)).exit_code == 2
    blank = await ask("devices", "hold", "cam-1", "-r", " ", "--socket", service)
    assert blank.exit_code == 1
    assert "reason" in blank.stderr
    assert site.acts == []


def test_service_not_running(home: Path) -> None:
    result = call("devices", "list", "-c", home / "ragate.yaml")
    assert (result.exit_code, result.stdout) == (3, "")
    assert f"no service answers at {home / 'var/op.sock'}; start it with: ragate serve" in result.stderr


def test_no_configuration_and_a_broken_one(tmp_path: Path) -> None:
    missing = call("devices", "list", "-c", tmp_path / "none.yaml")
    assert missing.exit_code == 2
    assert "No such file" in missing.stderr
    (tmp_path / "bad.yaml").write_text("operator: {socket: [1]}")
    assert "operator.socket must be a path" in call("devices", "list", "-c", tmp_path / "bad.yaml").stderr
    (tmp_path / "worse.yaml").write_text("{")
    assert call("devices", "list", "-c", tmp_path / "worse.yaml").exit_code == 2


async def test_the_installed_module_is_the_same_program(service: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gateway", "explain", "nobody"),
        env=os.environ | {"RAGATE_SOCKET": str(service)},
        cwd=Path(gateway.__file__).parent.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 50)
    assert (process.returncode, out) == (1, b"")
    assert err == b"ragate: device 'nobody' is not in the inventory\n"


def test_version_and_help() -> None:
    assert call("--version").stdout == f"ragate {gateway.__version__}\n"
    assert "3 no service answers" in " ".join(call("--help").stdout.split())
    assert call().exit_code == 2


# --- the service's own commands ----------------------------------------------------------------------------


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for the builder; keeps what it was asked."""
    asked: dict[str, Any] = {"code": 0}

    def serve(config: object, *, console_fd: int | None) -> int:
        asked["serve"] = (config, console_fd)
        if isinstance(asked["code"], Exception):
            raise asked["code"]
        return int(asked["code"])

    def run_site(*, once: bool) -> int:
        asked["once"] = once
        return int(asked["code"])

    def stand_in(module: str, **functions: object) -> None:
        fake = types.ModuleType(module)
        fake.__dict__.update(functions)
        monkeypatch.setitem(sys.modules, module, fake)

    stand_in("gateway.app.serve", serve=serve)
    stand_in("gateway.app.site", run_site=run_site)
    stand_in(
        "gateway.app.baseline",
        baseline_text=lambda config: "table inet ragate {\n}\n",
        uninstall=lambda config: ["table inet ragate: removed"],
    )
    return asked


def test_serve_hands_over_configuration_and_listener(home: Path, built: dict[str, Any]) -> None:
    built["code"] = 4
    with socket.socket() as handed:
        number = handed.fileno()
        assert call("serve", "-c", home / "ragate.yaml", "--listen-fd", str(number)).exit_code == 4
    config, fd = built["serve"]
    assert (config.path, fd) == (home / "ragate.yaml", number)
    assert [device.id for device in config.devices] == ["cam-1", "cam-2"]
    assert call("serve", "-c", home / "ragate.yaml", "--listen-fd", "0").exit_code == 2
    closed = call("serve", "-c", home / "ragate.yaml", "--listen-fd", "999")
    assert (closed.exit_code, closed.stdout) == (2, "")
    assert "999 is no socket" in closed.stderr


def test_serve_with_a_wrong_configuration(home: Path, built: dict[str, Any]) -> None:
    (home / "ragate.yaml").write_text(SETTINGS + "surprise: 1\n")
    result = call("serve", "-c", home / "ragate.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("ragate: ")
    assert "surprise" in result.stderr
    assert "Traceback" not in result.stderr
    assert "serve" not in built


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("console.listen", "cannot listen", "choose another"), 2),
        (BackendError("nft", "no permission", transient=False), 1),
    ],
)
def test_serve_that_cannot_start(home: Path, built: dict[str, Any], error: Exception, code: int) -> None:
    built["code"] = error
    result = call("serve", "-c", home / "ragate.yaml")
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"ragate: {error}\n")


def test_run_baseline_uninstall(home: Path, built: dict[str, Any]) -> None:
    built["code"] = 1
    assert call("run", "--once").exit_code == 1
    assert built["once"] is True
    assert call("baseline", "-c", home / "ragate.yaml").stdout == "table inet ragate {\n}\n"
    assert call("uninstall", "-c", home / "ragate.yaml").stdout == "table inet ragate: removed\n"


async def test_check_with_a_service(service: Path, home: Path, site: FakeSite) -> None:
    good = await ask("check", "-c", home / "ragate.yaml")
    assert good.exit_code == 0, good.stderr
    assert "service: ready" in good.stdout
    site.parts[0] = site.parts[0]._replace(ready=False, detail="disk full")
    bad = await ask("check", "-c", home / "ragate.yaml")
    assert bad.exit_code == 1
    assert "disk full" in bad.stdout
    told = json.loads((await ask("check", "-c", home / "ragate.yaml", "-o", "json")).stdout)
    assert told["service"]["ready"] is False


def test_check_without_a_service_and_with_a_finding(home: Path) -> None:
    (home / "devices.yaml").write_text(INVENTORY.replace(", anchor: upstream", ""))
    result = call("check", "-c", home / "ragate.yaml", "-o", "json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["service"] is None
    assert any("anchor" in each["mend"] for each in told["findings"])
    assert "no service answers" in call("check", "-c", home / "ragate.yaml").stdout


async def test_check_recomputes_the_journals_chain(home: Path) -> None:
    path = load(home / "ragate.yaml").journal
    journal = SqliteJournal(path, loop=asyncio.get_running_loop(), clock=ManualClock(), boot_id="boot")
    journal.load()
    done = asyncio.Event()
    journal.record((Entry({"kind": "drift", "at": 1.0, "detail": "one"}),), lambda _: done.set())
    await done.wait()
    await journal.close()
    config = home / "ragate.yaml"
    assert (await asyncio.to_thread(call, "check", "-c", config, "--journal")).exit_code == 0
    with sqlite3.connect(path) as db:
        changed = db.execute("UPDATE facts SET body = replace(body, 'one', 'two')").rowcount
    db.close()
    assert changed >= 1
    result = await asyncio.to_thread(call, "check", "-c", config, "--journal")
    assert result.exit_code == 1
    assert "journal" in result.stdout


def test_check_of_an_unusable_configuration(home: Path) -> None:
    (home / "book.yaml").write_text("services: 7\n")
    result = call("check", "-c", home / "ragate.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "book.yaml" in result.stderr


# --- import ------------------------------------------------------------------------------------------------

MORE = INVENTORY + "  - {id: cam-3, source: verifier, addresses: [10.77.1.13], anchor: upstream}\n"


def other(folder: Path, inventory: str, keys: dict[str, str]) -> Path:
    folder.mkdir()
    (folder / "devices.yaml").write_text(inventory)
    (folder / "devices.keys").write_text("".join(f"{name} {key}\n" for name, key in keys.items()))
    (folder / "devices.keys").chmod(0o600)
    return folder / "devices.yaml"


def contents(home: Path) -> dict[str, str]:
    return {name: (home / name).read_text() for name in ("devices.yaml", "devices.keys")}


def import_from(home: Path, file: Path, *options: str) -> Result:
    return call("devices", "import", file, "-c", home / "ragate.yaml", *options)


def loaded_keys(home: Path) -> dict[str, str]:
    return {name: key.hex() for name, key in load(home / "ragate.yaml").hmac_keys.items()}


def test_import_adds_new_devices(home: Path, tmp_path: Path) -> None:
    file = other(tmp_path / "new", MORE, {"cam-1": KEY_1, "cam-2": KEY_2, "cam-3": KEY_3})
    before = contents(home)
    trial = import_from(home, file, "--dry-run")
    assert trial.exit_code == 0, trial.stderr
    assert contents(home) == before
    result = import_from(home, file)
    assert result.exit_code == 0, result.stderr
    assert "+ cam-3" in result.stdout
    assert "devices: 1 new, 0 changed, 0 gone" in result.stdout
    assert KEY_3 not in result.stdout + trial.stdout + result.stderr
    assert stat.S_IMODE((home / "devices.keys").stat().st_mode) == 0o600
    assert [each.name for each in home.iterdir() if each.name.startswith(".")] == []
    assert loaded_keys(home) == {"cam-1": KEY_1, "cam-2": KEY_2, "cam-3": KEY_3}
    again = import_from(home, home / "devices.yaml")
    assert again.exit_code == 0, again.stderr
    assert "devices: 0 new, 0 changed, 0 gone" in again.stdout


def test_keys_in_files_of_their_own_come_along(home: Path, tmp_path: Path) -> None:
    third = MORE.replace("anchor: upstream}\n", "anchor: upstream, hmac_key_file: k/three.key}\n").replace(
        "hmac_keys: devices.keys", ""
    )
    file = other(tmp_path / "new", third, {})
    (file.parent / "k").mkdir()
    (file.parent / "k" / "three.key").write_text(KEY_3)
    (file.parent / "k" / "three.key").chmod(0o600)
    result = import_from(home, file, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert "~ cam-1 another key" in result.stdout
    assert set(loaded_keys(home).values()) == {KEY_3}


@pytest.mark.parametrize(
    ("inventory", "keys", "line"),
    [
        (INVENTORY.replace(CAM_2, ""), {"cam-1": KEY_1}, "- cam-2"),
        (INVENTORY.replace("10.77.1.12", "10.77.1.99"), {"cam-1": KEY_1, "cam-2": KEY_2}, "~ cam-2"),
        (INVENTORY, {"cam-1": KEY_1, "cam-2": KEY_3}, "~ cam-2 another key"),
    ],
)
def test_known_devices_change_or_go_only_when_told(
    home: Path, tmp_path: Path, inventory: str, keys: dict[str, str], line: str
) -> None:
    file = other(tmp_path / "new", inventory, keys)
    before = contents(home)
    refused = import_from(home, file)
    assert refused.exit_code == 1
    assert line in refused.stdout
    assert "nothing was written; --overwrite lets them" in refused.stderr
    assert contents(home) == before
    done = import_from(home, file, "--overwrite")
    assert done.exit_code == 0, done.stderr
    assert loaded_keys(home) == keys


def test_the_first_import_needs_no_inventory(home: Path, tmp_path: Path) -> None:
    file = other(tmp_path / "new", MORE, {"cam-1": KEY_1, "cam-2": KEY_2, "cam-3": KEY_3})
    (home / "devices.yaml").unlink()
    (home / "devices.keys").unlink()
    result = import_from(home, file)
    assert result.exit_code == 0, result.stderr
    assert "3 new" in result.stdout
    assert len(loaded_keys(home)) == 3


def test_import_of_what_is_none(home: Path, tmp_path: Path) -> None:
    before = contents(home)
    (tmp_path / "junk").write_text("{")
    (tmp_path / "fake.db").write_bytes(b"SQLite format 3\x00" + bytes(100))
    for name in ("junk", "absent", "fake.db"):
        result = import_from(home, tmp_path / name)
        assert result.exit_code == 2
        assert result.stderr.startswith("ragate: ")
        assert str(tmp_path / name) in result.stderr
    assert contents(home) == before


def database(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    """The columns of SEDIMENT's device table that matter here."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE Device (id TEXT, proverEndpoint TEXT, authKey BLOB, lastAttestation INT)")
    blobs = [(device, endpoint, bytes.fromhex(key), 1_795_283_400) for device, endpoint, key in rows]
    connection.executemany("INSERT INTO Device VALUES (?, ?, ?, ?)", blobs)
    connection.commit()
    connection.close()
    return path


def test_a_database_is_imported(home: Path, tmp_path: Path) -> None:
    (home / "devices.yaml").unlink()
    rows = [("cam-1", "tcp:10.77.1.11:8899", KEY_1), ("cam-9", "tcp:10.77.1.19:8899", KEY_2)]
    result = import_from(home, database(tmp_path / "sediment.db", rows))
    assert result.exit_code == 0, result.stderr
    assert "2 new" in result.stdout
    assert [device.source for device in load(home / "ragate.yaml").devices] == ["verifier", "verifier"]
    assert loaded_keys(home) == {"cam-1": KEY_1, "cam-9": KEY_2}


def test_a_database_with_a_device_that_cannot_be_taken_over(home: Path, tmp_path: Path) -> None:
    (home / "devices.yaml").unlink()
    rows = [("cam-1", "tcp:10.77.1.11:8899", KEY_1), ("not an id", "tcp:10.77.1.19:8899", KEY_2)]
    file = database(tmp_path / "sediment.db", rows)
    refused = import_from(home, file)
    assert refused.exit_code == 1
    assert "not an id" in refused.stderr
    assert "cannot be taken over; nothing was written" in refused.stderr
    assert not (home / "devices.yaml").exists()
    assert import_from(home, file, "--partial").exit_code == 0
    assert "# left out" in (home / "devices.yaml").read_text()


@pytest.mark.parametrize("options", [(), ("--partial",), ("--overwrite", "--partial"), ("--unseen",)])
def test_published_keys_end_a_dry_run_as_they_end_the_real_one(home: Path, options: tuple[str, ...]) -> None:
    # SEDIMENT's own database, as it is published: its keys are everybody's.
    before = contents(home)
    trial = import_from(home, SEDIMENT_DB, "--dry-run", *options)
    real = import_from(home, SEDIMENT_DB, *options)
    assert (trial.exit_code, trial.stdout, trial.stderr) == (2, real.stdout, real.stderr)
    assert real.exit_code == 2
    errors = [line for line in real.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == (11 if "--unseen" in options else 1)
    assert all("published" in line for line in errors)
    assert contents(home) == before


def test_published_keys_are_taken_over_where_the_source_allows_them(home: Path) -> None:
    allowed = SETTINGS.replace("peers:", "allow_published_keys_that_anyone_can_sign_with: true, peers:")
    (home / "ragate.yaml").write_text(allowed)
    trial = import_from(home, SEDIMENT_DB, "--dry-run")
    assert trial.exit_code == 0, trial.stderr
    assert "error: " not in trial.stderr
    assert "+ Ubuntu-001" in trial.stdout
    assert "+ Revocation_Server-001" not in trial.stdout
    assert sum("Revocation_Server-001" in line for line in trial.stderr.splitlines()) == 1
    assert import_from(home, SEDIMENT_DB).exit_code == 0
    assert set(loaded_keys(home)) == {"cam-1", "cam-2", "Ubuntu-001"}


@pytest.mark.parametrize("option", ["--dry-run", "--overwrite"])
def test_what_could_not_be_loaded_is_never_put_in_place(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    rows = [("cam-9", "tcp:10.77.1.19:8899", KEY_3)]
    before = contents(home)
    asked: list[Path] = []

    def refuse(path: Path, _sources: object, _sealing: object = None) -> Inventory:
        if path.parent == home:
            return load_inventory(path, read_settings(home / "ragate.yaml").sources)
        asked.append(path)
        raise ConfigError(f"{path}:1", "cannot be used", "mend it")

    monkeypatch.setattr(importing, "load_inventory", refuse)
    result = import_from(home, database(tmp_path / "sediment.db", rows), option)
    assert result.exit_code == 2
    assert len(asked) == 1
    assert f"{home}/devices.yaml:1: cannot be used" in result.stderr
    assert ".import." not in result.stderr
    assert contents(home) == before
    assert [each.name for each in home.iterdir() if each.name.startswith(".")] == []


def test_after_an_edit_a_new_device_is_added_without_any_option(home: Path, tmp_path: Path) -> None:
    rows = [("cam-1", "tcp:10.77.1.11:8899", KEY_1), ("cam-2", "tcp:10.77.1.99:8899", KEY_3)]
    edited = INVENTORY.replace(
        "[10.77.1.11], anchor: upstream", "[10.77.1.11], anchor: l2, labels: {class: camera}"
    )
    (home / "devices.yaml").write_text(edited)
    before = load(home / "ragate.yaml").devices
    file = database(tmp_path / "sediment.db", [*rows, ("cam-3", "tcp:10.77.1.13:8899", KEY_2)])
    result = import_from(home, file)
    assert result.exit_code == 0, result.stderr
    after = load(home / "ragate.yaml").devices
    assert after[:2] == before
    assert [device.id for device in after] == ["cam-1", "cam-2", "cam-3"]
    assert loaded_keys(home) == {"cam-1": KEY_1, "cam-2": KEY_3, "cam-3": KEY_2}
    assert "~ cam-2 another key" in result.stdout
    assert "= cam-2 keeps 10.77.1.12 upstream" in result.stdout
    assert "devices: 1 new, 1 changed, 0 gone" in result.stdout
    rebound = import_from(home, file, "--rebind")
    assert rebound.exit_code == 0, rebound.stderr
    assert [str(address) for address in load(home / "ragate.yaml").devices[1].binding.addresses] == ["10.77.1.99"]


def test_the_source_of_a_database_must_be_one_of_ours(home: Path, tmp_path: Path) -> None:
    rows = [("cam-9", "tcp:10.77.1.19:8899", KEY_3)]
    result = import_from(home, database(tmp_path / "sediment.db", rows), "--source", "stranger")
    assert result.exit_code == 2
    assert "name one of verifier" in result.stderr


# --- writing whole files -----------------------------------------------------------------------------------


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    path.write_text("old")

    def broken(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(ConfigError, match="No space left"):
        write_whole(path, "new", 0o600)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize("umask", [0, 0o777])
def test_a_secret_is_never_readable_by_others(tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real: Callable[[int], None] = os.fsync

    def look(handle: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(handle).st_mode))
        real(handle)

    monkeypatch.setattr(os, "fsync", look)
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "keys", "secret", 0o600)
    finally:
        os.umask(before)
    assert seen[0] == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_stays(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("old")
    os.chown(path, 65_534, 65_534)
    write_whole(path, "new", 0o600)
    assert path.stat().st_uid == 65_534


# --- the book ----------------------------------------------------------------------------------------------


class FakeReloads:
    """A service that takes each request, or none, and tells what became of it at the second look."""

    def __init__(self, last: dict[str, Any], busy: str = "") -> None:
        self._last = {"number": 1, "actor": "unix:alice", "at": 0.0, "slice_ms": 0.0, **last}
        self._busy = busy
        self._looks = 0
        self.asked: list[str] = []

    def ask(self, _actor: str, reason: str) -> int:
        if self._busy:
            raise RagateError(self._busy)
        self.asked.append(reason)
        return 1

    def view(self) -> dict[str, Any]:
        self._looks += 1
        last = self._last if self._looks > 1 else None
        return {"digest": "d" * 64, "doing": "the book is tried", "waiting_for": "", "last": last}


async def reloading(home: Path, site: FakeSite, reloads: FakeReloads, *arguments: str) -> Result:
    told = replace(windows(site), book=reloads.view)
    window = OperatorWindow(told, site, site, home / "var" / "op.sock", reload=reloads.ask)
    await window.start()
    try:
        return await ask("reload", "--config", home / "ragate.yaml", *arguments)
    finally:
        await window.stop()


async def test_a_reload_that_is_taken(home: Path, site: FakeSite) -> None:
    reloads = FakeReloads({"result": "taken", "digest": "ab" * 32, "lines": ["taken in 0.1 s", "warning: x: y"]})
    done = await reloading(home, site, reloads, "--reason", "new cameras")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "book abababababab taken\n  taken in 0.1 s\n  warning: x: y\n"
    assert reloads.asked == ["new cameras"]


async def test_a_reload_that_is_refused_says_every_reason(home: Path, site: FakeSite) -> None:
    lines = ["book.yaml:6:1: 'node_defalt' is not known\u001b[2J", "book.yaml:7:1: and more"]
    done = await reloading(home, site, FakeReloads({"result": "refused", "digest": "", "lines": lines}))
    assert done.exit_code == 1
    assert done.stdout.startswith("book refused; the running book stays\n  book.yaml:6:1: 'node_defalt'")
    assert "\u001b" not in done.stdout
    assert "book.yaml:7:1: and more" in done.stdout


async def test_a_reload_as_json(home: Path, site: FakeSite) -> None:
    reloads = FakeReloads({"result": "unchanged", "digest": "ab" * 32, "lines": ["nothing"]})
    done = await reloading(home, site, reloads, "-o", "json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["result"] == "unchanged"
    assert reloads.asked == ["ragate reload"]


async def test_a_reload_while_another_is_under_way(home: Path, site: FakeSite) -> None:
    done = await reloading(home, site, FakeReloads({}, busy="reload 3 is under way"))
    assert (done.exit_code, done.stderr) == (1, "ragate: reload 3 is under way\n")


def test_a_reload_without_a_service(home: Path) -> None:
    done = call("reload", "--config", home / "ragate.yaml")
    assert done.exit_code == 3
    assert "no service answers" in done.stderr
