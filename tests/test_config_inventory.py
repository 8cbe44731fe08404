"""The inventory and its key files: every mistake names its place and the mend, and never shows a key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.config import load, load_inventory
from tests.written import edit, error_of, key, public_pem, put, site

__all__ = ["public_pem", "site"]  # fixtures

INVENTORY_MISTAKES = [
    ("- id: cam-1", "- id: ../cam", "3:9: ../cam: device id '../cam' must be 1 to 64 of"),
    ("- id: cam-1", "- id: a..b", "3:9: a..b: device id 'a..b' must not contain '..'"),
    ("- id: cam-1", "- id:", "a device needs 'id'"),
    ("- id: cam-2", "- id: cam-1", "8:9: cam-1 is listed at {site}/devices.yaml:3:9 already; keep one of them"),
    ("10.77.1.11", "10.77.1.256", "5:16: cam-1: '10.77.1.256' is no address; write"),
    ("10.77.1.11", '"10.77.1.0/24"', "10.77.1.0/24: a device address is a single IPv4 or IPv6 address"),
    ("10.77.1.11", "224.0.0.1", "224.0.0.1: not an address that a device can send from"),
    ("10.77.1.11", '"::ffff:10.0.0.1"', "write an IPv4-mapped address as IPv4"),
    ("10.77.1.11", "10.77.1.11, 10.77.1.11", "an address is listed twice"),
    ('[10.77.1.11, "fd77:1::11"]', "[]", "a device has 1 to 16 addresses, not 0"),
    ('[10.77.1.11, "fd77:1::11"]', "10.77.1.11", "5:16: addresses must be a list"),
    ("anchor: upstream", "anchor: upsteam", "6:13: anchor 'upsteam' is not known; did you mean 'upstream'?"),
    (
        "anchor: upstream",
        "anchor: l2\n    interface: cams",
        "6:13: cam-1: an l2 anchor is an interface and a MAC, and one of them is missing; write both",
    ),
    (
        "anchor: upstream",
        "anchor: l2\n    interface: a/b\n    mac: '02:00:00:00:00:0b'",
        "7:16: cam-1: 'a/b' cannot be an interface's name; write it as ip link shows it",
    ),
    (
        "anchor: upstream",
        "anchor: l2\n    interface: sixteen-letters-\n    mac: '02:00:00:00:00:0b'",
        "7:16: cam-1: 'sixteen-letters-' cannot be an interface's name",
    ),
    (
        "anchor: upstream",
        "anchor: l2\n    interface: cams\n    mac: '03:00:00:00:00:0b'",
        "8:10: cam-1: '03:00:00:00:00:0b' is no device's MAC; write it like",
    ),
    (
        "anchor: upstream",
        "anchor: l3\n    interface: cams\n    mac: '02:00:00:00:00:0b'",
        "8:10: cam-1: mac says nothing with anchor l3; set anchor to l2, or remove mac",
    ),
    (
        "anchor: upstream",
        "anchor: none\n    interface: cams",
        "7:16: cam-1: interface says nothing with anchor none; set anchor to l2 or l3 or upstream, or remove",
    ),
    ("anchor: upstream", "anker: upstream", "6:5: 'anker' is not known in a device; did you mean 'anchor'?"),
    ("{class: camera}", "{class: camera, class: sensor}", "7:29: 'class' stands here twice"),
    ("{class: camera}", "{'a b': camera}", "7:13: cam-1: 'a b' must be 1 to 64 of"),
    ("hmac_keys: devices.keys", "hmac_keys: none.keys", "1:12: {site}/none.keys: cannot be read: No such file"),
    ("cam-2.key", "none.key", "11:20: {site}/none.key: cannot be read: No such file"),
    (
        "    hmac_key_file: cam-2.key\n",
        "",
        "8:9: cam-2 has no HMAC key; add hmac_key_file, or a line in",
    ),
    ("labels:", "hmac_key_file: cam-2.key\n    labels:", "7:20: cam-1 has a key in devices.keys too"),
    (
        "- id: cam-1\n    source: verifier",
        "- id: cam-1\n    source: verifer",
        "no source is named 'verifer'",
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), INVENTORY_MISTAKES)
def test_mistakes_in_the_inventory(site: Path, old: str, new: str, expected: str) -> None:
    edit(site / "devices.yaml", old, new)
    message = error_of(lambda: load(site / "ragate.yaml"))
    assert message.startswith(f"{site}/devices.yaml:")
    assert expected.format(site=site) in message


def test_an_inventory_full_of_mistakes_is_told_in_part(site: Path) -> None:
    rows = "".join(f"  - id: cam-{i}\n    source: x\n    addresses: [10.0.0.1]\n" for i in range(500))
    put(site / "devices.yaml", f"devices:\n{rows}")
    lines = error_of(lambda: load(site / "ragate.yaml")).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "there may be more"


KEY_MISTAKES = [
    ("cam-1 {good}\ncam-3 {other}\n", "devices.keys:2: cam-3 is not in the inventory"),
    ("cam-1 {good}\ncam-1 {other}\n", "devices.keys:2: cam-1 has a key in line 1 already"),
    ("cam-1\n", "devices.keys:1: is no key line; write the device id, a space and 64 hex digits"),
    ("cam-1 {good} x\n", "devices.keys:1: is no key line"),
    ("cam-1 abcd\n", "devices.keys:1: key of cam-1: "),
    ("cam-1 " + "00" * 32 + "\n", "devices.keys:1: key of cam-1: "),
]


@pytest.mark.parametrize(("content", "expected"), KEY_MISTAKES)
def test_mistakes_in_the_key_file_never_show_a_key(site: Path, content: str, expected: str) -> None:
    good, other = key("cam-1").hex(), key("x").hex()
    put(site / "devices.keys", content.format(good=good, other=other))
    message = error_of(lambda: load(site / "ragate.yaml"))
    assert expected in message
    assert good[:16] not in message
    assert other[:16] not in message


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o620])
@pytest.mark.parametrize("name", ["devices.keys", "cam-2.key"])
def test_key_files_that_others_may_use_are_refused(site: Path, name: str, mode: int) -> None:
    (site / name).chmod(mode)
    message = error_of(lambda: load(site / "ragate.yaml"))
    assert f"others may use this key file (mode {mode:04o}); chmod 640 {name}" in message


def test_a_key_file_may_be_readable_by_its_group(site: Path) -> None:
    (site / "devices.keys").chmod(0o640)
    assert load(site / "ragate.yaml").hmac_keys["cam-1"] == key("cam-1")  # type: ignore[index]


def test_a_key_file_is_a_regular_file(site: Path) -> None:
    (site / "cam-2.key").unlink()
    (site / "cam-2.key").mkdir()
    assert "cannot be read: Is a directory" in error_of(lambda: load(site / "ragate.yaml"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_key_file_that_we_may_not_read(site: Path) -> None:
    (site / "cam-2.key").chmod(0o000)
    assert "cannot be read: Permission denied" in error_of(lambda: load(site / "ragate.yaml"))


@pytest.mark.parametrize("data", [b"", b"x" * 31, b"ab" * 31, b"no key", b"-----BEGIN PUBLIC KEY-----"])
def test_a_device_key_of_the_wrong_length_is_refused(site: Path, data: bytes) -> None:
    put(site / "cam-2.key", data)
    assert "cam-2.key" in error_of(lambda: load(site / "ragate.yaml"))


def test_a_verifier_key_must_be_an_rsa_public_key(site: Path) -> None:
    put(site / "verifier.pem", "no key")
    assert "verifier.pem: not a PEM public key" in error_of(lambda: load(site / "ragate.yaml"))


def test_load_inventory_takes_the_sources_alone(site: Path) -> None:
    config = load(site / "ragate.yaml")
    inventory = load_inventory(site / "devices.yaml", config.sources)
    assert inventory.devices == config.devices
    assert inventory.hmac_keys == config.hmac_keys
