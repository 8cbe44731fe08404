"""The door itself, in this process: connections that say nothing, that come in floods, that stop half way."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.certs import ServedFiles, ServedTls
from gateway.control.ports import Receipt
from gateway.control.reception import Reception
from gateway.core.errors import Refusal
from gateway.core.model import Envelope, SourceName
from gateway.intake.rest import RestDoor, RestSettings, open_listener
from gateway.intake.rest import connections as module
from tests.fakes.clock import ManualClock
from tests.ports import OWN, free_place
from tests.posting import PATIENCE, Authority, client_context

OTHER = "127.0.0.9"


class Nobody:
    """An admission that nothing reaches. Implements ``Presenting``."""

    full = False

    def __init__(self) -> None:
        self.refused: Counter[Refusal] = Counter()

    def present(self, envelope: Envelope, *, follow: bool = False) -> Receipt:
        raise AssertionError(envelope, follow)

    def refuse(self, source: SourceName, refusal: Refusal, detail: str, peer: str) -> None:
        assert (source, bool(detail), bool(peer)) == ("unassigned", True, True)
        self.refused[refusal] += 1

    def when_ready(self, wake: Callable[[], None]) -> None:
        raise AssertionError(wake)


class World:
    """One door that runs, and its clients."""

    def __init__(self, folder: Path, limits: Mapping[str, Any]) -> None:
        self.admission = Nobody()
        self.folder = folder
        self.held: list[socket.socket] = []
        self.place = free_place()
        files = ServedFiles(folder / "gateway.pem", folder / "gateway.key", folder / "site-ca.pem")
        clock = ManualClock()
        self.door = RestDoor(
            [open_listener(*self.place)],
            Reception([], self.admission, clock),
            clock,
            ServedTls(files, "doors.rest"),
            RestSettings(**limits),
        )

    @property
    def refused(self) -> Counter[Refusal]:
        return self.door.refused

    async def connect(self, source: str = OTHER) -> socket.socket:
        """A connection that says nothing."""
        loop = asyncio.get_running_loop()
        made = socket.socket()
        self.held.append(made)
        made.bind((source, 0))
        made.setblocking(False)
        await asyncio.wait_for(loop.sock_connect(made, self.place), PATIENCE)
        return made

    async def ended(self, sock: socket.socket) -> bool:
        """Whether the door ends this connection."""
        try:
            return not await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1), PATIENCE)
        except ConnectionError:
            return True

    async def served(self) -> bool:
        """Whether an honest client is answered."""
        context = client_context(self.folder, "rp")
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(*self.place, ssl=context, server_hostname=OWN)
            writer.write(b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            with suppress(ssl.SSLError, ConnectionError):
                await writer.wait_closed()
        return answer.startswith(b"HTTP/1.1 200")

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds."""
        async with asyncio.timeout(PATIENCE):
            while not holds():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(folder: Path, **limits: Any) -> AsyncIterator[World]:
    authority = Authority.make(folder)
    authority.issue("gateway", server=OWN)
    authority.issue("rp")
    world = World(folder, limits)
    task = asyncio.create_task(world.door.run())
    await world.until(lambda: world.door.serving)
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.wait((task,))
        for each in world.held:
            each.close()
    assert not world.door.serving
    assert world.door.depth() == 0


async def test_silent_connections_are_held_and_the_oldest_gives_way(tmp_path: Path) -> None:
    async with running(tmp_path, silent=20, connections_per_peer=1_000) as world:
        held = [await world.connect() for _ in range(50)]
        await world.until(lambda: world.door.accepted == 50)
        assert world.door.silent_connections == 20
        assert world.door.open_connections == 0  # nothing of TLS was made for any of them
        assert world.refused[Refusal.LIMIT] == 30
        assert all([await world.ended(each) for each in held[:30]])
        assert await world.served()
        assert "20 silent" in world.door.state() or "19 silent" in world.door.state()


async def test_who_stays_silent_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.01)
    async with running(tmp_path, idle_seconds=0.1) as world:
        assert await world.ended(await world.connect())
        await world.until(lambda: world.refused[Refusal.TIMEOUT] == 1)
        assert world.door.depth() == 0


@pytest.mark.parametrize("first", [b"G", b"\x00", b"\x15"])
async def test_what_does_not_begin_as_tls_is_not_answered(tmp_path: Path, first: bytes) -> None:
    async with running(tmp_path) as world:
        sock = await world.connect()
        await asyncio.get_running_loop().sock_sendall(sock, first)
        assert await world.ended(sock)
        assert world.refused == {Refusal.FRAMING: 1}
        assert await world.served()


async def test_who_leaves_without_a_word_is_counted(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        (await world.connect()).close()
        await world.until(lambda: world.refused[Refusal.FRAMING] == 1)
        assert world.door.depth() == 0


async def test_handshakes_that_stop_half_way_are_ended(tmp_path: Path) -> None:
    async with running(tmp_path, handshake_seconds=0.2) as world:
        sock = await world.connect()
        await asyncio.get_running_loop().sock_sendall(sock, b"\x16\x03\x01\x02\x00\x01")
        assert await world.ended(sock)
        await world.until(lambda: world.refused[Refusal.TIMEOUT] == 1)
        assert world.door.depth() == 0


async def test_beyond_the_limit_of_connections_no_hand_is_shaken(tmp_path: Path) -> None:
    async with running(tmp_path, connections=1) as world:
        context = client_context(world.folder, "rp")
        _, writer = await asyncio.open_connection(*world.place, ssl=context, server_hostname=OWN)
        with pytest.raises((OSError, ssl.SSLError)):
            await asyncio.wait_for(
                asyncio.open_connection(*world.place, ssl=context, server_hostname=OWN), PATIENCE
            )
        assert world.refused[Refusal.LIMIT] == 1
        writer.close()
        with suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()
        await world.until(lambda: world.door.depth() == 0)
        assert await world.served()


async def test_a_flood_of_connections_from_one_address_keeps_nobody_out(tmp_path: Path) -> None:
    """A thousand of them, as quickly as they can be made, by somebody who is no configured sender."""
    async with running(tmp_path, connections_per_peer=16) as world:
        for _ in range(1_000):
            sock = await world.connect()
            if len(world.held) > 32:
                world.held.remove(sock)
                sock.close()
        await world.until(lambda: world.door.accepted >= 1_000)
        assert world.refused[Refusal.LIMIT] >= 1_000 - 32 - 16
        assert world.door.depth() <= 16
        assert await world.served()
