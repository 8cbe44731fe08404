"""A surrogate device: it can prove what firmware it holds, and it keeps sending data to the app server.

What lives here: the device's own behaviour, good and bad, over sockets that are handed in. What must not: the
verifier's judgement, and any knowledge of the gateway that stands between device and app server.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import socket
import time
from dataclasses import dataclass, field

from gateway.sediment.compose import compose_data
from gateway.simulate.sockets import Peer, SocketMaker, family_of, own_namespace

DATA_PERIOD = 0.02
"""Seconds between two DATA messages of one stream: fine enough to see a cut within tens of milliseconds."""

CONNECT_SECONDS = 0.4
"""The longest a connection attempt waits: shorter than the kernel's first SYN retransmission (1 s), so that a
device that is let back in is seen again soon."""

DEAD_SECONDS = 1.0
"""Unacknowledged data older than this means that the connection is dead (TCP_USER_TIMEOUT)."""

BACKOFF_FIRST = 0.05
BACKOFF_LAST = 0.4
"""Bounds of the pause before a reconnection, in seconds; it doubles from the first to the last."""

STREAM_END = b";"
"""Ends the name of the stream, with which every payload begins."""

FIRMWARE_BYTES = 4096
MEASUREMENT_BYTES = 32


class SilentError(Exception):
    """The device did not answer the challenge."""


def measure(firmware: bytes, nonce: bytes, key: bytes) -> bytes:
    """The evidence for one challenge: HMAC-SHA256 over nonce and firmware, 32 bytes."""
    return hmac.new(key, nonce + firmware, hashlib.sha256).digest()


@dataclass(frozen=True)
class Route:
    """One stream of a device: from its own address to a peer, over TCP or UDP."""

    source: str
    peer: Peer
    udp: bool = False

    @property
    def family(self) -> int:
        """The socket family of both ends."""
        return family_of(self.source)

    def __str__(self) -> str:
        return f"{'udp' if self.udp else 'tcp'} from {self.source}"

    @property
    def way(self) -> str:
        """What a person calls it, e.g. ``IPv6 TCP``."""
        return f"IPv{6 if self.family == socket.AF_INET6 else 4} {'UDP' if self.udp else 'TCP'}"


@dataclass
class Link:
    """What has become of one stream. Times are ``time.monotonic()`` seconds."""

    route: Route
    connected: bool = False
    local_port: int = 0
    connects: int = 0
    sent: int = 0
    died_at: float = 0.0
    died_of: str = ""


@dataclass
class SurrogateDevice:
    """One device: identity, addresses, firmware and authentication key."""

    id: str
    addresses: tuple[str, ...]
    key: bytes
    firmware: bytes
    sockets: SocketMaker = own_namespace
    silent: bool = False
    links: list[Link] = field(default_factory=list)
    period: float = DATA_PERIOD

    def __post_init__(self) -> None:
        self._genuine = self.firmware

    def tamper(self) -> None:
        """Change what the device runs: its measurement no longer matches the reference."""
        self.firmware = bytes([self._genuine[0] ^ 0xFF]) + self._genuine[1:]

    @property
    def tampered(self) -> bool:
        """Whether it runs something else than the genuine firmware."""
        return self.firmware != self._genuine

    def repair(self) -> None:
        """Put the genuine firmware back."""
        self.firmware = self._genuine

    def go_silent(self) -> None:
        """Stop answering challenges; data goes on as long as it is let through."""
        self.silent = True

    def evidence(self, nonce: bytes) -> bytes:
        """Answer a challenge over the firmware held now. Raises ``SilentError``."""
        if self.silent:
            msg = f"{self.id} does not answer"
            raise SilentError(msg)
        return measure(self.firmware, nonce, self.key)

    def add_stream(self, route: Route) -> Link:
        """Add a stream that ``run`` will keep alive."""
        link = Link(route)
        self.links.append(link)
        return link

    @property
    def endpoint_port(self) -> int:
        """The port of a live connection, as a verifier that talks to the device might see it; 0: none."""
        return next((link.local_port for link in self.links if link.connected), 0)

    async def run(self) -> None:
        """Keep every stream alive until cancelled."""
        async with asyncio.TaskGroup() as group:
            for link in self.links:
                keep = self._datagrams(link) if link.route.udp else self._keep_connected(link)
                group.create_task(keep, name=f"{self.id} {link.route}")

    def message(self, link: Link) -> bytes:
        """The next SEDIMENT DATA message of one stream, freshly headed."""
        return compose_data(
            device=self.id.encode(),
            timestamp=int(time.time()),
            nonce=secrets.token_bytes(32),
            payload=str(link.route).encode() + STREAM_END + f" reading {link.sent}".encode(),
            iv=secrets.token_bytes(16),
            hmac_key=self.key,
        )

    async def _keep_connected(self, link: Link) -> None:
        pause = BACKOFF_FIRST
        while True:
            connection = self.sockets(link.route.family, socket.SOCK_STREAM)
            try:
                await self._connect(connection, link)
                pause = BACKOFF_FIRST
                await self._stream(connection, link)
            except (OSError, TimeoutError) as error:
                if link.connected:
                    link.died_at, link.died_of = time.monotonic(), type(error).__name__
            finally:
                link.connected = False
                connection.close()
            await asyncio.sleep(pause)
            pause = min(2 * pause, BACKOFF_LAST)

    async def _connect(self, connection: socket.socket, link: Link) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(DEAD_SECONDS * 1000))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.bind((link.route.source, 0))
        peer = link.route.peer
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(connection, (peer.host, peer.port))
        link.local_port = connection.getsockname()[1]
        link.connected = True
        link.connects += 1

    async def _stream(self, connection: socket.socket, link: Link) -> None:
        """Send until the connection dies. Raises ``OSError`` or ``TimeoutError`` then."""
        loop = asyncio.get_running_loop()
        while True:
            async with asyncio.timeout(DEAD_SECONDS):
                await loop.sock_sendall(connection, self.message(link))
            link.sent += 1
            await asyncio.sleep(self.period)
            # The app server never speaks: anything readable is the end of the connection.
            if _ended(connection):
                msg = "closed by the other side"
                raise ConnectionResetError(msg)

    async def _datagrams(self, link: Link) -> None:
        peer = (link.route.peer.host, link.route.peer.port)
        with self.sockets(link.route.family, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind((link.route.source, 0))
            while True:
                try:
                    datagrams.sendto(self.message(link), peer)
                    link.sent += 1
                except OSError as error:  # a datagram that cannot leave is lost, as datagrams are
                    link.died_at, link.died_of = time.monotonic(), type(error).__name__
                await asyncio.sleep(self.period)


def _ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
