"""Profiles that mean something else while the relay runs: open connections are judged again, new ones at once."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from gateway.core.errors import BackendError
from gateway.core.model import Address
from gateway.enforce.relay import ConnectionRate, RelayBackend, RelayRoute
from gateway.enforce.relay.backend import FLOWS_PER_TURN
from gateway.enforce.relay.rate import Buckets
from tests.enforce.relay.site import (
    ALWAYS,
    CAMERA,
    CLIENT,
    PROFILES,
    SENSOR,
    Device,
    Service,
    admit,
    relaying,
    take,
)
from tests.fakes.clock import ManualClock

NOTHING = {name: frozenset[str]() for name in PROFILES}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


async def test_open_connections_live_on_as_long_as_their_profile_reaches_the_service(
    clock: ManualClock, service: Service
) -> None:
    async with relaying(clock, service) as relay:
        await take(relay, admit(), admit(SENSOR, profile="probation"))
        camera, sensor = Device(relay), Device(relay, SENSOR)
        behind = [await service.accept() for _ in range(2)]
        await relay.rewrite({"admitted": frozenset({"feed"}), "probation": frozenset()}, ALWAYS)
        assert relay.open_connections == 1
        await sensor.cut_off()
        await camera.send(b"on")
        await Device(relay, SENSOR).cut_off()
        await relay.rewrite(PROFILES, ALWAYS)
        again = Device(relay, SENSOR)
        behind.append(await service.accept())
        assert relay.open_connections == 2
        for each in (camera.sock, again.sock, *behind):
            each.close()


async def test_a_profile_that_is_gone_reaches_nothing_and_takes_no_admission(
    clock: ManualClock, service: Service
) -> None:
    async with relaying(clock, service) as relay:
        await take(relay, admit(SENSOR, profile="probation"))
        await relay.rewrite({"admitted": PROFILES["admitted"]}, ALWAYS)
        await Device(relay, SENSOR).cut_off()
        (outcome,) = await relay.apply([admit(CAMERA, profile="probation")])
        assert "no profile" in outcome.detail


async def test_clients_that_are_always_allowed_no_more_are_cut(clock: ManualClock, service: Service) -> None:
    async with relaying(clock, service) as relay:
        client = Device(relay, CLIENT)
        behind = await service.accept()
        await relay.rewrite(PROFILES, (ipaddress.ip_network("127.0.0.98/32"),))
        await client.cut_off()
        await Device(relay, CLIENT).cut_off()
        behind.close()


async def test_more_connections_than_one_turn_are_all_judged(clock: ManualClock, service: Service) -> None:
    async with relaying(clock, service) as relay:
        await take(relay, admit(), admit(SENSOR))
        devices = [Device(relay, host) for host in (CAMERA, SENSOR) for _ in range(FLOWS_PER_TURN // 2 + 8)]
        behind = [await service.accept() for _ in devices]
        assert relay.open_connections == len(devices) > FLOWS_PER_TURN
        await relay.rewrite(NOTHING)
        assert relay.open_connections == 0
        for each in (*(device.sock for device in devices), *behind):
            each.close()


def test_another_rate_never_fills_a_bucket() -> None:
    address = Address.parse(CAMERA)
    buckets = Buckets({"admitted": ConnectionRate(2, 60.0)})
    assert buckets.take(address, "admitted", 0.0, 1)
    buckets.rewrite({"admitted": ConnectionRate(1, 60.0)})
    assert buckets.take(address, "admitted", 0.0, 1)
    assert not buckets.take(address, "admitted", 0.0, 1)
    buckets.rewrite({"admitted": ConnectionRate(10, 60.0)})
    assert not buckets.take(address, "admitted", 0.0, 1)
    buckets.rewrite({})
    assert len(buckets) == 0
    assert buckets.take(address, "admitted", 0.0, 1)


async def test_a_relay_that_does_not_run_is_not_rewritten(clock: ManualClock) -> None:
    relay = RelayBackend([RelayRoute("feed", "127.0.0.1:0", "127.0.0.1", 9)], PROFILES, clock)
    with pytest.raises(BackendError, match="does not run"):
        await relay.rewrite(NOTHING)
