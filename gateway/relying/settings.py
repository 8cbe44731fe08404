"""Settings and limits of the relying party's port. Values only; no sockets here."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.core.model import SourceName

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

CONNECTIONS = 16_384  #: open connections in all; each takes a descriptor, and another while its DATA is carried
CONNECTIONS_PER_PEER = 1_024  #: open connections of one address: a site's devices may stand behind one router
FRAME_SECONDS = 5.0  #: for one message; a device sends it in one piece
IDLE_SECONDS = 180.0  #: between two messages; SEDIMENT's relying party closes after three times 60 s of silence
ONWARD_SECONDS = (
    5.0  #: for the app server to take one message; a device waits 10 s for an answer (Comm.cpp line 66)
)
WRITE_SECONDS = 10.0  #: for a device to take its answer
PATIENCE_SECONDS = 1.0
"""For a passport's alert to be acted on. The verifier sends the alert before it grants the passport (13 ms in its
own log), so a device that has just passed is seldom earlier than its alert, but our commit takes its time too."""

READ_BYTES = 16_384  #: per read: the largest message takes two
FRAME_LIMIT = 32_000  #: bytes; SEDIMENT's receivers have a buffer of this size

COPIES = 256  #: answers on their way to the verifier at once; beyond, a device is answered without a copy
COPY_SECONDS = 3.0  #: for a verifier to acknowledge a copy; SEDIMENT tries three times and waits 10 s
COPY_ACK_BYTES = 2_048  #: of the acknowledgement that are read; its content says nothing

UNASSIGNED = SourceName("unassigned")
"""The source named in refusals of peers that no source of ours judges."""


@dataclass(frozen=True, slots=True)
class RelyingSettings:
    """Whom to serve and where to carry.

    ``service``    the book's service that DATA is for: a device must be admitted to it.
    ``onward``     address and port of the app server; beside SEDIMENT's relying party, of that party.
    ``verifiers``  from where alerts are believed, and whose source judges them.
    ``beside``     stand before SEDIMENT's relying party instead of in its place.
    ``verifier``   address and port to which a copy of PASSPORT_RESPONSE goes; None: nowhere.
    ``kept``       keep a connection to the app server for each device's connection, instead of one for each DATA.
    ``source``     the source named in refusals of devices.
    """

    service: str
    onward: tuple[str, int]
    verifiers: Mapping[Network, SourceName]
    beside: bool = False
    verifier: tuple[str, int] | None = None
    kept: bool = False
    source: SourceName = UNASSIGNED
    connections: int = CONNECTIONS
    connections_per_peer: int = CONNECTIONS_PER_PEER
    frame_seconds: float = FRAME_SECONDS
    idle_seconds: float = IDLE_SECONDS
    onward_seconds: float = ONWARD_SECONDS
    patience_seconds: float = PATIENCE_SECONDS
