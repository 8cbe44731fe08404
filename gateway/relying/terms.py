"""What a connection and the door have of each other: why a connection ends, and what it asks. No sockets here."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol, TypeVar

from gateway.core.errors import Refusal
from gateway.core.model import DeviceId, Envelope, Instant
from gateway.relying.settings import RelyingSettings
from gateway.relying.wheel import Wheel
from gateway.sediment.relying import Case, Conversation, Heard, Word

L_contra = TypeVar("L_contra", contravariant=True)


class End(Enum):
    """Why a device's connection ended."""

    CLOSED = "closed"  # by the device, or after what is never answered
    REFUSED = "refused"  # after a message that was not taken
    CUT = "cut"  # its device is no longer admitted
    SLOW = "slow"  # a deadline passed
    BROKEN = "broken"  # it failed, or the way onward did
    STOPPED = "stopped"  # the service stops

    __hash__ = object.__hash__


class Wait(Enum):
    """What a connection waits for."""

    NOTHING = 0
    ONWARD = 1  # the way onward to take a message
    COPY = 2  # the verifier to acknowledge a copy
    ADMISSION = 3  # the device to be admitted
    START = 4  # what was stamped before the start to be over


class Site(Protocol[L_contra]):
    """What a connection, of the kind ``L_contra``, asks of the door."""

    settings: RelyingSettings
    conversation: Conversation
    wheel: Wheel

    def now(self) -> Instant:
        """Both clocks."""
        ...

    def word(self, heard: Heard, now: Instant) -> Word:
        """What standing and memory say."""
        ...

    def too_early(self, heard: Heard, now: Instant) -> float:
        """Seconds that the refusal of a message waits because it is one of the service's start alone."""
        ...

    def admitted(self, device: DeviceId) -> bool:
        """Whether the device may reach the service now."""
        ...

    def noted(self, heard: Heard, case: Case, peer: str) -> None:
        """Count one judged message; remember it where it must not come again; tell that a device was asked."""
        ...

    def alerted(self, envelope: Envelope | None) -> None:
        """Hand in an alert, and pass it on beside SEDIMENT's relying party; None: count one of a stranger."""
        ...

    def carried(self, *, taken: bool) -> None:
        """Count one message for the app server."""
        ...

    def met(self, link: L_contra, device: DeviceId) -> None:
        """A connection has shown whose it is."""
        ...

    def refuse(self, refusal: Refusal, detail: str, peer: str) -> None:
        """Count a refusal."""
        ...

    def copy(self, answer: bytes, done: Callable[[], None]) -> None:
        """Send a copy to the verifier; then, or when that cannot be, call ``done``."""
        ...

    def ended(self, link: L_contra, why: End) -> None:
        """A connection is over."""
        ...
