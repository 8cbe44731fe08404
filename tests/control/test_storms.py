"""At what pace repairs go on when somebody keeps undoing them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.control.storms import CALM_REPAIRS, LONGEST_WAIT, WINDOW_SECONDS, Storm


def test_a_few_repairs_are_made_at_once_and_then_ever_later() -> None:
    storm = Storm()
    assert [storm.repaired(1.0) for _ in range(CALM_REPAIRS)] == [0.0] * CALM_REPAIRS
    assert not storm.raging(1.0)
    waits = [storm.repaired(2.0) for _ in range(8)]
    assert waits == sorted(waits)
    assert waits[0] > 0
    assert waits[-1] == LONGEST_WAIT
    assert storm.raging(3.0)
    # It is over once nothing was repaired for a while.
    assert not storm.raging(3.0 + WINDOW_SECONDS)
    assert storm.repaired(3.0 + WINDOW_SECONDS) == 0.0


@given(st.lists(st.floats(0, 30), max_size=60))
def test_no_wait_is_longer_than_what_a_difference_may_last(gaps: list[float]) -> None:
    storm, now = Storm(), 0.0
    for gap in gaps:
        now += gap
        wait = storm.repaired(now)
        assert 0.0 <= wait <= LONGEST_WAIT < 10.0
        assert (wait > 0) is storm.raging(now)
