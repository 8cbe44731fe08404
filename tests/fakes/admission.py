"""An admission that keeps what doors hand in."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gateway.core.errors import Refusal
from gateway.core.model import Envelope, SourceName


class Refused(NamedTuple):
    """One call of ``refuse``."""

    source: SourceName
    refusal: Refusal
    detail: str
    peer: str


class FakeAdmission:
    """Implements the ``Admission`` port: takes everything and keeps it in order.

    ``room`` is how many envelopes it takes before it is full (``None``: never); ``make_room`` empties the queue
    behind it, as a consumer would, and wakes the doors that wait.
    """

    def __init__(self, room: int | None = None) -> None:
        self.room = room
        self.envelopes: list[Envelope] = []
        self.refusals: list[Refused] = []
        self._waiting: list[Callable[[], None]] = []
        self._consumed = 0

    @property
    def full(self) -> bool:
        return self.room is not None and len(self.envelopes) - self._consumed >= self.room

    @property
    def waiting(self) -> int:
        """Doors that asked to be woken."""
        return len(self._waiting)

    @property
    def reasons(self) -> list[Refusal]:
        return [refused.refusal for refused in self.refusals]

    def submit(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)

    def refuse(self, source: SourceName, refusal: Refusal, detail: str, peer: str) -> None:
        self.refusals.append(Refused(source, refusal, detail, peer))

    def when_ready(self, wake: Callable[[], None]) -> None:
        self._waiting.append(wake)

    def make_room(self, room: int | None = None) -> None:
        """Let everything queued so far be consumed; from here on ``room`` envelopes fit (``None``: any number)."""
        self._consumed = len(self.envelopes)
        self.room = room
        if not self.full:
            waiting, self._waiting = self._waiting, []
            for wake in waiting:
                wake()
