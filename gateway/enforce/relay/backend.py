"""The relay as a backend: changes in, connections judged again, outcomes out."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType

from gateway.control.ports import Clock, Proof
from gateway.core.errors import BackendError, ConfigError
from gateway.core.model import Address, Applied, Change, ChangeKind, ChangeOutcome, Stands
from gateway.enforce.relay.flow import End, Flow, reset
from gateway.enforce.relay.rate import ConnectionRate
from gateway.enforce.relay.settings import Network, RelayConnection, RelayRoute, RelaySettings
from gateway.enforce.relay.table import Table

BACKLOG = 1024  #: connections that the kernel keeps until they are judged
ACCEPTS_PER_WAKE = 16  #: connections judged before others on the loop get their turn
END_CHECK_SECONDS = 0.25  #: longest sleep of the timer: the loop's clock stands still in suspend, ends do not
FLOWS_PER_TURN = 64  #: open connections judged again before others on the loop get their turn
REST_SECONDS = 0.1  #: without accepting, once it has failed

_CUTS = frozenset({ChangeKind.CUT, ChangeKind.WITHDRAW, ChangeKind.FORGET})


class RelayBackend:
    """Implements the ``Backend`` port by relaying TCP connections.

    ``VERIFIED`` means: the table, read back, is as the change wants it, and no connection is open that it
    forbids. Cuts and ordinary changes are made on the spot, without waiting for anything, so neither lane can
    hold up the other; a batch takes the loop for about 10 us a change.

    Counts, for metrics: ``accepted``, ``refused`` (by the table), ``limited`` (by connection limits and rates),
    ``accept_failures`` (mostly: out of descriptors), ``ends`` by ``End``.
    """

    def __init__(
        self,
        routes: Sequence[RelayRoute],
        profiles: Mapping[str, frozenset[str]],
        clock: Clock,
        always_allowed: Sequence[Network] = (),
        settings: RelaySettings | None = None,
        rates: Mapping[str, ConnectionRate] = MappingProxyType({}),
    ) -> None:
        """``profiles``: the services that each profile reaches; ``always_allowed``: clients that are no devices;
        ``rates``: how quickly a device of a profile may open connections.

        Raises ``ConfigError`` for a route that cannot be meant.
        """
        for route in routes:
            _check(route)
        self._routes = tuple(routes)
        self._settings = settings or RelaySettings()
        self._clock = clock
        self._table = Table(profiles, always_allowed, rates=rates)
        self._listeners: list[tuple[RelayRoute, socket.socket]] = []
        self._flows: dict[Flow, None] = {}
        self._by_address: dict[bytes, set[Flow]] = {}
        self._by_net: dict[bytes, set[Flow]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._running = False
        self._resting: dict[socket.socket, asyncio.TimerHandle] = {}
        self.accepted = 0
        self.refused = 0
        self.limited = 0
        self.accept_failures = 0
        self.ends: Counter[End] = Counter()

    @property
    def name(self) -> str:
        """The ``backend`` label of metrics."""
        return "relay"

    @property
    def open_connections(self) -> int:
        """Relayed connections, those still reaching for their service included."""
        return len(self._flows)

    @property
    def buffered(self) -> int:
        """Bytes read from one side and not yet taken by the other."""
        return sum(flow.buffered for flow in self._flows)

    @property
    def addresses(self) -> Mapping[str, tuple[str, int]]:
        """Where each service is listened for, once started."""
        return {route.service: sock.getsockname()[:2] for route, sock in self._listeners}

    def connections(self) -> list[RelayConnection]:
        """Every relayed connection, oldest first."""
        return [flow.view() for flow in self._flows]

    # The port

    async def start(self) -> bool:
        """Listen on every route. Always False: nothing of a relay outlives its process, so everything is shut.

        Raises ``ConfigError`` when an address cannot be listened on; then none is.
        """
        self._loop = asyncio.get_running_loop()
        for route in self._routes:
            try:
                self._listeners.append((route, _listen(route)))
            except OSError as error:
                await self.stop()
                what = f"the relay cannot listen here for {route.service}: {error.strerror}"
                raise ConfigError(str(route.listen), what, "choose another address or port for it") from error
        for route, sock in self._listeners:
            self._loop.add_reader(sock.fileno(), self._on_waiting, route, sock)
        self._running = True
        return False

    async def cut(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        """Take CUT, WITHDRAW and FORGET changes: the connections they forbid are reset when this returns.

        Raises ``ValueError`` for any other change, and ``BackendError`` when the relay does not run.
        """
        if any(change.kind not in _CUTS for change in changes):
            msg = "the cut lane takes CUT, WITHDRAW and FORGET only"
            raise ValueError(msg)
        return self._take(changes)

    async def apply(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        """Take any changes, in order. Raises ``BackendError`` when the relay does not run."""
        return self._take(changes)

    async def observe(self, addresses: Sequence[Address]) -> Mapping[Address, Stands]:
        """Read back these addresses."""
        now = self._clock.now().boot
        return {address: self._table.stands(address, now) for address in addresses}

    async def prove(self, addresses: Sequence[Address]) -> Proof:
        """Read these addresses back, and name what the relay's table has."""
        stands = await self.observe(addresses)
        elements: dict[Address, list[str]] = {}
        for address, one in stands.items():
            elements[address] = found = [f"relay table, cut: {address}"] if one.tombstone else []
            if one.profile:
                found.append(f"relay table, {one.profile}: {address} for {one.remaining or 0.0:.1f}s")
        return Proof(self._clock.now().boot, stands, elements, {})

    async def rewrite(
        self,
        profiles: Mapping[str, frozenset[str]],
        always_allowed: Sequence[Network] = (),
        rates: Mapping[str, ConnectionRate] = MappingProxyType({}),
    ) -> None:
        """Let profiles mean something else: new connections at once, open ones are judged again before this ends.

        Raises ``BackendError`` when the relay does not run.
        """
        if not self._running:
            raise BackendError(self.name, "the relay does not run", transient=False)
        self._table.rewrite(profiles, always_allowed, rates)
        for number, flow in enumerate(list(self._flows)):
            if number % FLOWS_PER_TURN == FLOWS_PER_TURN - 1:
                await asyncio.sleep(0)
            if flow in self._flows:
                self._judge_flow(flow, self._clock.now().boot, End.CUT)
        self._schedule(self._clock.now().boot)

    async def damages(self) -> AsyncIterator[str]:
        """Never yields: the table is in this process alone, so nothing else can damage it."""
        await asyncio.get_running_loop().create_future()
        yield ""  # makes this a generator; not reached

    async def stop(self) -> None:
        """Stop listening and end every connection: a relay that is gone admits nobody."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for rest in self._resting.values():
            rest.cancel()
        self._resting.clear()
        for _, sock in self._listeners:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._listeners.clear()
        for flow in list(self._flows):
            flow.abort(End.STOPPED)

    # Changes

    def _take(self, changes: Sequence[Change]) -> list[ChangeOutcome]:
        if not self._running:
            raise BackendError(self.name, "the relay does not run", transient=False)
        now = self._clock.now().boot
        outcomes: list[ChangeOutcome] = []
        for change in changes:
            why = self._table.take(change, now)
            self._judge_again(change.address, now, End.CUT)
            why = why or self._read_back(change, now)
            outcomes.append(ChangeOutcome(change, Applied.FAILED if why else Applied.VERIFIED, why))
        self._schedule(now)
        return outcomes

    def _read_back(self, change: Change, now: float) -> str:
        """What is not as ``change`` wants it, or ``""``."""
        if not self._table.shows(change, now):
            return "the table does not show this change"
        open_still = sum(self._judge(flow, now) is None for flow in self._flows_of(change.address))
        return f"{open_still} forbidden connections are open" if open_still else ""

    def _judge(self, flow: Flow, now: float) -> float | None:
        return self._table.judge(flow.packed, flow.service, now)

    def _judge_again(self, address: Address, now: float, why: End) -> None:
        for flow in self._flows_of(address):
            self._judge_flow(flow, now, why)

    def _judge_flow(self, flow: Flow, now: float, why: End) -> None:
        until = self._judge(flow, now)
        if until is None:
            flow.abort(why)
        else:
            flow.until = until

    def _flows_of(self, address: Address) -> list[Flow]:
        if address.prefix == 64:
            return list(self._by_net.get(address.packed[:8], ()))
        return list(self._by_address.get(address.packed, ()))

    # Time

    def _schedule(self, now: float) -> None:
        """Wake at the next end, and early enough to notice a suspend or an unanswered connect."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        end = self._table.next_end
        if end is not None or self._flows:
            delay = END_CHECK_SECONDS if end is None else min(max(end - now, 0.0), END_CHECK_SECONDS)
            self._timer = self._loop.call_later(delay, self._on_time)

    def _on_time(self) -> None:
        now = self._clock.now().boot
        for address in self._table.expire(now):
            self._judge_again(address, now, End.EXPIRED)
        latest = now - self._settings.connect_seconds
        for flow in [flow for flow in self._flows if flow.connecting and flow.since <= latest]:
            flow.abort(End.UNREACHABLE)
        self._schedule(now)

    # Connections

    def _on_waiting(self, route: RelayRoute, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            try:
                client, peer = listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError:  # no descriptors, mostly
                self._rest(route, listener)
                return
            self.accepted += 1
            client.setblocking(False)
            self._greet(route, client, peer[0], peer[1])

    def _rest(self, route: RelayRoute, listener: socket.socket) -> None:
        """Stop accepting for a moment: what made accept fail would make it fail again at once."""
        self.accept_failures += 1
        self._loop.remove_reader(listener.fileno())

        def resume() -> None:
            del self._resting[listener]
            self._loop.add_reader(listener.fileno(), self._on_waiting, route, listener)

        self._resting[listener] = self._loop.call_later(REST_SECONDS, resume)

    def _greet(self, route: RelayRoute, client: socket.socket, host: str, port: int) -> None:
        """Judge a new connection: relay it or end it at once."""
        ip = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        now = self._clock.now().boot
        until = self._table.judge(ip.packed, route.service, now)
        if until is None:
            self.refused += 1
            reset(client)
            return
        of_this = len(self._by_address.get(ip.packed, ()))
        full = len(self._flows) >= self._settings.connections or of_this >= self._settings.connections_per_client
        if full or not self._table.opens(ip.packed, now):
            self.limited += 1
            reset(client)
            return
        flow = Flow(client, (str(ip), port), ip.packed, route.service, until, self._clock, self._on_ended)
        self._flows[flow] = None
        self._by_address.setdefault(ip.packed, set()).add(flow)
        if ip.version == 6:
            self._by_net.setdefault(ip.packed[:8], set()).add(flow)
        flow.connect(route.upstream_host, route.upstream_port)
        if self._timer is None:
            self._schedule(self._clock.now().boot)

    def _on_ended(self, flow: Flow, why: End) -> None:
        self.ends[why] += 1
        del self._flows[flow]
        _remove(self._by_address, flow.packed, flow)
        if len(flow.packed) == 16:
            _remove(self._by_net, flow.packed[:8], flow)


def _remove(index: dict[bytes, set[Flow]], key: bytes, flow: Flow) -> None:
    index[key].discard(flow)
    if not index[key]:
        del index[key]


def _check(route: RelayRoute) -> None:
    where = f"relay route {route.service}"
    try:
        ipaddress.ip_address(route.upstream_host)
    except ValueError as error:
        raise ConfigError(
            where, f"upstream {route.upstream_host!r} is no IP address", "write the address"
        ) from error
    if not 0 < route.upstream_port < 65_536:
        raise ConfigError(where, f"upstream port {route.upstream_port} does not exist", "write 1 to 65535")
    if isinstance(route.listen, str):
        try:
            _parse(route.listen)
        except ValueError as error:
            mend = "write 192.0.2.1:8001 or [::]:8001"
            raise ConfigError(where, f"{route.listen!r} is not an address to listen on", mend) from error


def _parse(address: str) -> tuple[socket.AddressFamily, str, int]:
    host, _, port = address.rpartition(":")
    ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    number = int(port)
    if not 0 <= number < 65_536:
        raise ValueError(address)
    return socket.AF_INET if ip.version == 4 else socket.AF_INET6, str(ip), number


def _listen(route: RelayRoute) -> socket.socket:
    if not isinstance(route.listen, str):
        route.listen.setblocking(False)
        return route.listen
    family, host, port = _parse(route.listen)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
