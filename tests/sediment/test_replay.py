from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sediment.replay import PER_SECOND, REMEMBERED, Repeat, ReplayMemory

BEGIN = 1_000.0
AHEAD = 2.0
FIRST = 1_003  #: the first second that a message may carry


def nonce(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def take(memory: ReplayMemory, stamp: int, number: int, now: float = 2_000.0, device: str = "a") -> Repeat | None:
    why = memory.judge(device, stamp, nonce(number), now)
    if why is None:
        memory.remember(device, stamp, nonce(number))
    return why


def test_a_message_is_taken_once() -> None:
    memory = ReplayMemory(BEGIN, AHEAD)
    assert take(memory, FIRST, 1) is None
    assert take(memory, FIRST, 1) is Repeat.REPLAYED
    assert take(memory, FIRST, 2) is None
    assert take(memory, FIRST + 1, 1) is None
    assert take(memory, FIRST, 1, device="b") is None


def test_what_an_earlier_process_may_have_taken_is_refused() -> None:
    memory = ReplayMemory(BEGIN, AHEAD)
    assert take(memory, int(BEGIN + AHEAD), 1) is Repeat.OLD
    assert take(memory, int(BEGIN), 1) is Repeat.OLD
    assert take(memory, FIRST, 1) is None


def test_what_is_refused_because_of_the_start_alone_says_for_how_long() -> None:
    memory = ReplayMemory(BEGIN, AHEAD)
    for at in (BEGIN, BEGIN + 0.5, FIRST - 0.25):
        wait = memory.too_early(int(at), at)
        assert 0 < wait <= AHEAD + 1
        assert take(memory, int(at + wait), 7, now=at + wait) is None
        memory = ReplayMemory(BEGIN, AHEAD)
    assert memory.too_early(int(BEGIN), FIRST + 0.0) == 0.0  # a replay of before the start
    assert memory.too_early(FIRST, FIRST - 0.5) == 0.0  # refused for what it is, if at all


def test_what_is_ahead_of_our_clock_is_refused() -> None:
    memory = ReplayMemory(BEGIN, AHEAD)
    assert take(memory, FIRST + 3, 1, now=float(FIRST)) is Repeat.AHEAD
    assert take(memory, FIRST + 2, 1, now=float(FIRST)) is None


def test_so_many_of_one_second_and_no_more() -> None:
    memory = ReplayMemory(BEGIN, AHEAD)
    for number in range(PER_SECOND):
        assert take(memory, FIRST, number) is None
    assert take(memory, FIRST, PER_SECOND) is Repeat.MANY
    assert take(memory, FIRST, 0) is Repeat.REPLAYED
    assert take(memory, FIRST + 1, 0) is None
    assert len(memory) == 1
    assert take(memory, FIRST, PER_SECOND + 1) is Repeat.OLD


@given(
    st.lists(st.tuples(st.integers(FIRST - 2, FIRST + 30), st.integers(0, 5), st.sampled_from("ab")), max_size=120)
)
def test_nothing_is_ever_taken_twice_and_memory_stays_small(sent: list[tuple[int, int, str]]) -> None:
    memory = ReplayMemory(BEGIN, AHEAD)
    taken: set[tuple[int, int, str]] = set()
    for message in sent:
        stamp, number, device = message
        if take(memory, stamp, number, device=device) is None:
            assert message not in taken
            assert stamp > BEGIN + AHEAD
            taken.add(message)
        assert len(memory) <= 2 * (REMEMBERED + 6)


@pytest.mark.parametrize("rate", [1, 5, 200])
def test_a_device_that_sends_one_after_the_other_is_never_refused(rate: int) -> None:
    memory = ReplayMemory(BEGIN, AHEAD)
    for number in range(600):
        assert take(memory, FIRST + number // rate, number) is None
    assert len(memory) <= max(REMEMBERED, 2 * rate)


def test_a_restart_takes_nothing_that_the_process_before_it_took() -> None:
    """Whatever the first process took, the second, begun at any later moment, refuses."""
    first = ReplayMemory(BEGIN, AHEAD)
    now = BEGIN + 10
    for stamp in range(int(BEGIN), int(BEGIN) + 20):
        if take(first, stamp, stamp, now=now) is None:
            second = ReplayMemory(now, AHEAD)
            assert second.judge("a", stamp, nonce(stamp), now + 100) is Repeat.OLD
