"""The book beside the main file: targets that it has, and links that no book may cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import find_findings, load
from tests.test_config import edit, error_of, public_pem, site

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
