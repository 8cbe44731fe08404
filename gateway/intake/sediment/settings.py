"""Settings and limits of the SEDIMENT door. Values only; no sockets here."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.core.model import SourceName

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

CONNECTIONS = 4096  #: open connections in all: with a descriptor each, far below the usual 20,000 and more
CONNECTIONS_PER_PEER = 64  #: open connections of one address that is no configured verifier
FRAME_SECONDS = 5.0  #: seconds for one frame; a verifier sends it in one piece as soon as it is connected
FRAME_LIMIT = 32_000  #: bytes; SEDIMENT's receivers have a buffer of this size

#: The source named in refusals of peers that no source of ours judges.
UNASSIGNED = SourceName("unassigned")


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """Who may connect, who judges what they send, and how much they may hold open.

    ``peers``                who may connect, besides the verifiers.
    ``verifiers``            the configured verifiers: the source that judges what comes from each network. The
                             most specific network wins.
    ``default_source``       judges what other allowed peers send. ``None``: the one source that ``verifiers``
                             names; if it names several, peers outside ``verifiers`` are refused, because
                             nobody could say whose rules hold for their bytes.
    ``connections``          open connections in all. Half of them are kept for the configured verifiers, in
                             equal shares; a connection that delivers its frame at once needs none.
    ``connections_per_peer`` open connections of one address that is no configured verifier.
    ``frame_seconds``        time to send one frame, from accept or from the frame before.
    ``frame_limit``          bytes.
    ``forward_to``           host and port of SEDIMENT's own relying party, or ``None``.

    Raises ``ValueError`` for limits that would shut the door for everybody.
    """

    peers: tuple[Network, ...]
    verifiers: Mapping[Network, SourceName]
    default_source: SourceName | None = None
    connections: int = CONNECTIONS
    connections_per_peer: int = CONNECTIONS_PER_PEER
    frame_seconds: float = FRAME_SECONDS
    frame_limit: int = FRAME_LIMIT
    forward_to: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        if self.connections < 2 or self.connections_per_peer < 1:
            msg = "connections must be at least 2 and connections_per_peer at least 1"
            raise ValueError(msg)
        if self.frame_seconds <= 0:
            msg = "frame_seconds must be more than 0"
            raise ValueError(msg)
        if not self.verifiers and self.default_source is None:
            msg = "no source judges what the peers send: name a verifier or a default source"
            raise ValueError(msg)

    @property
    def other_source(self) -> SourceName | None:
        """The source that judges allowed peers outside ``verifiers``; ``None``: nobody does."""
        if self.default_source is not None:
            return self.default_source
        named = set(self.verifiers.values())
        return named.pop() if len(named) == 1 else None

    @property
    def reserved(self) -> int:
        """Connections of ``connections`` that are kept for the configured verifiers."""
        return self.connections // 2 if self.verifiers else 0
