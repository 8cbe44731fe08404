"""What the metrics read from the parts of a service, and under which names.

What lives here: which number of which part is which metric. What must not: counting, and names of metrics.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.app import clusters as clustering
from gateway.app import link as linking
from gateway.app.assembly import Assembly
from gateway.app.parts import relying_port
from gateway.control.alarms import RESOURCES
from gateway.enforce.nft import NftBackend


def wire(parts: Assembly) -> None:
    """Let the metrics read what the parts count. All parts are made."""
    _wire_layers(parts)
    _wire_control(parts)
    _wire_gate(parts)
    _wire_doors(parts)
    _wire_link(parts)
    _wire_relying(parts)


def _wire_layers(parts: Assembly) -> None:
    metrics, clusters = parts.metrics, parts.clusters
    for target, each in parts.layers.items():
        if target in clusters:
            metrics.add_backend(each.name)  # its objects are counted by set_clusters
        else:
            metrics.set_advisory(target, each.name, each.state)
    for target, documents in linking.layers(parts.link).items():
        metrics.set_advisory(target, documents.name, documents.state)
    if clusters:
        metrics.set_clusters(lambda: clustering.counted(clusters))


def _wire_control(parts: Assembly) -> None:
    metrics, journal, overrides = parts.metrics, parts.journal, parts.overrides
    metrics.set_journal(lambda: journal.writable)
    metrics.set_devices(parts.devices.counts)
    metrics.set_resources(parts.watch.current)
    metrics.set_overrides(lambda: overrides.count)
    metrics.set_site(parts.site.now, parts.site.known, RESOURCES)
    metrics.set_book(parts.books)


def _wire_gate(parts: Assembly) -> None:
    metrics, gate, backend, bypass = parts.metrics, parts.gate, parts.gate.backend, parts.bypass
    metrics.add_target(gate.target, backend.name)
    metrics.set_bypasses(gate.target, lambda: 0 if bypass is None else len(bypass.found))
    metrics.set_spoofed(gate.target, lambda: backend.spoofed if isinstance(backend, NftBackend) else 0)


def _wire_doors(parts: Assembly) -> None:
    metrics, admit, journal, gate, door = parts.metrics, parts.admit, parts.journal, parts.gate, parts.door
    metrics.add_queue("admission", lambda: admit.depth)
    metrics.add_queue("journal", lambda: journal.pending)
    metrics.add_queue("cut", lambda: gate.cut_depth)
    metrics.add_queue("apply", lambda: gate.depth)
    metrics.add_queue("strays", lambda: gate.drifts.depth)
    metrics.add_queue("backlog", door.backlog)
    metrics.add_queue("connections", lambda: door.open_connections)
    for posted in parts.posting:
        metrics.add_queue(posted.name, posted.depth)
    parts.hinting.wire(metrics)
    parts.listening.wire(metrics)
    forwarder = door.forwarder
    if forwarder is not None:
        metrics.add_queue("forward", lambda: forwarder.queued)
        metrics.set_forwarding(forwarder.counts)


def _wire_link(parts: Assembly) -> None:
    metrics, gate, link = parts.metrics, parts.gate, parts.link
    if link is not None:
        for remote in link.gates:
            metrics.add_target(remote.target, remote.backend.name)
            metrics.set_bypasses(remote.target, linking.bypasses(remote))
        hub = link.hub
        metrics.add_queue("waiting", lambda: gate.parked)
        metrics.set_agents(lambda: {name: (one.attached, one.resources) for name, one in hub.states().items()})
    if link is not None or parts.posting:
        metrics.set_certificates(lambda: _certificate_ends(parts))


def _certificate_ends(parts: Assembly) -> Mapping[str, float]:
    """Until when each certificate in use lasts, UNIX seconds: those of the doors, and those of the link."""
    ends = {f"door {each.name}": each.tls.current.not_after for each in parts.posting}
    return ends if parts.link is None else {**ends, **linking.certificate_ends(parts.link)}


def _wire_relying(parts: Assembly) -> None:
    metrics, relying = parts.metrics, parts.relying
    if relying is not None:
        metrics.add_queue("relying_connections", lambda: relying.open_connections)
        metrics.add_queue("relying_unsent_bytes", lambda: relying.unsent)
        metrics.set_relying(lambda: relying_port.counts(relying))
