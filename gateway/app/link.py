"""The gateway's side of the link to agents: what each host is to enforce, and the parts that keep it so."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from gateway.agentlink import messages as wire
from gateway.agentlink import packing
from gateway.agentlink.alerts import Inbox
from gateway.agentlink.documents import RemoteDocuments
from gateway.agentlink.remote import RemoteGate
from gateway.app.parts import gates
from gateway.config import Config, RemoteTarget
from gateway.control.devices import Devices
from gateway.control.order import Order
from gateway.control.ports import Clock, Health, Notice
from gateway.control.reconcile import Reconciler
from gateway.control.remote import RemoteReconciler
from gateway.control.shown import Beside, advised
from gateway.control.start import tell, withhold
from gateway.core.model import Address
from gateway.core.policy import Book, zone_of

# Loaded where the configuration has agents: gRPC takes long.
if TYPE_CHECKING:
    from gateway.agentlink.hub import AgentHub
    from gateway.certs import TlsMaterial


class Link(NamedTuple):
    """Everything of the link, where the configuration has one."""

    material: TlsMaterial
    hub: AgentHub
    gates: Sequence[RemoteReconciler]
    documents: Mapping[str, RemoteDocuments]


def plan_of(config: Config, book: Book, remote: RemoteTarget) -> wire.Plan:
    """The static part of one agent's host: its own services and nothing of the others'.

    A routed service is reached by the profiles that the book gives it; a relayed one by the relays alone.
    """
    zone = zone_of(book)
    reached = gates.reaches(book)
    services = []
    for service in zone.services:
        if remote.services is not None and service.name not in remote.services:
            continue
        profiles = tuple(name for name in reached if service.name in reached[name])
        if service.path == "relayed":
            profiles = ()
        services.append((service.name, str(service.address), service.port, service.protocol, profiles))
    return wire.Plan(
        tuple(services),
        tuple((str(entry.address), entry.port, entry.protocol) for entry in zone.corridor),
        tuple(str(network) for network in (*zone.always_allowed, *remote.relays)),
        tuple(reached),
        {name: (rate.new_connections, int(rate.per)) for name, rate in zone.rates.items()},
        packing.pack_addresses(gates.known(config)),
    )


def needs_restart(config: Config, old: Book, new: Book) -> list[str]:
    """What of a new book agents learn only from a gateway that starts, in sentences; empty when nothing.

    A restart is safe: agents go on enforcing meanwhile and take the new plan when they attach again.
    """
    return [
        f"the host of target {remote.name} would gate other services, or otherwise: its agent is told at a start"
        for remote in config.remotes
        if plan_of(config, old, remote) != plan_of(config, new, remote)
    ]


def make_link(
    config: Config,
    devices: Devices,
    every: list[Reconciler],
    clock: Clock,
    notice: Callable[[Notice], None],
    inboxes: Mapping[str, Inbox],
) -> Link | None:
    """Make the link and the gates of its targets, and add them to ``every``, whose first is the path gate of this
    host: it opens after the required ones. ``inboxes`` of each target's runtime alerts.

    Devices are told to the new gates from here on. Raises ``ConfigError``.
    """
    if config.agents is None or config.certificates is None:
        return None
    from gateway.agentlink.hub import AgentHub, AgentTarget  # noqa: PLC0415
    from gateway.certs import Role, TlsMaterial  # noqa: PLC0415

    material = TlsMaterial(config.certificates, Role.GATEWAY)
    material.set_say(lambda subject, sentence: notice(Notice("certificate", subject, sentence, clock.now().wall)))
    agents: dict[str, AgentTarget] = {}
    gates: list[RemoteReconciler] = []
    documents = {remote.name: RemoteDocuments(remote.agent) for remote in config.remotes}
    for remote in config.remotes:
        plan = plan_of(config, config.book, remote)
        backend = RemoteGate(remote.agent)
        digest = wire.digest_of(wire.encode(plan))
        inbox, layer = inboxes[remote.name], documents[remote.name]
        agents[remote.agent] = AgentTarget(backend, plan, digest, remote.lease, inbox, layer)
        devices.beside.append(_beside(remote.name, layer))
        gate = RemoteReconciler(
            backend,
            backend,
            target=remote.name,
            clock=clock,
            lease=remote.lease,
            report=devices.enforced,
            notice=notice,
            required=remote.required,
        )
        gate.on_tombstone = _withhold(devices, gate, clock)
        backend.on_bypass = _around(devices, gate, backend, clock)
        devices.add_gate(gate)
        gates.append(gate)
    required, last = [gate for gate in gates if gate.required], every[0]
    every += gates
    if required:
        last.waits_for = Order(required, last.lease, lambda profile: devices.book.rank(profile)).waits_for  # noqa: PLW0108 - of the running book
        for gate in required:
            gate.on_opened = last.recheck
    return Link(material, AgentHub(str(config.agents), material, agents, clock, notice), gates, documents)


def _beside(target: str, layer: RemoteDocuments) -> Beside:
    """What the documents at an agent's host are shown as; nothing where none should stand."""
    shown = advised(target, layer)
    return lambda decision: shown(decision) if layer.concerned else None


def layers(link: Link | None) -> Mapping[str, RemoteDocuments]:
    """Who keeps the documents of profiles at agents' hosts, by target."""
    return {} if link is None else link.documents


async def start(link: Link | None, devices: Devices) -> None:
    """Wish for every address at the targets behind the link, and listen for their agents.

    Raises ``ConfigError`` when that is not possible.
    """
    if link is None:
        return
    tell(devices, link.gates)
    for gate in link.gates:
        await gate.backend.start()
    await link.hub.start()


def runs(link: Link | None) -> list[Callable[[], Coroutine[None, None, None]]]:
    """What has to run for as long as the service does."""
    if link is None:
        return []
    documents = (layer.run for layer in link.documents.values())
    return [link.material.run, link.hub.run, *(gate.run for gate in link.gates), *documents]


async def flush(link: Link | None) -> None:
    """Wait until what is wished stands at the targets that can be reached (orderly stop)."""
    for gate in () if link is None else link.gates:
        if not gate.unreachable:
            await gate.flush()


async def stop(link: Link | None) -> None:
    """End every attachment; agents go on enforcing."""
    if link is not None:
        await link.hub.stop()


def _withhold(devices: Devices, gate: Reconciler, clock: Clock) -> Callable[[Address], None]:
    def withheld(address: Address) -> None:
        withhold(devices, address, f"a tombstone stands for {address} at {gate.target}", clock.now())

    return withheld


def _around(devices: Devices, gate: Reconciler, backend: RemoteGate, clock: Clock) -> Callable[[str], None]:
    def told(sentence: str) -> None:
        gate.obstacle = "; ".join(f"bypass: {each}" for each in backend.bypasses)
        devices.notice(Notice("bypass", gate.target, sentence, clock.now().wall))
        devices.commit()

    return told


def bypasses(gate: Reconciler) -> Callable[[], int]:
    """How many ways around the path gate of a target behind the link there are."""

    def count() -> int:
        return len(gate.backend.bypasses) if isinstance(gate.backend, RemoteGate) else 0

    return count


def health(link: Link, config: Config) -> list[Health]:
    """One line for each agent's target. Without a required one nobody new is admitted."""
    states = link.hub.states()
    lines = []
    for remote in config.remotes:
        state = states[remote.agent]
        lines.append(Health(f"target {remote.name}", state.attached or not remote.required, state.detail))
    lines += [
        Health(f"documents {target}", True, f"{told['state']}: {told['detail']}")
        for target, layer in link.documents.items()
        if layer.concerned and (told := layer.state())
    ]
    lines += [Health(f"bypass {gate.target}", False, gate.obstacle) for gate in link.gates if gate.obstacle]
    return lines


def certificate_ends(link: Link) -> Mapping[str, float]:
    """Until when each certificate in use lasts, UNIX seconds: this host's, and those of attached agents."""
    identity = link.material.current.identity
    ends = {f"{identity.role.value} {identity.name}": identity.not_after}
    for name, state in link.hub.states().items():
        if state.attached and state.not_after:
            ends[f"agent {name}"] = state.not_after
    return ends
