"""Looking for garbage when nothing else is to be done."""

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
    """Whether ``done`` came true within so many looks."""
    task = asyncio.create_task(process.collect_at_rest(at_rest))
    try:
        for _ in range(rounds):
            if done():
                return True
            await asyncio.sleep(process.LOOK_SECONDS)
        return done()
    finally:
        task.cancel()


def garbage(count: int) -> weakref.ref[Node]:
    """So many circles that nobody refers to; the last of them."""
    for _ in range(count):
        last = Node()
    return weakref.ref(last)


async def test_garbage_goes_at_rest() -> None:
    gone = garbage(process.YOUNG_AT_REST)
    assert gone() is not None
    assert await looked(lambda: True, lambda: gone() is None)


async def test_nothing_is_looked_at_while_something_is_under_way() -> None:
    resting = False
    gone = garbage(process.YOUNG_AT_REST)
    assert not await looked(lambda: resting, lambda: gone() is None, rounds=10)
    resting = True
    assert await looked(lambda: resting, lambda: gone() is None)


async def test_a_little_is_not_worth_a_look() -> None:
    gone = garbage(10)
    assert not await looked(lambda: True, lambda: gone() is None, rounds=10)


async def test_what_has_grown_is_taken_for_what_stays() -> None:
    """Else every later look at all would take longer than the one before."""
    before = gc.get_freeze_count()
    stays = [Node() for _ in range(process.GROWN_AT_REST // 4)]
    assert not await looked(lambda: True, lambda: gc.get_freeze_count() > before, rounds=5)
    stays += [Node() for _ in range(process.GROWN_AT_REST)]
    assert await looked(lambda: True, lambda: gc.get_freeze_count() >= before + len(stays))
    assert all(gc.is_tracked(node) for node in stays)


async def test_what_came_while_nothing_rested_counts_as_grown() -> None:
    """Under load the interpreter looks by itself; that, too, must be looked through at the next rest."""
    before = gc.get_freeze_count()
    stays = [Node() for _ in range(process.GROWN_AT_REST + process.YOUNG_AT_REST)]
    assert gc.get_count()[1] >= 1
    assert await looked(lambda: True, lambda: gc.get_freeze_count() >= before + len(stays))


async def test_the_interpreter_never_walks_what_has_stayed() -> None:
    gc.callbacks.append(note := _Noted())
    try:
        stays = [[number] for number in range(5 * process.YOUNG_OBJECTS)]
    finally:
        gc.callbacks.remove(note)
    assert len(stays) == 5 * process.YOUNG_OBJECTS
    assert set(note.generations) == {0}


class _Noted:
    def __init__(self) -> None:
        self.generations: list[int] = []

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self.generations.append(info["generation"])
