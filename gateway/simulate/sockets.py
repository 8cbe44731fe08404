"""Where surrogate parties get their sockets from, so that one process can play parties in many namespaces."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import NamedTuple

SocketMaker = Callable[[int, int], socket.socket]
"""``(family, type) -> socket``: makes non-blocking sockets in the namespace that the maker stands for."""


class Peer(NamedTuple):
    """Textual address and port of somebody to talk to."""

    host: str
    port: int

    @property
    def family(self) -> int:
        """The socket family of the address."""
        return family_of(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def family_of(address: str) -> int:
    """AF_INET or AF_INET6. Raises ``ValueError`` when the text is no address."""
    return socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET


def own_namespace(family: int, kind: int) -> socket.socket:
    """The ``SocketMaker`` of a party that lives in this process's own namespace."""
    made = socket.socket(family, kind)
    made.setblocking(False)
    return made


def listener(sockets: SocketMaker, at: Peer, backlog: int) -> socket.socket:
    """A listening TCP socket; port 0 lets the kernel choose. Raises ``OSError``."""
    made = sockets(at.family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if at.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((at.host, at.port))
        made.listen(backlog)
    except OSError:
        made.close()
        raise
    return made
