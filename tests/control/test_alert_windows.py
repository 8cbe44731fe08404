"""Alerts in sliding windows: exactly the book's number within exactly its time, in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.control.alert_windows import Windows
from gateway.core.policy import AlertThreshold

THREE = AlertThreshold(8, 3, 60.0)


def windows(threshold: AlertThreshold | None = THREE, most: int = 1_000) -> Windows:
    made = Windows(most)
    made.use(threshold)
    return made


def test_the_third_within_a_minute_reaches_three_in_a_minute() -> None:
    made = windows()
    assert [made.add("cam-1", at) for at in (0.0, 30.0, 60.0)] == [False, False, True]


def test_the_first_of_them_leaves_the_window() -> None:
    made = windows()
    assert [made.add("cam-1", at) for at in (0.0, 30.0, 60.1, 89.9)] == [False, False, False, True]


def test_each_device_for_itself() -> None:
    made = windows()
    assert not any(made.add(name, at) for at, name in enumerate(("a", "b", "a", "b")))
    assert made.add("a", 5.0)


def test_without_a_threshold_nothing_is_reached_or_kept() -> None:
    made = windows(None)
    assert not any(made.add("a", float(at)) for at in range(10))
    assert not made.standing("a", 0.0)


def test_by_another_threshold_counting_begins_anew() -> None:
    made = windows()
    made.add("a", 1.0)
    made.add("a", 2.0)
    made.use(AlertThreshold(8, 2, 60.0))
    assert not made.add("a", 3.0)
    assert made.add("a", 4.0)
    made.use(AlertThreshold(8, 2, 60.0))  # the same: nothing is forgotten
    assert made.add("a", 5.0)


def test_what_comes_late_counts_for_the_time_at_which_it_was() -> None:
    made = windows()
    assert [made.add("a", at) for at in (100.0, 130.0, 10.0)] == [False, False, False]
    assert made.add("a", 120.0)


def test_whether_they_still_stand() -> None:
    made = windows()
    for at in (0.0, 10.0, 20.0):
        made.add("t", at)
    assert made.standing("t", 60.0)
    assert not made.standing("t", 60.1)


def test_memory_is_bounded_and_the_quietest_go_first() -> None:
    made = windows(AlertThreshold(1, 3, 60.0), most=4)
    for name in ("old", "new", "new", "third", "new"):
        made.add(name, 1.0)
    assert made.forgotten == 1
    assert not made.add("old", 1.0)
    assert made.forgotten == 2
    assert made.standing("new", 1.0)


@given(st.lists(st.floats(0, 200), min_size=1, max_size=30), st.integers(1, 5), st.floats(1, 100))
def test_it_is_what_looking_at_all_of_them_gives(moments: list[float], count: int, within: float) -> None:
    made = windows(AlertThreshold(1, count, within))
    seen: list[float] = []
    for at in moments:
        seen = sorted([*seen, at])
        newest = seen[-count:]
        expected = len(newest) == count and newest[-1] - newest[0] <= within
        assert made.add("a", at) is expected
