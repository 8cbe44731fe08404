"""The lifecycle: the full product of standings and events, and the facts that must hold for any history."""

from __future__ import annotations

import copy
from itertools import product
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.errors import LifecycleError
from gateway.core.lifecycle import MAX_NONCES, TABLE, Rules, Step, capped, event_of, fold, step, table_markdown
from gateway.core.lifecycle import table as lifecycle_table
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
K = EventKind
S = Standing

CLEAN = {standing: Record(standing) for standing in Standing} | {
    S.TRUSTED: Record(S.TRUSTED, T + 500.0, T - 400, (b"old",)),
    S.SUSPECT: Record(S.SUSPECT, T + 500.0, T - 400, (b"old",), suspected_since=T - 10.0),
    S.DISTRUSTED: Record(S.DISTRUSTED, None, T - 50, (b"f",), epoch=T - 50, debt=2),
    S.HELD: Record(S.HELD, None, T - 400, (b"old",), hold=True),
}
"""One record of each standing as a real history leaves it."""


def passed(issued: int, at: float | None = None, nonce: bytes = b"n", valid_until: int | None = None) -> Event:
    return Event(K.PASSED, issued + 0.5 if at is None else at, issued, valid_until, nonce, "PASS")


def failed(issued: int, nonce: bytes = b"f") -> Event:
    return Event(K.FAILED, issued + 0.5, issued, None, nonce, "FAILED_ATTEST")


def late(issued: int, at: float) -> Event:
    return Event(K.FAILED_LATE, at, issued, None, b"l", "FAILED_ATTEST")


def run(record: Record, *events: Event, rules: Rules = RULES) -> Step:
    result = Step(record, Effect.NONE, "")
    for event in events:
        result = step(result.record, event, rules)
    return result


# --- the table ----------------------------------------------------------------------------------------------------

EXPECTED: dict[EventKind, tuple[Standing, ...]] = {
    #                 retired     held    distrusted    suspect       lapsed        unknown       trusted
    K.PASSED: (S.RETIRED, S.HELD, S.DISTRUSTED, S.TRUSTED, S.TRUSTED, S.TRUSTED, S.TRUSTED),
    K.FAILED: (S.RETIRED, S.HELD, *(S.DISTRUSTED,) * 5),
    K.FAILED_LATE: (S.RETIRED, S.HELD, S.DISTRUSTED, *(S.SUSPECT,) * 4),
    K.REQUESTED: tuple(S),
    K.NOTED: tuple(S),
    K.HINTED: (S.RETIRED, S.HELD, S.DISTRUSTED, S.SUSPECT, S.LAPSED, S.UNKNOWN, S.SUSPECT),
    K.LAPSED: (S.RETIRED, S.HELD, S.DISTRUSTED, S.LAPSED, S.LAPSED, S.UNKNOWN, S.LAPSED),
    K.HELD: (S.RETIRED, *(S.HELD,) * 6),
    K.RELEASED: (S.RETIRED, S.LAPSED, S.DISTRUSTED, S.SUSPECT, S.LAPSED, S.UNKNOWN, S.TRUSTED),
    K.PASSPORT: tuple(S),
    K.RETIRED: (S.RETIRED,) * 7,
    K.REINSTATED: (S.UNKNOWN, S.HELD, S.DISTRUSTED, S.SUSPECT, S.LAPSED, S.UNKNOWN, S.TRUSTED),
    K.WITHHELD: (S.RETIRED, S.HELD, S.DISTRUSTED, S.SUSPECT, S.LAPSED, S.UNKNOWN, S.SUSPECT),
}


@pytest.mark.parametrize(("standing", "kind"), list(product(Standing, EventKind)))
def test_every_pair_is_listed_and_leads_where_it_should(standing: Standing, kind: EventKind) -> None:
    at = T + 1_000.0 if kind is K.LAPSED else T + 0.5
    result = step(CLEAN[standing], Event(kind, at, T, None, b"n"), RULES)
    assert result.record.standing is EXPECTED[kind][standing]
    assert result.why
    if result.effect in (Effect.NONE, Effect.REFUSED):
        assert result.record is CLEAN[standing]


def test_the_table_is_total() -> None:
    assert set(TABLE) == set(product(Standing, EventKind))


def test_an_unlisted_pair_is_an_error_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    short = {pair: handler for pair, handler in TABLE.items() if pair != (S.TRUSTED, K.FAILED)}
    monkeypatch.setattr(lifecycle_table, "TABLE", short)
    record = copy.copy(CLEAN[S.TRUSTED])
    with pytest.raises(LifecycleError, match="no rule"):
        step(record, failed(T), RULES)
    assert record == CLEAN[S.TRUSTED]


def test_the_page_in_the_documentation_is_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "lifecycle.md"
    assert page.read_text(encoding="utf-8") == table_markdown()


@pytest.mark.parametrize(
    "wrong", [{"recovery_passes": 0}, {"max_age": 0.0}, {"skew": -1.0}, {"grace": -1.0}, {"max_age": float("nan")}]
)
def test_rules_that_would_forget_a_failure_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="max_age"):
        Rules(**wrong)  # type: ignore[arg-type]


# --- passes -------------------------------------------------------------------------------------------------------


def test_a_pass_admits_until_the_earlier_of_maximum_age_and_valid_until() -> None:
    assert step(Record(), passed(T), RULES) == Step(
        Record(S.TRUSTED, T + 900.0, T, (b"n",)), Effect.RAISED, "passed attestation"
    )
    assert step(Record(), passed(T, valid_until=T + 60), RULES).record.deadline == T + 60.0
    assert step(Record(), passed(T, valid_until=T + 9_000), RULES).record.deadline == T + 900.0


@pytest.mark.parametrize("standing", [S.UNKNOWN, S.LAPSED])
def test_a_pass_whose_validity_is_over_does_not_admit(standing: Standing) -> None:
    result = step(Record(standing), passed(T, at=T + 20.0, valid_until=T + 20), RULES)
    assert (result.record.standing, result.record.deadline, result.effect) == (S.LAPSED, None, Effect.RECORDED)
    assert result.record.newest == T


@pytest.mark.parametrize("standing", [S.SUSPECT, S.DISTRUSTED, S.HELD])
def test_a_pass_whose_validity_is_over_clears_no_mark(standing: Standing) -> None:
    before = Record(standing, None, epoch=T - 50, debt=2, suspected_since=T - 60.0, hold=standing is S.HELD)
    after = step(before, passed(T, at=T + 20.0, valid_until=T + 20), RULES).record
    assert after == Record(
        standing, None, T, (b"n",), T - 50, debt=2, suspected_since=T - 60.0, hold=standing is S.HELD
    )


def test_trusted_keeps_the_later_deadline() -> None:
    first = step(Record(), passed(T), RULES).record
    longer = step(first, passed(T + 100), RULES)
    assert (longer.record.deadline, longer.effect) == (T + 1_000.0, Effect.EXTENDED)
    shorter = step(first, passed(T + 100, valid_until=T + 200), RULES)
    assert (shorter.record.deadline, shorter.effect) == (T + 900.0, Effect.RECORDED)
    assert shorter.record.newest == T + 100


def test_a_trusted_device_whose_deadlines_are_all_over_lapses_with_such_a_pass() -> None:
    before = Record(S.TRUSTED, T + 10.0, T)
    result = step(before, passed(T + 5, at=T + 20.0, valid_until=T + 15), RULES)
    assert (result.record.standing, result.record.deadline, result.effect) == (S.LAPSED, None, Effect.LOWERED)


def test_a_pass_older_than_the_newest_verdict_or_seen_before_is_refused() -> None:
    trusted = step(Record(), passed(T), RULES).record
    for event in (passed(T - 1, at=T + 1.0), passed(T, at=T + 1.0)):
        result = step(trusted, event, RULES)
        assert result.record is trusted
        assert result.effect is Effect.REFUSED


def test_nonces_of_the_newest_second_are_kept_and_bounded() -> None:
    record = step(Record(), passed(T, nonce=b"0"), RULES).record
    for i in range(1, MAX_NONCES):
        record = step(record, passed(T, nonce=b"%d" % i), RULES).record
    assert len(record.nonces) == MAX_NONCES
    refused = step(record, passed(T, nonce=b"one more"), RULES)
    assert (refused.record, refused.effect) == (record, Effect.REFUSED)
    assert step(record, failed(T, nonce=b"one more"), RULES).record.standing is S.DISTRUSTED
    assert step(record, passed(T + 1), RULES).record.nonces == (b"n",)


def test_suspect_needs_a_pass_issued_after_the_suspicion_and_the_skew() -> None:
    suspect = Record(S.SUSPECT, T + 500.0, T - 10, (b"o",), suspected_since=float(T))
    for issued in (T - 5, T, T + 2):
        result = step(suspect, passed(issued, at=T + 3.0), RULES)
        assert (result.record.standing, result.effect) == (S.SUSPECT, Effect.REFUSED)
        assert (result.record.deadline, result.record.newest) == (T + 500.0, issued)
    result = step(suspect, passed(T + 3), RULES)
    assert result.record == Record(S.TRUSTED, T + 903.0, T + 3, (b"n",))
    assert result.effect is Effect.RAISED


def test_recovery_takes_two_passes_the_second_issued_later() -> None:
    down = step(CLEAN[S.TRUSTED], failed(T), RULES).record
    assert (down.epoch, down.debt, down.paid_at, down.deadline) == (T, 2, 0, None)
    assert step(down, passed(T), RULES).effect is Effect.REFUSED  # not newer than the failure
    once = step(down, passed(T + 1), RULES)
    assert (once.record.standing, once.record.debt, once.record.paid_at) == (S.DISTRUSTED, 1, T + 1)
    again = step(once.record, passed(T + 1, nonce=b"m"), RULES)
    assert (again.record.standing, again.record.debt, again.effect) == (S.DISTRUSTED, 1, Effect.REFUSED)
    assert again.record.nonces == (b"n", b"m")
    twice = step(again.record, passed(T + 2), RULES)
    assert twice.record == Record(S.TRUSTED, T + 902.0, T + 2, (b"n",), epoch=T)
    assert twice.effect is Effect.RAISED


def test_a_new_failure_starts_the_recovery_anew() -> None:
    record = run(CLEAN[S.TRUSTED], failed(T), passed(T + 1), failed(T + 2)).record
    assert (record.debt, record.paid_at, record.epoch) == (2, 0, T + 2)


@pytest.mark.parametrize("standing", [S.UNKNOWN, S.LAPSED, S.SUSPECT, S.DISTRUSTED])
def test_marks_bind_from_any_standing(standing: Standing) -> None:
    marked = Record(standing, None, T, (b"f",), epoch=T, debt=2, suspected_since=T + 5.0)
    early = step(marked, passed(T + 6), RULES)
    assert (early.record.standing, early.record.debt, early.effect) == (standing, 2, Effect.REFUSED)
    once = step(early.record, passed(T + 8), RULES)
    assert (once.record.standing, once.record.debt, once.effect) == (standing, 1, Effect.RECORDED)
    twice = step(once.record, passed(T + 9), RULES)
    assert twice.record == Record(S.TRUSTED, T + 909.0, T + 9, (b"n",), epoch=T)


def test_debt_is_paid_beneath_a_hold_and_the_hold_stays() -> None:
    held = run(CLEAN[S.TRUSTED], failed(T), Event(K.HELD, T + 1.0, actor="op", reason="audit")).record
    paid = run(held, passed(T + 2), passed(T + 3))
    assert paid.record == Record(S.HELD, None, T + 3, (b"n",), epoch=T, hold=True)
    assert paid.effect is Effect.RECORDED
    assert run(held, Event(K.RELEASED, T + 4.0)).record.standing is S.DISTRUSTED
    assert run(paid.record, Event(K.RELEASED, T + 4.0)).record.standing is S.LAPSED


# --- failures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["pass first", "failure first"])
@pytest.mark.parametrize("standing", [S.UNKNOWN, S.LAPSED, S.SUSPECT, S.TRUSTED])
def test_in_one_second_the_failure_wins_in_either_order(standing: Standing, order: str) -> None:
    events = [passed(T), failed(T)] if order == "pass first" else [failed(T), passed(T)]
    record = run(CLEAN[standing], *events).record
    assert (record.standing, record.epoch, record.debt) == (S.DISTRUSTED, T, 2)
    assert set(record.nonces) == {b"n", b"f"}


@pytest.mark.parametrize("standing", [S.TRUSTED, S.SUSPECT, S.LAPSED, S.UNKNOWN])
def test_a_late_failure_suspects_without_probation(standing: Standing) -> None:
    result = step(CLEAN[standing], late(T - 300, T + 1.0), RULES)
    after = result.record
    assert (after.standing, after.deadline, after.epoch) == (S.SUSPECT, None, T - 300)
    assert after.suspected_since == (CLEAN[standing].suspected_since or T + 1.0)
    assert (after.newest, after.nonces) == (CLEAN[standing].newest, CLEAN[standing].nonces)
    assert result.effect is Effect.LOWERED
    assert step(after, Event(K.LAPSED, T + 1e6), RULES).record is after


def test_a_failure_dated_in_the_future_does_not_lock_the_device_out_until_then() -> None:
    suspect = step(CLEAN[S.TRUSTED], late(T + 86_400, float(T)), RULES).record
    assert (suspect.standing, suspect.epoch) == (S.SUSPECT, 0)
    assert step(suspect, passed(T + 3), RULES).record.standing is S.TRUSTED


def test_late_failures_are_marked_beneath_what_is_lower() -> None:
    for standing in (S.RETIRED, S.HELD, S.DISTRUSTED):
        after = step(CLEAN[standing], late(T - 5, float(T)), RULES)
        assert (after.record.standing, after.effect) == (standing, Effect.RECORDED)
        assert (after.record.suspected_since, after.record.epoch) == (T, T - 5)


# --- hints, requests, time ----------------------------------------------------------------------------------------


def test_a_hint_keeps_the_deadline_unless_the_book_cuts() -> None:
    trusted = CLEAN[S.TRUSTED]
    kept = step(trusted, Event(K.HINTED, float(T)), RULES)
    assert (kept.record.standing, kept.record.deadline) == (S.SUSPECT, trusted.deadline)
    assert (kept.record.suspected_since, kept.effect) == (T, Effect.LOWERED)
    assert step(trusted, Event(K.HINTED, float(T), cut=True), RULES).record.deadline is None
    again = step(kept.record, Event(K.HINTED, T + 1.0), RULES)
    assert (again.record, again.effect) == (kept.record, Effect.NONE)
    cut = step(kept.record, Event(K.HINTED, T + 1.0, cut=True), RULES)
    assert (cut.record.standing, cut.record.deadline, cut.effect) == (S.SUSPECT, None, Effect.LOWERED)
    assert cut.record.suspected_since == T


def test_only_a_solicited_request_shortens_the_deadline_and_only_once_per_pass() -> None:
    trusted = step(Record(), passed(T), RULES).record
    assert step(trusted, Event(K.REQUESTED, T + 1.0), RULES).record is trusted
    asked = step(trusted, Event(K.REQUESTED, T + 1.0, solicited=True), RULES)
    assert (asked.record.deadline, asked.record.graced, asked.effect) == (T + 301.0, True, Effect.EXTENDED)
    assert step(asked.record, Event(K.REQUESTED, T + 1.0, solicited=True), RULES).record is asked.record
    renewed = step(asked.record, passed(T + 2), RULES).record
    assert (renewed.deadline, renewed.graced) == (T + 902.0, False)
    near = step(trusted, Event(K.REQUESTED, T + 800.0, solicited=True), RULES)
    assert (near.record.deadline, near.record.graced, near.effect) == (T + 900.0, True, Effect.RECORDED)


@pytest.mark.parametrize("standing", [s for s in Standing if s is not S.TRUSTED])
def test_a_request_never_moves_anything_else(standing: Standing) -> None:
    result = step(CLEAN[standing], Event(K.REQUESTED, float(T), T, nonce=b"r", solicited=True), RULES)
    assert (result.record, result.effect) == (CLEAN[standing], Effect.RECORDED)


@pytest.mark.parametrize("standing", [S.TRUSTED, S.SUSPECT])
def test_a_timer_that_comes_early_does_nothing(standing: Standing) -> None:
    record = CLEAN[standing]
    assert record.deadline is not None
    early = step(record, Event(K.LAPSED, record.deadline - 0.001), RULES)
    assert (early.record, early.effect) == (record, Effect.NONE)
    due = step(record, Event(K.LAPSED, record.deadline), RULES)
    assert (due.record.standing, due.record.deadline, due.effect) == (S.LAPSED, None, Effect.LOWERED)
    assert due.record.suspected_since == record.suspected_since


# --- operators, inventory, start ----------------------------------------------------------------------------------


def test_marks_and_hold_survive_retirement() -> None:
    failed_once = step(CLEAN[S.TRUSTED], failed(T), RULES).record
    held = step(failed_once, Event(K.HELD, T + 1.0), RULES).record
    suspect = step(CLEAN[S.TRUSTED], late(T - 1, float(T)), RULES).record
    for record, beneath in ((failed_once, S.DISTRUSTED), (held, S.HELD), (suspect, S.SUSPECT)):
        retired = step(record, Event(K.RETIRED, T + 2.0), RULES).record
        assert retired.standing is S.RETIRED
        back = step(retired, Event(K.REINSTATED, T + 3.0), RULES).record
        assert back == Record(
            beneath,
            None,
            record.newest,
            record.nonces,
            record.epoch,
            record.debt,
            record.paid_at,
            record.suspected_since,
            record.hold,
            record.graced,
        )


def test_failures_and_holds_while_retired_count_when_reinstated() -> None:
    retired = Record(S.RETIRED)
    assert run(retired, failed(T), Event(K.REINSTATED, T + 1.0)).record.standing is S.DISTRUSTED
    assert run(retired, late(T - 9, float(T)), Event(K.REINSTATED, T + 1.0)).record.standing is S.SUSPECT
    held = run(retired, Event(K.HELD, float(T)))
    assert held.record.hold
    assert run(held.record, Event(K.REINSTATED, T + 1.0)).record.standing is S.HELD
    freed = run(held.record, Event(K.RELEASED, T + 1.0), Event(K.REINSTATED, T + 2.0))
    assert freed.record.standing is S.UNKNOWN


def test_withheld_is_suspect_without_a_deadline() -> None:
    for standing in (S.TRUSTED, S.SUSPECT):
        result = step(CLEAN[standing], Event(K.WITHHELD, float(T)), RULES)
        assert (result.record.standing, result.record.deadline) == (S.SUSPECT, None)
        assert (result.record.suspected_since, result.effect) == (T, Effect.LOWERED)


# --- any history --------------------------------------------------------------------------------------------------

seconds = st.integers(T - 200, T + 200)
events = st.builds(
    Event,
    kind=st.sampled_from(EventKind),
    at=st.integers(T - 200, T + 200).map(float),
    issued_at=seconds,
    valid_until=st.none() | st.integers(T - 200, T + 2_000),
    nonce=st.sampled_from([b"a", b"b", b"c"]),
    solicited=st.booleans(),
    cut=st.booleans(),
)
histories = st.lists(events, max_size=25)
any_rules = st.builds(
    Rules,
    max_age=st.sampled_from([5.0, 900.0]),
    recovery_passes=st.integers(1, 3),
    skew=st.sampled_from([0.0, 2.0]),
    grace=st.sampled_from([0.0, 300.0]),
)
CLIMBS = frozenset({K.PASSED, K.RELEASED, K.REINSTATED})


def access(record: Record) -> tuple[int, float]:
    """How much a record can admit at most: full, probation, nothing; and until when."""
    if record.deadline is None or record.standing not in (S.TRUSTED, S.SUSPECT):
        return 0, 0.0
    return (2 if record.standing is S.TRUSTED else 1), record.deadline


@settings(max_examples=150)
@given(histories, any_rules)
@example([passed(T), failed(T), passed(T + 1)], Rules())
def test_invariants_of_any_history(history: list[Event], rules: Rules) -> None:
    record = Record()
    for event in history:
        frozen = copy.copy(record)
        result = step(record, event, rules)
        assert record == frozen, "step changed its argument"
        after = result.record
        if after.standing is S.TRUSTED:
            assert after.deadline is not None
            assert (after.debt, after.suspected_since) == (0, 0.0)
        if after.standing not in (S.TRUSTED, S.SUSPECT):
            assert after.deadline is None
        assert (after.standing is S.HELD) <= after.hold
        assert after.newest >= record.newest
        assert after.epoch >= record.epoch
        assert len(after.nonces) <= MAX_NONCES
        if event.kind not in CLIMBS:
            assert access(after) <= access(record)
            assert after.debt >= record.debt
            assert after.suspected_since >= record.suspected_since
            assert result.effect is not Effect.RAISED
        if access(after) > access(record):
            assert event.kind is K.PASSED
            assert event.issued_at > record.epoch
            assert event.issued_at >= record.newest
            assert not record.suspected_since or event.issued_at > record.suspected_since + rules.skew
            assert record.debt <= 1
            assert after.deadline is not None
            assert event.at < after.deadline <= event.issued_at + rules.max_age
        if result.effect is Effect.NONE:
            assert after is record
        record = after


@given(histories)
def test_after_a_failure_no_single_pass_restores_trust(history: list[Event]) -> None:
    record = run(Record(), *history).record
    down = step(record, failed(T + 500), RULES).record
    for kind in (None, K.HELD, K.RELEASED, K.RETIRED, K.REINSTATED, K.LAPSED, K.HINTED, K.WITHHELD):
        between = down if kind is None else step(down, Event(kind, T + 501.0), RULES).record
        assert step(between, passed(T + 502), RULES).record.standing is not S.TRUSTED


@given(histories, st.sampled_from([K.RETIRED, K.HELD]))
def test_no_detour_clears_a_mark(history: list[Event], detour: EventKind) -> None:
    record = run(Record(), *history).record
    back = K.REINSTATED if detour is K.RETIRED else K.RELEASED
    after = run(record, Event(detour, T + 300.0), Event(back, T + 301.0)).record
    assert (after.epoch, after.debt, after.paid_at) == (record.epoch, record.debt, record.paid_at)
    assert (after.suspected_since, after.newest) == (record.suspected_since, record.newest)
    assert access(after) <= access(record)


# --- verdicts and the fold ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outcome", "timeliness"), list(product(Outcome, Timeliness)))
def test_event_of_keeps_failures_and_never_raises_on_stale_passes(outcome: Outcome, timeliness: Timeliness) -> None:
    verdict = Verdict(
        DeviceId("cam-1"), SourceName("v"), outcome, T, timeliness, b"n", "WORD", "tcp:10.0.0.1", T + 60
    )
    event = event_of(verdict, T + 1.0, solicited=True)
    fresh = timeliness is Timeliness.FRESH
    assert (
        event.kind
        is {
            Outcome.PASSED: K.PASSED if fresh else K.NOTED,
            Outcome.FAILED: K.FAILED if fresh else K.FAILED_LATE,
            Outcome.REJECTED: K.FAILED if fresh else K.FAILED_LATE,
            Outcome.REQUESTED: K.REQUESTED,
            Outcome.NOTED: K.NOTED,
            Outcome.DOUBTED: K.HINTED if fresh else K.NOTED,
        }[outcome]
    )
    assert (event.at, event.issued_at, event.valid_until) == (T + 1.0, T, T + 60)
    assert (event.nonce, event.reason, event.actor, event.cut) == (b"n", "WORD", "", False)
    assert event.solicited is (outcome is Outcome.REQUESTED)


def test_fold_takes_the_lowest_standing_and_the_earliest_deadline() -> None:
    trusted, sooner = Record(S.TRUSTED, 900.0), Record(S.TRUSTED, 800.0)
    suspect, cut = Record(S.SUSPECT, 850.0), Record(S.SUSPECT)
    assert fold([]) == (S.UNKNOWN, None)
    assert fold([trusted]) == (S.TRUSTED, 900.0)
    assert fold([trusted, sooner]) == (S.TRUSTED, 800.0)
    assert fold([trusted, suspect]) == (S.SUSPECT, 850.0)
    assert fold([suspect, sooner]) == (S.SUSPECT, 800.0)
    assert fold([trusted, cut]) == (S.SUSPECT, None)
    assert fold([trusted, Record()]) == (S.UNKNOWN, None)
    assert fold([suspect, Record(S.LAPSED)]) == (S.SUSPECT, None)
    assert fold([suspect, Record(S.DISTRUSTED)]) == (S.DISTRUSTED, None)


records = st.builds(
    lambda standing, deadline: Record(standing, deadline if standing in (S.TRUSTED, S.SUSPECT) else None),
    st.sampled_from(Standing),
    st.floats(1.0, 1e9),
)


@given(st.lists(records, min_size=1, max_size=4))
def test_fold_admits_no_more_than_any_of_its_records(folded: list[Record]) -> None:
    standing, deadline = fold(folded)
    assert standing is min(record.standing for record in folded)
    assert all(access(Record(standing, deadline)) <= access(record) for record in folded)
    assert fold(list(reversed(folded))) == (standing, deadline)


# --- a maximum age that was lowered ------------------------------------------------------------------------------


def test_a_lowered_maximum_age_counts_from_the_newest_verdict() -> None:
    record = Record(Standing.TRUSTED, deadline=1_900.0, newest=1_000)
    assert capped(record, Rules(max_age=300.0)).deadline == 1_300.0
    assert capped(record, Rules(max_age=300.0)) == record._replace(deadline=1_300.0)


@pytest.mark.parametrize(
    "record",
    [
        Record(Standing.TRUSTED, deadline=1_300.0, newest=1_000),
        Record(Standing.TRUSTED, deadline=1_200.0, newest=1_000),
        Record(Standing.DISTRUSTED, deadline=None, newest=1_000),
        Record(Standing.TRUSTED, deadline=1_900.0, newest=0),
    ],
    ids=["just so long", "shorter", "admits nothing", "never a verdict"],
)
def test_a_maximum_age_never_makes_a_record_better_and_leaves_others_alone(record: Record) -> None:
    assert capped(record, Rules(max_age=300.0)) is record
