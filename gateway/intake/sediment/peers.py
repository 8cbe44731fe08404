"""Who is connected: which source judges a peer, and whose connection budget it spends."""

from __future__ import annotations

import ipaddress

from gateway.core.model import SourceName
from gateway.intake.sediment.settings import UNASSIGNED, DoorSettings, Network

REMEMBERED_PEERS = 16_384  #: addresses whose classification is kept; about 4 MiB, re-made in microseconds


class Budget:
    """Connections that a group of peers may hold open together."""

    __slots__ = ("limit", "open")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0


class Peer:
    """One address and what it holds open."""

    __slots__ = ("allowed", "budget", "limit", "open", "source", "text", "verifier")

    def __init__(self, text: str, source: SourceName, budget: Budget, limit: int) -> None:
        self.text = text
        self.source = source
        self.budget = budget
        self.limit = limit
        self.open = 0
        self.allowed = True
        self.verifier = False

    def take(self) -> bool:
        """Take one connection from both limits; False when there is none left."""
        if self.open >= self.limit or self.budget.open >= self.budget.limit:
            return False
        self.open += 1
        self.budget.open += 1
        return True

    def give_back(self) -> None:
        """Return one connection."""
        self.open -= 1
        self.budget.open -= 1


class PeerBook:
    """Classifies addresses, once each while they are remembered."""

    def __init__(self, settings: DoorSettings) -> None:
        self._peers = settings.peers
        self._per_peer = settings.connections_per_peer
        self._other_source = settings.other_source
        self._refusal_source = settings.other_source or UNASSIGNED
        self._others = Budget(settings.connections - settings.reserved)
        share = max(1, settings.reserved // max(1, len(settings.verifiers)))
        most_specific_first = sorted(settings.verifiers.items(), key=lambda item: -item[0].prefixlen)
        self._verifiers: list[tuple[Network, SourceName, Budget]] = [
            (network, source, Budget(share)) for network, source in most_specific_first
        ]
        self._known: dict[str, Peer] = {}

    @property
    def remembered(self) -> int:
        """Textual addresses whose classification is kept."""
        return len(self._known)

    def of(self, host: str) -> Peer:
        """The peer behind a textual address as ``accept`` gives it (IPv4-mapped and scoped forms included)."""
        peer = self._known.get(host)
        return peer if peer is not None else self._learn(host)

    def _learn(self, host: str) -> Peer:
        if len(self._known) >= REMEMBERED_PEERS:
            self._known = {text: peer for text, peer in self._known.items() if peer.open}
        ip = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        text = str(ip)
        # One object per address: the same host may arrive in two textual forms.
        peer = self._known.get(text) or self._classify(ip, text)
        self._known[host] = self._known[text] = peer
        return peer

    def _classify(self, ip: ipaddress.IPv4Address | ipaddress.IPv6Address, text: str) -> Peer:
        for network, source, budget in self._verifiers:
            if ip in network:
                peer = Peer(text, source, budget, budget.limit)
                peer.verifier = True
                return peer
        peer = Peer(text, self._refusal_source, self._others, self._per_peer)
        peer.allowed = self._other_source is not None and any(ip in network for network in self._peers)
        return peer
