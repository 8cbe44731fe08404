"""Routes, limits and views of the relay. Values only."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

CONNECTIONS = 4096  #: relayed connections in all; each takes two descriptors and at most 128 KiB
CONNECTIONS_PER_CLIENT = 64  #: of one address: a device talks to one application
CONNECT_SECONDS = 5.0  #: to reach the service; it is on this site
BUFFER_BYTES = 65_536  #: per direction; more would hide from a client that the service does not keep up


@dataclass(frozen=True, slots=True)
class RelayRoute:
    """One relayed service: where clients connect, and where the service really is.

    ``service``        its name in the policy book.
    ``listen``         ``host:port`` (IPv6 as ``[host]:port``), or a socket that listens already: it becomes the
                       relay's own.
    ``upstream_host``  an IP address.
    """

    service: str
    listen: str | socket.socket
    upstream_host: str
    upstream_port: int


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Limits of the relay.

    ``connections``            relayed connections in all.
    ``connections_per_client`` of one client address.
    ``connect_seconds``        to reach the service. An open connection may be idle for as long as it likes.
    """

    connections: int = CONNECTIONS
    connections_per_client: int = CONNECTIONS_PER_CLIENT
    connect_seconds: float = CONNECT_SECONDS


class RelayConnection(NamedTuple):
    """One relayed connection as the console shows it. ``since`` is boot seconds, the rest bytes and words."""

    service: str
    client: str
    client_port: int
    upstream: str
    state: str  # connecting, open, half-closed
    since: float
    from_client: int
    to_client: int
