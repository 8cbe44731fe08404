"""Facts about the door itself, told at a bearable pace."""

from __future__ import annotations

from collections.abc import Callable

from gateway.control.ports import Clock, Notice

NOTICE_SECONDS = 10.0  #: between two notices of one kind; what happens in between is counted


class Backlog:
    """Tells that one of the door's queues is full: at once, then at most once in ``NOTICE_SECONDS``."""

    def __init__(self, subject: str, clock: Clock, notices: Callable[[Notice], None] | None) -> None:
        self._subject = subject
        self._clock = clock
        self._notices = notices
        self._told_at = float("-inf")
        self._untold = 0

    def tell(self, detail: str) -> None:
        """Note one occurrence."""
        self._untold += 1
        now = self._clock.now()
        if self._notices is None or now.boot - self._told_at < NOTICE_SECONDS:
            return
        self._notices(Notice("backlog", self._subject, detail, now.wall, self._untold))
        self._told_at = now.boot
        self._untold = 0
