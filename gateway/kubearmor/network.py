"""The one network policy of a node: which sources may reach the gated ports of this host.

KubeArmor's host policies see traffic that ends on the host, never what is forwarded, and leave established flows
alone (interface 4.2): this declares the path gate's truth a second time and yields alerts, it does not replace
the gate. What must not live here: sending, reading back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.core.model import Address
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.policies import Action, NetworkEntry, NetworkPolicy, Port
from gateway.kubearmor.prefixes import EVERYBODY, Prefix, aggregate, both_families, of_addresses


@dataclass(frozen=True, slots=True)
class Scope:
    """What the network policy of a host is about.

    ``gated``            ports on this host that only admitted devices and ``always_allowed`` may reach
    ``always_allowed``   clients that are no devices
    ``corridor``         ports on this host that everybody may always reach (attestation)
    ``management``       ports that ``management_from`` may always reach, whatever other policies say later
    Raises ``DocumentRefused`` when a gated port is also a corridor or management port: the entry that allows it
    stands first and would open the gate.
    """

    gated: tuple[Port, ...]
    always_allowed: tuple[Prefix, ...] = ()
    corridor: tuple[Port, ...] = ()
    management: tuple[Port, ...] = ()
    management_from: tuple[Prefix, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.management) != bool(self.management_from):
            msg = "management: give both ports and the prefixes they are managed from, or neither"
            raise DocumentRefused(msg)
        for gated in self.gated:
            for other in (*self.corridor, *self.management):
                if gated.overlaps(other):
                    msg = (
                        f"port {gated.protocol}/{gated.number} is gated and also open as corridor or management"
                        f" ({other.protocol}/{other.number}): the gate would be open"
                    )
                    raise DocumentRefused(msg)


def build_network(
    scope: Scope, admitted: Iterable[Address], *, name: str, node: str, generation: int
) -> NetworkPolicy | None:
    """Return the policy for the addresses admitted now, or None when the scope gates nothing on this host.

    Entries in order, first match wins: management, corridor, admitted devices and always allowed clients to the
    gated ports, everybody else blocked from the gated ports. Nothing else is blocked, so no entry can cut the
    host from its management. Raises ``DocumentRefused``.
    """
    if not scope.gated:
        return None
    entries: list[NetworkEntry] = []
    if scope.management:
        peers = both_families(aggregate(scope.management_from))
        entries.append(NetworkEntry(peers, scope.management, Action.ALLOW))
    if scope.corridor:
        entries.append(NetworkEntry(EVERYBODY, scope.corridor, Action.ALLOW))
    allowed = of_addresses(admitted, scope.always_allowed)
    if allowed:
        entries.append(NetworkEntry(both_families(allowed), scope.gated, Action.ALLOW))
    entries.append(NetworkEntry(EVERYBODY, scope.gated, Action.BLOCK))
    return NetworkPolicy(
        name=name,
        node=node,
        generation=generation,
        tags=("RAGATE", "ATTESTATION"),
        message="not admitted by attestation",
        severity=5,
        ingress=tuple(entries),
    )
