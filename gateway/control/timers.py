"""One heap for all deadlines: arming is cheap, moving a deadline later costs nothing until it fires.

A key is armed at most once. When its entry comes up before the deadline it now has (it was extended meanwhile),
it is put back; so renewals never grow the heap. Times are boot seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """Keys with the boot time at which each is due."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._armed: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._serial = 0  # makes heap entries comparable whatever the key is

    def __len__(self) -> int:
        return len(self._due)

    def set(self, key: K, due: float) -> None:
        """Make ``key`` due at ``due``, replacing what was set before."""
        self._due[key] = due
        armed = self._armed.get(key)
        if armed is None or due < armed:
            self._push(key, due)

    def clear(self, key: K) -> None:
        """Forget ``key``; its heap entry is dropped when it comes up."""
        self._due.pop(key, None)

    def next(self) -> float | None:
        """When to look again, or None when nothing is armed. Never later than the earliest due time."""
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float, limit: int) -> list[K]:
        """Take up to ``limit`` keys that are due at ``now``, earliest first."""
        due: list[K] = []
        while self._heap and self._heap[0][0] <= now and len(due) < limit:
            at, _, key = heapq.heappop(self._heap)
            if self._armed.get(key) != at:
                continue  # an earlier entry took this one's place
            del self._armed[key]
            wanted = self._due.get(key)
            if wanted is None:
                continue
            if wanted > now:
                self._push(key, wanted)
                continue
            del self._due[key]
            due.append(key)
        return due

    def _push(self, key: K, due: float) -> None:
        self._armed[key] = due
        self._serial += 1
        heapq.heappush(self._heap, (due, self._serial, key))
