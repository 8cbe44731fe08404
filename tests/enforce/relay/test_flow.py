"""One relayed connection: every byte in order, half-closes, back-pressure, failures of either side."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.enforce.relay import RelayBackend
from gateway.enforce.relay.flow import End, reset
from gateway.enforce.relay.settings import BUFFER_BYTES
from tests.enforce.relay.site import Device, Service, admit, ended, receive, relaying, send, take, until
from tests.fakes.clock import ManualClock


@asynccontextmanager
async def joined() -> AsyncIterator[tuple[RelayBackend, Device, socket.socket]]:
    """A relay, a device through it, and the service's end of the connection."""
    service = Service()
    async with relaying(ManualClock(), service) as relay:
        await take(relay, admit())
        device = Device(relay)
        behind = await service.accept()
        await until(lambda: relay.connections()[0].state == "open")
        try:
            yield relay, device, behind
        finally:
            device.sock.close()
            behind.close()
            service.close()


async def test_megabytes_both_ways_at_once_arrive_unchanged() -> None:
    up = random.Random(1).randbytes(3_000_000)
    down = random.Random(2).randbytes(3_000_000)
    async with joined() as (relay, device, behind):
        arrived = await asyncio.gather(
            receive(behind, len(up)), receive(device.sock, len(down)), send(device.sock, up), send(behind, down)
        )
        assert (arrived[0], arrived[1]) == (up, down)
        view = relay.connections()[0]
        assert (view.from_client, view.to_client) == (len(up), len(down))


async def test_a_receiver_that_does_not_read_stops_the_sender() -> None:
    async with joined() as (relay, device, behind):
        device.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        behind.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sent = blocked = 0
        while blocked < 30:  # in a row: every buffer on the way is full
            try:
                sent += device.sock.send(b"x" * 65_536)
                blocked = 0
            except BlockingIOError:
                blocked += 1
                await asyncio.sleep(0.001)
        kept = relay.connections()[0].from_client
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert relay.connections()[0].from_client == kept  # it stands still, and so does the sender
        assert relay.buffered <= BUFFER_BYTES
        assert len(await receive(behind, sent)) == sent  # and nothing was lost
        assert relay.buffered == 0


async def test_a_client_that_has_finished_still_gets_its_answer() -> None:
    async with joined() as (relay, device, behind):
        await device.send(b"question")
        device.sock.shutdown(socket.SHUT_WR)
        assert await receive(behind, 100) == b"question"  # then the end of the stream
        assert relay.connections()[0].state == "half-closed"
        await send(behind, b"answer")
        behind.shutdown(socket.SHUT_WR)
        assert await device.receive(100) == b"answer"
        await until(lambda: relay.open_connections == 0)
        assert relay.ends == {End.CLOSED: 1}


async def test_a_service_that_has_finished_still_takes_the_rest() -> None:
    async with joined() as (relay, device, behind):
        behind.shutdown(socket.SHUT_WR)
        assert await device.receive(1) == b""
        await device.send(b"rest")
        assert await receive(behind, 4) == b"rest"
        device.sock.close()
        assert await ended(behind)
        await until(lambda: relay.ends == {End.CLOSED: 1})


async def test_a_reset_on_one_side_is_a_reset_on_the_other() -> None:
    async with joined() as (relay, device, behind):
        reset(behind)
        await device.cut_off()
        assert relay.ends == {End.BROKEN: 1}
    async with joined() as (relay, device, behind):
        reset(device.sock)
        assert await ended(behind)
        assert relay.ends == {End.BROKEN: 1}


async def test_a_cut_does_not_wait_for_a_receiver_that_does_not_read() -> None:
    service = Service()
    async with relaying(ManualClock(), service) as relay:
        await take(relay, admit())
        device = Device(relay)
        behind = await service.accept()
        async with asyncio.timeout(60):
            while not relay.buffered:
                try:
                    device.sock.send(b"x" * 65_536)
                except BlockingIOError:
                    await asyncio.sleep(0.001)
        await relay.stop()
        assert relay.open_connections == 0
        assert await ended(device.sock)
        device.sock.close()
        behind.close()
    service.close()
