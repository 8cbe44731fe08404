"""The last steps of every verification plan: raising is strict, lowering is generous."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.acceptance import WINDOW_FUTURE, WINDOW_PAST, Window, weigh
from gateway.core.errors import Refusal
from gateway.core.model import Outcome, Record, Standing, Timeliness

NOW = 1_800_000_000
WINDOW = Window()

records = st.builds(
    Record,
    standing=st.sampled_from(Standing),
    newest=st.integers(NOW - 200, NOW + 5) | st.just(0),
    nonces=st.lists(st.sampled_from([b"a", b"b"]), max_size=2, unique=True).map(tuple),
    epoch=st.integers(NOW - 200, NOW + 5) | st.just(0),
)
issued = st.integers(NOW - 300, NOW + 10)
nonces = st.sampled_from([b"a", b"b", b"c"])


@given(records, issued, nonces)
def test_a_pass_that_is_taken_satisfies_every_step(record: Record, at: int, nonce: bytes) -> None:
    timeliness, refusal = weigh(Outcome.PASSED, at, nonce, record, NOW, WINDOW)
    satisfied = (
        NOW - WINDOW_PAST <= at <= NOW + WINDOW_FUTURE
        and at > record.newest
        and at > record.epoch
        and record.standing is not Standing.RETIRED
    )
    assert (refusal is None) is satisfied
    assert not satisfied or timeliness is Timeliness.FRESH


@given(records, issued, nonces, st.sampled_from([Outcome.FAILED, Outcome.REJECTED]))
def test_a_failure_is_refused_only_when_it_is_accounted_for(
    record: Record, at: int, nonce: bytes, outcome: Outcome
) -> None:
    timeliness, refusal = weigh(outcome, at, nonce, record, NOW, WINDOW)
    known = (at == record.newest and nonce in record.nonces) or 0 < record.epoch >= at
    assert (refusal is not None) is known
    if refusal is None and NOW - WINDOW_PAST <= at <= NOW + WINDOW_FUTURE:
        assert timeliness is (Timeliness.LATE if at < record.newest else Timeliness.FRESH)


@pytest.mark.parametrize(
    ("outcome", "age"), list(product([Outcome.REQUESTED, Outcome.NOTED, Outcome.DOUBTED], [-3, -2, 0, 120, 121]))
)
def test_what_neither_raises_nor_fails_must_be_fresh_and_nothing_else(outcome: Outcome, age: int) -> None:
    record = Record(Standing.RETIRED, newest=NOW + 5, nonces=(b"a",), epoch=NOW + 5)
    _, refusal = weigh(outcome, NOW - age, b"a", record, NOW, WINDOW)
    assert (refusal is None) is (-2 <= age <= 120)
    assert refusal is None or refusal[0] is Refusal.FRESHNESS


def test_the_window_is_an_argument() -> None:
    assert weigh(Outcome.PASSED, NOW - 11, b"a", Record(), NOW, Window(10, 0))[1] is not None
    assert weigh(Outcome.PASSED, NOW + 1, b"a", Record(), NOW, Window(10, 0))[1] is not None
    assert weigh(Outcome.PASSED, NOW - 10, b"a", Record(), NOW, Window(10, 0))[1] is None
