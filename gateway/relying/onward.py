"""One connection onward: to the app server, or to SEDIMENT's own relying party.

Sockets are watched by hand, not through transports: a cut must have reset both ends when the call returns, whatever
is still in a buffer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Callable

from gateway.relying.settings import READ_BYTES

_RESET = struct.pack("ii", 1, 0)  # struct linger: on, no time: close sends RST and keeps nothing


def reset(sock: socket.socket) -> None:
    """Close a socket so that its peer sees the end at once and nothing unsent is sent."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


class Onward:
    """Connects, sends what it is given in order, and tells.

    ``sent`` is called when nothing is left unsent, ``lost`` once when the connection has failed or was closed by
    the other side, ``read`` for what comes back. ``may``: asked immediately before bytes go out; when it says no,
    the connection is reset with whatever it holds, and is lost.
    """

    __slots__ = (
        "_loop",
        "_lost",
        "_may",
        "_over",
        "_read",
        "_reading",
        "_rest",
        "_sent",
        "_sock",
        "_up",
        "_writing",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sent: Callable[[], None],
        lost: Callable[[], None],
        may: Callable[[], bool],
        read: Callable[[bytes], None] | None = None,
    ) -> None:
        self._loop = loop
        self._sent = sent
        self._lost = lost
        self._may = may
        self._read = read
        self._sock: socket.socket | None = None
        self._rest = b""
        self._up = False
        self._writing = False
        self._reading = False
        self._over = False

    @property
    def up(self) -> bool:
        """Whether the other side has answered."""
        return self._up

    @property
    def unsent(self) -> int:
        """Bytes given and not yet with the kernel."""
        return len(self._rest)

    def connect(self, where: tuple[str, int]) -> bool:
        """Begin to connect. False: there is no way there; ``lost`` is not called."""
        family = socket.AF_INET6 if ipaddress.ip_address(where[0]).version == 6 else socket.AF_INET
        try:
            sock = self._sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(where)
        except BlockingIOError:
            return True
        except OSError:  # no descriptor, no route
            self.reset()
            return False
        return True

    def send(self, data: bytes, *, asked: bool = False) -> bool:
        """Send after what was given before. True: all of it is with the kernel, and ``sent`` is not called.

        ``asked``: the caller has just found that it may; nobody is asked again for what goes out at once.
        """
        if self._rest:
            self._rest += data
            return False
        self._rest = data
        # On loopback and in a quick network a connection may be up at once: then nothing waits for the loop.
        return self._push(tell=False, asked=asked)

    def watch(self) -> None:
        """Notice when the other side closes, and hand on what it sends."""
        if self._sock is not None and not self._reading and not self._over:
            self._reading = True
            self._loop.add_reader(self._sock.fileno(), self._on_readable)

    def rest(self) -> None:
        """Read nothing until ``watch`` is called again."""
        if self._sock is not None and self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock.fileno())

    def close(self) -> None:
        """Close it in order: what the kernel has is still delivered."""
        self._end(socket.socket.close)

    def reset(self) -> None:
        """End it now, with whatever is unsent."""
        self._end(reset)

    def _push(self, *, tell: bool, asked: bool = False) -> bool:
        sock = self._sock
        if sock is None or self._over:
            return False
        if not asked and not self._may():
            self.reset()
            self._loop.call_soon(self._lost)
            return False
        try:
            count = sock.send(self._rest)
        except BlockingIOError:
            count = 0
        except OSError:
            self.reset()
            self._loop.call_soon(self._lost)
            return False
        self._up = self._up or count > 0
        self._rest = self._rest[count:]
        if self._rest:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(sock.fileno(), self._on_writable)
            return False
        if self._writing:
            self._writing = False
            self._loop.remove_writer(sock.fileno())
        if tell:
            self._sent()
        return True

    def _on_writable(self) -> None:
        self._push(tell=True)

    def _on_readable(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._up = True
            if self._read is not None:
                self._read(data)
            return
        self.close()
        self._lost()

    def _end(self, close: Callable[[socket.socket], None]) -> None:
        if self._over:
            return
        self._over = True
        sock, self._sock = self._sock, None
        if sock is None:
            return
        if self._writing:
            self._loop.remove_writer(sock.fileno())
        if self._reading:
            self._loop.remove_reader(sock.fileno())
        close(sock)
