"""The relay's table: who may reach what until when."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Address, Change, ChangeKind, Stands
from gateway.enforce.relay import table as table_module
from gateway.enforce.relay.table import FOR_EVER, Table

PROFILES = {"admitted": frozenset({"feed", "web"}), "probation": frozenset({"feed"})}
CAMERA = Address.parse("192.0.2.7")
HOST6 = Address.parse("2001:db8::7")
NET6 = Address.parse("2001:db8::/64")


def admit(address: Address, until: float = 100.0, profile: str = "admitted") -> Change:
    return Change(ChangeKind.ADMIT, address, profile, until)


def of(kind: ChangeKind, address: Address) -> Change:
    return Change(kind, address)


def may(table: Table, text: str, service: str = "feed", now: float = 0.0) -> float | None:
    return table.judge(ipaddress.ip_address(text).packed, service, now)


def test_nobody_is_admitted_at_first() -> None:
    assert may(Table(PROFILES), "192.0.2.7") is None


def test_an_admission_reaches_its_profile_until_its_end() -> None:
    table = Table(PROFILES)
    assert table.take(admit(CAMERA, 100.0, "probation"), 0.0) == ""
    assert may(table, "192.0.2.7", "feed", 99.9) == 100.0
    assert may(table, "192.0.2.7", "feed", 100.0) is None
    assert may(table, "192.0.2.7", "web") is None
    assert may(table, "192.0.2.8") is None
    assert table.stands(CAMERA, 40.0) == Stands("probation", 60.0, False)
    assert table.stands(CAMERA, 100.0) == Stands("", None, False)


def test_an_unknown_profile_changes_nothing() -> None:
    table = Table(PROFILES)
    table.take(admit(CAMERA), 0.0)
    assert "no profile" in table.take(admit(CAMERA, 200.0, "deny"), 0.0)
    assert may(table, "192.0.2.7") == 100.0


def test_an_end_less_than_a_millisecond_away_admits_nothing() -> None:
    table = Table(PROFILES)
    table.take(admit(CAMERA), 0.0)
    change = admit(CAMERA, 50.0009)
    assert table.take(change, 50.0) == ""
    assert table.shows(change, 50.0)
    assert may(table, "192.0.2.7", now=50.0) is None


def test_a_tombstone_goes_only_by_admission_or_forgetting() -> None:
    table = Table(PROFILES)
    table.take(of(ChangeKind.CUT, CAMERA), 0.0)
    table.take(of(ChangeKind.WITHDRAW, CAMERA), 0.0)
    assert table.stands(CAMERA, 0.0) == Stands("", None, True)
    refresh = Change(ChangeKind.REFRESH, CAMERA, "admitted", 100.0)
    assert "tombstone" in table.take(refresh, 0.0)
    assert not table.shows(refresh, 0.0)
    assert may(table, "192.0.2.7") is None
    table.take(of(ChangeKind.FORGET, CAMERA), 0.0)
    assert table.stands(CAMERA, 0.0) == Stands("", None, False)
    table.take(of(ChangeKind.CUT, CAMERA), 0.0)
    table.take(admit(CAMERA), 0.0)
    assert table.stands(CAMERA, 0.0) == Stands("admitted", 100.0, False)
    assert table.tombstones == 0


def test_a_64_stands_for_every_address_in_it() -> None:
    table = Table(PROFILES)
    table.take(admit(NET6), 0.0)
    assert may(table, "2001:db8::abcd") == 100.0
    assert may(table, "2001:db8:0:1::abcd") is None
    table.take(of(ChangeKind.CUT, HOST6), 0.0)
    assert may(table, "2001:db8::7") is None
    assert may(table, "2001:db8::abcd") == 100.0
    table.take(admit(HOST6, 300.0, "probation"), 0.0)
    assert may(table, "2001:db8::7") == 300.0
    assert may(table, "2001:db8::7", "web") is None  # its own admission counts, not the wider one
    table.take(of(ChangeKind.CUT, NET6), 0.0)
    assert may(table, "2001:db8::7") is None


def test_clients_that_are_no_devices_pass_unless_they_are_cut() -> None:
    table = Table(PROFILES, [ipaddress.ip_network("198.51.100.0/24")])
    assert may(table, "198.51.100.3", "anything") == FOR_EVER
    assert may(table, "2001:db8::1") is None
    table.take(of(ChangeKind.CUT, Address.parse("198.51.100.3")), 0.0)
    assert may(table, "198.51.100.3") is None


def test_what_has_ended_is_removed_once_and_a_renewal_counts() -> None:
    table = Table(PROFILES)
    table.take(admit(CAMERA, 10.0), 0.0)
    table.take(admit(HOST6, 10.0), 0.0)
    table.take(Change(ChangeKind.REFRESH, CAMERA, "admitted", 20.0), 5.0)
    assert table.next_end == 10.0
    assert table.expire(10.0) == [HOST6]
    assert table.expire(20.0) == [CAMERA]
    assert len(table) == 0
    assert table.pending_ends == 0


def test_renewals_do_not_make_the_heap_grow() -> None:
    table = Table(PROFILES)
    for second in range(10_000):
        table.take(admit(CAMERA, 100.0 + second), float(second))
    assert table.pending_ends <= table_module.STALE_ENDS + 3
    assert table.expire(10_099.0) == [CAMERA]


def test_admissions_are_bounded_and_cuts_are_not() -> None:
    table = Table(PROFILES, rows=2)
    assert table.take(admit(CAMERA), 0.0) == ""
    assert table.take(admit(HOST6), 0.0) == ""
    assert "admitted already" in table.take(admit(NET6), 0.0)
    assert table.take(admit(HOST6, 200.0), 0.0) == ""
    assert table.take(of(ChangeKind.CUT, NET6), 0.0) == ""


CHANGES = st.builds(
    Change,
    st.sampled_from(ChangeKind),
    st.sampled_from([CAMERA, HOST6, NET6]),
    st.sampled_from(["admitted", "probation"]),
    st.floats(0.0, 50.0),
)


@given(st.lists(CHANGES, max_size=20), st.floats(0.0, 50.0))
def test_taking_twice_is_taking_once_and_only_openings_open(changes: list[Change], now: float) -> None:
    once, twice = Table(PROFILES), Table(PROFILES)
    for change in changes:
        before = {text: may(once, text, now=now) for text in ("192.0.2.7", "2001:db8::7", "2001:db8::8")}
        once.take(change, now)
        assert twice.take(change, now) == twice.take(change, now)
        if change.kind is ChangeKind.CUT:
            assert not any(may(once, text, now=now) for text in before if change.address.covers(pack(text)))
        if change.kind in (ChangeKind.CUT, ChangeKind.WITHDRAW) and change.address.prefix != 128:
            assert all(was is not None or may(once, text, now=now) is None for text, was in before.items())
    for address in (CAMERA, HOST6, NET6):
        assert once.stands(address, now) == twice.stands(address, now)


def pack(text: str) -> bytes:
    return ipaddress.ip_address(text).packed
