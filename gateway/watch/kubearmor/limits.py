"""How much is taken of KubeArmor's streams, and what is lost by it: told exactly where anybody can know.

What must not live here: reading, or what an alert means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

#: Why something that was said did not get on: ``malformed`` bytes; ``source`` too many of one source in a second;
#: ``throttled`` KubeArmor says that it drops a container's alerts itself (one a time that it says so); ``outbox`` a
#: host's own queue to the gateway was full; ``link`` lost between a host and the gateway.
LOSSES = ("malformed", "source", "throttled", "outbox", "link")


class Tally:
    """What an ear has counted since it began.

    ``heard`` messages by stream; ``lost`` by one of ``LOSSES``; ``pauses`` by stream: times that reading stood
    still because a second's worth had been read (what the daemon then drops beyond its queue of 1,000, nobody
    counts); ``breaks`` by stream: times that it ended; ``up``: streams that are open now.
    """

    def __init__(self, streams: Iterable[str]) -> None:
        self.streams = tuple(streams)
        self.heard: Counter[str] = Counter(dict.fromkeys(self.streams, 0))
        self.lost: Counter[str] = Counter(dict.fromkeys(LOSSES, 0))
        self.pauses: Counter[str] = Counter(dict.fromkeys(self.streams, 0))
        self.breaks: Counter[str] = Counter(dict.fromkeys(self.streams, 0))
        self.up: set[str] = set()


class Budget:
    """So many messages in each second of boot time, no more: what a burst leaves waits in the daemon's queue."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most
        self._ends = 0.0

    def take(self, boot: float) -> float:
        """Take one at ``boot`` and return the seconds to wait before the next; 0.0: none."""
        if boot >= self._ends:
            self._ends = boot + 1.0
            self._left = self._most
        self._left -= 1
        return 0.0 if self._left > 0 else self._ends - boot


class SourceLimit:
    """So many alerts of one source in each second. Memory is bounded by the budgets of the streams."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._ends = 0.0
        self._taken: Counter[object] = Counter()

    def takes(self, source: object, boot: float) -> bool:
        """Whether one more of ``source`` is taken at ``boot``."""
        if boot >= self._ends:
            self._ends = boot + 1.0
            self._taken.clear()
        if self._taken[source] >= self._most:
            return False
        self._taken[source] += 1
        return True
