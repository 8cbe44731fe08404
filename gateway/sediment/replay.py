"""Which DATA was taken before, in bounded memory. No clock, no bytes of a message beyond its nonce.

SEDIMENT gives DATA no sequence number: timestamp (whole seconds of the device's clock) and nonce, both under the
device's HMAC, are all there is. A device sends one message after the other, so of each device the newest messages
are remembered by nonce, and whatever is as old as the oldest that had to be forgotten is refused by its second
alone. Nothing needs to be stored for a restart: what an earlier process could have taken was issued no later than
``begin`` plus the window ahead, and up to there nothing is taken.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum

REMEMBERED = 8
"""Nonces remembered of a device beyond those of its newest second: it waits for an answer before it sends again."""

PER_SECOND = 1_024
"""Messages of one device and second that are taken: more than any device sends, 100 KiB of memory."""

_KEPT = 16
"""Bytes kept of a nonce of 32: two that a device draws by chance never agree in 128 bits."""


class Repeat(Enum):
    """Why a message is not taken."""

    REPLAYED = "this very message was taken before"
    OLD = "it is not newer than what must be remembered of this device"
    AHEAD = "it is stamped later than our clock allows"
    MANY = "too many messages of one device carry this second"


class ReplayMemory:
    """Remembers what was taken.

    ``begin``: UNIX seconds of this process's start. ``ahead``: seconds that a device's clock may be ahead of ours.
    """

    __slots__ = ("_ahead", "_floor", "_of")

    def __init__(self, begin: float, ahead: float) -> None:
        self._ahead = ahead
        self._floor = int(begin + ahead)
        # Device -> its own floor, newest second taken, nonces by second (oldest first).
        self._of: dict[Hashable, _Recent] = {}

    def __len__(self) -> int:
        """Nonces remembered."""
        return sum(len(nonces) for recent in self._of.values() for nonces in recent.nonces.values())

    def judge(self, device: Hashable, stamp: int, nonce: bytes, now: float) -> Repeat | None:
        """Why a message issued at ``stamp`` is not to be taken now (UNIX seconds), or None. Remembers nothing."""
        if stamp > now + self._ahead:
            return Repeat.AHEAD
        recent = self._of.get(device)
        if recent is None:
            return Repeat.OLD if stamp <= self._floor else None
        if stamp <= recent.floor:
            return Repeat.OLD
        nonces = recent.nonces.get(stamp)
        if nonces is None:
            return None
        if nonce[:_KEPT] in nonces:
            return Repeat.REPLAYED
        return Repeat.MANY if len(nonces) >= PER_SECOND else None

    def too_early(self, stamp: int, now: float) -> float:
        """Seconds until what is stamped by our clock is taken, for a message that is refused because of the start
        alone; 0.0 for any other."""
        return max(self._floor + 1 - now, 0.0) if stamp <= self._floor else 0.0

    def remember(self, device: Hashable, stamp: int, nonce: bytes) -> None:
        """Note a message that ``judge`` has let pass."""
        recent = self._of.get(device)
        if recent is None:
            recent = self._of[device] = _Recent(self._floor)
        recent.nonces.setdefault(stamp, set()).add(nonce[:_KEPT])
        recent.count += 1
        while recent.count > REMEMBERED and len(recent.nonces) > 1:
            oldest = min(recent.nonces)
            recent.count -= len(recent.nonces.pop(oldest))
            recent.floor = oldest


class _Recent:
    __slots__ = ("count", "floor", "nonces")

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self.nonces: dict[int, set[bytes]] = {}
        self.count = 0
