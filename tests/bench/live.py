"""Measurements with real packets: live flows cut, the ruleset flushed, the gateway killed and started again."""

from __future__ import annotations

import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.sediment.compose import compose_message
from gateway.sediment.wire import MessageId
from gateway.simulate.namespaces import Network
from tests.bench.alerts import Bodies, percentile
from tests.bench.flow import PER_SECOND, Receiving, Sending
from tests.bench.site import (
    DOOR,
    VERIFIERS,
    BenchError,
    Gateway,
    Site,
    address,
    device_name,
    forget,
    inside,
    running,
)

PASS, FAIL = 0, 1
SILENCE = 0.4
"""Seconds without a packet that end a flow, and that are given to each cut and each repair."""
STRANGER = 59
"""A device of every site that no measurement ever admits."""
SHORT_LEASE, SHORT_AGE = 5, 60


def tell(net: Network, site: Site, bodies: Bodies, device: int, verdict: int, ago: int = 0) -> int:
    """Send one alert, issued ``ago`` seconds in the past; returns when its last byte left (boot nanoseconds)."""
    body = bodies.list[bodies.of(device, verdict)]
    issued = int(time.time()) - ago
    frame = compose_message(
        message_id=MessageId.ALERT,
        timestamp=issued,
        nonce=secrets.token_bytes(32),
        tail=body.tail,
        hmac_key=body.key,
    )
    with net.hosts["verifier"].socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.setblocking(True)
        connection.settimeout(5.0)
        connection.bind((VERIFIERS[0], 0))
        connection.connect(DOOR)
        at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        connection.sendall(frame)
    site.last[device] = max(site.last.get(device, 0), issued)
    return at


def until_standing(gateway: Gateway, device: int, standing: str) -> dict[str, Any]:
    """Wait until a device stands so and its gate has read it back. Raises ``BenchError``."""
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        seen: dict[str, Any] = gateway.get(f"/v1/devices/{device_name(device)}")
        if seen["standing"] == standing and all(target["state"] == "verified" for target in seen["targets"]):
            return seen
        time.sleep(0.01)
    raise BenchError(f"{device_name(device)} is not {standing}")


@dataclass
class Spread:
    """Milliseconds of several repetitions."""

    values: list[float]

    def told(self) -> dict[str, float | int]:
        """p50, largest and how many."""
        ordered = sorted(self.values)
        return {"p50_ms": percentile(ordered, 50), "max_ms": percentile(ordered, 100), "repetitions": len(ordered)}


def cut_flows(net: Network, site: Site, bodies: Bodies, repetitions: int) -> dict[str, Any]:
    """A live TCP and a UDP flow of a device that fails: the last packet that arrives after the verdict was sent."""
    bodies.prepare(range(repetitions), 1)
    found: dict[str, list[float]] = {"tcp": [], "udp": []}
    with running(site, net.router.descriptor) as gateway, Receiving(net.hosts["appserver"].descriptor) as server:
        for device in range(repetitions):
            tell(net, site, bodies, device, PASS, ago=2)
            until_standing(gateway, device, "trusted")
            source = address(device)
            with Sending(source, net.hosts["devices"].descriptor, "udp", "tcp"):
                server.wait_for(f"udp {source}", f"tcp {source}")
                time.sleep(0.2)
                server.seen()
                at = tell(net, site, bodies, device, FAIL)
                time.sleep(SILENCE)
                seen = server.seen()
                late = server_after(server, source)
                for protocol, values in found.items():
                    last = seen.get(f"{protocol} {source}", [0, at, at])[2]
                    values.append(max(0.0, (last - at) / 1e6))
                    if late.get(f"{protocol} {source}"):
                        raise BenchError(f"{protocol} packets of {device_name(device)} still arrive after its cut")
    return {protocol: Spread(values).told() for protocol, values in found.items()}


def server_after(server: Receiving, source: str) -> dict[str, list[int]]:
    """What arrives from ``source`` in the next tenth of a second."""
    time.sleep(0.1)
    return {name: stats for name, stats in server.seen().items() if name.endswith(f" {source}")}


def flush(net: Network, site: Site, bodies: Bodies, repetitions: int) -> dict[str, Any]:
    """``nft flush ruleset`` under traffic: for how long a device that is not admitted gets through, beside
    one that is."""
    admitted = 0
    bodies.prepare([admitted], 1)
    stranger, friend = address(STRANGER), address(admitted)
    open_ms: list[float] = []
    devices = net.hosts["devices"].descriptor
    with running(site, net.router.descriptor) as gateway, Receiving(net.hosts["appserver"].descriptor) as server:
        tell(net, site, bodies, admitted, PASS)
        until_standing(gateway, admitted, "trusted")
        with Sending(stranger, devices, "udp"), Sending(friend, devices, "udp"):
            server.wait_for(f"udp {friend}")
            time.sleep(0.5)
            if f"udp {stranger}" in server.seen():
                raise BenchError("a device that is not admitted gets through before anything was flushed")
            for _ in range(repetitions):
                inside(net.router.descriptor, "nft", "flush", "ruleset")
                time.sleep(0.05)
                first = server.seen().get(f"udp {stranger}")
                server.wait_for(f"udp {friend}")
                time.sleep(SILENCE)
                again = server.seen()
                if f"udp {stranger}" in server.seen():
                    raise BenchError("the gate stays open after a flush")
                spans = [stats for stats in (first, again.get(f"udp {stranger}")) if stats]
                span = max(s[2] for s in spans) - min(s[1] for s in spans) if spans else 0
                open_ms.append(span / 1e6 + (1_000 / PER_SECOND if spans else 0.0))
                time.sleep(0.2)
    return Spread(open_ms).told()


def restart(net: Network, site: Site, bodies: Bodies) -> dict[str, Any]:
    """kill -9 and start again with an admitted and a stranger's flow running."""
    admitted = 0
    bodies.prepare([admitted], 1)
    stranger, friend = address(STRANGER), address(admitted)
    devices, namespace = net.hosts["devices"].descriptor, net.router.descriptor
    forget(site, namespace)
    with Receiving(net.hosts["appserver"].descriptor) as server, Gateway(site, namespace) as gateway:
        first = gateway.ready_seconds
        tell(net, site, bodies, admitted, PASS)
        until_standing(gateway, admitted, "trusted")
        with Sending(stranger, devices, "udp", per_second=500), Sending(friend, devices, "udp", per_second=500):
            server.wait_for(f"udp {friend}")
            server.seen()
            gateway.kill()
            with Gateway(site, namespace) as again:
                seen = server.seen()
                until_standing(again, admitted, "trusted")
                seconds = again.ready_seconds
    forget(site, namespace)
    return {
        "first_start_s": first,
        "ready_s": seconds,
        "stranger_packets": seen.get(f"udp {stranger}", [0])[0],
        "admitted_packets": seen.get(f"udp {friend}", [0])[0],
    }


def ends(net: Network, folder: Path) -> dict[str, Any]:
    """kill -9 of the gateway: admissions end at min(deadline, lease); none comes back with a new start."""
    site = Site.make(folder, 100, lease=SHORT_LEASE, max_age=SHORT_AGE)
    bodies = Bodies(site)
    by_lease, by_deadline = 0, 1
    bodies.prepare([by_lease, by_deadline], 1)
    devices, namespace = net.hosts["devices"].descriptor, net.router.descriptor
    found: dict[str, Any] = {}
    forget(site, namespace)
    with Receiving(net.hosts["appserver"].descriptor) as server, Gateway(site, namespace) as gateway:
        # issued so long ago that its deadline comes before a lease would end
        tell(net, site, bodies, by_deadline, PASS, ago=SHORT_AGE - SHORT_LEASE + 1)
        tell(net, site, bodies, by_lease, PASS)
        expected = {
            name: until_standing(gateway, device, "trusted")["targets"][0]["latest_end"]
            for name, device in (("deadline", by_deadline), ("lease", by_lease))
        }
        sources = {"deadline": address(by_deadline), "lease": address(by_lease)}
        with (
            Sending(sources["deadline"], devices, "udp", per_second=1_000),
            Sending(sources["lease"], devices, "udp", per_second=1_000),
        ):
            server.wait_for(*(f"udp {source}" for source in sources.values()))
            expected["lease"] = gateway.get(f"/v1/devices/{device_name(by_lease)}")["targets"][0]["latest_end"]
            gateway.kill()
            time.sleep(max(expected.values()) + 1.0 - time.time())
            seen = server.seen()
            to_wall = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            for name, source in sources.items():
                last = (seen[f"udp {source}"][2] + to_wall) / 1e9
                found[name] = {"after_expected_ms": (last - expected[name]) * 1_000}
            with Gateway(site, namespace):
                time.sleep(1.0)
                found["packets_after_restart"] = sum(stats[0] for stats in server.seen().values())
    forget(site, namespace)
    return found
