"""The relay as a backend: the port's promises, on real sockets."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from gateway.core.errors import ConfigError
from gateway.core.model import Address, Applied, Change, ChangeKind, Stands
from gateway.enforce.relay import RelayBackend, RelayRoute, RelaySettings
from gateway.enforce.relay.backend import REST_SECONDS
from gateway.enforce.relay.flow import End
from tests.enforce.relay.site import (
    CAMERA,
    CLIENT,
    PROFILES,
    SENSOR,
    Device,
    Service,
    admit,
    change,
    ended,
    receive,
    relaying,
    send,
    take,
    until,
)
from tests.fakes.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


async def passes(relay: RelayBackend, service: Service, host: str = CAMERA) -> tuple[Device, socket.socket]:
    """A connection through the relay, shown to carry bytes both ways."""
    device = Device(relay, host)
    behind = await service.accept()
    await device.send(b"ping")
    assert await receive(behind, 4) == b"ping"
    await send(behind, b"pong")
    assert await device.receive(4) == b"pong"
    return device, behind


async def test_it_begins_shut(clock: ManualClock, service: Service) -> None:
    async with relaying(clock, service) as relay:
        await Device(relay).cut_off()
        assert (relay.accepted, relay.refused, relay.open_connections) == (1, 1, 0)


async def test_an_admitted_device_gets_through_and_others_do_not(clock: ManualClock, service: Service) -> None:
    async with relaying(clock, service) as relay:
        await take(relay, admit())
        device, behind = await passes(relay, service)
        await Device(relay, SENSOR).cut_off()
        assert relay.open_connections == 1
        device.sock.close()
        assert await ended(behind)
        behind.close()
        await until(lambda: relay.open_connections == 0)


@pytest.mark.parametrize("kind", [ChangeKind.CUT, ChangeKind.WITHDRAW, ChangeKind.FORGET])
async def test_a_live_connection_dies_before_the_cut_returns(
    clock: ManualClock, service: Service, kind: ChangeKind
) -> None:
    async with relaying(clock, service) as relay:
        await take(relay, admit(), admit(SENSOR))
        device, behind = await passes(relay, service)
        bystander, other = await passes(relay, service, SENSOR)
        (outcome,) = await relay.cut([change(kind)])
        # Not one turn of the loop later: the reset is in both peers' sockets already.
        for sock in (device.sock, behind):
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
            sock.close()
        assert outcome.state is Applied.VERIFIED
        assert relay.open_connections == 1
        assert relay.ends == {End.CUT: 1}
        await Device(relay).cut_off()
        await bystander.send(b"still here")
        assert await receive(other, 10) == b"still here"
        bystander.sock.close()
        other.close()


async def test_a_cut_also_ends_a_connection_that_is_still_reaching_for_the_service(clock: ManualClock) -> None:
    deaf = socket.socket()
    deaf.bind(("127.0.0.1", 0))
    deaf.listen(0)
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(deaf.getsockname())
    relay = RelayBackend([RelayRoute("feed", "127.0.0.1:0", *deaf.getsockname())], PROFILES, clock)
    await relay.start()
    await take(relay, admit())
    device = Device(relay)
    await until(lambda: relay.open_connections == 1)
    assert relay.connections()[0].state == "connecting"
    await take(relay, change(ChangeKind.CUT))
    assert relay.open_connections == 0
    await device.cut_off()
    await take(relay, admit())
    patient = Device(relay)
    await until(lambda: relay.open_connections == 1)
    clock.advance(5.0)  # no answer in time
    await patient.cut_off()
    assert relay.ends == {End.CUT: 1, End.UNREACHABLE: 1}
    await relay.stop()
    for sock in (deaf, *fillers):
        sock.close()


async def test_a_profile_without_the_service_cuts_only_that_service(clock: ManualClock, service: Service) -> None:
    async with relaying(clock, service, names=["feed", "web"]) as relay:
        await take(relay, admit())
        feed = Device(relay, service="feed")
        behind_feed = await service.accept()
        web = Device(relay, service="web")
        behind_web = await service.accept()
        await until(lambda: {each.state for each in relay.connections()} == {"open"})
        await take(relay, admit(profile="probation"))
        await web.cut_off()
        await feed.send(b"x")
        assert await receive(behind_feed, 1) == b"x"
        await Device(relay, service="web").cut_off()
        for sock in (feed.sock, behind_feed, behind_web):
            sock.close()


async def test_an_admission_ends_by_itself(clock: ManualClock, service: Service) -> None:
    async with relaying(clock, service) as relay:
        await take(relay, admit(until=clock.boot + 60))
        device, behind = await passes(relay, service)
        await take(relay, Change(ChangeKind.REFRESH, Address.parse(CAMERA), "admitted", clock.boot + 120))
        clock.advance(60)
        await device.send(b"renewed")
        assert await receive(behind, 7) == b"renewed"
        clock.advance(60)
        await device.cut_off()
        assert await ended(behind)
        behind.close()
        assert relay.ends == {End.EXPIRED: 1}
        await Device(relay).cut_off()
        assert await relay.observe([Address.parse(CAMERA)]) == {Address.parse(CAMERA): Stands("", None, False)}


async def test_not_one_byte_passes_after_the_end_even_when_the_timer_is_late(
    clock: ManualClock, service: Service
) -> None:
    async with relaying(clock, service) as relay:
        await take(relay, admit(until=clock.boot + 60))
        device, behind = await passes(relay, service)
        clock.advance(60)
        device.sock.send(b"too late")  # the same turn of the loop: no timer has run
        assert await ended(behind)
        behind.close()
        await device.cut_off()


async def test_read_back_tells_profile_remaining_and_tombstone(clock: ManualClock, service: Service) -> None:
    camera, sensor = Address.parse(CAMERA), Address.parse(SENSOR)
    async with relaying(clock, service) as relay:
        await take(relay, admit(until=clock.boot + 60), change(ChangeKind.CUT, SENSOR))
        clock.advance(20)
        assert await relay.observe([camera, sensor]) == {
            camera: Stands("admitted", 40.0, False),
            sensor: Stands("", None, True),
        }


async def test_one_bad_change_spoils_no_other(clock: ManualClock, service: Service) -> None:
    async with relaying(clock, service) as relay:
        outcomes = await relay.apply([admit(SENSOR, profile="no such"), admit(), change(ChangeKind.CUT, SENSOR)])
        assert [outcome.state for outcome in outcomes] == [Applied.FAILED, Applied.VERIFIED, Applied.VERIFIED]
        assert "no such" in outcomes[0].detail
        (refresh,) = await relay.apply([Change(ChangeKind.REFRESH, Address.parse(SENSOR), "admitted", 2_000.0)])
        assert refresh.state is Applied.FAILED
        await Device(relay, SENSOR).cut_off()


async def test_applying_twice_is_applying_once(clock: ManualClock, service: Service) -> None:
    async with relaying(clock, service) as relay:
        for each in (admit(), admit(), change(ChangeKind.CUT), change(ChangeKind.CUT), admit()):
            await take(relay, each)
        device, behind = await passes(relay, service)
        await take(relay, admit())  # the same again leaves the connection alone
        await device.send(b"x")
        assert await receive(behind, 1) == b"x"
        device.sock.close()
        behind.close()


async def test_clients_that_are_no_devices_pass_without_an_admission(clock: ManualClock, service: Service) -> None:
    async with relaying(clock, service) as relay:
        device, behind = await passes(relay, service, CLIENT)
        await take(relay, change(ChangeKind.WITHDRAW, CLIENT))
        await device.send(b"x")
        assert await receive(behind, 1) == b"x"
        await take(relay, change(ChangeKind.CUT, CLIENT))
        await device.cut_off()
        behind.close()


async def test_ipv6_and_its_64() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    clock, service = ManualClock(), Service("::1")
    net = Address(bytes(16), 64)  # holds ::1
    async with relaying(clock, service, listen="[::1]:0") as relay:
        await take(relay, Change(ChangeKind.ADMIT, net, "admitted", clock.boot + 60))
        device, behind = await passes(relay, service, "::1")
        assert relay.connections()[0].upstream == f"[::1]:{service.port}"
        await take(relay, Change(ChangeKind.CUT, net))
        await device.cut_off()
        behind.close()
        await Device(relay, "::1").cut_off()
    service.close()


async def test_connections_are_bounded_in_all_and_per_client(clock: ManualClock, service: Service) -> None:
    async with relaying(clock, service, RelaySettings(connections=3, connections_per_client=2)) as relay:
        await take(relay, admit(), admit(SENSOR))
        held = [Device(relay), Device(relay)]
        await until(lambda: relay.open_connections == 2)
        await Device(relay).cut_off()
        held.append(Device(relay, SENSOR))
        await until(lambda: relay.open_connections == 3)
        await Device(relay, CLIENT).cut_off()
        assert relay.limited == 2
        for device in held:
            device.sock.close()
        behind = [await service.accept() for _ in held]
        await until(lambda: {each.state for each in relay.connections()} <= {"half-closed"})
        for sock in behind:
            sock.close()
        await until(lambda: relay.open_connections == 0)
        again, other = await passes(relay, service)
        again.sock.close()
        other.close()


async def test_a_service_that_is_away_ends_the_connection(clock: ManualClock, service: Service) -> None:
    async with relaying(clock, service) as relay:
        service.close()
        await take(relay, admit())
        await Device(relay).cut_off()
        assert relay.ends == {End.UNREACHABLE: 1}


async def test_the_console_sees_every_connection(clock: ManualClock, service: Service) -> None:
    async with relaying(clock, service) as relay:
        await take(relay, admit())
        device, behind = await passes(relay, service)
        (view,) = relay.connections()
        port = device.sock.getsockname()[1]
        assert view == ("feed", CAMERA, port, f"127.0.0.1:{service.port}", "open", clock.boot, 4, 4)
        device.sock.close()
        behind.close()


async def test_stopping_ends_every_connection(clock: ManualClock, service: Service) -> None:
    async with relaying(clock, service) as relay:
        await take(relay, admit())
        device, behind = await passes(relay, service)
    await device.cut_off()
    assert await ended(behind)
    behind.close()
    assert relay.ends == {End.STOPPED: 1}


async def test_nothing_damages_it(clock: ManualClock, service: Service) -> None:
    async with relaying(clock, service) as relay:
        waiting = asyncio.ensure_future(anext(aiter(relay.damages())))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_an_address_in_use_is_the_operators_to_mend(service: Service) -> None:
    where = f"127.0.0.1:{service.port}"
    routes = [RelayRoute("feed", "127.0.0.1:0", "127.0.0.1", 9), RelayRoute("web", where, "127.0.0.1", 9)]
    relay = RelayBackend(routes, PROFILES, ManualClock())
    with pytest.raises(ConfigError, match=f"{where}: the relay cannot listen here for web: .*in use"):
        await relay.start()
    assert relay.addresses == {}


@pytest.mark.parametrize(
    "route",
    [
        RelayRoute("feed", "127.0.0.1", "127.0.0.1", 9),
        RelayRoute("feed", "127.0.0.1:99999", "127.0.0.1", 9),
        RelayRoute("feed", "127.0.0.1:0", "app.example", 9),
        RelayRoute("feed", "127.0.0.1:0", "127.0.0.1", 0),
    ],
)
async def test_a_route_that_cannot_be_meant_is_a_config_error(route: RelayRoute) -> None:
    with pytest.raises(ConfigError, match="relay route feed"):
        RelayBackend([route], PROFILES, ManualClock())


async def test_a_listening_socket_can_be_handed_in(clock: ManualClock, service: Service) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    networks = [ipaddress.ip_network("127.0.0.0/8")]
    relay = RelayBackend([RelayRoute("feed", listening, service.host, service.port)], PROFILES, clock, networks)
    await relay.start()
    device, behind = await passes(relay, service)
    await relay.stop()
    await device.cut_off()
    behind.close()


async def test_without_descriptors_it_refuses_and_recovers(clock: ManualClock, service: Service) -> None:
    loop = asyncio.get_running_loop()
    async with relaying(clock, service) as relay:
        await take(relay, admit())
        device = Device(relay)  # the kernel has it, the relay not yet
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        fillers = [os.open(os.devnull, os.O_RDONLY)]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(fillers[0] + 64, before[0]), before[1]))
            with pytest.raises(OSError, match="Too many open files"):
                fill(fillers)
            since = loop.time()
            await until(lambda: relay.accept_failures > 0)
            await asyncio.sleep(0.15)
            assert relay.accept_failures <= (loop.time() - since) / REST_SECONDS + 1
            assert relay.open_connections == 0
        finally:
            for fd in fillers:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        await device.send(b"x")
        behind = await service.accept()
        assert await receive(behind, 1) == b"x"
        device.sock.close()
        behind.close()


def fill(fds: list[int]) -> None:
    while True:
        fds.append(os.dup(fds[0]))
