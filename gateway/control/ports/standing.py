"""What a relay of DATA asks, and who is told of standings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.core.model import DeviceId, Rule, Transition


class Standings(Protocol):
    """What a relay of DATA asks. It never decides: it carries while the answer is yes, and stops when told."""

    def until(self, device: DeviceId, service: str) -> float:
        """Boot seconds until which ``device`` may reach ``service``; 0.0: it may not. Only what is durable."""
        ...

    def spend(self, device: DeviceId) -> bool:
        """Take one of the messages that the device's profile allows in a while. False: none is left now."""
        ...

    def wanted(self, device: DeviceId) -> bool:
        """Whether its verifier wants it to attest again and it may be told so now."""
        ...

    def asked(self, device: DeviceId) -> None:
        """It was told to attest again."""
        ...

    def follow(self, changed: Callable[[DeviceId], None]) -> None:
        """Call ``changed`` on the loop whenever the answer about a device may have become another, once it has."""
        ...


class StandingsFollower(Protocol):
    """What the single writer tells, device by device: what tightens at once, what loosens when it is durable."""

    def stands(self, device: DeviceId, rule: Rule | None) -> None:
        """A device's decision asks for ``rule`` (None: it is retired), and that is durable."""
        ...

    def tightens(self, device: DeviceId, rule: Rule | None) -> None:
        """A device's decision asks for no more than ``rule`` now; what it would add waits for ``stands``."""
        ...

    def happened(self, transition: Transition) -> None:
        """Something happened to a device."""
        ...
