"""Encoding: what goes in comes out, and nothing hostile in a string can stop it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.ports import Entry
from gateway.core.errors import Refusal
from gateway.core.model import (
    Applied,
    DeviceId,
    Effect,
    Enforced,
    Event,
    EventKind,
    Record,
    Rejected,
    SourceName,
    Standing,
    Transition,
)
from gateway.core.policy import Override
from gateway.journal import outcomes, rows
from gateway.journal.plain import plain_fact
from tests.journal import samples
from tests.journal.stored import times

numbers = st.integers(0, 2**63 - 1)
moments = st.floats(0, 1e12, allow_nan=False)
texts = st.text()
hostile = st.text(st.characters(exclude_categories=()))  # with lone surrogates
nonces = st.binary(max_size=32)
devices = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z").map(DeviceId)
sources = texts.map(SourceName)

records = st.builds(
    Record,
    standing=st.sampled_from(Standing),
    deadline=st.none() | moments,
    newest=numbers,
    nonces=st.lists(nonces, max_size=4).map(tuple),
    epoch=numbers,
    debt=st.integers(0, 100),
    paid_at=numbers,
    suspected_since=moments,
    hold=st.booleans(),
    graced=st.booleans(),
)
events = st.builds(
    Event,
    kind=st.sampled_from(EventKind),
    at=moments,
    issued_at=numbers,
    valid_until=st.none() | numbers,
    nonce=nonces,
    reason=texts,
    actor=texts,
    solicited=st.booleans(),
    cut=st.booleans(),
)


def stored(row: rows.FactRow) -> rows.StoredRow:
    return rows.StoredRow(*row[:7], *times(row))


@given(records)
def test_a_record_comes_back_exactly(record: Record) -> None:
    assert rows.decode_record(rows.encode_record(record)) == record


def test_the_bytes_of_rows_stay_what_other_versions_read() -> None:
    fact = samples.failed(2).fact
    record = samples.failed(2).record
    assert isinstance(fact, Transition)
    assert isinstance(record, Record)
    told = (
        '{"event":"failed","effect":"lowered","why":"a signed failure","before":{"standing":6,'
        '"deadline":1795284300.0,"newest":1795283402,"nonces":["02020202020202020202020202020202"]},%s'
        '"issued_at":1795283402,"nonce":"07070707070707070707070707070707","reason":"FAILED_ATTEST"}'
    )
    left = (
        '{"standing":2,"deadline":1795284300.0,"newest":1795283402,'
        '"nonces":["02020202020202020202020202020202"],"epoch":1795283402,"debt":2}'
    )
    place = (7, samples.WALL, "transition", "cam-1", "verifier")
    kept = rows.encode_entry(7, fact, record, samples.WALL, 1_900.0)
    assert tuple(kept) == (*place, told % "", left, samples.WALL + 900, 1_900.0)
    unkept = rows.encode_entry(7, fact, None, samples.WALL)
    assert tuple(unkept) == (*place, told % f'"after":{left},', None, None, None)
    odd = Record(Standing.HELD, None, 5, (b"\1", b"\2"), 3, 2, 1, 9.5, hold=True, graced=True)
    assert rows.encode_record(odd) == (
        '{"standing":1,"newest":5,"nonces":["01","02"],"epoch":3,"debt":2,"paid_at":1,"suspected_since":9.5,'
        '"hold":true,"graced":true}'
    )
    answer = outcomes.encode_outcome(3, samples.enforced())
    assert answer == (3, "gateway", "nft", "admitted", "verified", "", 1.0, 2.5, None)


def test_a_record_that_never_was_suspected_says_nothing_of_it() -> None:
    plain = rows.encode_record(samples.trusted())
    assert "suspected_since" not in plain
    # A zero of its own, as one that was read or reckoned, and one that an older program wrote.
    assert rows.encode_record(samples.trusted()._replace(suspected_since=float("0"))) == plain
    assert rows.decode_record(plain[:-1] + ',"suspected_since":0.0}') == samples.trusted()


@pytest.mark.parametrize("deadline", [math.inf, -math.inf, math.nan])
def test_a_record_that_would_never_end_is_refused(deadline: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        rows.encode_record(Record(Standing.TRUSTED, deadline))


@given(st.text(max_size=40))
def test_only_declared_errors_for_other_text(text: str) -> None:
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        rows.decode_record(text)


@given(
    devices,
    sources,
    events,
    records,
    records,
    st.sampled_from(Effect),
    texts,
    st.sampled_from(["after", "before", "none"]),
)
def test_a_transition_comes_back_exactly(
    device: DeviceId,
    source: SourceName,
    event: Event,
    before: Record,
    after: Record,
    effect: Effect,
    why: str,
    leaves: str,
) -> None:
    fact = Transition(device, source, event, before, after, effect, why)
    record = {"after": after, "before": before, "none": None}[leaves]
    row = stored(rows.encode_entry(7, fact, record, samples.WALL))
    assert rows.decode_transition(row) == fact
    assert (None if row.record is None else rows.decode_record(row.record)) == record


@given(hostile, hostile, hostile, hostile)
def test_hostile_text_becomes_a_row_all_the_same(device: str, peer: str, detail: str, why: str) -> None:
    rejected = Rejected(samples.SOURCE, Refusal.ORDER, detail, peer, samples.WALL, device, authentic=True)
    fact = samples.passed().fact
    assert isinstance(fact, Transition)
    for odd in (rejected, fact._replace(why=why, event=fact.event._replace(reason=detail))):
        row = rows.encode_entry(1, odd, None, samples.WALL)
        for text in (row.device, row.source, row.body):
            text.encode()
        shown = plain_fact(stored(row), ())
        msgspec.json.encode(shown)
    kept = stored(rows.encode_entry(1, rejected, None, samples.WALL))
    assert plain_fact(kept, ())["refusal"] == "order"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(texts, json_values, max_size=5))
def test_a_note_keeps_its_fields(fact: Mapping[str, Any]) -> None:
    note = rows.prepare(fact)
    shown = plain_fact(stored(rows.encode_entry(1, note, None, samples.WALL)), ())
    for key, value in fact.items():
        if key not in {"seq", "at", "kind", "device", "source", "outcome"}:
            assert shown[key] == value


@pytest.mark.parametrize("value", [object(), {("a", "b"): 1}, {1, object()}])
def test_a_note_that_json_cannot_carry_is_the_callers_mistake(value: object) -> None:
    with pytest.raises(TypeError):
        rows.prepare({"kind": "odd", "value": value})


def test_outcome_times_are_milliseconds_since_the_envelope() -> None:
    row = outcomes.encode_outcome(3, samples.enforced())
    assert (row.seq, row.accepted_ms, row.verified_ms, row.durable_ms) == (3, 1.0, 2.5, None)
    timer = outcomes.encode_outcome(3, samples.enforced(received=0.0))
    assert (timer.accepted_ms, timer.verified_ms, timer.durable_ms) == (None, None, None)


@given(st.floats(1, 1e7), st.floats(-10, 1e4))
def test_outcome_times_are_rounded_to_microseconds(received: float, after: float) -> None:
    fact = samples.enforced()._replace(received=received, accepted=max(received + after, 0.001))
    found = outcomes.encode_outcome(3, fact).accepted_ms
    exact = (fact.accepted - received) * 1_000
    assert found is not None
    assert found == round(found, 3)
    assert abs(found - exact) <= 0.000_500_1
    assert math.copysign(1, found) == 1 or found < 0  # no -0.0


@pytest.mark.parametrize("moment", [1e300, math.inf, math.nan])
def test_an_absurd_time_is_no_reason_to_stop_writing(moment: float) -> None:
    outcomes.encode_outcome(3, samples.enforced()._replace(verified=moment))


@pytest.mark.parametrize(
    ("state", "detail", "received", "worth"),
    [
        (Applied.FAILED, "", 0.0, True),
        (Applied.FAILED, "full", 5.0, True),
        (Applied.VERIFIED, "repaired", 0.0, True),
        (Applied.VERIFIED, "", 0.0, False),
        (Applied.VERIFIED, "shared address", 5.0, False),
    ],
)
def test_which_outcomes_deserve_a_row(state: Applied, detail: str, received: float, worth: bool) -> None:
    fact = Enforced(DeviceId("a"), "gateway", "nft", "deny", state, detail, received, 0.0, 0.0)
    assert outcomes.worth_a_row(fact) is worth


@pytest.mark.parametrize(
    ("until_boot", "wall", "told"),
    [
        (None, 4.0, (6.0, 106.0)),
        (None, 40.0, (0.0, 70.0)),  # over already
        (103.0, 4.0, (3.0, 103.0)),  # the wall clock was set back since
        (103.0, 40.0, (0.0, 103.0)),
        (120.0, 4.0, (6.0, 120.0)),  # it was set forward since
        (90.0, 4.0, (0.0, 90.0)),
        (math.inf, 4.0, (6.0, 106.0)),
        (math.nan, 4.0, (6.0, 106.0)),
    ],
)
def test_what_is_left_is_told_by_the_clock_that_leaves_less(
    until_boot: float | None, wall: float, told: tuple[float, float]
) -> None:
    assert rows.times_left(10.0, until_boot, wall, 100.0) == told


def test_what_is_left_is_never_minus_zero() -> None:
    for number in rows.times_left(0.0, -0.0, 0.0, 0.0):
        assert math.copysign(1.0, number) == 1.0


def test_what_is_aggregated() -> None:
    assert rows.unauthenticated(samples.refused())
    assert not rows.unauthenticated(samples.replayed())
    assert not rows.unauthenticated(samples.passed())
    assert not rows.unauthenticated(Entry({"kind": "note"}))


@given(
    st.text(max_size=20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.text(max_size=40),
)
def test_an_override_comes_back(profile: str, until: float, actor: str, reason: str) -> None:
    word = Override(DeviceId("cam-1"), profile, until, actor, reason)
    found = rows.decode_override("cam-1", rows.encode_override(word))
    assert (found.device, found.until) == (word.device, word.until)
    clean = [text.encode("utf-8", "backslashreplace").decode() for text in (profile, actor, reason)]
    assert [found.profile, found.actor, found.reason] == clean


def test_an_override_that_cannot_be_kept_is_told_to_the_caller() -> None:
    word = Override(DeviceId("cam-1"), "deny", 60.0, "unix:ann", "x")
    with pytest.raises(ValueError, match="must be finite"):
        rows.prepare({"device": "cam-1"}, word._replace(until=float("nan")))
    for fact in ({"device": "cam-2"}, {}, {"device": "cam-1", "source": "verifier"}):
        with pytest.raises(ValueError, match="names its device and no source"):
            rows.prepare(fact, word)
