"""The connections of the door: accepted, silent, shaking hands, open; within the limits, and ended in time.

Connections are accepted by a loop of our own, so that what is silent or still shaking hands counts against the
limits, too. TLS costs thirty times what a socket does, so nothing of it is made for who has said nothing. What must
not live here: reading requests.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from aiohttp import http_exceptions, web

from gateway.certs import ServedTls
from gateway.control.reception import Identity
from gateway.core.errors import Refusal
from gateway.intake.rest.settings import RestSettings
from gateway.intake.rest.tls import Listed, identity_of

SHORTAGE_SECONDS = 0.05  #: without accepting, once the process has run out of descriptors
SWEEP_SECONDS = 1.0  #: between looks for connections that have been idle for too long
TLS_HANDSHAKE = 0x16  #: the first byte of whatever speaks TLS (RFC 8446 section 5.1)

_LOST = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EINTR})
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class _NotThePeersFault(logging.Filter):
    """Keeps out what is not HTTP (the peer got 400 for it) and peers that left: nobody outside may fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, http_exceptions.HttpProcessingError | ConnectionError)


_log = logging.getLogger("gateway.intake.rest")
_log.addFilter(_NotThePeersFault())


Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Refuse = Callable[[Refusal, str, str], None]
"""Counts what the door refuses by itself: which refusal, in words, whom."""


class Connection:
    """One connection after its handshake."""

    __slots__ = ("authorities", "busy", "listed", "peer", "since", "transport")

    def __init__(self, transport: asyncio.Transport, authorities: bytes | None, now: float) -> None:
        self.transport = transport
        self.peer = _peer_text(transport.get_extra_info("peername"))
        self.listed: Listed | None = identity_of(transport.get_extra_info("ssl_object"))
        self.authorities = authorities  # of clients, when it was made; None: others than those of now
        self.busy = 0
        self.since = now

    @property
    def identity(self) -> Identity | None:
        """Who the client's certificate says it is."""
        return None if self.listed is None else self.listed.identity


class _Silent(NamedTuple):
    """A connection on which nothing has come yet."""

    sock: socket.socket
    peer: str
    since: float


class _Http(web.Server):
    """The library's server, telling us of connections."""

    def __init__(self, connections: Connections, handle: Handle, settings: RestSettings) -> None:
        super().__init__(
            handle,
            access_log=None,
            logger=_log,
            keepalive_timeout=settings.idle_seconds,
            max_line_size=settings.line_bytes,
            max_field_size=settings.field_bytes,
            max_headers=settings.headers,
            lingering_time=1.0,
            auto_decompress=False,
        )
        self._door = connections

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:  # noqa: ANN401 - the library's own
        super().connection_made(handler, transport)
        self._door.made(handler, transport)

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:  # noqa: ANN401 - as above
        super().connection_lost(handler, exc)
        self._door.lost(handler)


class Connections:
    """Those of one door. ``accepted`` counts them, ``serving`` is whether more are taken.

    One outlives renewed files, unless its client's certificate has been revoked or the clients' authorities are
    others: in the first case it is ended at once, in the second after its next answer.
    """

    def __init__(
        self, listen: Sequence[socket.socket], tls: ServedTls, settings: RestSettings, refuse: Refuse
    ) -> None:
        self._listeners = list(listen)
        self._tls = tls
        self._settings = settings
        self._refuse = refuse
        self._open: dict[Any, Connection] = {}
        self._silent: dict[int, _Silent] = {}  # by descriptor, the oldest first
        self._shaking = 0
        self._peers: Counter[str] = Counter()
        self.serving = False
        self.accepted = 0

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listening socket."""
        return [listener.getsockname()[:2] for listener in self._listeners]

    @property
    def open(self) -> int:
        """How many are open or shaking hands."""
        return len(self._open) + self._shaking

    @property
    def silent(self) -> int:
        """On how many nothing has come yet."""
        return len(self._silent)

    def of(self, handler: object) -> Connection | None:
        """The connection that the library's handler serves; None: it has ended."""
        return self._open.get(handler)

    def close(self) -> None:
        """Close the listening sockets."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def run(self, handle: Handle) -> None:
        """Serve until cancelled, each request by ``handle``; then give those under way ``stop_seconds``."""
        self._loop = asyncio.get_running_loop()
        self._http = _Http(self, handle, self._settings)
        self._tls.changed = self._judge_again
        try:
            async with asyncio.TaskGroup() as tasks:
                for listener in self._listeners:
                    listener.setblocking(False)
                    tasks.create_task(self._take(listener, tasks), name="rest-accept")
                tasks.create_task(self._sweep(), name="rest-sweep")
                tasks.create_task(self._tls.run(), name="rest-tls")
                self.serving = True
        finally:
            self.serving = False
            self.close()
            for silent in list(self._silent.values()):
                self._end_silent(silent)
            await self._http.shutdown(self._settings.stop_seconds)

    async def _take(self, listener: socket.socket, tasks: asyncio.TaskGroup) -> None:
        try:
            await self._accept(listener, tasks)
        finally:
            self.serving = False  # from here on no task may be made any more

    async def _accept(self, listener: socket.socket, tasks: asyncio.TaskGroup) -> None:
        while True:
            try:
                sock, address = await self._loop.sock_accept(listener)
            except OSError as error:
                if error.errno in _LOST:
                    continue
                if error.errno not in _SHORT:
                    raise
                self._refuse(Refusal.LIMIT, f"accepting stands still: {error.strerror}", "")
                await asyncio.sleep(SHORTAGE_SECONDS)
                continue
            self.accepted += 1
            peer = _peer_text(address)
            if self._peers[peer] >= self._settings.connections_per_peer:
                self._refuse(Refusal.LIMIT, f"{self._peers[peer]} connections of this address are open", peer)
                sock.close()
                continue
            self._peers[peer] += 1
            self._await_first_byte(_Silent(sock, peer, self._loop.time()), tasks)

    def _await_first_byte(self, silent: _Silent, tasks: asyncio.TaskGroup) -> None:
        """Keep the socket and no more. Where there are too many, the one that has been silent longest gives way."""
        if len(self._silent) >= self._settings.silent:
            oldest = next(iter(self._silent.values()))
            self._refuse(Refusal.LIMIT, f"{len(self._silent)} connections have sent nothing yet", oldest.peer)
            self._end_silent(oldest)
        self._silent[silent.sock.fileno()] = silent
        self._loop.add_reader(silent.sock, self._first_byte, silent, tasks)

    def _first_byte(self, silent: _Silent, tasks: asyncio.TaskGroup) -> None:
        """Something has come, or the peer has left."""
        sock, peer, _ = silent
        if not self.serving:
            self._end_silent(silent)
            return
        try:
            first = sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        if not first or first[0] != TLS_HANDSHAKE:
            self._refuse(Refusal.FRAMING, "TLS: the peer left" if not first else "TLS: no TLS", peer)
            self._end_silent(silent)
            return
        if self.open >= self._settings.connections:
            self._refuse(Refusal.LIMIT, f"{self.open} connections are open", peer)
            self._end_silent(silent)
            return
        self._loop.remove_reader(sock)
        del self._silent[sock.fileno()]
        self._shaking += 1
        tasks.create_task(self._shake_hands(sock, peer), name="rest-handshake")

    def _end_silent(self, silent: _Silent) -> None:
        self._loop.remove_reader(silent.sock)
        del self._silent[silent.sock.fileno()]
        silent.sock.close()
        self._give_back(silent.peer)

    async def _shake_hands(self, sock: socket.socket, peer: str) -> None:
        made = False
        try:
            self._tls.look()
            await self._loop.connect_accepted_socket(
                self._http,
                sock,
                ssl=self._tls.context,
                ssl_handshake_timeout=self._settings.handshake_seconds,
                ssl_shutdown_timeout=1.0,
            )
            made = True
        except ssl.SSLError as error:
            self._refuse(Refusal.SOURCE, f"TLS: {error.reason or 'handshake failed'}"[:120], peer)
        except (OSError, TimeoutError) as error:
            # Both loops tell a handshake that takes too long from a peer that left by their words alone.
            if isinstance(error, TimeoutError) or "taking longer" in str(error):
                self._refuse(Refusal.TIMEOUT, "TLS: no handshake in time", peer)
            else:
                self._refuse(Refusal.FRAMING, "TLS: the peer left", peer)
        finally:
            self._shaking -= 1
            if not made:
                sock.close()
                self._give_back(peer)

    def made(self, handler: object, transport: asyncio.Transport) -> None:
        """A handshake is done. What it was begun with may have been replaced meanwhile."""
        newest = transport.get_extra_info("sslcontext") is self._tls.context
        made = Connection(transport, self._tls.current.client_ca if newest else None, self._loop.time())
        self._open[handler] = made
        self._judge(made)

    def lost(self, handler: object) -> None:
        """A connection has ended."""
        connection = self._open.pop(handler, None)
        if connection is not None:
            self._give_back(connection.peer)

    def _give_back(self, peer: str) -> None:
        self._peers[peer] -= 1
        if self._peers[peer] <= 0:
            del self._peers[peer]

    async def _sweep(self) -> None:
        """End connections that have not sent a whole request head for too long, however slowly they send one."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            oldest = self._loop.time() - self._settings.idle_seconds
            for connection in list(self._open.values()):
                if not connection.busy and connection.since < oldest:
                    connection.transport.abort()
            while self._silent:
                silent = next(iter(self._silent.values()))
                if silent.since >= oldest:
                    break
                self._refuse(Refusal.TIMEOUT, "TLS: nothing came in time", silent.peer)
                self._end_silent(silent)

    def _judge_again(self) -> None:
        """Newer files were taken: who has been revoked by them is not heard any more."""
        for connection in list(self._open.values()):
            self._judge(connection)

    def _judge(self, connection: Connection) -> None:
        if connection.listed is not None and self._tls.revoked(connection.listed.mark):
            self._refuse(Refusal.SOURCE, "TLS: the client certificate has been revoked", connection.peer)
            connection.transport.abort()


def _peer_text(address: object) -> str:
    if not isinstance(address, tuple) or not address:
        return ""
    text = str(address[0]).partition("%")[0]
    return text.removeprefix("::ffff:")
