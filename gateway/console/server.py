"""The HTTP server under the windows: limits on connections, sizes and time, on a socket that is handed in.

What lives here: serving one application within limits. What must not: routes, or making sockets.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass

from aiohttp import http_exceptions, web


class _NotThePeersFault(logging.Filter):
    """Keeps out what is not HTTP (the peer got 400 for it) and peers that left: nobody outside may fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, http_exceptions.HttpProcessingError | ConnectionError)


_log = logging.getLogger("gateway.console")
_log.addFilter(_NotThePeersFault())


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits of one window; a scraper, a few operators and their browsers need far less.

    ``connections``      open at once; each may hold one answer being written (64 KiB buffered). Connections
                         accepted in the same turn of the loop may exceed it by at most ``backlog``.
    ``backlog``          connections that wait in the kernel.
    ``request_seconds``  from the request's headers to the end of its answer; a page of 5,000 devices takes 0.3 s.
    ``idle_seconds``     without a complete request: after connecting, and between requests.
    ``line_bytes`` ``field_bytes`` ``headers``  of a request; ours have three short headers.
    ``body_bytes``       of an operator's act: 500 characters of reason in JSON escapes are 3 KB.
    ``stop_seconds``     that answers being written get when the service stops.
    """

    connections: int = 64
    backlog: int = 16
    request_seconds: float = 30.0
    idle_seconds: float = 15.0
    line_bytes: int = 2_048
    field_bytes: int = 4_096
    headers: int = 64
    body_bytes: int = 8_192
    stop_seconds: float = 2.0


class HttpServer:
    """Serves one application on one listening socket."""

    def __init__(self, app: web.Application, limits: HttpLimits) -> None:
        self._limits = limits
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            logger=_log,
            keepalive_timeout=limits.idle_seconds,
            max_line_size=limits.line_bytes,
            max_field_size=limits.field_bytes,
            max_headers=limits.headers,
            lingering_time=1.0,
            auto_decompress=False,
            shutdown_timeout=limits.stop_seconds,
        )
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket) -> None:
        """Listen on a bound socket, of which the server takes ownership."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(self._accept, sock=sock, backlog=self._limits.backlog)
        else:
            self._server = await loop.create_server(self._accept, sock=sock, backlog=self._limits.backlog)

    @property
    def connections(self) -> int:
        """Open now."""
        server = self._runner.server
        return 0 if server is None else len(server.connections)

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or self.connections >= self._limits.connections:
            return _TurnedAway()
        return server()

    async def stop(self) -> None:
        """Close the door, let answers being written finish within ``stop_seconds``, drop the rest."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._runner.cleanup()


class _TurnedAway(asyncio.Protocol):
    """Ends a connection beyond the limit at once: waiting would need memory, too."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()
