"""Looking for garbage often, and when nothing else is to be done."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from gateway.app import process


class Node:
    """Refers to itself, so that only the collector can take it away."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """The process of the tests goes on as it was."""
    thresholds = gc.get_threshold()
    process.settle_garbage()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


async def looked(at_rest: Callable[[], bool], done: Callable[[], bool], rounds: int = 200) -> bool:
    """Whether ``done`` came true within so many moments."""
    task = asyncio.create_task(process.collect_at_rest(at_rest))
    try:
        for _ in range(rounds):
            if done():
                return True
            await asyncio.sleep(process.LOOK_SECONDS)
        return done()
    finally:
        task.cancel()


def garbage() -> weakref.ref[Node]:
    """A circle that nobody refers to."""
    return weakref.ref(Node())


async def test_garbage_goes_at_rest_however_little_it_is() -> None:
    gone = garbage()
    assert gone() is not None
    assert await looked(lambda: True, lambda: gone() is None)


async def test_a_look_waits_for_rest_and_not_for_ever() -> None:
    asked = 0
    seen: list[int] = []
    gone = garbage()

    def at_rest() -> bool:
        nonlocal asked
        seen.append(0 if gone() is None else asked)
        asked += 1
        return False

    assert await looked(at_rest, lambda: gone() is None)
    assert seen[: process.LOOKS_LEFT_OUT + 1] == list(range(process.LOOKS_LEFT_OUT + 1))


async def test_what_a_look_leaves_is_not_walked_again() -> None:
    """A verdict brings as many values as it takes away: by the interpreter's count nothing is new, and what is
    young would grow until a look at it took as long as the state of all devices is large."""
    state = {number: [number] for number in range(20_000)}
    assert await looked(lambda: True, lambda: _young(state) == 0)
    for number in state:
        state[number] = [number]
    assert gc.get_count()[0] < process.YOUNG_OBJECTS
    assert _young(state) > 15_000
    assert await looked(lambda: True, lambda: _young(state) == 0)


def _young(state: dict[int, list[int]]) -> int:
    """How many values of a state the interpreter would walk at its next look."""
    walked = {id(each) for generation in range(3) for each in gc.get_objects(generation)}
    return sum(id(value) in walked for value in state.values())


async def test_the_interpreter_never_walks_what_has_stayed() -> None:
    gc.callbacks.append(note := _Noted())
    try:
        stays = [[number] for number in range(50 * process.YOUNG_OBJECTS)]
    finally:
        gc.callbacks.remove(note)
    assert len(stays) == 50 * process.YOUNG_OBJECTS
    assert set(note.generations) == {0}


class _Noted:
    def __init__(self) -> None:
        self.generations: list[int] = []

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self.generations.append(info["generation"])
