"""What somebody else changed: counted, told, and mended, though not for ever.

Whoever deletes our policies again and again is not stopped by sending them again and again, and every sending makes
KubeArmor lay the rules of the host anew. After a few repairs in a row the next ones wait, longer each time.
What must not live here: finding out, sending.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gateway.control.ports import Notice
from gateway.core.model import Instant

#: Repairs within ``WINDOW`` seconds that are made at once; another one makes a storm of it.
AT_ONCE = 3
WINDOW = 60.0
#: Seconds that the first repair of a storm waits; each further one twice as long, up to the longest.
FIRST_HOLD = 10.0
LONGEST_HOLD = 300.0


class Drift:
    """``notice`` takes facts for people and metrics; ``now`` reads the clock."""

    def __init__(self, subject: str, notice: Callable[[Notice], None], now: Callable[[], Instant]) -> None:
        self._subject = subject
        self._notice = notice
        self._now = now
        self._repairs: deque[float] = deque(maxlen=64)
        self._hold = 0.0
        self._until = 0.0

    @property
    def waiting(self) -> float:
        """Seconds until the next repair may be made; 0: at once."""
        return max(0.0, self._until - self._now().boot)

    def tell(self, kind: str, what: str) -> None:
        """Say something to people."""
        self._notice(Notice(kind, self._subject, what, self._now().wall))

    def found(self, what: str) -> None:
        """Somebody changed something that had been verified; it is mended when ``waiting`` is over."""
        now = self._now().boot
        self.tell("drift", what)
        self._repairs.append(now)
        while self._repairs and self._repairs[0] <= now - max(WINDOW, 2 * self._hold):
            self._repairs.popleft()
        if len(self._repairs) <= AT_ONCE:
            self._hold = 0.0
            return
        self._hold = min(LONGEST_HOLD, max(FIRST_HOLD, 2 * self._hold))
        self._until = now + self._hold
        said = f"changed behind our back {len(self._repairs)} times in a short while: somebody works against us"
        self.tell("backend-error", f"{said}; the next repair waits {self._hold:g} s. Last: {what}")
