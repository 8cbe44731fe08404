"""A verifier that can be asked."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gateway.core.model import DeviceId


class Confirmed(NamedTuple):
    """What a verifier's own memory says of the device at an address: when (UNIX seconds), and whether it was
    good."""

    at: int
    good: bool | None


class Verifier(Protocol):
    """A verifier that can be asked. Every wait has a limit of its own."""

    def check(self, device: DeviceId) -> None:
        """Raise ``SourceError`` when this device cannot be asked for, whatever the verifier does."""
        ...

    def address_of(self, claim: str) -> str:
        """The address that a verdict's claim would be asked about; "": none."""
        ...

    async def attest(self, device: DeviceId) -> None:
        """Ask it to have a device attest again. Raises ``SourceError``."""
        ...

    async def confirm(self, address: str) -> Confirmed | None:
        """Ask about the last attestation from an address; None: it knows of none. Raises ``SourceError``."""
        ...
