"""A surrogate app server: takes DATA over TCP and UDP and remembers who was heard, when, and on which flow.

What lives here: the receiving end of the protected path, as a witness. What must not: any notion of standing.
It answers nothing, so a device learns of a dead path only from its own kernel.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

from gateway.sediment.framing import Framer
from gateway.sediment.wire import (  # type: ignore[attr-defined] # InputRefused: what the codec declares to raise
    InputRefused,
    MessageId,
    decode_data,
)
from gateway.simulate.device import STREAM_END
from gateway.simulate.sockets import Peer, SocketMaker, listener, own_namespace

BACKLOG = 128
"""Connections that may wait to be accepted: far more than a site of five devices makes at once."""

FLOWS_MAX = 1024
"""Flows that are remembered; beyond it the one that has been quiet longest is forgotten."""


@dataclass
class Flow:
    """One connection or datagram stream. Times are ``time.monotonic()`` seconds; 0.0: not yet."""

    transport: str
    peer: Peer
    device: str = ""
    count: int = 0
    last_at: float = 0.0
    closed_at: float = 0.0


@dataclass
class Heard:
    """What is known of one device: accepted DATA messages, and when the newest arrived (monotonic seconds)."""

    count: int = 0
    last_at: float = 0.0


@dataclass
class SurrogateAppServer:
    """Listens on every address given, checks each DATA's checksum, keeps counts and times.

    ``heard`` is kept per device and per (device, stream): a payload begins with the name of its stream, so a
    stream is known even where a relay has replaced its source address. ``flows`` are what the sockets see.
    ``refused`` counts frames that were no DATA, of unknown devices, or with a wrong checksum.
    """

    keys: Mapping[str, bytes]
    heard: dict[str, Heard] = field(default_factory=dict)
    streams: dict[tuple[str, str], Heard] = field(default_factory=dict)
    flows: dict[tuple[str, Peer], Flow] = field(default_factory=dict)
    refused: int = 0
    listening: list[Peer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._datagrams: list[asyncio.DatagramTransport] = []
        self.connections: set[asyncio.Transport] = set()

    async def open(
        self, at: Sequence[Peer], sockets: SocketMaker = own_namespace, *, udp: bool = False
    ) -> Sequence[Peer]:
        """Listen on these addresses; returns them with the ports that the kernel chose for port 0.

        Raises ``OSError``.
        """
        loop = asyncio.get_running_loop()
        bound: list[Peer] = []
        for wanted in at:
            tcp = listener(sockets, wanted, BACKLOG)
            here = Peer(wanted.host, tcp.getsockname()[1])
            self._servers.append(await loop.create_server(lambda: _Connection(self), sock=tcp))
            if udp:
                datagrams = sockets(here.family, socket.SOCK_DGRAM)
                datagrams.bind(tuple(here))
                transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagrams)
                self._datagrams.append(transport)
            bound.append(here)
        self.listening += bound
        return bound

    def of(self, device: str) -> Heard:
        """What has been heard of ``device`` so far."""
        return self.heard.get(device, Heard())

    def on(self, device: str, stream: str) -> Heard:
        """What has been heard of ``device`` on one of its streams so far."""
        return self.streams.get((device, stream), Heard())

    def flows_of(self, device: str) -> list[Flow]:
        """Every remembered flow of ``device``."""
        return [flow for flow in self.flows.values() if flow.device == device]

    def take(self, frame: bytes, flow: Flow) -> bool:
        """Check one frame and note its arrival. False: refused."""
        now = time.monotonic()
        try:
            data = decode_data(frame)
        except InputRefused:
            self.refused += 1
            return False
        device = data.header.device.decode("ascii", "replace")
        key = self.keys.get(device)
        if key is None or not _is_checksum(data.checksum, key, data.payload):
            self.refused += 1
            return False
        flow.device, flow.count, flow.last_at = device, flow.count + 1, now
        stream = data.payload.partition(STREAM_END)[0].decode("ascii", "replace")
        for seen in (
            self.heard.setdefault(device, Heard()),
            self.streams.setdefault((device, stream), Heard()),
        ):
            seen.count, seen.last_at = seen.count + 1, now
        return True

    def flow(self, transport: str, peer: Peer) -> Flow:
        """The flow of this transport from this peer, known or new."""
        known = self.flows.get((transport, peer))
        if known is not None and not known.closed_at:
            return known
        if len(self.flows) >= FLOWS_MAX:
            del self.flows[min(self.flows, key=lambda key: self.flows[key].last_at)]
        made = self.flows[transport, peer] = Flow(transport, peer)
        return made

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        for transport in self._datagrams:
            transport.close()
        for server in self._servers:
            server.close()
        for connection in self.connections:
            connection.abort()
        self._datagrams.clear()
        self._servers.clear()
        await asyncio.sleep(0)  # transports release their sockets in the loop's next turn

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _is_checksum(checksum: bytes, key: bytes, payload: bytes) -> bool:
    return hmac.compare_digest(checksum, hmac.new(key, payload, hashlib.sha256).digest())


class _Connection(asyncio.Protocol):
    def __init__(self, server: SurrogateAppServer) -> None:
        self._server = server
        self._framer = Framer(frozenset({MessageId.DATA}))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peername = transport.get_extra_info("peername")
        self._flow = self._server.flow("tcp", Peer(*peername[:2]))
        self._server.connections.add(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._framer.feed(data)
        except InputRefused:
            frames = []
        for frame in frames:
            self._server.take(frame, self._flow)
        if self._framer.fault is not None:
            # Where one frame is broken nothing tells where the next begins.
            self._server.refused += 1
            self._transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        self._flow.closed_at = time.monotonic()
        self._server.connections.discard(self._transport)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: SurrogateAppServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._server.take(data, self._server.flow("udp", Peer(*addr[:2])))
