"""What a window shows of one device, put together from its living state and the gates.

What must not live here: changing either, words for people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gateway.control.ports import DeviceView, TargetState
from gateway.control.reconcile import Reconciler
from gateway.control.slots import Slot
from gateway.core.model import Decision, Instant, SourceName

Beside = Callable[[Decision], TargetState | None]
"""What an advisory target has for a device with this decision; None: it has nothing to do with it."""


def shown(
    slot: Slot,
    gates: Sequence[Reconciler],
    now: Instant,
    replayable: Sequence[SourceName] = (),
    beside: Sequence[Beside] = (),
) -> DeviceView:
    """Everything a window shows of one device, as it is now. ``beside``: targets that never count for admission."""
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
            *(state for each in beside if (state := each(slot.decision)) is not None),
        ],
        last=slot.last,
        last_ms=slot.last_ms,
        override=slot.override,
        replayable=replayable,
        held=slot.held,
    )


#: What of an advisory layer's states has a word of its own at a target; all others are on their way.
_STATES = frozenset({"accepted", "verified", "failed"})


class Layer(Protocol):
    """The part of an advisory layer that is shown."""

    @property
    def name(self) -> str:
        """The ``backend`` label of metrics."""
        ...

    def state(self) -> Mapping[str, str]:
        """See ``Advisory``."""
        ...


def advised(target: str, advisory: Layer) -> Beside:
    """An advisory layer at a host: what it shows is about the host, and so about each of its devices."""

    def state(decision: Decision) -> TargetState:
        told = advisory.state()
        state, detail = told.get("state", ""), told.get("detail", "")
        if state not in _STATES:
            state, detail = "pending", f"{state}: {detail}"
        return TargetState(target, advisory.name, False, decision.profile, state, detail, None)

    return state
