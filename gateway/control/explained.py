"""What an explanation of one device rests on, gathered: what is wanted of each gate, and what each answers now.

What must not live here: why a book decides as it does (the policy tells), words for people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from gateway.control.devices import Devices
from gateway.control.ports import Clock, Explained, LayerProof, ProofLine, Proven, ReadBack, Showing
from gateway.control.reconcile import Reconciler
from gateway.control.slots import Slot
from gateway.core.errors import BackendError
from gateway.core.model import DENY, Address, DeviceId, Rule, Stands

PROOF_SECONDS = 6.0
"""How long one target may take to show what stands there: an operator waits; KubeArmor's tables take a second."""


class Explainer:
    """Gathers, on the loop; each gate is asked for the addresses of one device."""

    def __init__(
        self,
        devices: Devices,
        gates: Sequence[Reconciler],
        clock: Clock,
        layers: Mapping[str, LayerProof] | None = None,
    ) -> None:
        """``layers`` of this host, by name: those that never admit and can show what they have."""
        self._devices = devices
        self._gates = gates
        self._clock = clock
        self._layers = layers or {}

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

    async def proven(self, device: DeviceId) -> Proven | None:
        """What every target shows of a device at this moment; None: the inventory does not list it."""
        slot, view = self._devices.slot(device), self._devices.view(device)
        if slot is None or view is None:
            return None
        wanted = {address: self._devices.rule(slot, address) for address in slot.device.binding.addresses}
        own = self._gates[0].target if self._gates else ""
        parts = await asyncio.gather(
            *(self._prove(gate, wanted) for gate in self._gates),
            *(self._prove_layer(own, name, prove, tuple(wanted)) for name, prove in self._layers.items()),
        )
        return Proven(view, [line for lines in parts for line in lines], self._clock.now().wall)

    async def _prove(self, gate: Reconciler, wanted: Mapping[Address, Rule | None]) -> list[ProofLine]:
        trouble, proof = "", None
        try:
            async with asyncio.timeout(PROOF_SECONDS):
                proof = await gate.backend.prove(tuple(wanted))
        except BackendError as error:
            trouble = error.what
        except TimeoutError:
            trouble = f"no answer within {PROOF_SECONDS:g} s"
        now = self._clock.now()
        to_wall = now.wall - now.boot
        lines = []
        for address, rule in wanted.items():
            profile = DENY if rule is None else rule.profile
            until = None if rule is None or profile == DENY else rule.until + to_wall
            head = (gate.target, gate.backend.name, "", str(address), profile, until)
            if proof is None:
                lines.append(ProofLine(*head, UNREAD, trouble, None))
                continue
            result = compared(rule, proof.stands[address])
            named = ", ".join(proof.elements[address]) or ("" if result == MISSING else SHUT)
            lines.append(ProofLine(*head, result, named, proof.at + to_wall))
        if proof is not None:
            lines += _of_layers(gate.target, "kubearmor", proof.layers, proof.at + to_wall)
        return lines

    async def _prove_layer(
        self, target: str, name: str, prove: LayerProof, addresses: Sequence[Address]
    ) -> list[ProofLine]:
        try:
            async with asyncio.timeout(PROOF_SECONDS):
                shown = await prove(addresses)
        except TimeoutError:
            shown = {name: Showing(None, f"no answer within {PROOF_SECONDS:g} s")}
        return _of_layers(target, name, shown, self._clock.now().wall)

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


VERIFIED, MISSING, DIFFERS, UNREAD = "verified", "not found", "differs", "cannot be read"
#: What is said where nothing stands and nothing should.
SHUT = "in no set: denied by default"


def compared(rule: Rule | None, stands: Stands) -> str:
    """What a read-back says of what is wanted (``rule`` None: no trace)."""
    tombstone = rule is not None and rule.profile == DENY and rule.tombstone
    profile = "" if rule is None or rule.profile == DENY else rule.profile
    if (profile, tombstone) == (stands.profile, stands.tombstone):
        return VERIFIED
    if stands.tombstone and not profile and not stands.profile and rule is not None:
        return VERIFIED  # a tombstone that outlives its reason: shut, as wanted
    return DIFFERS if stands.profile or stands.tombstone else MISSING


def _of_layers(target: str, name: str, shown: Mapping[str, Showing], at: float) -> list[ProofLine]:
    words = {True: VERIFIED, False: MISSING, None: UNREAD}
    return [
        ProofLine(target, name, part, "", "", None, words[one.found], one.words, None if one.found is None else at)
        for part, one in shown.items()
    ]
