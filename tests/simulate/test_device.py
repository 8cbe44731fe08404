from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.sediment.wire import decode_data
from gateway.simulate.appserver import SurrogateAppServer
from gateway.simulate.device import Route, SurrogateDevice
from gateway.simulate.keys import Keys
from gateway.simulate.sockets import Peer, listener, own_namespace


def device(keys: Keys, *routes: Route) -> SurrogateDevice:
    made = SurrogateDevice("cam-1", ("127.0.77.11",), keys.hmac["cam-1"], b"firmware" * 64, period=0.002)
    for route in routes:
        made.add_stream(route)
    return made


@asynccontextmanager
async def running(subject: SurrogateDevice) -> AsyncIterator[None]:
    task = asyncio.create_task(subject.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not happened():
            await asyncio.sleep(0.005)


async def test_data_arrives_from_the_devices_own_address(keys: Keys) -> None:
    async with SurrogateAppServer(keys.hmac) as server:
        (at,) = await server.open([Peer("127.0.0.1", 0)])
        subject = device(keys, Route("127.0.77.11", at))
        async with running(subject):
            await until(lambda: server.of("cam-1").count >= 3)
            (flow,) = server.flows_of("cam-1")
            assert flow.peer == ("127.0.77.11", subject.endpoint_port)
            assert subject.links[0].connected
    assert server.refused == 0


async def test_every_stream_is_told_apart(keys: Keys) -> None:
    async with SurrogateAppServer(keys.hmac) as server:
        (at,) = await server.open([Peer("127.0.0.1", 0)], udp=True)
        tcp, udp = Route("127.0.77.11", at), Route("127.0.77.11", at, udp=True)
        async with running(device(keys, tcp, udp)):
            await until(lambda: min(server.on("cam-1", str(way)).count for way in (tcp, udp)) >= 2)
        assert {flow.transport for flow in server.flows_of("cam-1")} == {"tcp", "udp"}
        assert server.of("cam-1").count == sum(server.on("cam-1", str(way)).count for way in (tcp, udp))


async def test_a_reset_connection_is_noticed_and_made_again(keys: Keys) -> None:
    async with SurrogateAppServer(keys.hmac) as server:
        (at,) = await server.open([Peer("127.0.0.1", 0)])
        subject = device(keys, Route("127.0.77.11", at))
        link = subject.links[0]
        async with running(subject):
            await until(lambda: server.of("cam-1").count > 0)
            for connection in list(server.connections):
                connection.abort()
            await until(lambda: link.died_at > 0)
            await until(lambda: link.connects == 2 and server.of("cam-1").count > link.connects)
        old, new = server.flows_of("cam-1")
        assert old.closed_at > 0
        assert new.peer.port != old.peer.port


async def test_a_peer_that_stops_acknowledging_is_given_up(keys: Keys) -> None:
    with listener(own_namespace, Peer("127.0.0.1", 0), 8) as deaf:
        # Nobody reads: the connection stands until send and receive buffers are full.
        subject = device(keys, Route("127.0.77.11", Peer(*deaf.getsockname())))
        subject.period = 0.0
        async with running(subject):
            await until(lambda: subject.links[0].died_of != "")
        assert subject.links[0].died_of == "TimeoutError"


async def test_attempts_are_paced_while_nobody_listens(keys: Keys) -> None:
    with listener(own_namespace, Peer("127.0.0.1", 0), 8) as closed:
        nobody = Peer(*closed.getsockname())
    made = []

    def counted(family: int, kind: int) -> object:
        made.append(own_namespace(family, kind))
        return made[-1]

    subject = device(keys, Route("127.0.77.11", nobody))
    subject.sockets = counted  # type: ignore[assignment]
    async with running(subject):
        await until(lambda: len(made) >= 4)
    assert subject.links[0].connects == 0
    assert all(one.fileno() == -1 for one in made)


def test_messages_are_fresh_and_say_whose_they_are(keys: Keys) -> None:
    subject = device(keys, Route("127.0.77.11", Peer("127.0.0.1", 1)))
    one, two = (decode_data(subject.message(subject.links[0])) for _ in range(2))
    assert one.header.device == b"cam-1"
    assert one.header.nonce != two.header.nonce
    assert one.payload.startswith(b"tcp from 127.0.77.11;")


@pytest.mark.parametrize("address", ["10.77.1.11", "fd77:1::11"])
def test_routes_name_their_family(address: str) -> None:
    assert Route(address, Peer("::1", 1)).way == ("IPv6 TCP" if ":" in address else "IPv4 TCP")
