"""The console: read-only HTTP about devices, health and metrics.

What lives here: the GET routes, paging, the check of the Host header. What must not: writing state, calling a
backend. Shapes are those of the published API; a listing never holds the event loop for more than a few
milliseconds, however many devices there are.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.console import html, index, overview, page
from gateway.console.listing import Listing, PageQuery
from gateway.console.problems import EXCERPT, Problem, add_headers, answer_problems
from gateway.console.server import HttpLimits, HttpServer
from gateway.console.views import device_detail, device_row, explanation, proof, readiness, site_now
from gateway.control.ports import Directory, Explained, Health, History, Proven, SiteNow
from gateway.core.errors import ConfigError
from gateway.core.model import DeviceId

#: Devices in one answer when the client does not say.
PAGE_DEFAULT = 1_000

#: Verdicts shown with one device.
VERDICTS = 20

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

#: Addresses to listen on that are no address of anybody.
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - refused here, not listened on


@dataclass(frozen=True, slots=True)
class Windows:
    """What the windows look at.

    ``inventory`` gives the device ids in inventory order; ``exposition`` the metrics text; ``health`` one line
    per part. ``explained`` gathers what one device's explanation rests on, ``proven`` asks every target, ``site``
    tells the site's profile; ``book`` what is told of the running book and of the newest attempt to replace it.
    """

    directory: Directory
    history: History
    inventory: Callable[[], Sequence[DeviceId]]
    health: Callable[[], Sequence[Health]]
    exposition: Callable[[], Awaitable[bytes]]
    explained: Callable[[DeviceId], Awaitable[Explained | None]]
    proven: Callable[[DeviceId], Awaitable[Proven | None]]
    site: Callable[[], SiteNow]
    book: Callable[[], Mapping[str, Any]] = dict


class Reads:
    """The GET routes."""

    def __init__(self, windows: Windows, *, acts: bool) -> None:
        self._windows = windows
        self._page = index.page(acts=acts)
        self._listing = Listing(windows.directory, windows.inventory)

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        for path, handler in (
            ("/", self.root),
            ("/healthz", self.alive),
            ("/readyz", self.ready),
            ("/metrics", self.metrics),
            ("/v1/book", self.book),
            ("/v1/devices", self.devices),
            ("/v1/devices/{id}", self.device),
            ("/v1/devices/{id}/explanation", self.explanation),
            ("/v1/devices/{id}/proof", self.proof),
            ("/v1/site", self.site),
            (overview.PATH, self.overview),
            ("/devices/{id}", self.page),
        ):
            app.router.add_get(path, handler, allow_head=False)

    async def root(self, _request: web.Request) -> web.Response:
        """The index page."""
        headers = {"Content-Security-Policy": index.POLICY}
        return web.Response(text=self._page, content_type="text/html", headers=headers)

    async def alive(self, _request: web.Request) -> web.Response:
        """The process answers."""
        return as_json({"alive": True})

    async def ready(self, _request: web.Request) -> web.Response:
        """Every part, and 503 while one is not ready."""
        body = readiness(self._windows.health())
        return as_json(body, HTTPStatus.OK if body["ready"] else HTTPStatus.SERVICE_UNAVAILABLE)

    async def metrics(self, _request: web.Request) -> web.Response:
        """The exposition."""
        return web.Response(body=await self._windows.exposition(), headers={"Content-Type": METRICS_TYPE})

    async def book(self, _request: web.Request) -> web.Response:
        """The running book, and the newest attempt to replace it."""
        return as_json(self._windows.book())

    async def device(self, request: web.Request) -> web.Response:
        """One device in full."""
        device = DeviceId(request.match_info["id"])
        view = self._windows.directory.view(device)
        if view is None:
            raise unknown_device(device)
        return as_json(device_detail(view, await self._windows.history.verdicts(device, VERDICTS)))

    async def page(self, request: web.Request) -> web.Response:
        """One device for a browser."""
        device = DeviceId(request.match_info["id"])
        view = self._windows.directory.view(device)
        if view is None:
            raise unknown_device(device)
        shown = device_detail(view, await self._windows.history.verdicts(device, VERDICTS))
        return as_page(page.device_page(shown, time.time()))

    async def explanation(self, request: web.Request) -> web.Response:
        """Why a device gets what it gets, each gate read back."""
        device = DeviceId(request.match_info["id"])
        found = await self._windows.explained(device)
        if found is None:
            raise unknown_device(device)
        return as_json(explanation(found, await self._windows.history.verdicts(device, VERDICTS)))

    async def proof(self, request: web.Request) -> web.Response:
        """What every target shows of a device at this moment."""
        device = DeviceId(request.match_info["id"])
        found = await self._windows.proven(device)
        if found is None:
            raise unknown_device(device)
        return as_json(proof(found))

    async def site(self, _request: web.Request) -> web.Response:
        """The site's profile."""
        return as_json(site_now(self._windows.site()))

    async def overview(self, request: web.Request) -> web.Response:
        """Devices for a browser."""
        windows, query = self._windows, PageQuery.of(request, overview.ROWS)
        rows: list[Mapping[str, Any]] = []
        last: DeviceId | None = None
        async for part in self._listing.walk(query):
            rows += map(device_row, part.views)
            last = part.last
        shown = overview.overview(
            rows,
            windows.directory.counts(),
            readiness(windows.health()),
            windows.site().profile,
            time.time(),
            standing=None if query.standing is None else query.standing.label,
            after=query.after,
            following=last,
        )
        return as_page(shown)

    async def devices(self, request: web.Request) -> web.StreamResponse:
        """Devices as JSON, written while it is made."""
        walk = self._listing.walk(PageQuery.of(request, PAGE_DEFAULT))
        part = await anext(walk)  # what is wrong with the question is told before the answer begins
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        counts = msgspec.json.encode(dict(self._windows.directory.counts()))
        await response.prepare(request)
        try:
            await response.write(b'{"counts":' + counts + b',"devices":[')
            comma = b""
            async for part in walk:
                if part.views:
                    rows = b",".join([msgspec.json.encode(device_row(view)) for view in part.views])
                    await response.write(comma + rows)
                    comma = b","
            await response.write(b'],"next":' + msgspec.json.encode(part.last) + b"}\n")
            await response.write_eof()
        except asyncio.CancelledError:
            # Nothing can be said any more, and half an answer must not look whole.
            if request.transport is not None:
                request.transport.abort()
            raise
        return response


def as_json(body: object, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """An answer in JSON, ending in a line break for people at a terminal."""
    return web.Response(
        body=msgspec.json.encode(body) + b"\n", status=status.value, content_type="application/json"
    )


def as_page(page: str) -> web.Response:
    """An answer for a browser."""
    return web.Response(text=page, content_type="text/html", headers={"Content-Security-Policy": html.POLICY})


def unknown_device(device: str) -> Problem:
    """404: the inventory does not list it."""
    return Problem(HTTPStatus.NOT_FOUND, f"device {device[:EXCERPT]!r} is not in the inventory")


def application(
    reads: Reads, limits: HttpLimits, *guards: Callable[..., Awaitable[web.StreamResponse]]
) -> web.Application:
    """An application with the read routes, problem documents, security headers and further guards."""
    app = web.Application(
        middlewares=(answer_problems(limits.request_seconds), *guards), client_max_size=limits.body_bytes
    )
    app.on_response_prepare.append(add_headers)
    reads.add_to(app)
    return app


def check_host(hosts: Iterable[str]) -> Middleware:
    """Middleware: refuse a Host that does not mean us, so that no foreign name can be rebound to this window.

    Accepted are loopback's names, ``hosts``, and the address on which the connection arrived: an address that a
    client names itself cannot have been rebound.
    """
    known = (_LOOPBACK_NAMES | {host.lower().rstrip(".") for host in hosts}) - _WILDCARDS

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        name = _host_name(request.headers.getall("Host", []))
        if name in known or name == _arrived_at(request):
            return await handler(request)
        detail = f"this window does not answer as {name[:EXCERPT]!r}; console.hosts lists further names"
        raise Problem(HTTPStatus.MISDIRECTED_REQUEST, detail)

    return guard


def _host_name(values: Sequence[str]) -> str:
    """The name or address of a single Host header, without port, brackets and final dot."""
    if len(values) != 1 or not values[0]:
        raise Problem(HTTPStatus.BAD_REQUEST, "exactly one Host header is needed")
    value = values[0].lower()
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.partition(":")[0].rstrip(".")


def _arrived_at(request: web.Request) -> str | None:
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    if not isinstance(name, tuple):
        return None
    address = ipaddress.ip_address(name[0].partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


class Console:
    """The read-only window on TCP.

    ``listen`` is (host, port) or a socket that is already bound (made in another network namespace and handed
    in). ``hosts`` are further accepted Host names.
    """

    def __init__(
        self,
        windows: Windows,
        listen: tuple[str, int] | socket.socket,
        hosts: Sequence[str] = (),
        limits: HttpLimits = HttpLimits(),  # noqa: B008 - frozen value
    ) -> None:
        self._listen = listen
        names = hosts if isinstance(listen, socket.socket) else (*hosts, listen[0])
        self._app = application(Reads(windows, acts=False), limits, check_host(names))
        self._server = HttpServer(self._app, limits)
        self.address: tuple[str, int] = ("", 0)

    @property
    def connections(self) -> int:
        """Open now."""
        return self._server.connections

    async def start(self) -> None:
        """Open the window; ``address`` then says where. Raises ``ConfigError`` when it cannot listen there."""
        sock = self._listen if isinstance(self._listen, socket.socket) else await bind(self._listen)
        name = sock.getsockname()
        self.address = (name[0], name[1])
        try:
            await self._server.start(sock)
        except OSError as error:  # bound and yet taken: somebody else began to listen in between
            raise _cannot(f"{name[0]}:{name[1]}", error) from error

    async def stop(self) -> None:
        """Close the window."""
        await self._server.stop()


async def bind(listen: tuple[str, int]) -> socket.socket:
    """A TCP socket bound to (host, port). Raises ``ConfigError`` naming ``console.listen``."""
    host, port = listen
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise _cannot(f"{host}:{port}", error) from error
    return sock


def _cannot(where: str, error: OSError) -> ConfigError:
    what = f"cannot listen on {where}: {error.strerror or error}"
    return ConfigError("console.listen", what, "choose a free port and an address of this host")
