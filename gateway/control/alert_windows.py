"""Counting alerts in sliding windows of time, exactly and within a bound of memory.

What must not live here: what an alert is, or what follows from too many.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable

from gateway.core.policy import AlertThreshold

#: Moments kept over all keys: 8 bytes each and as much again for the lists, a few megabytes.
MOMENTS_MOST = 200_000


class Windows:
    """For each key, the newest alerts that a threshold needs. Moments are boot seconds, in any order.

    ``forgotten``: keys given up because ``MOMENTS_MOST`` was reached, those first whose last alert is oldest.
    """

    def __init__(self, most: int = MOMENTS_MOST) -> None:
        self._most = most
        self._kept = 0
        self._of: dict[Hashable, list[float]] = {}
        self._threshold: AlertThreshold | None = None
        self.forgotten = 0

    def use(self, threshold: AlertThreshold | None) -> None:
        """Count by this threshold from here on; by another one than before, everything begins anew."""
        if threshold != self._threshold:
            self._threshold = threshold
            self._of.clear()
            self._kept = 0

    def add(self, key: Hashable, at: float) -> bool:
        """Take one alert about ``key``; whether its threshold is reached with it."""
        threshold = self._threshold
        if threshold is None:
            return False
        moments = self._of.pop(key, None)
        if moments is None:
            moments = []
        self._of[key] = moments  # the newest key is the last
        insort(moments, at)
        self._kept += 1
        if len(moments) > threshold.alerts:
            del moments[0]
            self._kept -= 1
        while self._kept > self._most and len(self._of) > 1:
            self.forget(next(iter(self._of)))
            self.forgotten += 1
        return len(moments) == threshold.alerts and moments[-1] - moments[0] <= threshold.within

    def forget(self, key: Hashable) -> None:
        """Begin anew with one key."""
        self._kept -= len(self._of.pop(key, ()))

    def standing(self, key: Hashable, now: float) -> bool:
        """Whether as many alerts as the threshold names lie within its time before ``now``."""
        threshold, moments = self._threshold, self._of.get(key)
        if threshold is None or moments is None:
            return False
        return len(moments) == threshold.alerts and now - moments[0] <= threshold.within
