"""What is told by another host's clock never comes late, however far apart the clocks are and however slow the
way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.agentlink.clocks import DRIFT, ClockBound

TRAVEL = st.floats(0.0, 30.0)
PACE = st.floats(-DRIFT / 2, DRIFT / 2)


@given(
    st.floats(-1e6, 1e6),
    PACE,
    PACE,
    st.lists(st.tuples(st.floats(0.01, 20.0), TRAVEL), min_size=1, max_size=60),
    st.floats(0.0, 100.0),
)
def test_the_bound_is_never_late(
    apart: float, our_pace: float, their_pace: float, beats: list[tuple[float, float]], later: float
) -> None:
    """Beats leave at true times and take their time; both clocks run at paces of their own."""

    def ours(true: float) -> float:
        return 1e6 + true * (1 + our_pace)

    def theirs(true: float) -> float:
        return 1e6 + apart + true * (1 + their_pace)

    bound = ClockBound()
    true = 0.0
    arrivals = []
    for pause, travel in beats:
        true += pause
        arrivals.append((true + travel, theirs(true)))
    for arrival, said in sorted(arrivals):
        bound.learn(said, ours(arrival))
    now = max(arrival for arrival, _ in arrivals) + later
    least = bound.theirs_at_least(ours(now))
    assert least <= theirs(now) + 1e-4
    assert (
        least >= theirs(now) - min(travel for _, travel in beats[-30:]) - later * 3 * DRIFT - 600 * 3 * DRIFT - 31.0
    )


def test_the_quickest_message_counts() -> None:
    bound = ClockBound()
    for travel in (3.0, 0.001, 2.0):
        bound.learn(50.0, 1_000.0 + travel)
    assert bound.theirs_at_least(1_003.0) == pytest.approx(50.0 + 3.0 - 0.001, abs=0.01)
    assert bound.ours_at_most(50.0) == pytest.approx(1_000.001)


def test_before_anything_was_said_there_is_no_bound() -> None:
    for ask in (ClockBound().theirs_at_least, ClockBound().ours_at_most):
        with pytest.raises(LookupError):
            ask(1.0)
