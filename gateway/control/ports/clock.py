"""Time: what tells it, and what happens because it passes."""

from __future__ import annotations

from typing import Protocol

from gateway.core.model import Instant


class Clock(Protocol):
    """Tells both times."""

    def now(self) -> Instant:
        """The present moment on the wall clock and on the boot-time clock."""
        ...


class Timed(Protocol):
    """What happens because time passes, beside deadlines. The clockwork drives it."""

    def next(self) -> float | None:
        """Boot seconds at which a turn is wanted; None: none in particular (there is one every quarter second)."""
        ...

    def turn(self, now: Instant) -> None:
        """Do what is due. The clockwork commits afterwards."""
        ...

    def jumped(self, now: Instant) -> None:
        """The wall clock jumped against the boot-time clock."""
        ...
