"""The real clocks: the only place that reads them for the clockwork."""

from __future__ import annotations

import time
from pathlib import Path

from gateway.core.model import Instant


class SystemClock:
    """Implements the ``Clock`` port with ``CLOCK_REALTIME`` and ``CLOCK_BOOTTIME`` (see ``clock_gettime(2)``)."""

    def now(self) -> Instant:
        """Both times, read one after the other (about 0.3 microseconds apart)."""
        return Instant(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME))


def boot_id() -> str:
    """The kernel's random id of this boot (``proc(5)``); raises ``OSError`` where ``/proc`` is missing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
