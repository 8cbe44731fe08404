"""How quickly devices may open connections through the relay."""

from __future__ import annotations

import ipaddress
import socket

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Address, Change, ChangeKind
from gateway.enforce.relay import ConnectionRate, RelayBackend
from gateway.enforce.relay.rate import STALE_BUCKETS, Buckets
from gateway.enforce.relay.table import Table
from tests.enforce.relay.site import CAMERA as DEVICE
from tests.enforce.relay.site import CLIENT, SENSOR, Device, Service, admit, receive, relaying, take
from tests.fakes.clock import ManualClock

PROFILES = {"admitted": frozenset({"feed"}), "probation": frozenset({"feed"})}
CAMERA = Address.parse("192.0.2.7")
SLOW = {"probation": ConnectionRate(2, 10.0)}


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def table(address: Address = CAMERA, profile: str = "probation") -> Table:
    made = Table(PROFILES, rates=SLOW)
    made.take(Change(ChangeKind.ADMIT, address, profile, 1_000.0), 0.0)
    return made


def test_a_bucket_is_full_at_first_and_fills_again() -> None:
    slow = table()
    assert [slow.opens(CAMERA.packed, 0.0) for _ in range(3)] == [True, True, False]
    assert not slow.opens(CAMERA.packed, 4.9)
    assert slow.opens(CAMERA.packed, 5.0)
    assert [slow.opens(CAMERA.packed, 100.0) for _ in range(3)] == [True, True, False]


def test_renewals_do_not_fill_it() -> None:
    slow = table()
    assert [slow.opens(CAMERA.packed, 0.0) for _ in range(2)] == [True, True]
    for kind in (ChangeKind.REFRESH, ChangeKind.ADMIT, ChangeKind.WITHDRAW, ChangeKind.ADMIT):
        slow.take(Change(kind, CAMERA, "probation", 2_000.0), 1.0)
    assert not slow.opens(CAMERA.packed, 1.0)


def test_other_profiles_devices_and_clients_are_not_slowed_down() -> None:
    free = table(profile="admitted")
    assert all(free.opens(CAMERA.packed, 0.0) for _ in range(50))
    assert all(free.opens(packed("198.51.100.1"), 0.0) for _ in range(50))
    slow = table()
    assert [slow.opens(CAMERA.packed, 0.0) for _ in range(3)][-1] is False
    slow.take(Change(ChangeKind.ADMIT, CAMERA, "admitted", 1_000.0), 0.0)
    assert slow.opens(CAMERA.packed, 0.0)


def test_addresses_of_a_net_share_one_bucket() -> None:
    slow = table(Address.parse("2001:db8::/64"))
    assert [slow.opens(packed(f"2001:db8::{number}"), 0.0) for number in (1, 2, 3)] == [True, True, False]


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 5), st.sampled_from([1.0, 60.0]))
def test_never_more_than_the_bucket_and_what_flowed_in(times: list[float], number: int, seconds: float) -> None:
    buckets = Buckets({"p": ConnectionRate(number, seconds)})
    opened = [now for now in sorted(times) if buckets.take(CAMERA, "p", now, 1)]
    for first in range(len(opened)):
        for last in range(first, len(opened)):
            flowed = (opened[last] - opened[first]) * number / seconds
            assert last - first + 1 <= number + flowed + 1e-6


def test_full_buckets_are_dropped() -> None:
    buckets = Buckets(SLOW)
    for number in range(3 * STALE_BUCKETS):
        buckets.take(Address(number.to_bytes(4), 32), "probation", float(number), 10)
    assert len(buckets) <= STALE_BUCKETS + 11


async def opened(relay: RelayBackend, service: Service, host: str = DEVICE) -> tuple[Device, socket.socket]:
    """A connection through the relay, and its end at the service, when something went through."""
    device = Device(relay, host)
    behind = await service.accept()
    await device.send(b"hello")
    assert await receive(behind, 5) == b"hello"
    return device, behind


async def test_connections_beyond_the_rate_are_reset_and_open_ones_stay() -> None:
    clock, service = ManualClock(), Service()
    async with relaying(clock, service, rates=SLOW) as relay:
        await take(relay, admit(profile="probation"), admit(SENSOR, profile="probation"))
        first, behind = await opened(relay, service)
        second, other = await opened(relay, service)
        await Device(relay).cut_off()
        assert relay.limited == 1
        await first.send(b"still here")
        clock.advance(5.0)
        third, another = await opened(relay, service)
        sensor, sensed = await opened(relay, service, SENSOR)
        client, served = await opened(relay, service, CLIENT)
        for device in (first, second, third, sensor, client):
            device.sock.close()
        for sock in (behind, other, another, sensed, served):
            sock.close()
    service.close()
