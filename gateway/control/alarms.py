"""Alarms of this host's resources: above the book's share for as long as the book says; over when not, as long.

An alarm tells people; it changes no standing and no profile. What must not live here: measuring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.control.devices import Devices
from gateway.control.ports import Notice, Usage
from gateway.core.model import Instant
from gateway.core.policy import ResourceThreshold

RESOURCES = ("cpu", "memory")
"""What a book can have thresholds for."""


class _Watched:
    """One resource. ``since``: boot seconds from which on it has been on the other side of the threshold than
    ``raised`` says, without a gap; None: it is on the same."""

    __slots__ = ("raised", "said", "since", "threshold")

    def __init__(self) -> None:
        self.threshold: ResourceThreshold | None = None
        self.raised = False
        self.said = ""
        self.since: float | None = None


class Alarms:
    """Implements the ``Timed`` port. ``usage`` gives the newest sample."""

    def __init__(self, devices: Devices, usage: Callable[[], Usage | None]) -> None:
        self._devices = devices
        self._usage = usage
        self._number = -1
        self._watched = {name: _Watched() for name in RESOURCES}

    def raised(self) -> Mapping[str, str]:
        """The resources that are above their threshold, with a sentence each."""
        return {name: watched.said for name, watched in self._watched.items() if watched.raised}

    def next(self) -> float | None:
        """No time of its own: samples are further apart than turns."""
        return None

    def jumped(self, now: Instant) -> None:
        """Spans are measured on the boot-time clock."""

    def turn(self, now: Instant) -> None:
        """Look at the newest sample, once."""
        usage = self._usage()
        if usage is None or usage.number == self._number:
            return
        self._number = usage.number
        thresholds = self._devices.book.thresholds
        self._look("cpu", usage.cpu, thresholds.cpu, now)
        self._look("memory", usage.memory, thresholds.memory, now)

    def _look(self, name: str, share: float | None, threshold: ResourceThreshold | None, now: Instant) -> None:
        watched = self._watched[name]
        if threshold != watched.threshold:
            watched.threshold, watched.since = threshold, None
        if threshold is None:
            if watched.raised:
                self._turned(name, watched, f"{name}: the book has no threshold for it any more", now)
            return
        if share is None or (share > threshold.above) is watched.raised:
            watched.since = None  # on the side that is known, or nobody knows: a span begins anew
            return
        if watched.since is None:
            watched.since = now.boot
        if now.boot - watched.since >= threshold.lasting:
            side = "not above" if watched.raised else "above"
            said = f"{name}: {side} {threshold.above:.0%} for {threshold.lasting:g} s, {share:.0%} now"
            self._turned(name, watched, said, now)

    def _turned(self, name: str, watched: _Watched, said: str, now: Instant) -> None:
        watched.raised = not watched.raised
        watched.said, watched.since = said, None
        self._devices.notice(Notice("resources", name, said, now.wall))
