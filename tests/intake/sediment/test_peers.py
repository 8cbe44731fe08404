"""Which source judges a peer, and whose budget it spends."""

from __future__ import annotations

import ipaddress

import pytest

from gateway.core.model import SourceName
from gateway.intake.sediment import UNASSIGNED, DoorSettings, peers
from gateway.intake.sediment.peers import PeerBook

NET = ipaddress.ip_network
A, B = SourceName("a"), SourceName("b")


def test_other_peers_belong_to_the_only_source() -> None:
    book = PeerBook(DoorSettings((NET("10.0.0.0/8"),), {NET("192.0.2.1/32"): A, NET("2001:db8::1/128"): A}))
    assert (book.of("10.1.2.3").source, book.of("10.1.2.3").allowed) == (A, True)
    assert not book.of("172.16.0.1").allowed
    assert not book.of("2001:db8::2").allowed
    assert book.of("2001:db8::1").verifier


def test_with_several_sources_nobody_judges_other_peers_unless_told_so() -> None:
    verifiers = {NET("192.0.2.1/32"): A, NET("192.0.2.2/32"): B}
    book = PeerBook(DoorSettings((NET("10.0.0.0/8"),), verifiers))
    assert (book.of("10.1.2.3").source, book.of("10.1.2.3").allowed) == (UNASSIGNED, False)
    assert book.of("192.0.2.2").source == B
    told = PeerBook(DoorSettings((NET("10.0.0.0/8"),), verifiers, default_source=B))
    assert (told.of("10.1.2.3").source, told.of("10.1.2.3").allowed) == (B, True)


def test_one_address_is_one_peer_however_it_is_written() -> None:
    book = PeerBook(DoorSettings((NET("0.0.0.0/0"), NET("::/0")), {NET("192.0.2.1/32"): A}))
    assert book.of("::ffff:192.0.2.1") is book.of("192.0.2.1")
    assert book.of("fe80::1%lo") is book.of("fe80::1")
    assert book.of("::ffff:192.0.2.1").text == "192.0.2.1"


def test_verifiers_share_their_half_equally_and_cannot_spend_each_others() -> None:
    settings = DoorSettings((NET("10.0.0.0/8"),), {NET("192.0.2.1/32"): A, NET("192.0.2.2/32"): A}, connections=8)
    book = PeerBook(settings)
    first, second, other = book.of("192.0.2.1"), book.of("192.0.2.2"), book.of("10.0.0.1")
    assert [first.take() for _ in range(3)] == [True, True, False]
    assert [second.take() for _ in range(3)] == [True, True, False]
    assert [other.take() for _ in range(5)] == [True, True, True, True, False]
    first.give_back()
    assert first.take()


def test_what_is_remembered_is_bounded_and_open_connections_are_never_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "REMEMBERED_PEERS", 4)
    book = PeerBook(DoorSettings((NET("0.0.0.0/0"),), {NET("192.0.2.1/32"): A}))
    held = book.of("198.51.100.7")
    assert held.take()
    for number in range(20):
        book.of(f"203.0.113.{number}")
    assert book.of("198.51.100.7") is held
    assert book.remembered <= 6


@pytest.mark.parametrize("wrong", [{"connections": 1}, {"connections_per_peer": 0}, {"frame_seconds": 0.0}])
def test_limits_that_shut_the_door_for_everybody_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        DoorSettings((), {NET("192.0.2.1/32"): A}, **wrong)  # type: ignore[arg-type]


def test_without_any_source_there_is_no_door() -> None:
    with pytest.raises(ValueError, match="no source"):
        DoorSettings((NET("10.0.0.0/8"),), {})
    assert DoorSettings((NET("10.0.0.0/8"),), {}, default_source=A).reserved == 0
