"""The book beside the main file: its mistakes, targets that it has, and links that no book may cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import find_findings, load
from tests.written import edit, error_of, public_pem, site

__all__ = ["public_pem", "site"]


def test_management_is_read_and_must_stay_allowed(site: Path) -> None:
    edit(site / "ragate.yaml", "inventory: devices.yaml", "management: [10.77.9.0/25]\ninventory: devices.yaml")
    assert [str(prefix) for prefix in load(site / "ragate.yaml").management] == ["10.77.9.0/25"]
    edit(site / "policies/book.yaml", "[10.77.9.0/24]", "[10.77.9.128/25]")
    expected = "book.yaml:5:17: always_allowed: management from 10.77.9.0/25 is not in it"
    assert expected in error_of(lambda: load(site / "ragate.yaml"))


@pytest.mark.parametrize(
    ("endpoint", "link"),
    [
        ("127.0.0.1, port: 8080", "the console at 127.0.0.1 port 8080/tcp"),
        ("127.0.0.1, port: 8000", "the door at 0.0.0.0 port 8000/tcp"),
    ],
)
def test_our_own_ports_are_never_gated(site: Path, endpoint: str, link: str) -> None:
    edit(site / "policies/book.yaml", "10.77.3.2, port: 8001", endpoint)
    expected = f"book.yaml:2:5: service feed: it gates {link}: a cut would reach ourselves; remove it"
    assert expected in error_of(lambda: load(site / "ragate.yaml"))


def test_targets_are_those_of_the_main_file(site: Path) -> None:
    book = site / "policies/book.yaml"
    edit(book, "node_default:", "targets: {gateway: {kinds: [path_gate]}}\nnode_default:")
    assert load(site / "ragate.yaml").book.targets == {"gateway": ("path_gate",)}
    edit(book, "targets: {gateway:", "targets: {gatewy:")
    expected = "book.yaml:6:11: the main file has no target 'gatewy'; did you mean 'gateway'?"
    assert expected in error_of(lambda: load(site / "ragate.yaml"))


def test_warnings_of_levels_are_findings(site: Path) -> None:
    book = site / "policies/book.yaml"
    first = "classes:\n  - {name: a, match: {id: 'cam-*'}, standings: probation}\n"
    second = "  - {name: b, match: {id: '*-1'}, standings: admitted}\n  - {name: c, match: {id: x}}\n"
    edit(book, "node_default:", f"{first}{second}node_default:")
    warnings = {(each.subject, each.what) for each in find_findings(load(site / "ragate.yaml"))}
    assert (
        "class b",
        "1 devices (cam-1 first) match a (trusted probation) and b (trusted admitted): the more restrictive wins",
    ) in warnings
    assert ("class c", "no device of the inventory matches it") in warnings


def test_a_quorum_that_the_inventory_cannot_meet_is_refused(site: Path) -> None:
    edit(site / "policies/book.yaml", "{cam-1: probation}", "{cam-1: {quorum: 2}}")
    expected = "book.yaml:8:11: devices cam-1: quorum 2: no device of the inventory has more than 1 source,"
    assert expected in error_of(lambda: load(site / "ragate.yaml"))


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
