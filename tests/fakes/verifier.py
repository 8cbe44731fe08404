"""A verifier's two unsigned services, scripted: what they answer, and what they were asked.

Behaves as SEDIMENT's do: the API takes one connection after the other, reads once and closes after its answer
(nothing for ``id``); the feed greets nobody and sends to whoever is connected.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from gateway.control.ports import Confirmed
from gateway.core.errors import SourceError
from gateway.core.model import DeviceId
from tests.ports import free_place


class FakeVerifier:
    """Implements the ``Verifier`` port: keeps what it was asked, answers from ``memory``, fails while ``away``."""

    def __init__(self) -> None:
        self.attested: list[str] = []
        self.confirmed: list[str] = []
        self.memory: dict[str, Confirmed] = {}
        self.away = ""
        self.unaskable: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = 0
        self.most_at_once = 0

    def check(self, device: DeviceId) -> None:
        if device in self.unaskable:
            raise SourceError("verifier", f"{device} cannot be asked for")

    def address_of(self, claim: str) -> str:
        return claim.split(":")[1] if claim.count(":") == 2 else ""

    async def attest(self, device: DeviceId) -> None:
        self.attested.append(device)
        await self._answer()

    async def confirm(self, address: str) -> Confirmed | None:
        self.confirmed.append(address)
        await self._answer()
        return self.memory.get(address)

    async def _answer(self) -> None:
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.away:
            raise SourceError("verifier", self.away)


class ApiServer:
    """The API on a socket. ``answers`` by address; ``on_id`` is called with each device asked for."""

    def __init__(self, answers: Mapping[str, bytes] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[bytes] = []
        self.on_id: Callable[[str], None] = lambda _device: None
        self.silent = False
        self._one_at_a_time = asyncio.Lock()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._one_at_a_time:
            line = (await reader.read(64))[:63]
            self.asked.append(line)
            if self.silent:
                await reader.read()  # until the other side gives up
            kind, _, rest = line.strip().partition(b" ")
            if kind == b"ip" and not self.silent:
                writer.write(self.answers.get(rest.decode(), b"0 -1"))
            elif kind == b"id":
                self.on_id(rest.decode("ascii", "replace"))
            writer.close()


class FeedServer:
    """The GUI feed on a socket."""

    def __init__(self) -> None:
        self.clients: list[asyncio.StreamWriter] = []
        self.connects = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connects += 1
        self.clients.append(writer)
        await reader.read()
        writer.close()

    def publish(self, device: str, word: str, seconds: float = 0.013) -> None:
        self.send(frame(device, word, seconds))

    def send(self, data: bytes) -> None:
        for client in self.clients:
            client.write(data)

    def hang_up(self) -> None:
        clients, self.clients = self.clients, []
        for client in clients:
            client.close()


def frame(device: str, word: str, seconds: float = 0.013) -> bytes:
    """One frame of the feed."""
    payload = f"{device},{word},{seconds:.6f}".encode()
    return b"%05d," % len(payload) + payload


@asynccontextmanager
async def listening(server: ApiServer | FeedServer) -> AsyncIterator[tuple[str, int]]:
    """The server on a loopback address of this process."""
    host, port = free_place()
    running = await asyncio.start_server(server.serve, host, port)
    try:
        yield host, port
    finally:
        running.close()
        if isinstance(server, FeedServer):
            server.hang_up()
        await running.wait_closed()
