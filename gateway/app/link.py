"""The gateway's side of the link to agents: what each host is to enforce, and the parts that keep it so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from gateway.agentlink import messages as wire
from gateway.agentlink.hub import AgentHub, AgentTarget
from gateway.agentlink.remote import RemoteGate
from gateway.app import build
from gateway.certs import Role, TlsMaterial
from gateway.config import Config, RemoteTarget
from gateway.control.devices import Devices
from gateway.control.order import Order
from gateway.control.ports import Clock, Health, Notice
from gateway.control.reconcile import Reconciler
from gateway.control.remote import RemoteReconciler
from gateway.control.start import withhold
from gateway.core.model import Address


class Link(NamedTuple):
    """Everything of the link, where the configuration has one."""

    material: TlsMaterial
    hub: AgentHub
    gates: Sequence[RemoteReconciler]


def plan_of(config: Config, remote: RemoteTarget) -> wire.Plan:
    """The static part of one agent's host: its own services and nothing of the others'.

    A routed service is reached by the profiles that the book gives it; a relayed one by the relays alone.
    """
    reached = build.reaches(config.book)
    services = []
    for service in config.book.services:
        if remote.services is not None and service.name not in remote.services:
            continue
        profiles = tuple(name for name in reached if service.name in reached[name])
        if service.path == "relayed":
            profiles = ()
        services.append((service.name, str(service.address), service.port, service.protocol, profiles))
    rates = {name: (rate.new_connections, int(rate.per)) for name, rate in build.rates(config.book).items()}
    return wire.Plan(
        tuple(services),
        tuple((str(entry.address), entry.port, entry.protocol) for entry in config.book.corridor),
        tuple(str(network) for network in (*config.book.always_allowed, *remote.relays)),
        tuple(reached),
        rates,
        wire.pack_addresses(build.known(config)),
    )


def make_link(
    config: Config, devices: Devices, last: Reconciler, clock: Clock, notice: Callable[[Notice], None]
) -> Link | None:
    """Make the link and the gates of its targets; the local path gate ``last`` opens after the required ones.

    Devices are told to the new gates from here on. Raises ``ConfigError``.
    """
    if config.agents is None or config.certificates is None:
        return None
    material = TlsMaterial(config.certificates, Role.GATEWAY)
    material.set_say(lambda subject, sentence: notice(Notice("certificate", subject, sentence, clock.now().wall)))
    agents: dict[str, AgentTarget] = {}
    gates: list[RemoteReconciler] = []
    for remote in config.remotes:
        plan = plan_of(config, remote)
        backend = RemoteGate(remote.agent)
        agents[remote.agent] = AgentTarget(backend, plan, wire.digest_of(wire.encode(plan)), remote.lease)
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
        devices.add_gate(gate)
        gates.append(gate)
    required = [gate for gate in gates if gate.required]
    if required:
        last.waits_for = Order(required, last.lease, config.book.rank).waits_for
        for gate in required:
            gate.on_opened = last.recheck
    return Link(material, AgentHub(str(config.agents), material, agents, clock, notice), gates)


def _withhold(devices: Devices, gate: Reconciler, clock: Clock) -> Callable[[Address], None]:
    def withheld(address: Address) -> None:
        withhold(devices, address, f"a tombstone stands for {address} at {gate.target}", clock.now())

    return withheld


def health(link: Link, config: Config) -> list[Health]:
    """One line for each agent's target. Without a required one nobody new is admitted."""
    states = link.hub.states()
    lines = []
    for remote in config.remotes:
        state = states[remote.agent]
        lines.append(Health(f"target {remote.name}", state.attached or not remote.required, state.detail))
    return lines


def certificate_ends(link: Link) -> Mapping[str, float]:
    """Until when each certificate in use lasts, UNIX seconds: this host's, and those of attached agents."""
    identity = link.material.current.identity
    ends = {f"{identity.role.value} {identity.name}": identity.not_after}
    for name, state in link.hub.states().items():
        if state.attached and state.not_after:
            ends[f"agent {name}"] = state.not_after
    return ends
