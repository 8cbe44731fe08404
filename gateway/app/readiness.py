"""Whether a service is ready, part by part, and what an operator should know of each.

What lives here: one line for each part. What must not: deciding anything by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.app import clusters as clustering
from gateway.app import link as linking
from gateway.app.assembly import Assembly
from gateway.control.ports import Health
from gateway.control.reconcile import Reconciler
from gateway.enforce.nft import NftBackend


def health(parts: Assembly, *, ready: bool) -> Sequence[Health]:
    """One line for each part. ``ready``: whether the doors are open."""
    return [
        *_needed(parts, ready),
        *_site(parts),
        *_relying(parts, ready),
        *parts.hinting.health(),
        *parts.listening.health(),
        *_layers(parts),
        parts.reloader.health(),
    ]


def _needed(parts: Assembly, ready: bool) -> Iterator[Health]:
    """What no service is without."""
    journal, devices, gate, door = parts.journal, parts.devices, parts.gate, parts.door
    yield Health("journal", journal.writable, "written" if journal.writable else "cannot be written")
    yield Health("doors", ready and not door.paused, "taking alerts" if ready else "not open")
    yield Health("standings", devices.may_raise, devices.why_not if not devices.may_raise else "restored")
    yield Health(f"gate {gate.target}", gate.failing == 0, _of_the_gate(gate))
    for each in parts.posting:
        yield Health(f"door {each.name}", each.serving, each.state())
    if parts.link is not None:
        yield from linking.health(parts.link, parts.config)


def _site(parts: Assembly) -> Iterator[Health]:
    site, bypass = parts.site, parts.bypass
    # A site in lockdown does what it is meant to do: that is no reason to take it out of service.
    yield Health("site", True, f"{site.profile}: {site.chain[-1]}")
    for name, said in site.now().alarms.items():
        yield Health(f"resource {name}", True, said)
    if bypass is not None:
        yield Health("bypass", not bypass.state, bypass.state or "no way around the path gate is known")


def _relying(parts: Assembly, ready: bool) -> Iterator[Health]:
    relying, passing_on, forwarder = parts.relying, parts.door.forwarder, parts.forwarder
    if passing_on is not None:
        # Somebody else's relying party being away is no reason to take ours out of service.
        yield Health("forwarding", True, passing_on.state())
    if relying is not None:
        detail = f"{relying.open_connections} connections of devices"
        yield Health("relying party", ready, detail if ready else "not open")
    if forwarder is not None:
        yield Health("relying forwarding", True, forwarder.state())


def _layers(parts: Assembly) -> Iterator[Health]:
    """An advisory layer never makes the service unready: it does not count for admission."""
    for each in parts.layers.values():
        told = each.state()
        part = clustering.part_of(each, parts.clusters)
        yield Health(part, True, f"{told.get('state')}: {told.get('detail', '')}")


def _of_the_gate(gate: Reconciler) -> str:
    remark = ""
    if isinstance(gate.backend, NftBackend):
        spoofed = gate.backend.spoofed
        told = f"{spoofed:,} packets with a device's source came from elsewhere and were dropped" if spoofed else ""
        remark = "; ".join(filter(None, (gate.backend.remark, told)))
    if gate.drifts.storming:
        told = "somebody keeps changing what is enforced; it is repaired every few seconds"
        remark = "; ".join(filter(None, (remark, told)))
    return f"{gate.backend.name}: {gate.failing} addresses failing" + (f"; {remark}" if remark else "")
