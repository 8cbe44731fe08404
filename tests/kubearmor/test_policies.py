"""Documents: what cannot be built cannot be sent, and what is rendered is exactly what KubeArmor reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.kubearmor import policies
from gateway.kubearmor.names import DocumentRefused, Kind
from gateway.kubearmor.policies import (
    MAX_EVENT,
    Action,
    EventType,
    FileRule,
    HostPolicy,
    NetworkEntry,
    NetworkPolicy,
    Port,
    generation_of,
    render_event,
)
from gateway.kubearmor.prefixes import EVERYBODY, FILLERS, Prefix, both_families

ENTRY = NetworkEntry(both_families([Prefix.parse("192.0.2.7/32")]), (Port(8001), Port(53, "udp", 54)), Action.BLOCK)


def network(**changes: Any) -> NetworkPolicy:
    fields: dict[str, Any] = {"name": "50-net", "node": "*", "generation": 42, "ingress": (ENTRY,)}
    return NetworkPolicy(**fields | changes)


def test_a_network_event_has_the_shape_that_kubearmor_parses() -> None:
    event = json.loads(render_event(EventType.ADDED, network(tags=("ATTEST",), message="no", severity=8)))
    assert event == {
        "type": "ADDED",
        "object": {
            "metadata": {"name": "50-net"},
            "spec": {
                "nodeSelector": {"matchLabels": {"kubearmor.io/hostname": "*"}},
                "ingress": [
                    {
                        "from": [{"ipBlock": {"cidr": "192.0.2.7/32"}}, {"ipBlock": {"cidr": "100::/128"}}],
                        "ports": [
                            {"port": "8001", "protocol": "TCP"},
                            {"port": "53", "protocol": "UDP", "endPort": 54},
                        ],
                        "action": "Block",
                    }
                ],
                "severity": 8,
                "tags": ["ATTEST", "gen=42"],
                "message": "no",
                "action": "Block",
            },
        },
    }
    assert network().kind is Kind.NETWORK


def test_the_action_of_the_whole_is_block_even_when_every_entry_allows() -> None:
    allow = NetworkEntry(EVERYBODY, (Port(1),), Action.ALLOW)
    event = json.loads(render_event(EventType.DELETED, network(ingress=(allow,))))
    assert event["type"] == "DELETED"
    assert event["object"]["spec"]["action"] == "Block"
    assert event["object"]["spec"]["ingress"][0]["action"] == "Allow"


def test_a_host_event_has_the_shape_that_kubearmor_parses() -> None:
    rules = (FileRule("/var/lib/x.db", owner_only=True), FileRule("/etc/x", directory=True, read_only=True))
    policy = HostPolicy(name="40-host", node="edge", generation=7, files=rules)
    spec = json.loads(render_event(EventType.ADDED, policy))["object"]["spec"]
    assert spec["file"] == {
        "matchPaths": [{"path": "/var/lib/x.db", "ownerOnly": True}],
        "matchDirectories": [{"dir": "/etc/x/", "recursive": True, "readOnly": True}],
    }
    assert spec["nodeSelector"] == {"matchLabels": {"kubearmor.io/hostname": "edge"}}
    assert policy.kind is Kind.HOST


@pytest.mark.parametrize(
    ("peers", "ports", "why"),
    [
        ([Prefix.parse("10.0.0.1")], (Port(80),), "each family"),
        ([FILLERS[1]], (Port(80),), "each family"),
        ([], (Port(80),), "each family"),
        (list(EVERYBODY), (), "ports"),
        ([*EVERYBODY, Prefix(4, 1, 24)], (Port(80),), "canonical"),
    ],
)
def test_entries_that_would_match_too_much_are_refused(
    peers: list[Prefix], ports: tuple[Port, ...], why: str
) -> None:
    with pytest.raises(DocumentRefused, match=why):
        NetworkEntry(tuple(peers), ports, Action.BLOCK)


@pytest.mark.parametrize(
    ("number", "protocol", "end"),
    [(0, "tcp", None), (65536, "tcp", None), (80, "icmp", None), (80, "TCP", None), (80, "tcp", 79)],
)
def test_ports_that_would_poison_the_rule_set_are_refused(number: int, protocol: str, end: int | None) -> None:
    with pytest.raises(DocumentRefused):
        Port(number, protocol, end)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "A"},
        {"name": "n" * 109},
        {"node": ""},
        {"node": "a b"},
        {"generation": -1},
        {"severity": 11},
        {"tags": ("a,b",)},
        {"message": "line\nbreak"},
        {"ingress": ()},
    ],
)
def test_bad_documents_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DocumentRefused):
        network(**changes)


@pytest.mark.parametrize(
    "rule",
    [
        {"path": "relative", "read_only": True},
        {"path": "/a/../b", "read_only": True},
        {"path": "/a/./b", "read_only": True},
        {"path": "/a/", "read_only": True},
        {"path": "/", "directory": True, "read_only": True},
        {"path": "/a*", "read_only": True},
        {"path": "/" + "a" * 199, "read_only": True},
        {"path": "/" + "a" * 63, "directory": True, "read_only": True},
        {"path": "/a"},
        {"path": "/a", "read_only": True, "owner_only": True},
        {"path": "/a", "directory": True, "owner_only": True},
    ],
)
def test_file_rules_that_would_not_be_enforced_as_written_are_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(DocumentRefused):
        FileRule(**rule)


def cost(*paths: str) -> int:
    files = tuple(FileRule(path, directory=True, read_only=True) for path in paths)
    return HostPolicy(name="h", node="*", generation=0, files=files).cost


def test_the_map_entries_of_known_rule_sets() -> None:
    assert cost("/usr/local/share/ca-certificates") == 6
    assert cost("/bin", "/boot", "/sbin", "/usr/bin", "/usr/lib", "/usr/sbin") == 14
    assert cost("/etc/pki", "/etc/ssl", "/usr/local/share/ca-certificates") == 11


def test_an_event_beyond_what_the_server_takes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 4_000_000 < MAX_EVENT < 4 * 1024 * 1024
    event = render_event(EventType.ADDED, network())
    monkeypatch.setattr(policies, "MAX_EVENT", len(event))
    assert render_event(EventType.ADDED, network()) == event
    monkeypatch.setattr(policies, "MAX_EVENT", len(event) - 1)
    with pytest.raises(DocumentRefused, match="too many separate prefixes"):
        render_event(EventType.ADDED, network())


@pytest.mark.parametrize(
    ("tags", "generation"),
    [(["a", "gen=12"], 12), ([], None), (None, None), ("gen=1", None), (["gen=x", 3, "gen="], None)],
)
def test_the_generation_is_read_from_the_tags(tags: object, generation: int | None) -> None:
    assert generation_of(tags) == generation
