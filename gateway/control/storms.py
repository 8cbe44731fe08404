"""When somebody keeps undoing what is repaired: at what pace to go on. Pure; told the time.

A repair now and then is made at once. Whoever changes the same things again and again is not fought but alarmed
about: repairs go on, each later than the one before, up to a pace that still ends what was opened within seconds.
"""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 60.0
"""Repairs count for so long."""
CALM_REPAIRS = 5
"""Repairs within the window that are made at once: a clumsy administrator makes one or two."""
FIRST_WAIT = 0.5
LONGEST_WAIT = 5.0
"""Seconds from one repair to the next in a storm, doubling: the longest is half of the ten seconds in which any
difference is to be repaired."""


class Storm:
    """Paces the repairs of one thing."""

    def __init__(self) -> None:
        self._repairs: deque[float] = deque()

    def repaired(self, now: float) -> float:
        """Note a repair at ``now`` (seconds of any steady clock); returns for how long to leave it at that."""
        self._forget(now)
        self._repairs.append(now)
        beyond = len(self._repairs) - CALM_REPAIRS
        if beyond <= 0:
            return 0.0
        return float(min(FIRST_WAIT * 2.0 ** (beyond - 1), LONGEST_WAIT))

    def raging(self, now: float) -> bool:
        """Whether more was repaired lately than is made at once."""
        self._forget(now)
        return len(self._repairs) > CALM_REPAIRS

    def _forget(self, now: float) -> None:
        while self._repairs and now - self._repairs[0] > WINDOW_SECONDS:
            self._repairs.popleft()
