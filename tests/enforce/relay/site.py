"""A relay on loopback, a service behind it, devices before it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType

from gateway.core.model import Address, Applied, Change, ChangeKind
from gateway.enforce.relay import ConnectionRate, Network, RelayBackend, RelayRoute, RelaySettings
from tests.fakes.clock import ManualClock

CAMERA = "127.0.0.11"
SENSOR = "127.0.0.12"
CLIENT = "127.0.0.99"  # no device, always allowed
PROFILES = {"admitted": frozenset({"feed", "web"}), "probation": frozenset({"feed"})}
ALWAYS: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.99/32"),)


class Service:
    """An application server: what it does with a connection is the test's choice; the default is an echo."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.listener.bind((host, 0))
        self.listener.listen()
        self.host = host
        self.port: int = self.listener.getsockname()[1]

    async def accept(self) -> socket.socket:
        async with asyncio.timeout(60):
            sock, _ = await asyncio.get_running_loop().sock_accept(self.listener)
            return sock

    def close(self) -> None:
        self.listener.close()


class Device:
    """One connection of a device through the relay."""

    def __init__(self, relay: RelayBackend, host: str = CAMERA, service: str = "feed") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.bind((host, 0))
        self.sock.connect(relay.addresses[service])
        self.sock.setblocking(False)

    async def send(self, data: bytes) -> None:
        await send(self.sock, data)

    async def receive(self, size: int) -> bytes:
        return await receive(self.sock, size)

    async def cut_off(self) -> None:
        """Wait until the relay has reset or closed this connection."""
        assert await ended(self.sock)
        self.sock.close()


async def send(sock: socket.socket, data: bytes) -> None:
    async with asyncio.timeout(60):
        await asyncio.get_running_loop().sock_sendall(sock, data)


async def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes, fewer only at the end of the stream."""
    got = b""
    async with asyncio.timeout(60):
        while len(got) < size and (data := await asyncio.get_running_loop().sock_recv(sock, size - len(got))):
            got += data
    return got


async def ended(sock: socket.socket) -> bool:
    """Wait for the end of the stream; True when nothing but the end came."""
    try:
        return await receive(sock, 1) == b""
    except ConnectionResetError:
        return True


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not what():
            await asyncio.sleep(0.001)


def admit(host: str = CAMERA, until: float = 2_000.0, profile: str = "admitted") -> Change:
    return Change(ChangeKind.ADMIT, Address.parse(host), profile, until)


def change(kind: ChangeKind, host: str = CAMERA) -> Change:
    return Change(kind, Address.parse(host))


async def take(relay: RelayBackend, *changes: Change) -> None:
    """Apply changes; every one must be verified."""
    outcomes = await relay.apply(changes)
    assert [outcome.change for outcome in outcomes] == list(changes)
    assert {outcome.state for outcome in outcomes} <= {Applied.VERIFIED}


@asynccontextmanager
async def relaying(
    clock: ManualClock,
    service: Service,
    settings: RelaySettings | None = None,
    listen: str = "127.0.0.1:0",
    names: Sequence[str] = ("feed",),
    rates: Mapping[str, ConnectionRate] = MappingProxyType({}),
) -> AsyncIterator[RelayBackend]:
    routes = [RelayRoute(name, listen, service.host, service.port) for name in names]
    relay = RelayBackend(routes, PROFILES, clock, ALWAYS, settings, rates)
    assert await relay.start() is False
    try:
        yield relay
    finally:
        await relay.stop()
