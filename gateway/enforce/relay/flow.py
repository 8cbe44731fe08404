"""One relayed connection: two sockets and the bytes between them.

Sockets are watched by hand, not through transports, because a cut must be finished when the call returns: both
ends are reset on the spot, whatever is still in a buffer.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from enum import Enum

from gateway.control.ports import Clock
from gateway.enforce.relay.settings import BUFFER_BYTES, RelayConnection

_RESET = struct.pack("ii", 1, 0)  # struct linger: on, no time: close sends RST and keeps nothing


class End(Enum):
    """Why a relayed connection ended."""

    CLOSED = "closed"  # both sides had finished
    BROKEN = "broken"  # one side failed
    CUT = "cut"  # no longer allowed
    EXPIRED = "expired"  # its admission ended
    UNREACHABLE = "unreachable"  # the service could not be reached
    STOPPED = "stopped"  # the relay stopped


def reset(sock: socket.socket) -> None:
    """Close a socket so that its peer sees the end at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


class _Half:
    """One direction: at most one read's worth of bytes waits between ``source`` and ``sink``."""

    __slots__ = ("done", "moved", "rest", "sink", "source")

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.rest = memoryview(b"")
        self.moved = 0
        self.done = False


class Flow:
    """One relayed connection. ``until`` is boot seconds; bytes read after it are never passed on."""

    def __init__(
        self,
        client: socket.socket,
        peer: tuple[str, int],
        packed: bytes,
        service: str,
        until: float,
        clock: Clock,
        ended: Callable[[Flow, End], None],
    ) -> None:
        self.peer = peer
        self.packed = packed
        self.service = service
        self.until = until
        self.since = clock.now().boot
        self.connecting = True
        self._client = client
        self._clock = clock
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._over = False

    def connect(self, host: str, port: int) -> None:
        """Begin to reach the service. Nothing is read from the client until it answers."""
        self._upstream_at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            upstream = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:  # no descriptor left
            self._over = True
            reset(self._client)
            self._ended(self, End.UNREACHABLE)
            return
        self._upstream = upstream
        self._up = _Half(self._client, upstream)
        self._down = _Half(upstream, self._client)
        for sock in (self._client, upstream):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Connections may be idle for ever, but not half dead for ever.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            upstream.connect((host, port))
        except BlockingIOError:
            pass
        except OSError:
            self.abort(End.UNREACHABLE)
            return
        self._loop.add_writer(upstream.fileno(), self._on_connected)

    def abort(self, why: End) -> None:
        """End it now: both peers are reset before this returns. Twice is once."""
        self._finish(why, reset)

    @property
    def buffered(self) -> int:
        """Bytes read from one side and not yet taken by the other; at most ``BUFFER_BYTES`` each way."""
        return len(self._up.rest) + len(self._down.rest)

    def view(self) -> RelayConnection:
        """What the console shows."""
        half = self._up.done or self._down.done
        state = "connecting" if self.connecting else "half-closed" if half else "open"
        moved = self._up.moved, self._down.moved
        return RelayConnection(self.service, *self.peer, self._upstream_at, state, self.since, *moved)

    def _on_connected(self) -> None:
        self._loop.remove_writer(self._upstream.fileno())
        if self._upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.abort(End.UNREACHABLE)
            return
        self.connecting = False
        for half in (self._up, self._down):
            self._loop.add_reader(half.source.fileno(), self._on_readable, half)

    def _on_readable(self, half: _Half) -> None:
        if self._expired():
            return
        try:
            data = half.source.recv(BUFFER_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.abort(End.BROKEN)
            return
        if not data:
            self._loop.remove_reader(half.source.fileno())
            self._end_of(half)
            return
        half.rest = memoryview(data)
        if self._send(half) and half.rest:
            self._loop.remove_reader(half.source.fileno())
            self._loop.add_writer(half.sink.fileno(), self._on_writable, half)

    def _on_writable(self, half: _Half) -> None:
        if not self._expired() and self._send(half) and not half.rest:
            self._loop.remove_writer(half.sink.fileno())
            self._loop.add_reader(half.source.fileno(), self._on_readable, half)

    def _send(self, half: _Half) -> bool:
        """Pass on what the sink takes now. False: the connection broke and is over."""
        try:
            sent = half.sink.send(half.rest)
        except BlockingIOError:
            return True
        except OSError:
            self.abort(End.BROKEN)
            return False
        half.moved += sent
        half.rest = half.rest[sent:]
        return True

    def _end_of(self, half: _Half) -> None:
        """One side has finished sending; the other may go on."""
        half.done = True
        if self._up.done and self._down.done:
            self._finish(End.CLOSED, socket.socket.close)
            return
        try:
            half.sink.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort(End.BROKEN)

    def _expired(self) -> bool:
        if self._clock.now().boot < self.until:
            return False
        self.abort(End.EXPIRED)
        return True

    def _finish(self, why: End, close: Callable[[socket.socket], None]) -> None:
        if self._over:
            return
        self._over = True
        for sock in (self._client, self._upstream):
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
            close(sock)
        self._ended(self, why)
