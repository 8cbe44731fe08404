"""One heap for all deadlines: nothing early, nothing lost, renewals do not grow it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.control.timers import Deadlines


def test_due_keys_come_earliest_first_and_once() -> None:
    timers: Deadlines[str] = Deadlines()
    timers.set("b", 2.0)
    timers.set("a", 1.0)
    timers.set("c", 9.0)
    assert timers.next() == 1.0
    assert timers.pop(5.0, 10) == ["a", "b"]
    assert timers.pop(5.0, 10) == []
    assert len(timers) == 1


def test_the_limit_leaves_the_rest_for_the_next_turn() -> None:
    timers: Deadlines[int] = Deadlines()
    for key in range(5):
        timers.set(key, 1.0)
    assert len(timers.pop(1.0, 3)) == 3
    assert len(timers.pop(1.0, 3)) == 2


def test_a_renewal_moves_the_deadline_and_adds_no_heap_entry() -> None:
    timers: Deadlines[str] = Deadlines()
    for due in range(1, 1_000):
        timers.set("a", float(due))
    assert timers.pop(500.0, 10) == []
    assert timers.pop(998.5, 10) == []
    assert timers.pop(999.0, 10) == ["a"]
    assert timers.next() is None


def test_a_deadline_that_comes_nearer_fires_at_the_nearer_time_only() -> None:
    timers: Deadlines[str] = Deadlines()
    timers.set("a", 100.0)
    timers.set("a", 5.0)
    assert timers.next() == 5.0
    assert timers.pop(5.0, 10) == ["a"]
    assert timers.pop(200.0, 10) == []


def test_a_cleared_key_never_fires() -> None:
    timers: Deadlines[str] = Deadlines()
    timers.set("a", 1.0)
    timers.clear("a")
    assert timers.pop(2.0, 10) == []
    timers.set("a", 3.0)
    assert timers.pop(3.0, 10) == ["a"]


actions = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 5), st.integers(0, 50)),
        st.tuples(st.just("clear"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("pop"), st.integers(0, 50), st.integers(1, 4)),
    ),
    max_size=60,
)


@given(actions)
def test_property_it_behaves_like_a_plain_dictionary_of_due_times(script: list[tuple[str, int, int]]) -> None:
    timers: Deadlines[int] = Deadlines()
    model: dict[int, float] = {}
    for word, one, two in script:
        if word == "set":
            timers.set(one, float(two))
            model[one] = float(two)
        elif word == "clear":
            timers.clear(one)
            model.pop(one, None)
        else:
            got = timers.pop(float(one), two)
            due = {key for key, at in model.items() if at <= one}
            assert set(got) <= due
            assert len(got) == min(two, len(due))
            for key in got:
                del model[key]
        nearest = timers.next()
        if model:
            assert nearest is not None
            assert nearest <= min(model.values())
    assert len(timers) == len(model)
