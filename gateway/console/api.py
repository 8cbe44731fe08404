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
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.console import index, page
from gateway.console.problems import EXCERPT, Problem, add_headers, answer_problems
from gateway.console.server import HttpLimits, HttpServer
from gateway.console.views import device_detail, device_row, explanation, proof, readiness, site_now
from gateway.control.ports import Directory, Explained, Health, History, Proven, SiteNow
from gateway.core.errors import ConfigError
from gateway.core.model import DeviceId, Standing

#: Devices on one page: when the client does not say, and at most.
PAGE_DEFAULT = 1_000
PAGE_MOST = 5_000

#: Devices made into JSON in one turn of the loop: 32 x 30 us is about a millisecond.
SLICE = 32

#: Ids compared in one turn when looking for ``after``: 0.2 ms; a table of places would cost memory instead.
SEARCH_SLICE = 5_000

#: Devices looked at for one page when a standing is asked for; a page may then be short, and ``next`` goes on.
SCAN_MOST = 20_000

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


class PageQuery(NamedTuple):
    """What part of the list is asked for."""

    limit: int
    after: str | None
    standing: str | None

    @classmethod
    def of(cls, request: web.Request) -> PageQuery:
        """Read the query. Raises ``Problem`` (400) for unknown, repeated or impossible values."""
        query = request.query
        for name in query:
            if name not in cls._fields:
                raise _bad(f"unknown query parameter {name[:EXCERPT]!r}; known: limit, after, standing")
            if len(query.getall(name)) > 1:
                raise _bad(f"{name} is given more than once")
        limit = query.get("limit", str(PAGE_DEFAULT))
        if not (limit.isascii() and limit.isdigit() and len(limit) <= 5 and 1 <= int(limit) <= PAGE_MOST):
            raise _bad(f"limit must be a whole number from 1 to {PAGE_MOST}")
        standing = query.get("standing")
        labels = [each.label for each in Standing]
        if standing is not None and standing not in labels:
            raise _bad(f"standing must be one of {', '.join(labels)}")
        return cls(int(limit), query.get("after"), standing)


def _bad(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, detail)


class Reads:
    """The GET routes."""

    def __init__(self, windows: Windows, *, acts: bool) -> None:
        self._windows = windows
        self._page = index.page(acts=acts)

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
        headers = {"Content-Security-Policy": page.POLICY}
        return web.Response(text=page.device_page(shown, time.time()), content_type="text/html", headers=headers)

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

    async def devices(self, request: web.Request) -> web.StreamResponse:
        """A page of devices, written while it is made."""
        query = PageQuery.of(request)
        order, start = await self._start(query.after)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        counts = msgspec.json.encode(dict(self._windows.directory.counts()))
        await response.prepare(request)
        try:
            await response.write(b'{"counts":' + counts + b',"devices":[')
            following = await self._write_rows(response, query, order, start)
            await response.write(b'],"next":' + msgspec.json.encode(following) + b"}\n")
            await response.write_eof()
        except asyncio.CancelledError:
            # Nothing can be said any more, and half an answer must not look whole.
            if request.transport is not None:
                request.transport.abort()
            raise
        return response

    async def _write_rows(
        self, response: web.StreamResponse, query: PageQuery, order: Sequence[DeviceId], start: int
    ) -> DeviceId | None:
        """Write up to ``query.limit`` rows from ``start`` on; return the last device looked at if more follow."""
        found = 0
        at = start
        last = min(len(order), start + SCAN_MOST)
        while at < last and found < query.limit:
            end = min(last, at + min(SLICE, query.limit - found))
            rows = list(self._rows(order[at:end], query.standing))
            at = end
            if rows:
                await response.write((b"," if found else b"") + b",".join(rows))
                found += len(rows)
            # Writing into an empty buffer does not wait: let others have the loop.
            await asyncio.sleep(0)
        return order[at - 1] if at < len(order) else None

    async def _start(self, after: str | None) -> tuple[Sequence[DeviceId], int]:
        order = self._windows.inventory()
        if after is None:
            return order, 0
        device = DeviceId(after)
        for start in range(0, len(order), SEARCH_SLICE):
            with suppress(ValueError):
                return order, order.index(device, start, start + SEARCH_SLICE) + 1
            await asyncio.sleep(0)
        raise _bad(f"after: {after[:EXCERPT]!r} is not in the inventory; begin again without it")

    def _rows(self, devices: Iterable[DeviceId], standing: str | None) -> Iterable[bytes]:
        for device in devices:
            view = self._windows.directory.view(device)
            if view is not None and (standing is None or view.decision.standing.label == standing):
                yield msgspec.json.encode(device_row(view))


def as_json(body: object, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """An answer in JSON, ending in a line break for people at a terminal."""
    return web.Response(
        body=msgspec.json.encode(body) + b"\n", status=status.value, content_type="application/json"
    )


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
        raise _bad("exactly one Host header is needed")
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
