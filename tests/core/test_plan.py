"""The plan: steps lead from what stands to what is wanted, tighten first, and doing them twice does nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import DENY, Address, Change, ChangeKind, DeviceId, Rule
from gateway.core.plan import REFRESH_SLACK, after, diff

CAM = DeviceId("cam-1")
A, B, C, D, E, F, G = (Address.parse(f"10.0.0.{i}") for i in range(1, 8))
ADMITTED = Rule(CAM, "admitted", 900.0)
PROBATION = Rule(CAM, "probation", 900.0)
SHUT = Rule(CAM, DENY, 0.0)
TOMBSTONE = Rule(CAM, DENY, 0.0, tombstone=True)

Want = Mapping[Address, Rule | None]
Have = Mapping[Address, Rule]


def apply(have: Have, want: Want, changes: tuple[Change, ...]) -> dict[Address, Rule]:
    stands = dict(have)
    for change in changes:
        rule = want[change.address]
        left = after(change, rule.device if rule else CAM)
        if left is None:
            stands.pop(change.address, None)
        else:
            stands[change.address] = left
    return stands


@pytest.mark.parametrize(
    ("want", "have", "expected"),
    [
        (None, None, None),
        (None, ADMITTED, Change(ChangeKind.FORGET, A)),
        (None, TOMBSTONE, Change(ChangeKind.FORGET, A)),
        (SHUT, None, None),
        (SHUT, SHUT, None),
        (SHUT, TOMBSTONE, None),
        (SHUT, ADMITTED, Change(ChangeKind.WITHDRAW, A)),
        (TOMBSTONE, None, Change(ChangeKind.CUT, A)),
        (TOMBSTONE, SHUT, Change(ChangeKind.CUT, A)),
        (TOMBSTONE, ADMITTED, Change(ChangeKind.CUT, A)),
        (TOMBSTONE, TOMBSTONE, None),
        (ADMITTED, None, Change(ChangeKind.ADMIT, A, "admitted", 800.0)),
        (ADMITTED, SHUT, Change(ChangeKind.ADMIT, A, "admitted", 800.0)),
        (ADMITTED, TOMBSTONE, Change(ChangeKind.ADMIT, A, "admitted", 800.0)),
        (ADMITTED, PROBATION, Change(ChangeKind.ADMIT, A, "admitted", 800.0)),
        (PROBATION, ADMITTED, Change(ChangeKind.ADMIT, A, "probation", 800.0)),
        (ADMITTED, ADMITTED, Change(ChangeKind.REFRESH, A, "admitted", 800.0)),
        (ADMITTED, ADMITTED._replace(until=799.4), Change(ChangeKind.REFRESH, A, "admitted", 800.0)),
        (ADMITTED, ADMITTED._replace(until=799.6), None),
        (ADMITTED, ADMITTED._replace(until=800.0), None),
        (ADMITTED, ADMITTED._replace(until=800.1), Change(ChangeKind.REFRESH, A, "admitted", 800.0)),
        (ADMITTED._replace(until=700.0), None, Change(ChangeKind.ADMIT, A, "admitted", 700.0)),
    ],
)
def test_one_address(want: Rule | None, have: Rule | None, expected: Change | None) -> None:
    changes = diff({A: want}, {} if have is None else {A: have}, 800.0)
    assert changes == (() if expected is None else (expected,))


def test_tightening_comes_before_loosening() -> None:
    want: Want = {
        A: ADMITTED,  # stands shorter: a later end
        B: ADMITTED,  # absent
        C: PROBATION,  # another profile
        D: ADMITTED._replace(until=300.0),  # an earlier end
        E: None,
        F: SHUT,
        G: TOMBSTONE,
    }
    have: Have = {
        address: ADMITTED._replace(until=100.0 if address is A else 500.0) for address in want if address is not B
    }
    changes = diff(want, have, 800.0)
    assert [change.address for change in changes] == [G, F, E, D, C, B, A]
    assert [change.kind.name for change in changes] == [
        "CUT",
        "WITHDRAW",
        "FORGET",
        "REFRESH",
        "ADMIT",
        "ADMIT",
        "REFRESH",
    ]


def test_an_address_that_is_not_wanted_anew_is_left_alone() -> None:
    assert diff({}, {A: ADMITTED}, 800.0) == ()


rules = st.one_of(
    st.just(SHUT),
    st.just(TOMBSTONE),
    st.builds(
        Rule,
        st.just(CAM),
        st.sampled_from(["probation", "admitted"]),
        st.floats(0.0, 1_000.0, allow_nan=False),
        tombstone=st.just(value=False),
    ),
)
addresses = st.sampled_from([A, B, C, D, E, F, G])
wishes = st.dictionaries(addresses, st.none() | rules)
standing = st.dictionaries(addresses, rules)
leases = st.floats(0.0, 1_000.0, allow_nan=False)


@given(wishes, standing, leases)
def test_applying_once_leaves_nothing_to_do(want: Want, have: Have, lease_until: float) -> None:
    changes = diff(want, have, lease_until)
    assert diff(want, apply(have, want, changes), lease_until) == ()
    assert len({change.address for change in changes}) == len(changes)


@given(wishes, standing, leases)
def test_what_stands_afterwards_is_never_more_than_wanted(want: Want, have: Have, lease_until: float) -> None:
    stands = apply(have, want, diff(want, have, lease_until))
    for address, rule in want.items():
        left = stands.get(address)
        if rule is None:
            assert left is None
        elif rule.profile == DENY:
            assert left is None or left.profile == DENY
            assert not rule.tombstone or left == TOMBSTONE
        else:
            assert left is not None
            assert left.profile == rule.profile
            assert not left.tombstone
            end = min(rule.until, lease_until)
            assert end - REFRESH_SLACK <= left.until <= end
    untouched = {address: rule for address, rule in have.items() if address not in want}
    assert untouched == {address: rule for address, rule in stands.items() if address not in want}


@given(wishes, st.dictionaries(addresses, rules.filter(lambda rule: rule != SHUT)))
def test_apply_and_revert_gives_the_start(want: Want, have: Have) -> None:
    lease_until = 2_000.0  # longer than any rule, so that a lease changes no end
    there = apply(have, want, diff(want, have, lease_until))
    start: Want = {address: have.get(address) for address in want}
    back = apply(there, start, diff(start, there, lease_until))
    assert set(back) == set(have)
    for address, rule in have.items():
        assert back[address]._replace(until=0.0) == rule._replace(until=0.0)
        assert abs(back[address].until - rule.until) <= REFRESH_SLACK


def loosens(change: Change, stood: Rule | None) -> bool:
    if change.kind is ChangeKind.REFRESH:
        return stood is not None and change.until > stood.until
    return change.kind is ChangeKind.ADMIT and (stood is None or stood.profile == DENY)


@given(wishes, standing, leases)
def test_all_that_tightens_comes_before_all_that_loosens(want: Want, have: Have, lease_until: float) -> None:
    order = [loosens(change, have.get(change.address)) for change in diff(want, have, lease_until)]
    assert order == sorted(order)


def test_a_lease_that_has_just_begun_is_not_told_again_at_every_pass() -> None:
    device = DeviceId("cam-1")
    address = Address.parse("10.0.0.1")
    have = {address: Rule(device, "admitted", 220.0)}
    want: dict[Address, Rule | None] = {address: Rule(device, "admitted", 1_000.0)}
    assert diff(want, have, lease_until=225.0, renew_before=165.0) == ()
    (change,) = diff(want, have, lease_until=290.0, renew_before=230.0)
    assert (change.kind, change.until) == (ChangeKind.REFRESH, 290.0)
    # An earlier end is always told.
    want = {address: Rule(device, "admitted", 150.0)}
    (change,) = diff(want, have, lease_until=225.0, renew_before=165.0)
    assert (change.kind, change.until) == (ChangeKind.REFRESH, 150.0)
