"""Configuration: what a good one gives, and that every mistake names its place and the mend."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway.app.baseline import baseline_text
from gateway.app.parts import gates
from gateway.config import (
    Config,
    Console,
    DoorLimits,
    Endpoint,
    KubeArmor,
    OperatorSocket,
    RelayEntry,
    find_findings,
    load,
    load_book,
    load_inventory,
)
from gateway.config.parsing import parse_address, parse_duration, parse_endpoint, parse_network
from gateway.core.errors import ConfigError
from gateway.core.lifecycle import Rules
from gateway.core.model import Address, AnchorKind

PUBLISHED = Path(__file__).parent / "fixtures" / "sediment"

RAGATE = """\
journal: var/journal.db
console: {listen: "127.0.0.1:8080", hosts: [gateway.example]}
operator: {socket: var/operator.sock, group: ops}
doors:
  sediment:
    listen: ["0.0.0.0:8000", "[::]:8000"]
    peers: [10.77.2.0/24]
    forward_to: relying.example:8000
    limits: {connections: 100, connections_per_peer: 8, frame_seconds: 2.5, queue: 50}
sources:
  - name: verifier
    format: sediment
    public_key: verifier.pem
    verifier_id: RAP_Server
    peers: [10.77.2.2]
    max_age: 15m
    grace: 300
    recovery_passes: 3
targets:
  - name: gateway
    required: true
    path_gate: nft
    lease: 2m
    kubearmor: {address: "127.0.0.1:32767", health: "127.0.0.1:32766", tables: read, record: /run/record.json}
inventory: devices.yaml
book: policies/book.yaml
"""

DEVICES = """\
hmac_keys: devices.keys
devices:
  - id: cam-1
    source: verifier
    addresses: [10.77.1.11, "fd77:1::11"]
    anchor: upstream
    labels: {class: camera}
  - id: cam-2
    source: verifier
    addresses: ["fd77:1:0:2::/64"]
    hmac_key_file: cam-2.key
"""

BOOK = """\
services:
  - {name: feed, address: 10.77.3.2, port: 8001, protocol: tcp, path: routed, profiles: [admitted]}
corridor:
  - {name: verifier, address: 10.77.2.2, port: 8100, protocol: tcp}
always_allowed: [10.77.9.0/24]
node_default: admitted
suspect: probation
devices: {cam-1: probation}
"""


def key(name: str) -> bytes:
    return sha256(name.encode()).digest()


@pytest.fixture(scope="session")
def public_pem() -> bytes:
    public = rsa.generate_private_key(public_exponent=65_537, key_size=2_048).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def put(path: Path, data: bytes | str, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    path.chmod(mode)


@pytest.fixture
def site(tmp_path: Path, public_pem: bytes) -> Path:
    """A folder with a configuration that has no mistake and no finding but cam-2's missing anchor."""
    put(tmp_path / "ragate.yaml", RAGATE)
    put(tmp_path / "devices.yaml", DEVICES)
    put(tmp_path / "devices.keys", f"# keys\n\ncam-1 {key('cam-1').hex()}\n")
    put(tmp_path / "cam-2.key", key("cam-2"))
    put(tmp_path / "policies/book.yaml", BOOK)
    put(tmp_path / "verifier.pem", public_pem)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} must stand once in {path.name}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def error_of(read: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        read()
    return str(caught.value)


# --- a good configuration -----------------------------------------------------------------------------------------


def test_a_whole_configuration(site: Path) -> None:
    config = load(site / "ragate.yaml")
    assert config.path == site / "ragate.yaml"
    assert config.journal == site / "var/journal.db"
    assert config.console == Console(Endpoint("127.0.0.1", 8080), ("gateway.example",))
    assert config.operator == OperatorSocket(site / "var/operator.sock", "ops")
    assert config.door.listen == (Endpoint("0.0.0.0", 8000), Endpoint("::", 8000))
    assert config.door.peers == (ip_network("10.77.2.0/24"),)
    assert config.door.forward_to == Endpoint("relying.example", 8000)
    assert config.door.limits == DoorLimits(100, 8, 2.5, 50)
    (source,) = config.sources
    assert (source.name, source.format, source.verifier_id) == ("verifier", "sediment", "RAP_Server")
    assert (source.public_key.key_size, source.public_key_path) == (2_048, site / "verifier.pem")
    assert source.rules == Rules(max_age=900.0, recovery_passes=3, grace=300.0)
    assert source.allow_published is False
    assert (config.target.name, config.target.path_gate, config.target.lease) == ("gateway", "nft", 120.0)
    assert config.target.kubearmor == KubeArmor(
        "127.0.0.1:32767", None, "127.0.0.1:32766", "read", Path("/run/record.json")
    )
    assert (config.inventory_path, config.book_path) == (site / "devices.yaml", site / "policies/book.yaml")
    assert [device.id for device in config.devices] == ["cam-1", "cam-2"]
    camera = config.devices[0]
    assert camera.binding.addresses == (Address.parse("10.77.1.11"), Address.parse("fd77:1::11"))
    assert (camera.binding.anchor, camera.labels) == (AnchorKind.UPSTREAM, (("class", "camera"),))
    assert config.devices[1].binding.anchor is AnchorKind.NONE
    assert config.hmac_keys == {"cam-1": key("cam-1"), "cam-2": key("cam-2")}
    assert config.book.services[0].address == ip_address("10.77.3.2")
    assert config.book.devices == {"cam-1": "probation"}


def test_defaults(site: Path) -> None:
    put(
        site / "ragate.yaml",
        "doors: {sediment: {listen: '[::1]:8000'}}\n"
        "sources: [{name: v, format: sediment, public_key: verifier.pem, verifier_id: V, peers: ['::1']}]\n"
        "targets: [{name: gateway}]\ninventory: devices.yaml\nbook: book.yaml\n",
    )
    put(site / "devices.yaml", "devices: []\n")
    put(site / "book.yaml", "services: [{name: feed, address: 10.77.3.2, port: 8001}]\nnode_default: admitted\n")
    config = load(site / "ragate.yaml")
    assert config.journal == site / "var/journal.db"
    assert config.console == Console(Endpoint("127.0.0.1", 8080))
    assert config.operator == OperatorSocket(site / "var/operator.sock", None)
    assert (config.door.listen, config.door.limits) == ((Endpoint("::1", 8000),), DoorLimits())
    assert config.sources[0].rules == Rules()
    assert (config.target.required, config.target.path_gate, config.target.kubearmor) == (True, "nft", None)
    assert config.book.suspect == "deny"
    assert config.devices == ()


def test_a_relative_path_is_made_absolute(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site)
    config = load(Path("ragate.yaml"))
    assert config.journal == site / "var/journal.db"
    assert config.book_path.is_absolute()


def test_the_documented_book_is_a_good_one() -> None:
    book = load_book(Path(__file__).parents[1] / "policies" / "book.yaml")
    assert [service.name for service in book.services] == ["feed", "status"]
    assert [service.name for service in book.reach("probation")] == ["status"]


# --- mistakes -----------------------------------------------------------------------------------------------------

SETTINGS_MISTAKES = [
    ("journal: var", "jurnal: var", "ragate.yaml:1:1: 'jurnal' is not known in the file; did you mean 'journal'?"),
    ("lease: 2m", "lease: 2m\n    lease: 3m", "24:5: 'lease' stands here twice, first at {site}/ragate.yaml:23:5"),
    ("lease: 2m", "lease: 2 m", "23:12: lease: '2 m' is no duration; write seconds"),
    ("lease: 2m", "lease: 2s", "23:12: lease of 2 seconds is out of range; write 5 to 3600 seconds"),
    ("max_age: 15m", "max_age: 0", "16:14: max_age of 0 seconds is out of range"),
    ("recovery_passes: 3", "recovery_passes: 0", "18:22: recovery_passes '0' must be a whole number"),
    ("path_gate: nft", "path_gate: nftables", "path_gate 'nftables' is not known; did you mean 'nft'?"),
    ("path_gate: nft", "path_gate: relay", "20:5: path_gate relay without relay entries would carry nothing"),
    ("required: true", "required: yes", "required 'yes' is not known; use one of: true, false"),
    ("required: true", "required: false", "the target of this host must be required"),
    ("format: sediment", "format: jwt", "12:13: format 'jwt' is not known; did you mean 'ear-jwt'?"),
    ("    format: sediment\n", "", "a source needs 'format'; write format: sediment"),
    ("verifier_id: RAP_Server", "verifier_id: ''", "verifier_id: must be 1 to 255 bytes"),
    ("public_key: verifier.pem", "public_key: none.pem", "13:17: {site}/none.pem: cannot be read: No such file"),
    ("peers: [10.77.2.2]", "peers: [10.77.2.2/24]", "'10.77.2.2/24' has host bits; write 10.77.2.0/24"),
    ("peers: [10.77.2.2]", "peers: 10.77.2.2", "15:12: peers must be a list"),
    ("peers: [10.77.2.2]", "peers: [10.77.2]", "'10.77.2' is no address or prefix"),
    ('"127.0.0.1:8080"', "127.0.0.1", "2:19: listen: '127.0.0.1' needs a port from 1 to 65535"),
    ('"127.0.0.1:8080"', '"127.0.0.1:80800"', "needs a port from 1 to 65535"),
    ('"127.0.0.1:8080"', "localhost:8080", "the part before the port must be an IPv4 address, or an IPv6 address"),
    (
        '["0.0.0.0:8000", "[::]:8000"]',
        '"::8000"',
        "listen: '::8000': the part before the port must be an IPv4 address, or an IPv6 address in",
    ),
    ('"[::]:8000"]', '"0.0.0.0:8000"]', "0.0.0.0:8000 is listed twice"),
    ('["0.0.0.0:8000", "[::]:8000"]', "[]", "listen is empty"),
    ("relying.example:8000", "10.0.0.999:8000", "must be an address or a host name"),
    ("connections: 100", "connections: 1", "connections '1' must be a whole number; write one from 2 to 65536"),
    ("frame_seconds: 2.5", "frame_seconds: 1h", "frame_seconds of 3600 seconds is out of range"),
    ('address: "127.0.0.1:32767"', 'address: "10.0.0.1:32767"', "10.0.0.1:32767 is not on this host"),
    ("tables: read", "tables: write", "tables 'write' is not known"),
    ("record: /run/record.json", "record: run/record.json", "is no absolute path"),
    ("targets:\n", "targets:\n  - {name: other}\n", "a second target of this host: a host has one path gate"),
    ("inventory: devices.yaml\n", "", "ragate.yaml:1:1: the file needs 'inventory'; write inventory: devices.yaml"),
    ("inventory: devices.yaml", "inventory: other.yaml", "25:12: {site}/other.yaml: cannot be read: No such file"),
    ("book: policies/book.yaml", "book: policies", "26:7: {site}/policies: cannot be read: Is a directory"),
    ("journal: var/journal.db", "journal: [", "is not YAML: "),
    ("journal: var/journal.db", "journal: {a: 1}", "1:10: journal must be a single value"),
    ("journal: var/journal.db", "journal: !!python/name:os.system x", "1:10: journal must be a single value"),
    ("journal: var/journal.db", "journal: a\n---\nb: c", "is not YAML: "),
    ("name: gateway", "name: -gateway", "name: '-gateway' must be 1 to 64 of"),
]


@pytest.mark.parametrize(("old", "new", "expected"), SETTINGS_MISTAKES)
def test_mistakes_in_the_settings(site: Path, old: str, new: str, expected: str) -> None:
    edit(site / "ragate.yaml", old, new)
    message = error_of(lambda: load(site / "ragate.yaml"))
    assert expected.format(site=site) in message
    assert message.startswith(f"{site}/ragate.yaml:")
    assert message.count("\n") == 0


def test_several_mistakes_are_told_at_once_in_the_order_of_the_file(site: Path) -> None:
    edit(site / "ragate.yaml", "max_age: 15m", "max_age: soon")
    edit(site / "ragate.yaml", "grace: 300", "grace: never")
    message = error_of(lambda: load(site / "ragate.yaml"))
    first, second = message.splitlines()
    assert "ragate.yaml:16:14: max_age" in first
    assert second.startswith(f"{site}/ragate.yaml:17:12: grace: 'never' is no duration")


def test_every_section_that_is_missing_is_named(site: Path) -> None:
    put(site / "ragate.yaml", "journal: x\n")
    message = error_of(lambda: load(site / "ragate.yaml"))
    for name in ("doors", "sources", "targets", "inventory", "book"):
        assert f"the file needs '{name}'" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"[]", ":1:1: the file must be a mapping"),
        (b"text", ":1:1: the file must be a mapping"),
        (b"a: b\nc: \xff\n", ":2: is not UTF-8 text"),
        (b"a: \x00\n", "is not YAML"),
        (b"? [a]\n: b\n", ":1:3: a key must be a single value"),
        (b"[" * 100_000, ":1:32: is not YAML: it is nested too deeply"),
        (b"#" * ((1 << 20) + 1), "is larger than 1048576 bytes"),
    ],
)
def test_files_that_are_no_settings(site: Path, content: bytes, expected: str) -> None:
    put(site / "ragate.yaml", content)
    assert expected in error_of(lambda: load(site / "ragate.yaml"))


def test_nobody_listed_is_not_everybody(site: Path) -> None:
    edit(site / "ragate.yaml", "peers: [10.77.2.0/24]", "peers: []")
    edit(site / "ragate.yaml", "peers: [10.77.2.2]", "peers: []")
    assert "nobody may connect to the door" in error_of(lambda: load(site / "ragate.yaml"))


def test_two_sources_need_names_and_peers_of_their_own(site: Path) -> None:
    text = (site / "ragate.yaml").read_text(encoding="utf-8")
    start, end = text.index("  - name: verifier"), text.index("targets:")
    block = text[start:end]
    same = text[:end] + block + text[end:]
    put(site / "ragate.yaml", same)
    assert "source verifier is listed at" in error_of(lambda: load(site / "ragate.yaml"))
    put(site / "ragate.yaml", text[:end] + block.replace("name: verifier", "name: other") + text[end:])
    assert "peer 10.77.2.2/32 belongs to source verifier already" in error_of(lambda: load(site / "ragate.yaml"))
    other = block.replace("name: verifier", "name: other").replace("10.77.2.2", "10.77.2.3")
    put(site / "ragate.yaml", text[:end] + other + text[end:])
    assert [source.name for source in load(site / "ragate.yaml").sources] == ["verifier", "other"]


def test_relay_entries_name_services_of_the_book(site: Path) -> None:
    relay = 'path_gate: relay\n    relay: [{service: feed, listen: "127.0.0.1:8001"}]'
    edit(site / "ragate.yaml", "path_gate: nft", relay)
    assert load(site / "ragate.yaml").target.relay == (RelayEntry("feed", Endpoint("127.0.0.1", 8001)),)
    edit(site / "ragate.yaml", "service: feed", "service: food")
    assert "ragate.yaml:23:13: the book has no service 'food'" in error_of(lambda: load(site / "ragate.yaml"))
    edit(site / "ragate.yaml", "service: food", "service: feed")
    edit(site / "policies/book.yaml", "port: 8001, protocol: tcp", "port: 8001, protocol: udp")
    assert "the relay carries TCP only" in error_of(lambda: load(site / "ragate.yaml"))


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


BOOK_MISTAKES = [
    ("node_default: admitted", "node_default: admit", "6:15: node_default 'admit' is not known; did you mean"),
    (
        "suspect: probation",
        "suspect: admitted",
        "7:10: suspect 'admitted' is not known; use one of",
    ),
    (
        "suspect: probation",
        "suspects: probation",
        "7:1: 'suspects' is not known in the file",
    ),
    ("port: 8001", "port: 0", "2:44: port '0' must be a whole number; write one from 1 to 65535"),
    ("protocol: tcp, path", "protocol: sctp, path", "protocol 'sctp' is not known"),
    ("path: routed", "path: direct", "path 'direct' is not known"),
    ("profiles: [admitted]", "profiles: []", "profiles is empty: nobody would reach the service"),
    (
        "profiles: [admitted]",
        "profiles: [probation]",
        "2:5: service feed: probation reaches it",
    ),
    ("address: 10.77.3.2", "address: 10.77.3.0/24", "'10.77.3.0/24' does not appear to be an IPv4 or IPv6 address"),
    ("address: 10.77.3.2", "address: 0.0.0.0", "0.0.0.0 is not the address of one host"),
    ("address: 10.77.2.2, port: 8100", "address: 10.77.3.2, port: 8001", "4:5: corridor entry verifier: it opens"),
    ("[10.77.9.0/24]", "[0.0.0.0/0]", "5:18: always_allowed 0.0.0.0/0: it allows every client"),
    ("[10.77.9.0/24]", "[10.77.1.0/24]", "its address 10.77.1.11 lies in always_allowed 10.77.1.0/24"),
    ("address: 10.77.3.2", "address: 10.77.1.11", "its address 10.77.1.11 is that of service feed"),
    ("address: 10.77.2.2", 'address: "fd77:1:0:2::9"', "its address fd77:1:0:2::/64 is that of corridor entry"),
    ("{cam-1: probation}", "{cam-l: probation}", "8:11: device cam-l: the book gives it a profile"),
    ("{cam-1: probation}", "{cam-1: probaton}", "8:18: cam-1 'probaton' is not known; did you mean 'probation'?"),
    ("{cam-1: probation}", "[cam-1]", "8:10: devices must be a mapping"),
    ("name: feed, ", "", "a service needs 'name'; write name: feed"),
]


@pytest.mark.parametrize(("old", "new", "expected"), BOOK_MISTAKES)
def test_mistakes_in_the_book(site: Path, old: str, new: str, expected: str) -> None:
    edit(site / "policies/book.yaml", old, new)
    assert expected in error_of(lambda: load(site / "ragate.yaml"))


def test_a_contradiction_with_the_inventory_is_placed_there(site: Path) -> None:
    edit(site / "policies/book.yaml", "[10.77.9.0/24]", "[10.77.1.0/24]")
    message = error_of(lambda: load(site / "ragate.yaml"))
    assert message.startswith(
        f"{site}/devices.yaml:5:16: device cam-1: its address 10.77.1.11 lies in always_allowed"
    )


# --- published keys -----------------------------------------------------------------------------------------------


def test_published_keys_are_refused_unless_the_ugly_name_is_written(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = {key("cam-1")}
    monkeypatch.setattr("gateway.config.keyfiles.is_published_hmac_key", published.__contains__)
    message = error_of(lambda: load(site / "ragate.yaml"))
    assert "devices.keys:3: the key of cam-1 is one of SEDIMENT's published demo keys" in message
    put(site / "verifier.pem", (PUBLISHED / "verifier-public-key.pem").read_bytes())
    message = error_of(lambda: load(site / "ragate.yaml"))
    assert "verifier.pem: is SEDIMENT's published demo key: anyone can sign verdicts with it" in message
    unsafe = "recovery_passes: 3\n    allow_published_keys_that_anyone_can_sign_with: true"
    edit(site / "ragate.yaml", "recovery_passes: 3", unsafe)
    config = load(site / "ragate.yaml")
    assert config.sources[0].allow_published
    assert any("anyone can sign" in finding.what for finding in find_findings(config))


# --- findings -----------------------------------------------------------------------------------------------------


def subjects(config: Config) -> list[str]:
    findings = find_findings(config)
    assert all(finding.what and finding.mend for finding in findings)
    return [finding.subject for finding in findings]


def test_a_device_without_an_anchor_is_a_finding(site: Path) -> None:
    config = load(site / "ragate.yaml")
    # The second is replayable; the third time that alerts of packets name it to nobody.
    assert subjects(config) == ["device cam-2", "source verifier", "device cam-2"]
    edit(site / "devices.yaml", '["fd77:1:0:2::/64"]', '["fd77:1:0:2::/64"]\n    anchor: l3')
    edit(site / "ragate.yaml", "peers: [10.77.2.2]", "peers: [10.77.2.2]\n    api: 10.77.2.2:8102")
    assert subjects(load(site / "ragate.yaml")) == []


def test_anchors_reach_the_path_gate_and_the_baseline_for_boot(site: Path) -> None:
    edit(
        site / "devices.yaml",
        "anchor: upstream",
        'anchor: l2\n    interface: cams\n    mac: "02:00:5E:10:00:0b"',
    )
    config = load(site / "ragate.yaml")
    binding = config.devices[0].binding
    assert (binding.anchor, binding.interface, binding.mac.hex()) == (AnchorKind.L2, "cams", "02005e10000b")
    assert gates.baseline(config).sources == ("from.bound4", "from.bound6")
    text = baseline_text(config)
    assert 'add element inet ragate from.bound4 { "cams" . 02:00:5e:10:00:0b . 10.77.1.11 }' in text
    assert text.index("ragate from.bound6 {") < text.index("add element inet ragate filled")


def test_an_anchor_that_nobody_can_look_at_is_a_finding(site: Path) -> None:
    edit(site / "devices.yaml", "anchor: upstream", "anchor: l2")
    config = load(site / "ragate.yaml")
    assert "device cam-1" in subjects(config)
    assert gates.baseline(config).sources == ()


def test_hints_that_nobody_gives_are_a_mistake_of_the_book(site: Path) -> None:
    book = site / "policies/book.yaml"
    put(book, f"cut_on_hints: [verifier.feed, hook]\n{book.read_text(encoding='utf-8')}")
    with pytest.raises(ConfigError, match=r"book\.yaml:1:31: the main file has no source of hints named 'hook'"):
        load(site / "ragate.yaml")
    edit(site / "ragate.yaml", "peers: [10.77.2.2]", "peers: [10.77.2.2]\n    feed: 10.77.2.2:8101")
    edit(site / "ragate.yaml", "doors:\n", "doors:\n  hook: {socket: hook.sock, users: [0]}\n")
    config = load(site / "ragate.yaml")
    assert config.hint_sources == ("hook", "verifier.feed", "gateway.alerts")
    assert config.book.cut_on_hints == {"hook", "verifier.feed"}
    assert config.hook is not None
    assert config.hook.uids == frozenset({0})
    assert config.hook.socket == site / "hook.sock"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("doors:\n", "doors:\n  hook: {}\n", "hook needs 'users'"),
        ("doors:\n", "doors:\n  hook: {users: []}\n", "no user is listed"),
        ("doors:\n", "doors:\n  hook: {users: [nobody-of-that-name]}\n", "there is no user"),
        ("doors:\n", "doors:\n  hook: {users: [0], sockets: x}\n", "did you mean 'socket'"),
        ("name: verifier", "name: hook", "is the name of hints"),
        ("name: verifier", "name: x.feed", "is the name of hints"),
        ("peers: [10.77.2.2]", "peers: [10.77.2.2]\n    feed: 10.77.2.2", "needs a port"),
        ("peers: [10.77.2.2]", "peers: [10.77.2.2]\n    api: {requests: 3}", "needs 'address'"),
        ("peers: [10.77.2.2]", "peers: [10.77.2.2]\n    api: {address: '10.0.0.1:1', requests: 0}", "whole number"),
        ("peers: [10.77.2.2]", "peers: [10.77.2.2]\n    api: {address: '10.0.0.1:1', per: 1d}", "out of range"),
    ],
)
def test_mistakes_about_hints_have_their_place(site: Path, old: str, new: str, said: str) -> None:
    edit(site / "ragate.yaml", old, new)
    with pytest.raises(ConfigError, match=r"ragate\.yaml:[0-9]+:[0-9]+: ") as caught:
        load(site / "ragate.yaml")
    assert said in str(caught.value)


def test_findings(site: Path) -> None:
    edit(site / "devices.yaml", '["fd77:1:0:2::/64"]', "[10.77.1.11, 10.77.2.9, 127.0.0.9]\n    anchor: l3")
    put(site / "cam-2.key", key("cam-1"))
    edit(site / "ragate.yaml", '"127.0.0.1:8080"', '"0.0.0.0:8080"')
    edit(site / "ragate.yaml", "peers: [10.77.2.2]", "peers: []")
    edit(site / "policies/book.yaml", "services:\n", "services: []\nx: [")
    edit(site / "policies/book.yaml", "x: [", "")
    text = (site / "policies/book.yaml").read_text(encoding="utf-8")
    put(site / "policies/book.yaml", "\n".join(line for line in text.splitlines() if "feed" not in line) + "\n")
    assert subjects(load(site / "ragate.yaml")) == [
        "services",
        "address 10.77.1.11",
        "device cam-2",  # a loopback address
        "device cam-2",  # another device's key
        "source verifier",
        "device cam-2",  # may reach the door
        "source verifier",  # replayable
        "console",
    ]


def test_many_devices_make_one_finding(site: Path) -> None:
    config = load(site / "ragate.yaml")
    loose = config.devices[1]
    many = tuple(replace(loose, id=f"d{i}", binding=replace(loose.binding, device=f"d{i}")) for i in range(9))  # type: ignore[arg-type]
    config = replace(config, devices=(*many,), book=replace(config.book, devices={}))
    findings = [finding for finding in find_findings(config) if "borrow" in finding.what]
    assert [finding.subject for finding in findings] == ["devices d0, d1, d2, d3, d4 and 4 more"]


# --- single values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0.0), ("900", 900.0), ("2.5", 2.5), ("90s", 90.0), ("15m", 900.0), ("2h", 7_200.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "m", "1w", "1e3", "1:30", "inf", "nan", "9" * 40, "1 m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["127.0.0.1:1", "[::1]:65535", "[2001:db8::1]:8000"])
def test_endpoints_are_written_as_they_are_read(text: str) -> None:
    assert str(parse_endpoint(text)) == text


@given(st.text(max_size=30))
def test_parsers_raise_only_what_they_declare(text: str) -> None:
    for parse in (parse_duration, parse_endpoint, parse_network, parse_address):
        with contextlib.suppress(ValueError):
            parse(text)


addresses = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda ip: f"{ip}/64"),
    st.from_regex(r"[0-9a-f:.]{1,20}", fullmatch=True),
    st.sampled_from(["0.0.0.0", "::", "::1", "ff02::1", "::ffff:1.2.3.4", "fe80::1", "010.0.0.1", "1.2.3"]),
)


@given(addresses)
def test_the_short_way_to_an_address_agrees_with_the_long_one(text: str) -> None:
    try:
        expected = Address.parse(text)
    except ValueError:
        with pytest.raises(ValueError):
            parse_address(text)
    else:
        assert parse_address(text) == expected


def test_load_inventory_takes_the_sources_alone(site: Path) -> None:
    config = load(site / "ragate.yaml")
    inventory = load_inventory(site / "devices.yaml", config.sources)
    assert inventory.devices == config.devices
    assert inventory.hmac_keys == config.hmac_keys
