"""Configuration: what a good one gives, and that every mistake names its place and the mend."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from gateway.config import (
    Console,
    DoorLimits,
    Endpoint,
    KubeArmor,
    OperatorSocket,
    RelayEntry,
    find_findings,
    load,
    load_book,
)
from gateway.core.lifecycle import Rules
from gateway.core.model import Address, AnchorKind
from tests.written import edit, error_of, key, public_pem, put, site

__all__ = ["public_pem", "site"]  # fixtures

PUBLISHED = Path(__file__).parent / "fixtures" / "sediment"


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
