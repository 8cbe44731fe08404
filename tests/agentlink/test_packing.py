"""What the messages carry: what goes in comes out, ends never come late, and what is none is refused."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.agentlink import messages as wire
from gateway.agentlink import packing
from gateway.control.ports import Proof, Showing, Strayed
from gateway.core.model import Address, Applied, Change, ChangeKind, ChangeOutcome, Stands

OPENS = (ChangeKind.ADMIT, ChangeKind.REFRESH)
SHUTS = (ChangeKind.CUT, ChangeKind.WITHDRAW, ChangeKind.FORGET)

ADDRESSES = st.one_of(
    st.binary(min_size=4, max_size=4).map(lambda packed: Address(packed, 32)),
    st.binary(min_size=16, max_size=16).map(lambda packed: Address(packed, 128)),
    st.binary(min_size=8, max_size=8).map(lambda packed: Address(packed + bytes(8), 64)),
)
NAMES = st.sampled_from(["admitted", "probation", "deny-not", "x"])
ENDS = st.floats(-100.0, 10_000.0)
CHANGES = st.one_of(
    st.tuples(st.sampled_from(OPENS), ADDRESSES, NAMES, ENDS).map(lambda row: Change(*row)),
    st.tuples(st.sampled_from(SHUTS), ADDRESSES).map(lambda pair: Change(*pair)),
)
NOW = 1_000.0


def over(work: wire.Work) -> wire.Work:
    """As it arrives."""
    found = wire.read_from_gateway(wire.encode(work))
    assert isinstance(found, wire.Work)
    return found


@given(st.lists(CHANGES, max_size=30), st.floats(0.0, 5.0), st.floats(0.0, 100.0), st.floats(1.0, 3_600.0))
def test_changes_arrive_and_no_end_comes_late(
    changes: list[Change], early: float, travel: float, longest: float
) -> None:
    """The receiver's clock is the sender's plus 500; the reference is ``early`` seconds too early."""
    cut = all(change.kind in SHUTS for change in changes)
    sent = packing.pack_work(7, changes, NOW, NOW + 500.0 - early, cut=cut)
    arrival = NOW + 500.0 + travel
    found = packing.unpack_work(over(sent), arrival, longest)
    assert [(change.kind, change.address, change.profile) for change in found] == [
        (change.kind, change.address, change.profile) for change in changes
    ]
    for told, change in zip(found, changes, strict=True):
        if change.kind in OPENS:
            assert told.until <= change.until + 500.0 + 0.001 or change.until < NOW
            assert told.until <= arrival + longest
            if change.until < NOW:
                assert told.until <= arrival, "what has ended admits nothing"
            elif travel == 0.0 and change.until - NOW <= longest:
                assert told.until >= change.until + 500.0 - early - 0.002 - 0.002 * (change.until - NOW)


@given(ENDS, st.floats(-1e6, 1e6), st.floats(0.0, 1e6))
def test_a_reference_from_the_future_is_worth_no_more_than_now(until: float, reference: float, now: float) -> None:
    work = packing.pack_work(
        1, [Change(ChangeKind.ADMIT, Address(b"1234", 32), "admitted", until)], NOW, reference, cut=False
    )
    (change,) = packing.unpack_work(over(work), now, 60.0)
    assert change.until <= now + min(60.0, max(0.0, until - NOW))


OUTCOMES = st.tuples(st.sampled_from(Applied), st.text(max_size=20))


@given(st.lists(st.tuples(CHANGES, OUTCOMES), max_size=30))
def test_outcomes_arrive_in_order(story: list[tuple[Change, tuple[Applied, str]]]) -> None:
    outcomes = [ChangeOutcome(change, state, detail) for change, (state, detail) in story]
    done = wire.read_from_agent(wire.encode(packing.pack_done(3, outcomes)))
    assert isinstance(done, wire.Done)
    assert packing.unpack_done(done, [change for change, _ in story], 0.0) == outcomes


@given(st.dictionaries(ADDRESSES, st.tuples(NAMES, st.none() | st.floats(0.0, 1e5), st.booleans()), max_size=20))
def test_a_read_back_arrives(rows: dict[Address, tuple[str, float | None, bool]]) -> None:
    stands = {address: Stands(*row) for address, row in rows.items()}
    asked = wire.read_from_gateway(wire.encode(wire.Look(1, packing.pack_addresses(list(stands)))))
    assert isinstance(asked, wire.Look)
    addresses = packing.unpack_addresses(asked.addresses)
    seen = wire.read_from_agent(wire.encode(packing.pack_seen(1, addresses, stands)))
    assert isinstance(seen, wire.Seen)
    found = packing.unpack_seen(seen, addresses)
    assert list(found) == list(stands)
    for address, row in found.items():
        expected = stands[address]
        assert (row.profile, row.tombstone) == (expected.profile, expected.tombstone)
        if expected.remaining is None:
            assert row.remaining is None
        else:
            assert row.remaining is not None
            assert expected.remaining - 0.001 <= row.remaining <= expected.remaining


@pytest.mark.parametrize(
    "work",
    [
        wire.Work(1, False, 0.0, (), ((9, b"1234", 32, -1, 0),)),
        wire.Work(1, False, 0.0, (), ((0, b"123", 32, -1, 0),)),
        wire.Work(1, False, 0.0, (), ((0, b"1234", 33, -1, 0),)),
        wire.Work(1, False, 0.0, (), ((3, b"1234", 32, -1, 0),)),
        wire.Work(1, False, 0.0, ("admitted",), ((3, b"1234", 32, 1, 0),)),
        wire.Work(1, False, 0.0, ("admitted",), ((0, b"1234", 32, 0, 0),)),
        wire.Work(1, True, 0.0, ("admitted",), ((3, b"1234", 32, 0, 0),)),
        wire.Work(1, False, 0.0, (), ((0, b"1234", 32, -1, 0),) * (wire.MOST_CHANGES + 1)),
        wire.Work(1, False, math.nan, ("admitted",), ((3, b"1234", 32, 0, 60_000),)),
        wire.Work(1, False, math.inf, (), ()),
    ],
)
def test_work_that_is_none_is_refused(work: wire.Work) -> None:
    with pytest.raises(wire.LinkProtocolError):
        packing.unpack_work(over(work), NOW, 60.0)


def test_a_renewal_is_small() -> None:
    """A thousand renewals fit a packet or two of a fast link: what 100,000 devices cost follows from it."""
    changes = [
        Change(ChangeKind.REFRESH, Address(n.to_bytes(4, "big"), 32), "admitted", NOW + 60.0) for n in range(1_000)
    ]
    assert len(wire.encode(packing.pack_work(1, changes, NOW, NOW, cut=False))) <= 16_000


@given(st.frozensets(ADDRESSES, max_size=20), st.booleans())
def test_what_others_changed_arrives(addresses: frozenset[Address], everything: bool) -> None:
    told = Strayed("somebody changed it", addresses, everything=everything)
    damage = wire.read_from_agent(wire.encode(packing.pack_damage(told)))
    assert isinstance(damage, wire.Damage)
    found = packing.unpack_damage(damage, "app")
    assert isinstance(found, Strayed)
    assert (found, found.addresses, found.everything) == ("app: somebody changed it", addresses, everything)


def test_damage_is_no_stray_and_too_many_strays_are_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = packing.unpack_damage(packing.pack_damage("the table is gone"), "app")
    assert plain == "app: the table is gone"
    assert not isinstance(plain, Strayed)
    monkeypatch.setattr(packing, "MOST_STRAYED", 1)
    many = packing.pack_damage(Strayed("a burst", (Address(bytes(4), 32), Address(bytes(3) + b"1", 32))))
    assert (len(many.strayed), many.everything) == (1, True)
    # An end that knows neither reads a plain damage, and everything is told again.
    older = msgspec.msgpack.decode(wire.encode(many))
    assert older[:2] == [8, "a burst"]


def test_a_proof_over_the_link_and_one_of_an_agent_that_knows_no_proof() -> None:
    one, two = Address.parse("10.0.0.1"), Address.parse("fd00::/64")
    stands = {one: Stands("admitted", 4.5, False), two: Stands("", None, True)}
    elements = {one: ("inet ragate admitted4 { 10.0.0.1 }",), two: ("inet ragate cut6n { fd00:: }",)}
    layers = {"host": Showing(True, "generation 7"), "rule": Showing(False, "none"), "x": Showing(None, "away")}
    sent = wire.encode(packing.pack_proof(3, [one, two], Proof(12.5, stands, elements, layers)))
    seen = wire.read_from_agent(sent)
    assert isinstance(seen, wire.Seen)
    assert seen.read == 12.5
    proof = packing.unpack_proof(seen, [one, two], 99.0)
    assert (proof.at, proof.stands, proof.layers) == (99.0, stands, layers)
    assert {address: tuple(named) for address, named in proof.elements.items()} == elements
    plain = wire.read_from_agent(wire.encode(packing.pack_seen(3, [one, two], stands)))
    assert isinstance(plain, wire.Seen)
    old = packing.unpack_proof(plain, [one, two], 99.0)
    assert (list(old.elements[one]), list(old.elements[two]), old.layers) == (["admitted"], ["cut"], {})
    with pytest.raises(wire.LinkProtocolError, match="does not fit"):
        packing.unpack_proof(seen, [one], 99.0)
