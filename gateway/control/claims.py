"""Where verifiers say that devices are: claims beside the inventory's bindings, for an operator to look at.

What lives here: the newest claim of each device that no binding of it covers. What must not: making a binding of
one. A claim is where a device's evidence came from; a neighbour that relays evidence is there as well as the
device.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from gateway.core.model import Address, Device, DeviceId, Outcome, SourceName, Verdict

_PASSED = Outcome.PASSED


class Claim(NamedTuple):
    """An address that authentic verdicts reported for a device. ``first`` and ``last`` are UNIX seconds."""

    source: SourceName
    address: Address
    times: int
    first: int
    last: int


class Claims:
    """Keeps one claim a device at most: memory is bounded by the inventory."""

    def __init__(self, devices: Iterable[Device]) -> None:
        self._bound = {device.id: device.binding.addresses for device in devices}
        self._claims: dict[DeviceId, Claim] = {}
        #: The last text that a binding covered: nearly every pass comes from where the one before came from, and
        #: parsing an address would cost a tenth of a verdict's whole work.
        self._usual: dict[DeviceId, str] = {}

    def judged(self, verdict: Verdict) -> None:
        """Look at one authentic pass; any other outcome says nothing about where the device belongs."""
        if verdict.outcome is not _PASSED or not verdict.claim:
            return
        device = verdict.device
        text = verdict.claim.rpartition(":")[0]
        if text == self._usual.get(device) and device not in self._claims:
            return
        address = _address(verdict.claim)
        if address is None or any(own.covers(address.packed) for own in self._bound.get(device, ())):
            self._claims.pop(device, None)
            self._usual[device] = text
            return
        known = self._claims.get(device)
        if known is not None and known.address == address:
            self._claims[device] = known._replace(times=known.times + 1, last=verdict.issued_at)
        else:
            self._claims[device] = Claim(verdict.source, address, 1, verdict.issued_at, verdict.issued_at)

    def all(self) -> Iterable[tuple[DeviceId, Claim]]:
        """Every device that is seen elsewhere than it is bound."""
        return self._claims.items()


def _address(claim: str) -> Address | None:
    """The address in ``tcp:192.0.2.7:35940``; None when a device cannot send from what stands there."""
    _, _, rest = claim.partition(":")
    text, _, _ = rest.rpartition(":")
    for candidate in (text, rest):
        try:
            address = Address.parse(candidate.removeprefix("[").removesuffix("]"))
        except ValueError:
            continue
        return address if address.prefix != 64 else None
    return None
