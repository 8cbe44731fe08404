"""The door: accept, wait for a first byte, shake hands, read one request at a time, submit, answer.

Connections are accepted by a loop of our own, so that what is silent or still shaking hands counts against the
limits, too. TLS costs thirty times what a socket does, so nothing of it is made for who has said nothing.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from aiohttp import http_exceptions, web

from gateway.certs import ServedTls
from gateway.control.ports import Clock
from gateway.control.reception import Denied, Identity, Reception, Submission
from gateway.core.errors import Refusal
from gateway.intake.rest import answers, heads, openapi
from gateway.intake.rest.answers import Reply
from gateway.intake.rest.heads import BadRequestError
from gateway.intake.rest.settings import DESCRIPTION, PATH, RestSettings
from gateway.intake.rest.tls import Listed, identity_of

SHORTAGE_SECONDS = 0.05  #: without accepting, once the process has run out of descriptors
SWEEP_SECONDS = 1.0  #: between looks for connections that have been idle for too long
TLS_HANDSHAKE = 0x16  #: the first byte of whatever speaks TLS (RFC 8446 section 5.1)

#: On every answer: nothing here is for a cache or a browser.
HEADERS = {"Cache-Control": "no-store", "Server": "ragate", "X-Content-Type-Options": "nosniff"}

_LOST = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EINTR})
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class _NotThePeersFault(logging.Filter):
    """Keeps out what is not HTTP (the peer got 400 for it) and peers that left: nobody outside may fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, http_exceptions.HttpProcessingError | ConnectionError)


_log = logging.getLogger("gateway.intake.rest")
_log.addFilter(_NotThePeersFault())


class _Connection:
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

    def __init__(self, door: RestDoor, **options: Any) -> None:  # noqa: ANN401 - the library's own
        super().__init__(door.handle, **options)
        self._door = door

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:  # noqa: ANN401 - as above
        super().connection_made(handler, transport)
        self._door.made(handler, transport)

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:  # noqa: ANN401 - as above
        super().connection_lost(handler, exc)
        self._door.lost(handler)


class RestDoor:
    """Takes documents over HTTPS. ``tls``: the door's own from here on; it follows the files while the door runs.

    A connection outlives renewed files, unless its client's certificate has been revoked or the clients'
    authorities are others: in the first case it is ended at once, in the second after its next answer.

    Counts, for metrics: ``accepted`` connections, ``requests``, ``refused`` by ``Refusal`` (what the door refused
    by itself).
    """

    def __init__(
        self,
        listen: Sequence[socket.socket],
        reception: Reception,
        clock: Clock,
        tls: ServedTls,
        settings: RestSettings = RestSettings(),  # noqa: B008 - frozen value
    ) -> None:
        """Adopt the listening sockets: they are the door's from here on, and closed by it."""
        self._listeners = list(listen)
        self._reception = reception
        self._clock = clock
        self.tls = tls
        self._settings = settings
        self._open: dict[Any, _Connection] = {}
        self._silent: dict[int, _Silent] = {}  # by descriptor, the oldest first
        self._shaking = 0
        self._serving = False
        self._peers: Counter[str] = Counter()
        self._description = msgspec.json.encode(openapi.document()) + b"\n"
        self.accepted = 0
        self.requests = 0
        self.refused: Counter[Refusal] = Counter()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listening socket."""
        return [listener.getsockname()[:2] for listener in self._listeners]

    name = "rest"

    def depth(self) -> int:
        """Connections of every kind, for metrics."""
        return self.open_connections + self.silent_connections

    @property
    def open_connections(self) -> int:
        """Connections open or shaking hands."""
        return len(self._open) + self._shaking

    @property
    def silent_connections(self) -> int:
        """Connections on which nothing has come yet."""
        return len(self._silent)

    def state(self) -> str:
        """One line for people."""
        told = f"{self.open_connections} connections open, {self.silent_connections} silent so far"
        return f"{told}; {self.tls.state()}" if self._serving else f"not open; {self.tls.state()}"

    @property
    def serving(self) -> bool:
        """Whether it takes connections."""
        return self._serving

    def close(self) -> None:
        """Close the listening sockets of a door that was never run; after ``run`` there are none."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def run(self) -> None:
        """Serve until cancelled; then finish the answers under way within ``stop_seconds``."""
        limits = self._settings
        self._loop = asyncio.get_running_loop()
        self._http = _Http(
            self,
            access_log=None,
            logger=_log,
            keepalive_timeout=limits.idle_seconds,
            max_line_size=limits.line_bytes,
            max_field_size=limits.field_bytes,
            max_headers=limits.headers,
            lingering_time=1.0,
            auto_decompress=False,
        )
        self.tls.changed = self._judge_again
        try:
            async with asyncio.TaskGroup() as tasks:
                for listener in self._listeners:
                    listener.setblocking(False)
                    tasks.create_task(self._take(listener, tasks), name="rest-accept")
                tasks.create_task(self._sweep(), name="rest-sweep")
                tasks.create_task(self.tls.run(), name="rest-tls")
                self._serving = True
        finally:
            self._serving = False
            self.close()
            for silent in list(self._silent.values()):
                self._end_silent(silent)
            await self._http.shutdown(limits.stop_seconds)

    # --- connections ------------------------------------------------------------------------------------

    async def _take(self, listener: socket.socket, tasks: asyncio.TaskGroup) -> None:
        try:
            await self._accept(listener, tasks)
        finally:
            self._serving = False  # from here on no task may be made any more

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
        if not self._serving:
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
        if self.open_connections >= self._settings.connections:
            self._refuse(Refusal.LIMIT, f"{self.open_connections} connections are open", peer)
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
            self.tls.look()
            await self._loop.connect_accepted_socket(
                self._http,
                sock,
                ssl=self.tls.context,
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
        newest = transport.get_extra_info("sslcontext") is self.tls.context
        made = _Connection(transport, self.tls.current.client_ca if newest else None, self._loop.time())
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

    def _judge(self, connection: _Connection) -> None:
        if connection.listed is not None and self.tls.revoked(connection.listed.mark):
            self._refuse(Refusal.SOURCE, "TLS: the client certificate has been revoked", connection.peer)
            connection.transport.abort()

    # --- requests ---------------------------------------------------------------------------------------

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        self.requests += 1
        connection = self._open.get(request.protocol)
        if connection is None:  # it ended while the request waited its turn
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE)
        connection.busy += 1
        try:
            reply = await self._answer(request, connection)
        except BadRequestError as bad:
            reply = bad.reply
        except TimeoutError:
            reply = self._own_refusal(Refusal.TIMEOUT, "the request took too long to arrive", connection.peer)
        except web.RequestPayloadError:
            reply = self._own_refusal(Refusal.FRAMING, "the request's body is broken", connection.peer)
        finally:
            connection.busy -= 1
            connection.since = self._loop.time()
        response = web.Response(
            status=reply.status,
            body=reply.body,
            headers={**HEADERS, **reply.headers},
            content_type=reply.media_type,
        )
        if connection.authorities != self.tls.current.client_ca or not request.content.at_eof():
            # What was not read could be taken for the next request; and who vouches for clients has changed.
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest, connection: _Connection) -> Reply:
        if request.path == DESCRIPTION:
            if request.method != "GET":
                return heads.not_allowed("GET")
            return Reply(HTTPStatus.OK, self._description)
        if request.path != PATH:
            return answers.problem(HTTPStatus.NOT_FOUND, f"there is nothing at this path; post to {PATH}")
        if request.method != "POST":
            return heads.not_allowed("POST")
        wait = heads.wait(request)
        submission = Submission(
            data=b"",
            peer=connection.peer,
            received=self._clock.now(),
            source=heads.header(request, "Ragate-Source", heads.NAME),
            identity=connection.identity,
            key_id=heads.header(request, "Ragate-Key", heads.NAME),
            signature=heads.signature(request),
            media_type=heads.media_type(request),
            wait=wait,
        )
        # Only the sender's part is timed: once the document is here, the answer comes within the reception's time.
        async with asyncio.timeout(self._settings.request_seconds):
            data = await self._body(request, connection)
        found = await self._reception.receive(submission._replace(data=data, received=self._clock.now()))
        return answers.denied(found) if isinstance(found, Denied) else answers.taken(found, wait=wait)

    async def _body(self, request: web.BaseRequest, connection: _Connection) -> bytes:
        most = self._settings.body
        if (request.content_length or 0) > most:
            raise BadRequestError(self._too_large(connection.peer))
        if request.headers.get("Expect", "").lower() == "100-continue":
            connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts: list[bytes] = []
        size = 0
        async for part in request.content.iter_any():
            size += len(part)
            if size > most:
                raise BadRequestError(self._too_large(connection.peer))
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self, peer: str) -> Reply:
        return self._own_refusal(Refusal.LENGTHS, f"at most {self._settings.body} bytes are taken at once", peer)

    def _own_refusal(self, refusal: Refusal, detail: str, peer: str) -> Reply:
        self._refuse(refusal, detail, peer)
        return answers.denied(Denied(refusal, detail))

    def _refuse(self, refusal: Refusal, detail: str, peer: str) -> None:
        self.refused[refusal] += 1
        self._reception.turned_away(refusal, detail, peer)


def _peer_text(address: object) -> str:
    if not isinstance(address, tuple) or not address:
        return ""
    text = str(address[0]).partition("%")[0]
    return text.removeprefix("::ffff:")
