"""What a step says of itself: the effect, the words, and what it leaves alone, over a grid of histories."""

from __future__ import annotations

from itertools import product

import pytest

from gateway.core.lifecycle import MAX_NONCES, Rules, Step, event_of, fold, step
from gateway.core.model import (
    DeviceId,
    Effect,
    Event,
    EventKind,
    Outcome,
    Record,
    SourceName,
    Standing,
    Timeliness,
    Verdict,
)

T = 1_795_283_400
RULES = Rules()
K, S, E = EventKind, Standing, Effect
ADMITTING = (S.TRUSTED, S.SUSPECT)


def _records() -> list[Record]:
    """Records of every standing, with every combination of marks that can stand beside it."""
    found = []
    for standing, epoch, debt, suspected, hold, graced in product(
        Standing, (0, T - 50), (0, 1, 2), (0.0, T - 10.0), (False, True), (False, True)
    ):
        if standing is S.TRUSTED and (debt or suspected or hold):
            continue
        if (standing is S.HELD and not hold) or (standing not in (S.HELD, S.RETIRED) and hold):
            continue
        paid_at = T - 20 if debt == 1 else 0
        record = Record(standing, None, T - 5, (b"old",), epoch, debt, paid_at, suspected, hold, graced)
        deadlines = {S.TRUSTED: (T + 200.0, T + 9_000.0), S.SUSPECT: (None, T + 200.0)}.get(standing, (None,))
        found += [record._replace(deadline=deadline) for deadline in deadlines]
    return found


RECORDS = _records()
EVENTS = [
    Event(kind, T + after, T + issued, valid, b"new", reason, solicited=bool(reason), cut=bool(reason))
    for kind, after, issued, valid, reason in product(
        K, (-300.0, 0.5, 1_000.0), (-60, -5, 0), (None, T - 1), ("", "word")
    )
]
LASTING = {K.FAILED, K.FAILED_LATE, K.REQUESTED, K.NOTED}
"""What is always worth an entry in the journal."""


def expected(before: Record, event: Event, after: Record) -> set[Effect]:
    """The effects that a step may claim, from what it did and no more."""
    if before.deadline is not None and after.deadline is None:
        return {E.LOWERED}
    if after.standing > before.standing:
        return {E.RAISED}
    if after.standing < before.standing:
        # A pass that admits nothing took nothing away: unknown and lapsed are both outside.
        return {E.RECORDED} if event.kind is K.PASSED else {E.LOWERED}
    if after.deadline != before.deadline:
        return {E.EXTENDED}
    if event.kind is K.PASSED:
        return {E.RECORDED, E.REFUSED}
    if event.kind in LASTING:
        return {E.RECORDED}
    beneath = before.standing is S.RETIRED and event.kind in (K.HELD, K.RELEASED)
    again = before.standing is S.SUSPECT and event.kind is K.WITHHELD
    return {E.RECORDED} if beneath or again else {E.NONE}


@pytest.mark.parametrize("kind", K)
def test_the_effect_is_what_happened(kind: EventKind) -> None:
    for before, event in product(RECORDS, [event for event in EVENTS if event.kind is kind]):
        after, effect, why = step(before, event, RULES)
        assert effect in expected(before, event, after), (before, event, after)
        assert isinstance(why, str)
        assert why


def _kept(before: Record, kind: EventKind) -> Record:
    """The marks that an event of this kind cannot touch, as a record to compare with."""
    free = {
        K.PASSED: ("newest", "nonces", "debt", "paid_at", "suspected_since", "graced"),
        K.FAILED: ("newest", "nonces", "epoch", "debt", "paid_at"),
        K.FAILED_LATE: ("epoch", "suspected_since"),
        K.REQUESTED: ("graced",),
        K.HINTED: ("suspected_since",),
        K.WITHHELD: ("suspected_since",),
        K.HELD: ("hold",),
        K.RELEASED: ("hold",),
    }.get(kind, ())
    blank = Record()
    return before._replace(standing=S.UNKNOWN, deadline=None, **{name: getattr(blank, name) for name in free})


@pytest.mark.parametrize("kind", K)
def test_marks_change_only_by_the_events_that_are_about_them(kind: EventKind) -> None:
    for before, event in product(RECORDS, [event for event in EVENTS if event.kind is kind]):
        after = step(before, event, RULES).record
        assert _kept(after, kind) == _kept(before, kind)


@pytest.mark.parametrize("kind", K)
def test_only_what_admits_has_a_deadline_and_trust_always_has_one(kind: EventKind) -> None:
    for before, event in product(RECORDS, [event for event in EVENTS if event.kind is kind]):
        after = step(before, event, RULES).record
        assert after.deadline is None or after.standing in ADMITTING
        assert after.deadline is not None or after.standing is not S.TRUSTED


def test_a_hold_and_a_release_set_and_clear_the_mark() -> None:
    for before in RECORDS:
        assert step(before, Event(K.HELD, float(T)), RULES).record.hold
        assert not step(before, Event(K.RELEASED, float(T)), RULES).record.hold


def test_a_suspicion_is_dated_by_its_first_late_failure_and_its_last_hint() -> None:
    for before in RECORDS:
        late = step(before, Event(K.FAILED_LATE, float(T), T - 60), RULES).record
        assert late.suspected_since == (before.suspected_since or T)
        for kind in (K.HINTED, K.WITHHELD):
            for at in (T - 300.0, float(T)):
                after = step(before, Event(kind, at), RULES).record
                marks = before.standing is S.TRUSTED or (before.standing is S.SUSPECT and kind is K.WITHHELD)
                assert after.suspected_since == (
                    max(before.suspected_since, at) if marks else before.suspected_since
                )


# --- failures and the memory of nonces ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("issued", "nonce", "known", "newest", "kept"),
    [
        (T, b"f", (b"a",), T, (b"a", b"f")),
        (T, b"a", (b"a",), T, (b"a",)),
        (T - 1, b"f", (b"a",), T, (b"a",)),
        (T + 1, b"f", (b"a",), T + 1, (b"f",)),
        (T, b"f", (b"a",) * (MAX_NONCES - 1), T, (*(b"a",) * (MAX_NONCES - 1), b"f")),
        (T, b"f", (b"a",) * MAX_NONCES, T, (b"a",) * MAX_NONCES),
    ],
)
def test_a_failure_leaves_its_nonce_in_its_own_second(
    issued: int, nonce: bytes, known: tuple[bytes, ...], newest: int, kept: tuple[bytes, ...]
) -> None:
    before = Record(S.LAPSED, None, T, known)
    after = step(before, Event(K.FAILED, T + 2.0, issued, None, nonce), RULES).record
    assert (after.standing, after.newest, after.nonces) == (S.DISTRUSTED, newest, kept)


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_an_older_failure_keeps_the_epoch_and_owes_all_passes_again(passes: int) -> None:
    before = Record(S.DISTRUSTED, None, T, (b"a",), epoch=T, debt=1, paid_at=T - 1)
    after = step(before, Event(K.FAILED, T + 2.0, T - 9, None, b"f"), Rules(recovery_passes=passes)).record
    assert (after.epoch, after.debt, after.paid_at) == (T, passes, 0)


@pytest.mark.parametrize(("issued", "epoch"), [(T - 10, T - 10), (T, T), (T + 1, 0)])
def test_a_late_failure_is_an_epoch_up_to_this_very_moment(issued: int, epoch: int) -> None:
    after = step(Record(S.LAPSED), Event(K.FAILED_LATE, float(T), issued), RULES).record
    assert after.epoch == epoch


# --- words --------------------------------------------------------------------------------------------------------

SUSPECT = Record(S.SUSPECT, T + 60.0)
TRUSTED = Record(S.TRUSTED, T + 60.0)
HELD = Record(S.HELD, hold=True)


@pytest.mark.parametrize(
    ("record", "kind", "reason", "why"),
    [
        (TRUSTED, K.FAILED, "FAILED_AUTH", "failed attestation (FAILED_AUTH)"),
        (TRUSTED, K.FAILED, "", "failed attestation"),
        (TRUSTED, K.FAILED_LATE, "FAILED_AUTH", "authentic failure, but not fresh"),
        (TRUSTED, K.NOTED, "SUCCESS", "noted (SUCCESS)"),
        (TRUSTED, K.NOTED, "", "noted"),
        (TRUSTED, K.REQUESTED, "", "re-attestation was requested"),
        (TRUSTED, K.HINTED, "shell", "hint of failure (shell)"),
        (TRUSTED, K.HINTED, "", "hint of failure"),
        (SUSPECT, K.HINTED, "shell", "hint of failure: already suspect"),
        (TRUSTED, K.LAPSED, "", "the deadline has not passed yet"),
        (Record(S.SUSPECT), K.LAPSED, "", "no deadline to pass"),
        (TRUSTED, K.HELD, "audit", "held: audit"),
        (TRUSTED, K.HELD, "", "held by an operator"),
        (HELD, K.RELEASED, "done", "released: done"),
        (HELD, K.RELEASED, "", "released by an operator"),
        (HELD, K.HELD, "again", "no effect"),
        (Record(S.RETIRED), K.HELD, "x", "hold recorded, the device is retired"),
        (Record(S.RETIRED), K.RELEASED, "x", "release recorded, the device is retired"),
        (Record(S.RETIRED), K.PASSED, "PASS", "pass refused: the device is retired"),
        (Record(S.RETIRED), K.REINSTATED, "", "the inventory lists the device again"),
        (TRUSTED, K.RETIRED, "", "the inventory no longer lists the device"),
        (TRUSTED, K.WITHHELD, "a tombstone stands", "withheld: a tombstone stands"),
    ],
)
def test_the_words_name_what_happened(record: Record, kind: EventKind, reason: str, why: str) -> None:
    assert step(record, Event(kind, float(T), T, None, b"n", reason), RULES).why == why


PASSED_WORDS = [
    (Record(newest=T + 1), T, None, b"n", "pass refused: older than the newest accepted verdict"),
    (Record(newest=T, nonces=(b"n",)), T, None, b"n", "pass refused: its nonce was seen before"),
    (Record(newest=T, nonces=(b"a",) * 32), T, None, b"n", "pass refused: too many verdicts issued in one second"),
    (Record(epoch=T), T, None, b"n", "pass does not count: not issued after the last failure"),
    (Record(suspected_since=T - 2.0), T, None, b"n", "pass does not count: not issued after the suspicion"),
    (
        Record(debt=1, paid_at=T),
        T,
        None,
        b"n",
        "pass does not count towards recovery: not issued later than the one before",
    ),
    (Record(debt=2), T, None, b"n", "passed, 1 more needed to recover from the failure"),
    (Record(), T, T, b"n", "pass does not admit: its validity is over"),
    (Record(), T, None, b"n", "passed attestation"),
    (HELD, T, None, b"n", "passed, recorded beneath the operator's hold"),
    (Record(S.TRUSTED, T + 900.0), T, None, b"n", "passed again, the deadline stays"),
    (Record(S.TRUSTED, T + 899.0), T, None, b"n", "passed again, the deadline moves on"),
]


@pytest.mark.parametrize(("record", "issued", "valid", "nonce", "why"), PASSED_WORDS)
def test_a_pass_names_the_mark_that_binds_it(
    record: Record, issued: int, valid: int | None, nonce: bytes, why: str
) -> None:
    assert step(record, Event(K.PASSED, float(T), issued, valid, nonce), RULES).why == why


@pytest.mark.parametrize(
    ("record", "event", "result"),
    [
        (HELD, Event(K.PASSED, float(T), T, T, b"n"), (S.HELD, E.RECORDED)),
        (HELD._replace(epoch=T), Event(K.PASSED, float(T), T, None, b"n"), (S.HELD, E.RECORDED)),
        (HELD._replace(newest=T + 1), Event(K.PASSED, float(T), T, None, b"n"), (S.HELD, E.REFUSED)),
        (Record(epoch=T), Event(K.PASSED, float(T), T, None, b"n"), (S.UNKNOWN, E.REFUSED)),
    ],
)
def test_a_pass_beneath_a_hold_is_recorded_whatever_binds_it(
    record: Record, event: Event, result: tuple[Standing, Effect]
) -> None:
    after = step(record, event, RULES)
    assert (after.record.standing, after.effect) == result


def test_a_request_within_the_grace_says_so() -> None:
    asked = Event(K.REQUESTED, float(T), T, solicited=True)
    cut = step(Record(S.TRUSTED, T + 301.0), asked, RULES)
    assert cut == Step(
        Record(S.TRUSTED, T + 300.0, graced=True),
        E.EXTENDED,
        "re-attestation requested by us, the deadline is cut to the grace",
    )
    near = step(Record(S.TRUSTED, T + 300.0), asked, RULES)
    assert near == Step(
        Record(S.TRUSTED, T + 300.0, graced=True),
        E.RECORDED,
        "re-attestation requested by us, the deadline is within the grace already",
    )


def test_a_suspect_gets_the_deadline_of_its_pass_and_no_longer_one() -> None:
    for deadline in (None, T + 9_000.0):
        after = step(Record(S.SUSPECT, deadline), Event(K.PASSED, float(T), T), RULES).record
        assert (after.standing, after.deadline) == (S.TRUSTED, T + 900.0)


def test_no_suspicion_binds_no_pass_however_old() -> None:
    after = step(Record(), Event(K.PASSED, 1.5, 1), RULES).record
    assert (after.standing, after.deadline) == (S.TRUSTED, 901.0)


def test_passes_of_one_second_pay_once_whatever_their_number() -> None:
    record = Record(S.DISTRUSTED, epoch=T - 5, debt=2)
    for nonce in (b"a", b"b", b"c", b"d"):
        record = step(record, Event(K.PASSED, float(T), T, None, nonce), RULES).record
        assert (record.standing, record.debt, record.paid_at) == (S.DISTRUSTED, 1, T)


def test_a_trusted_record_without_a_deadline_cannot_be_and_breaks_nothing() -> None:
    asked = step(Record(S.TRUSTED), Event(K.REQUESTED, float(T), T, solicited=True), RULES)
    assert (asked.record, asked.effect) == (Record(S.TRUSTED), E.RECORDED)
    passed = step(Record(S.TRUSTED), Event(K.PASSED, float(T), T), RULES)
    assert passed.record.deadline == T + 900.0


# --- weights ------------------------------------------------------------------------------------------------------


def test_the_standard_weights() -> None:
    assert MAX_NONCES == 32
    assert Rules() == Rules(max_age=900.0, recovery_passes=2, skew=2.0, grace=300.0)
    Rules(max_age=0.001, recovery_passes=1, skew=0.0, grace=0.0)
    assert RULES.with_own(max_age=None, recovery_passes=None) == RULES
    assert RULES.with_own(max_age=5.0, recovery_passes=None) == Rules(max_age=5.0)
    assert RULES.with_own(max_age=None, recovery_passes=3) == Rules(recovery_passes=3)


def test_only_a_solicited_request_is_one() -> None:
    for record in (TRUSTED, TRUSTED._replace(graced=True)):
        unasked = step(record, Event(K.REQUESTED, float(T), T), RULES)
        assert (unasked.record, unasked.effect) == (record, E.RECORDED)


@pytest.mark.parametrize("outcome", [Outcome.REQUESTED, Outcome.PASSED])
def test_a_verdict_is_solicited_only_when_we_asked_for_it(outcome: Outcome) -> None:
    verdict = Verdict(DeviceId("cam-1"), SourceName("v"), outcome, T, Timeliness.FRESH, b"n", "WORD", "")
    assert not event_of(verdict, T + 1.0).solicited
    assert not event_of(verdict, T + 1.0, solicited=False).solicited
    assert event_of(verdict, T + 1.0, solicited=True).solicited is (outcome is Outcome.REQUESTED)


# --- the fold -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "quorum", "folded"),
    [
        # A deadline beside a standing that admits nothing gives no end to admit until.
        ([Record(S.LAPSED, 5.0)], None, (S.LAPSED, None)),
        ([Record(S.HELD, 5.0), Record(S.TRUSTED, 4.0)], None, (S.HELD, None)),
        ([Record(S.SUSPECT, 50.0), Record(S.TRUSTED, 60.0)], 2, (S.SUSPECT, 50.0)),
        ([Record(S.SUSPECT, 50.0), Record(S.TRUSTED, 60.0)], 3, (S.SUSPECT, None)),
        # Nobody is trusted without an end.
        ([Record(S.TRUSTED)], 1, (S.UNKNOWN, None)),
        ([Record(S.TRUSTED), Record(S.TRUSTED, 9.0)], 1, (S.TRUSTED, 9.0)),
        ([Record(S.TRUSTED, 9.0), Record(S.LAPSED), Record(S.UNKNOWN)], 2, (S.LAPSED, None)),
    ],
)
def test_the_fold_gives_no_end_without_an_admission(
    records: list[Record], quorum: int | None, folded: tuple[Standing, float | None]
) -> None:
    assert fold(records, quorum) == folded
