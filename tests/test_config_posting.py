"""Sources that post and their doors: what is read, and every mistake with its place and the mend."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.certs import ServedFiles
from gateway.config import find_findings, load
from gateway.config.link_findings import of_served
from gateway.core.errors import ConfigError
from gateway.core.model import DeviceId
from gateway.verdicts import Algorithm, Proof
from tests.e2e.installed import Installed
from tests.intake.rest.site import posting_site
from tests.ports import OWN
from tests.posting import Authority, key_for, public_pem


@pytest.fixture
def site(tmp_path: Path) -> Installed:
    return posting_site(tmp_path, rpc=True)


def test_what_is_written_is_what_is_built(site: Installed) -> None:
    config = load(site.config)
    posters = {str(poster.name): poster for poster in config.posting.posters}
    assert [*posters] == ["rp", "other", "strict", "ear", "cwt", "keylime", "status"]
    assert posters["strict"].verdicts.proof is Proof.BOTH
    assert posters["strict"].certificates == ("dns:strict.example",)
    assert posters["ear"].verdicts.subject == "submod"
    assert posters["ear"].verdicts.keys["k1"].algorithm is Algorithm.ES256
    assert posters["status"].verdicts.proof is Proof.CERTIFICATE
    assert posters["rp"].rules.recovery_passes == 1
    assert config.posting.rest is not None
    assert config.posting.rest.client_ca == site.folder / "site-ca.pem"
    assert config.posting.rpc is not None
    (both,) = [device for device in config.devices if device.id == "both"]
    assert both.sources == ("rp", "ear")
    assert not config.hmac_keys  # SEDIMENT speaks of none of them


Change = Callable[[dict[str, Any], Path], None]


def of_source(number: int, **changes: object) -> Change:
    def change(settings: dict[str, Any], _folder: Path) -> None:
        source = settings["sources"][number]
        for name, value in changes.items():
            source[name] = value
            if value is None:
                del source[name]

    return change


def of_rest(**changes: object) -> Change:
    def change(settings: dict[str, Any], _folder: Path) -> None:
        door = settings["doors"]["rest"]
        door.update(changes)
        for name in [name for name, value in changes.items() if value is None]:
            del door[name]

    return change


def key(**changes: object) -> dict[str, object]:
    return {"id": "k1", "algorithm": "Ed25519", "file": "rp-key.pem", **changes}


def no_doors(settings: dict[str, Any], _folder: Path) -> None:
    del settings["doors"]["rest"], settings["doors"]["rpc"]


def no_ca(settings: dict[str, Any], _folder: Path) -> None:
    for name in ("rest", "rpc"):
        del settings["doors"][name]["client_ca"], settings["doors"][name]["client_crl"]


def private(settings: dict[str, Any], folder: Path) -> None:
    (folder / "rp-key.pem").write_bytes((folder / "rp.key").read_bytes())


def open_key(settings: dict[str, Any], folder: Path) -> None:
    (folder / "gateway.key").chmod(0o644)


def other_key(settings: dict[str, Any], folder: Path) -> None:
    (folder / "gateway.key").write_bytes((folder / "rp.key").read_bytes())


def noise(name: str) -> Change:
    def change(_settings: dict[str, Any], folder: Path) -> None:
        (folder / name).write_bytes(b"-----BEGIN NOTHING-----\n")

    return change


MISTAKES: dict[str, tuple[Change, str, str]] = {
    "format": (of_source(1, format="ear"), "format 'ear' is not known", "did you mean"),
    "unknown word": (of_source(1, public_key="x"), "'public_key' is not known in a source", "use one of"),
    "proof": (of_source(4, proof="certificate"), "proof 'certificate' is not known", "use one of: signature, both"),
    "no keys": (of_source(1, keys=None), "source rp must sign, and no key of it is listed", "write keys:"),
    "no file": (of_source(1, keys=[key(file="missing.pem")]), "missing.pem", "check the path"),
    "algorithm": (of_source(1, keys=[key(algorithm="HS256")]), "algorithm 'HS256' is not known", "Ed25519"),
    "wrong kind": (
        of_source(4, keys=[key(algorithm="ES384", file="ear-key.pem")]),
        "this key is not one for ES384",
        "",
    ),
    "key id": (of_source(1, keys=[key(id="../k1")]), "'../k1' must be 1 to 64", ""),
    "key id twice": (of_source(1, keys=[key(), key()]), "key k1 is listed at", "give each key its own id"),
    "a shared key": (of_source(2, keys=[key()]), "key k1 is a key of source rp, too", "of its own"),
    "private": (private, "this is a private key", "openssl pkey"),
    "certificate": (of_source(1, certificates=["rp.example"]), "'rp.example' names no certificate", "dns:"),
    "a shared certificate": (
        of_source(1, certificates=["dns:status.example"]),
        "certificate dns:status.example belongs to source rp already",
        "of its own",
    ),
    "no certificates": (
        of_source(3, certificates=None),
        "is known by its client certificate, and none is listed",
        "",
    ),
    "keys for nothing": (of_source(7, keys=[key()]), "its proof is the client certificate alone", "proof: both"),
    "subject": (of_source(1, subject="sub"), "format ragate names its devices itself", "leave subject out"),
    "subject word": (of_source(4, subject="iss"), "subject 'iss' is not known", "submod"),
    "zone": (of_source(1, zone="UTC"), "format ragate writes UTC", "leave zone out"),
    "zone word": (of_source(6, zone="Mars/Olympus"), "'Mars/Olympus' is no time zone", ""),
    "rate": (of_source(1, rate=0), "rate '0' must be a whole number", "1 to"),
    "name twice": (of_source(1, name="other"), "source other is listed at", "its own name"),
    "no door": (no_doors, "source rp posts its results, and there is no door for that", "write doors:"),
    "no client CA": (no_ca, "known by its client certificate, and no door asks for one", "name client_ca"),
    "door word": (of_rest(port=1), "'port' is not known in rest", "use one of"),
    "listen": (of_rest(listen="8443"), "needs a port", ""),
    "listen twice": (of_rest(listen=["127.0.0.1:1", "127.0.0.1:1"]), "listen names no place, or one twice", ""),
    "no key file": (of_rest(key="missing.key"), "missing.key cannot be read", "check the path"),
    "open key": (open_key, "others may use gateway.key (mode 0644)", "chmod 600"),
    "other key": (other_key, "certificate and key cannot be used", "the key that belongs to it"),
    "no certificate file": (of_rest(certificate="missing.pem"), "missing.pem", "check the path"),
    "CA": (noise("site-ca.pem"), "is not PEM of its kind", ""),
    "list": (noise("site.crl"), "is not PEM of its kind", ""),
    "no CA file": (of_rest(client_ca="missing.pem"), "missing.pem", "check the path"),
    "list without CA": (of_rest(client_ca=None), "client_crl without client_ca revokes nothing", "name the CA"),
    "limits": (of_rest(limits={"body": 1}), "body '1' must be a whole number", "1024"),
    "seconds": (of_rest(limits={"idle_seconds": "2h"}), "out of range", "0.1 to 3600"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_has_its_place_and_the_mend(site: Installed, case: str) -> None:
    change, what, mend = MISTAKES[case]
    change(site.settings, site.folder)
    site.write("ragate.yaml", site.settings)
    with pytest.raises(ConfigError) as caught:
        load(site.config)
    text = str(caught.value)
    assert what in text
    assert mend in text
    assert text.startswith(f"{site.config}:"), text
    assert "BEGIN" not in text


INVENTORY = {
    "unknown": ("[rp, nobody]", "no source is named 'nobody'"),
    "twice": ("[rp, rp]", "a source is listed twice"),
    "twice behind": ("[ear, rp, rp]", "a source is listed twice"),
    "none": ("[]", "source is empty"),
    "nested": ("[[rp]]", "must be a single value"),
}


@pytest.mark.parametrize("case", INVENTORY)
def test_mistakes_in_a_devices_sources(site: Installed, case: str) -> None:
    written, what = INVENTORY[case]
    path = site.folder / "devices.yaml"
    path.write_text(f"devices:\n  - id: cam-1\n    source: {written}\n    addresses: [127.7.1.1]\n")
    with pytest.raises(ConfigError, match=r"devices\.yaml:3") as caught:
        load(site.config)
    assert what in str(caught.value)


def test_sediments_devices_still_need_their_keys(site: Installed) -> None:
    path = site.folder / "devices.yaml"
    path.write_text("devices:\n  - id: cam-1\n    source: [rp, verifier]\n    addresses: [127.7.1.1]\n")
    with pytest.raises(ConfigError, match="cam-1 has no HMAC key"):
        load(site.config)
    path.write_text("hmac_keys: one.keys\n" + path.read_text())
    (site.folder / "one.keys").write_text(f"cam-1 {site.keys.hmac['cam-1'].hex()}\n")
    (site.folder / "one.keys").chmod(0o600)
    config = load(site.config)
    assert DeviceId("cam-1") in config.hmac_keys


def test_an_import_keeps_further_sources(site: Installed, tmp_path: Path) -> None:
    proposal = tmp_path / "more.yaml"
    proposal.write_text("devices:\n  - id: new\n    source: [rp, ear]\n    addresses: [127.7.1.77]\n")
    site.write("devices.yaml", {"devices": [{"id": "old", "source": "rp", "addresses": ["127.7.1.78"]}]})
    done = site.ask("devices", "import", str(proposal), "--overwrite")
    assert done.exit_code == 0, done.output
    assert "source: [rp, ear]" in (site.folder / "devices.yaml").read_text()
    (device,) = load(site.config).devices
    assert device.sources == ("rp", "ear")


def test_a_table_lists_several_sources_and_needs_no_key_where_sediment_does_not_speak(
    site: Installed, tmp_path: Path
) -> None:
    table = tmp_path / "more.csv"
    table.write_text("id,source,addresses\nnew,rp ear,127.7.1.77\nother,rp;verifier,127.7.1.78\n")
    site.write("devices.yaml", {"devices": [{"id": "old", "source": "rp", "addresses": ["127.7.1.79"]}]})
    done = site.ask("devices", "import", str(table), "--overwrite", "--partial")
    assert done.exit_code == 0, done.output
    assert "other" in done.output  # left out
    assert "it has no key here and none in the inventory" in done.output
    (device,) = load(site.config).devices
    assert device.sources == ("rp", "ear")


@pytest.mark.parametrize("name", ["hook", "status.feed"])
def test_the_names_of_hints_are_no_sources(site: Installed, name: str) -> None:
    site.settings["sources"][-1]["name"] = name
    site.write("ragate.yaml", site.settings)
    with pytest.raises(ConfigError, match=f"{name} is the name of hints"):
        load(site.config)


def test_what_an_operator_should_look_at(site: Installed) -> None:
    def subjects() -> set[str]:
        return {finding.subject for finding in find_findings(load(site.config))}

    Authority.make(site.folder).issue("gateway", server=OWN, until=86_400.0 * 60)
    assert not {each for each in subjects() if each.startswith(("door", "source rp"))}
    site.write("devices.yaml", {"devices": [{"id": "one", "source": "other", "addresses": ["127.7.1.1"]}]})
    assert {"source rp", "source ear", "source keylime"} <= subjects()
    site.settings["sources"] = site.settings["sources"][:2]
    site.settings["sources"][1]["name"] = "other"
    no_ca(site.settings, site.folder)
    site.write("ragate.yaml", site.settings)
    assert {"door rest", "door rpc"} <= subjects()
    del site.settings["sources"][1]
    site.write("ragate.yaml", site.settings)
    (site.folder / "keys.txt").write_text(f"one {site.keys.hmac['cam-1'].hex()}\n")
    (site.folder / "keys.txt").chmod(0o600)
    device = {"id": "one", "source": "verifier", "addresses": ["127.7.1.1"]}
    site.write("devices.yaml", {"hmac_keys": "keys.txt", "devices": [device]})
    told = [finding.what for finding in find_findings(load(site.config)) if finding.subject == "door rest"]
    assert "no source posts its results" in told


def test_a_key_of_too_few_bits_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    from gateway.verdicts import load_key

    weak = public_pem(generate_private_key(65537, 1024))
    with pytest.raises(ValueError, match="1024 bits"):
        load_key("k1", Algorithm.RS256, weak)
    with pytest.raises(ValueError, match="not a PEM public key"):
        load_key("k1", Algorithm.RS256, b"nothing")
    with pytest.raises(ValueError, match="no public key"):
        load_key("k1", Algorithm.RS256, bytes(20_000))
    with pytest.raises(ValueError, match="not one for ES256"):
        load_key("k1", Algorithm.ES256, public_pem(key_for("x", "ES384")))


# --- what is said of a door's certificates ------------------------------------------------------------------------


def served_by(folder: Path, until: float = 86_400.0) -> ServedFiles:
    authority = Authority.make(folder)
    authority.issue("gateway", server=OWN, until=until)
    authority.revoke()
    return ServedFiles(folder / "gateway.pem", folder / "gateway.key", folder / "site-ca.pem", folder / "site.crl")


def said_of(files: ServedFiles, at: float = 0.0) -> list[tuple[str, str]]:
    return [(found.severity, found.what) for found in of_served("door rest", files, time.time() + at)]


def test_a_door_with_a_long_life_before_it_is_no_matter(tmp_path: Path) -> None:
    assert said_of(served_by(tmp_path, until=86_400.0 * 60)) == []


def test_the_end_of_a_doors_certificate_and_of_its_list_are_told(tmp_path: Path) -> None:
    files = served_by(tmp_path)
    ((severity, what),) = said_of(files)
    assert severity == "warning"
    assert "expires in 1.0 days" in what
    (first, what), (second, list_ended) = said_of(files, 2 * 86_400.0)
    assert (first, second) == ("error", "error")
    assert "has expired" in what
    assert "the revocation list" in list_ended


def test_a_door_without_a_revocation_list_and_one_with_a_broken_one(tmp_path: Path) -> None:
    files = served_by(tmp_path, until=86_400.0 * 60)
    ((severity, what),) = said_of(files._replace(client_crl=None))
    assert (severity, what[:29]) == ("warning", "no revocation list is named: ")
    (tmp_path / "site.crl").write_text("nothing")
    ((severity, what),) = said_of(files)
    assert severity == "error"
    assert "site.crl: holds no revocation list" in what
