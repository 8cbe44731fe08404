"""A clock that moves only when told to."""

from __future__ import annotations

from gateway.core.model import Instant


class ManualClock:
    """Implements the ``Clock`` port; ``advance`` moves both clocks, ``jump`` only the wall clock."""

    def __init__(self, wall: float = 1_795_283_400.0, boot: float = 1_000.0) -> None:
        self.wall = wall
        self.boot = boot

    def now(self) -> Instant:
        return Instant(self.wall, self.boot)

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds

    def jump(self, seconds: float) -> None:
        self.wall += seconds
