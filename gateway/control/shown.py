"""What a window shows of one device, put together from its living state and the gates.

What must not live here: changing either, words for people.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.control.ports import Advisory, DeviceView, TargetState
from gateway.control.reconcile import Reconciler
from gateway.control.slots import Slot
from gateway.core.model import Instant, SourceName


def shown(
    slot: Slot,
    gates: Sequence[Reconciler],
    now: Instant,
    replayable: Sequence[SourceName] = (),
    advisories: Sequence[tuple[str, Advisory]] = (),
) -> DeviceView:
    """Everything a window shows of one device, as it is now. ``advisories`` stand under their targets; what each of
    them shows is about its host, and so about this device too."""
    to_wall = now.wall - now.boot
    addresses = slot.device.binding.addresses
    leases = [end for gate in gates for a in addresses if (end := gate.lease_until(a)) is not None]
    return DeviceView(
        device=slot.device,
        decision=slot.decision,
        records=dict(slot.records),
        lease_until=min(leases) + to_wall if leases else None,
        targets=[
            *(gate.state(addresses, to_wall) for gate in gates),
            *(_advised(target, advisory, slot.decision.profile) for target, advisory in advisories),
        ],
        last=slot.last,
        last_ms=slot.last_ms,
        override=slot.override,
        replayable=replayable,
    )


#: What of an advisory layer's states has a word of its own at a target; all others are on their way.
_STATES = frozenset({"accepted", "verified", "failed"})


def _advised(target: str, advisory: Advisory, profile: str) -> TargetState:
    told = advisory.state()
    state = told.get("state", "")
    detail = told.get("detail", "")
    if state not in _STATES:
        state, detail = "pending", f"{state}: {detail}"
    return TargetState(target, advisory.name, False, profile, state, detail, None)
