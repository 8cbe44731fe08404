"""Listening sockets: opening them, taking connections as bare descriptors, asking how long their queue is."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Sequence

from gateway.core.errors import ConfigError

BACKLOG = 4096  #: connections that the kernel keeps for us; it lowers this to net.core.somaxconn by itself
_TCP_INFO_BYTES = 32  # enough of struct tcp_info (linux/tcp.h) to reach tcpi_unacked
_UNACKED_AT = 24  # offset of tcpi_unacked: on a listening socket, connections waiting to be accepted

#: accept(2): errors of the connection that was about to be taken; the next one may be fine.
LOST_BEFORE_ACCEPT = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
        errno.ENOPROTOOPT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENONET,
    }
)
#: accept(2): nothing more can be opened now.
SHORT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener(socket.socket):
    """A listening socket that hands out descriptors.

    ``socket.accept`` builds a socket object for each connection, which costs a third of the whole work on one
    alert; a descriptor can be read, watched and closed just as well.
    """

    def take(self) -> tuple[int, str]:
        """Accept one connection: descriptor (non-inheritable, still blocking) and textual peer address.

        Raises ``OSError`` as ``accept(2)`` does; ``BlockingIOError`` when none waits.
        """
        fd, address = self._accept()  # type: ignore[attr-defined] # what accept() is built on; not in the stubs
        return fd, address[0]

    @property
    def backlog(self) -> int:
        """Connections that the kernel has completed and nobody has accepted yet."""
        info = self.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return int.from_bytes(info[_UNACKED_AT : _UNACKED_AT + 4], sys.byteorder)


def adopt(sock: socket.socket) -> Listener:
    """Make a listening socket ours: the object handed in is empty afterwards."""
    listener = Listener(fileno=sock.detach())
    listener.setblocking(False)
    return listener


def open_listeners(addresses: Sequence[str]) -> list[socket.socket]:
    """Listen on each ``host:port`` (IPv6 as ``[host]:port``); port 0 lets the kernel choose.

    An IPv6 socket takes IPv6 only, so that ``0.0.0.0:8000`` and ``[::]:8000`` can stand side by side. Raises
    ``ConfigError`` for an address that cannot be read or listened on; then none is left open.
    """
    opened: list[socket.socket] = []
    try:
        for address in addresses:
            opened.append(_open(address))  # noqa: PERF401 - those opened so far must be known on failure
    except ConfigError:
        for sock in opened:
            sock.close()
        raise
    return opened


def _open(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
    except ValueError as error:
        raise ConfigError(address, "is not an address to listen on", "write 192.0.2.1:8000 or [::]:8000") from error
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((str(ip), number))
        sock.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        sock.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(address, f"cannot listen here: {reason}", "choose another address or port") from error
    return sock


def reserve_descriptor() -> int | None:
    """A descriptor to give up when none is left; ``None``: not even this one could be had."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
