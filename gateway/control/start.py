"""Start: what the journal remembers and what the kernel has must agree before anything is admitted.

load → step every deadline that passed → observe → withhold where they disagree → tell the gates → open the doors.
What must not live here: opening doors, files or sockets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from gateway.control.clockwork import BEHIND
from gateway.control.devices import Devices
from gateway.control.ports import Clock, Entry, Journal, Loaded, Notice
from gateway.control.reconcile import Reconciler
from gateway.control.slots import Slot
from gateway.core import lifecycle
from gateway.core.lifecycle import Rules
from gateway.core.model import (
    DENY,
    Address,
    Event,
    EventKind,
    Instant,
    Rule,
    SourceName,
    Standing,
    Stands,
    Transition,
)

CHUNK = 1_000
"""Addresses read back at a time: about 10 ms of a backend's own thread."""


async def restore(
    devices: Devices,
    loaded: Loaded,
    gates: Sequence[Reconciler],
    journal: Journal,
    clock: Clock,
    rules: Mapping[SourceName, Rules],
    boot_id: str,
) -> None:
    """Bring devices and gates to the point where doors may open. Gates are not running yet.

    Raises ``BackendError`` or ``ConfigError`` when a required backend cannot start or be read: then nothing may
    open.
    """
    now = clock.now()
    behind = loaded.highest_wall - now.wall
    kept = [await gate.backend.start() for gate in gates]
    rebooted = bool(loaded.boot_id) and loaded.boot_id != boot_id
    shut = not all(kept) or rebooted
    _remember(devices, loaded, now, shut=shut)
    _retire_missing(devices, loaded, journal, now, rules)
    if behind > BEHIND:
        devices.barrier = (
            f"the clock is {behind:.0f} s behind the last commit: set the time, nobody is admitted until then"
        )
        devices.notice(Notice("clock", "clock", devices.barrier, now.wall))
    _lapse(devices, now, shut=shut)
    for address, owners in devices.addresses.conflicts().items():
        detail = f"{address} is anchored to {', '.join(owners)}: the lowest standing of them decides"
        devices.notice(Notice("conflict", owners[0], detail, now.wall))
    withheld = 0
    for gate in gates:
        stands = await _observe(devices, gate)
        withheld += _withhold(devices, gate, stands, now, all_of_them=behind > BEHIND)
    if withheld:
        detail = f"{withheld} admissions were withheld: journal and kernel disagree, the devices must attest again"
        devices.notice(Notice("withheld", "start", detail, now.wall, withheld))
    devices.commit()
    _tell(devices, gates)
    if not behind > BEHIND:
        devices.barrier = ""


def _remember(devices: Devices, loaded: Loaded, now: Instant, *, shut: bool) -> None:
    """Put records back; never more time is left than at the last commit, nor than the maximum age."""
    for (device, source), record in loaded.records.items():
        slot = devices.slot(device)
        if slot is None or source not in slot.records:
            continue
        if record.deadline is not None:
            rules = devices.rules_of(slot, source)
            latest = now.wall + min(loaded.left_at(device, source, now.boot), rules.max_age)
            record = lifecycle.capped(record, rules)  # noqa: PLW2901 - the capped record takes its place
            deadline = now.wall if shut else min(record.deadline or now.wall, latest)
            record = record._replace(deadline=deadline)  # noqa: PLW2901 - likewise
        devices.restore(slot, source, record, now)
        if record.standing is Standing.RETIRED:
            event = Event(EventKind.REINSTATED, now.wall, reason="the inventory lists it again")
            devices.apply(slot, source, event, now, 0.0)


def _retire_missing(
    devices: Devices, loaded: Loaded, journal: Journal, now: Instant, rules: Mapping[SourceName, Rules]
) -> None:
    """Records without an inventory entry: the device is retired, its marks are kept."""
    for (device, source), record in loaded.records.items():
        if devices.record(device, source) is not None or record.standing is Standing.RETIRED:
            continue
        event = Event(EventKind.RETIRED, now.wall, reason="the inventory no longer lists it")
        step = lifecycle.step(record, event, rules.get(source, Rules()))
        fact = Transition(device, source, event, record, step.record, step.effect, step.why)
        journal.record((Entry(fact, step.record),))


def _lapse(devices: Devices, now: Instant, *, shut: bool) -> None:
    why = "no enforcement state was found: everybody starts lapsed" if shut else "lapsed while the gateway was down"
    for slot in devices.slots():
        for source, deadline, _ in slot.ends:
            if deadline <= now.wall:
                devices.apply(slot, source, Event(EventKind.LAPSED, now.wall, reason=why), now, 0.0)


async def _observe(devices: Devices, gate: Reconciler) -> dict[Address, Stands]:
    found: dict[Address, Stands] = {}
    for chunk in _chunks(address for slot in devices.slots() for address in slot.device.binding.addresses):
        found.update(await gate.backend.observe(chunk))
    return found


def _chunks(addresses: Iterator[Address]) -> Iterator[list[Address]]:
    while chunk := list(islice(addresses, CHUNK)):
        yield chunk


def _withhold(
    devices: Devices,
    gate: Reconciler,
    stands: Mapping[Address, Stands],
    now: Instant,
    *,
    all_of_them: bool,
) -> int:
    """A tombstone, or an absence before its deadline, outranks the journal."""
    withheld = 0
    for slot in devices.slots():
        for address in slot.device.binding.addresses:
            seen = stands[address]
            if seen.tombstone:
                gate.adopt(address, Rule(slot.device.id, DENY, 0.0, tombstone=True))
            elif seen.profile:
                remaining = gate.lease if seen.remaining is None else seen.remaining
                gate.adopt(address, Rule(slot.device.id, seen.profile, now.boot + remaining))
        if slot.decision.until is None:
            continue
        reason = "the clock is behind the journal" if all_of_them else _disagreement(slot, stands)
        if reason:
            withheld += 1
            for source in list(slot.records):
                devices.apply(slot, source, Event(EventKind.WITHHELD, now.wall, reason=reason), now, 0.0)
    return withheld


def withhold(devices: Devices, address: Address, reason: str, now: Instant) -> None:
    """Another target has negative evidence of before this start: its tombstone outranks the journal, too."""
    for owner in devices.addresses.owners(address):
        slot = devices.slot(owner)
        if slot is not None and slot.decision.until is not None:
            for source in list(slot.records):
                devices.apply(slot, source, Event(EventKind.WITHHELD, now.wall, reason=reason), now, 0.0)
            devices.notice(Notice("withheld", "start", f"{owner} was withheld: {reason}", now.wall))
    devices.commit()


def tell(devices: Devices, gates: Sequence[Reconciler]) -> None:
    """Wish for every address what its devices may have now, at gates that were not there at the start."""
    _tell(devices, gates)


def _disagreement(slot: Slot, stands: Mapping[Address, Stands]) -> str:
    for address in slot.device.binding.addresses:
        seen = stands[address]
        if seen.tombstone:
            return f"a tombstone stands for {address}"
        if not seen.profile:
            return f"{address} is not admitted in the kernel though its deadline has not come"
    return ""


def _tell(devices: Devices, gates: Sequence[Reconciler]) -> None:
    for slot in devices.slots():
        for address in slot.device.binding.addresses:
            rule = devices.rule(slot, address)
            for gate in gates:
                gate.want(address, rule)
