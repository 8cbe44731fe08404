"""Deadlines of many connections on one timer. No sockets here."""

from __future__ import annotations

import asyncio
from typing import Protocol

TICK_SECONDS = 0.25  #: how late a deadline may be noticed; none of them is a promise about a cut


class Timed(Protocol):
    """What has a deadline: ``deadline`` in loop seconds, ``filed`` the tick under which the wheel finds it."""

    deadline: float
    filed: int

    def due(self) -> None:
        """Its deadline has passed."""
        ...


class Wheel:
    """Calls ``due`` of everything whose deadline has passed.

    Moving a deadline later costs nothing: what is found too early is filed again.
    """

    def __init__(self) -> None:
        self._ticks: dict[int, dict[Timed, None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._done = int(self._loop.time() / TICK_SECONDS)

    def set(self, timed: Timed, seconds: float) -> None:
        """Let the deadline be ``seconds`` from now."""
        timed.deadline = self._loop.time() + seconds
        tick = int(timed.deadline / TICK_SECONDS) + 1
        if not timed.filed:
            self._file(timed, tick)
        elif tick < timed.filed:
            self._ticks[timed.filed].pop(timed, None)
            self._file(timed, tick)

    def drop(self, timed: Timed) -> None:
        """Forget it: nothing of a connection that is over may stay."""
        tick, timed.filed = self._ticks.get(timed.filed), 0
        if tick is not None:
            tick.pop(timed, None)

    def stop(self) -> None:
        """Call nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ticks.clear()

    def _file(self, timed: Timed, tick: int) -> None:
        timed.filed = tick
        self._ticks.setdefault(tick, {})[timed] = None
        if self._timer is None:
            self._done = int(self._loop.time() / TICK_SECONDS)
            self._timer = self._loop.call_later(TICK_SECONDS, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = self._loop.time()
        present = int(now / TICK_SECONDS)
        ticks = range(self._done + 1, present + 1)
        # After a long stall there are fewer entries than ticks: look at what is there.
        passed = ticks if len(ticks) <= len(self._ticks) else sorted(t for t in self._ticks if t <= present)
        for tick in passed:
            # Of those that are due one may end another.
            for timed in tuple(self._ticks.pop(tick, ())):
                timed.filed = 0
                if timed.deadline <= now:
                    timed.due()
                else:
                    self._file(timed, int(timed.deadline / TICK_SECONDS) + 1)
        self._done = present
        if self._ticks and self._timer is None:
            self._timer = self._loop.call_later(TICK_SECONDS, self._turn)
