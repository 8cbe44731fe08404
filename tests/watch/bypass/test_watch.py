"""When the watch looks, and what it asks for each time: with a looker of the test's own instead of a kernel."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import pytest

from gateway.watch.bypass import Bypass, BypassWatch
from gateway.watch.bypass import watch as module

PATIENCE = 60.0
#: Seconds that asking for the devices' routes takes here.
ASKING = 0.005


class Look(NamedTuple):
    """One look: whether routes were asked for, and from when to when."""

    anew: bool
    began: float
    ended: float


class Restless:
    """A looker on a host where something changes during every look."""

    def __init__(self, changed: Callable[[], object]) -> None:
        self.looks: list[Look] = []
        self.closed = False
        self._changed = changed

    def look(self, *, anew: bool, rest: float) -> tuple[Bypass, ...]:
        began = time.monotonic()
        time.sleep(ASKING if anew else 0.0)
        self.looks.append(Look(anew, began, time.monotonic()))
        self._changed()
        return ()

    def close(self) -> None:
        self.closed = True


async def test_routes_are_asked_for_a_small_share_of_the_time_whatever_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only lower bounds are compared, which no busy machine can break: the loop's clock is the one read here."""
    mine, other = socket.socketpair()
    monkeypatch.setattr(module, "changes", lambda: mine)
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.0)
    loop = asyncio.get_running_loop()
    watch = BypassWatch(["10.2.0.1"], ["10.1.0.7"], lambda _: None)
    looker = Restless(lambda: loop.call_soon_threadsafe(watch._changed.set))
    monkeypatch.setattr(watch, "_looker", looker)
    working = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(PATIENCE):
            while sum(look.anew for look in looker.looks) < 4:
                assert not working.done()
                await asyncio.sleep(0.01)
    finally:
        working.cancel()
        await asyncio.wait((working,))
        other.close()
    assert looker.closed
    asked = [look for look in looker.looks if look.anew]
    assert looker.looks[0].anew, "at the start nothing is known"
    for before, after in pairwise(asked):
        assert after.began - before.ended >= (before.ended - before.began) / module.ANEW_SHARE
    assert len(looker.looks) > 2 * len(asked), "the rest is looked at after each change"
