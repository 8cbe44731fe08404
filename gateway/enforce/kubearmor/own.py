"""The two policies of the gateway itself at one daemon: their names, and how they are built.

What must not live here: sending, the documents of profiles.
"""

from __future__ import annotations

from gateway.core.model import Address
from gateway.enforce.kubearmor.settings import KubeArmorSettings
from gateway.kubearmor.host import Hardening, build_host
from gateway.kubearmor.names import Kind, policy_name
from gateway.kubearmor.network import Scope, build_network
from gateway.kubearmor.policies import HostPolicy, NetworkPolicy
from gateway.kubearmor.shards import part_names

#: Host rules come before the network's in the alphabet; neither shadows the other.
_ORDERS = {Kind.HOST: 40, Kind.NETWORK: 50}


def own_names(target: str) -> frozenset[str]:
    """The names that the gateway's own policies at the host of ``target`` may have, with those of their parts."""
    return frozenset({_name(Kind.HOST, target), *part_names(_name(Kind.NETWORK, target))})


def _name(kind: Kind, target: str) -> str:
    return policy_name(_ORDERS[kind], kind, target, f"ragate/{target}/{kind.value}")


class OwnPolicies:
    """Builds them for ``scope`` and ``hardening``; each method raises ``DocumentRefused`` for what cannot be."""

    def __init__(self, settings: KubeArmorSettings, scope: Scope, hardening: Hardening) -> None:
        self._node = settings.node
        self._scope = scope
        self._hardening = hardening
        self.names = {kind: _name(kind, settings.target) for kind in _ORDERS}

    @property
    def gates(self) -> bool:
        """Whether anything is gated on this host, so that there is a network policy."""
        return bool(self._scope.gated)

    def host(self, generation: int) -> HostPolicy | None:
        """The hardening of our own files; None: nothing to protect is configured."""
        return build_host(self._hardening, name=self.names[Kind.HOST], node=self._node, generation=generation)

    def network(self, admitted: frozenset[Address], generation: int) -> NetworkPolicy | None:
        """Which sources may reach the gated ports of this host; None: none is gated here."""
        name = self.names[Kind.NETWORK]
        return build_network(self._scope, admitted, name=name, node=self._node, generation=generation)
