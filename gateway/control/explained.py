"""What an explanation of one device rests on, gathered: what is wanted of each gate, and what each answers now.

What must not live here: why a book decides as it does (the policy tells), words for people.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.control.devices import Devices
from gateway.control.ports import Clock, Explained, ReadBack
from gateway.control.reconcile import Reconciler
from gateway.control.slots import Slot
from gateway.core.errors import BackendError
from gateway.core.model import DENY, Address, DeviceId, Rule, Stands


class Explainer:
    """Gathers, on the loop; each gate is asked for the addresses of one device."""

    def __init__(self, devices: Devices, gates: Sequence[Reconciler], clock: Clock) -> None:
        self._devices = devices
        self._gates = gates
        self._clock = clock

    async def explained(self, device: DeviceId) -> Explained | None:
        """Everything about one device, from one moment where it is ours; None: the inventory does not list it."""
        slot, view = self._devices.slot(device), self._devices.view(device)
        if slot is None or view is None:
            return None
        now = self._clock.now()
        standing, deadline, shared = self._devices.own(slot)
        book = self._devices.book
        addresses = slot.device.binding.addresses
        wanted = {address: self._devices.rule(slot, address) for address in addresses}
        answers = [
            line for gate in self._gates for line in await self._read(gate, slot, wanted, now.wall - now.boot)
        ]
        return Explained(view, book, shared, standing, deadline, answers, now.wall)

    async def _read(
        self, gate: Reconciler, slot: Slot, wanted: dict[Address, Rule | None], to_wall: float
    ) -> Sequence[ReadBack]:
        trouble = ""
        found: dict[Address, Stands] = {}
        try:
            found = dict(await gate.backend.observe(slot.device.binding.addresses))
        except BackendError as error:
            trouble = error.what
        boot = self._clock.now().boot
        lines = []
        for address, rule in wanted.items():
            stands = found.get(address, Stands("", None, tombstone=False))
            ends = None if stands.remaining is None else boot + stands.remaining + to_wall
            profile = DENY if rule is None else rule.profile
            until = None if rule is None or profile == DENY else rule.until + to_wall
            name = gate.backend.name
            lines.append(
                ReadBack(
                    gate.target, name, address, profile, until, stands.profile, ends, stands.tombstone, trouble
                )
            )
        return lines
