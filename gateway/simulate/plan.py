"""Who stands where in the site of compose/: two networks, the gateway between them, and everybody's addresses.

What lives here: names, addresses, ports and times of that site. What must not: files and sockets. The compose file
says the same addresses to the container engine; a test compares the two.
"""

from __future__ import annotations

from ipaddress import ip_interface

from gateway.simulate.ground import ALERT_PORT, DATA_PORT, DevicePlan
from gateway.simulate.hosts import Address, Interface
from gateway.simulate.sockets import Peer

GATEWAY_AT_DEVICES = ("10.77.1.1", "fd77:1::1")
GATEWAY_AT_CORE = ("10.77.3.1", "fd77:3::1")
APPSERVER = ("10.77.3.2", "fd77:3::2")
VERIFIER = ("10.77.3.3", "fd77:3::3")
"""IPv4 and IPv6 address of each, in this order."""

DEVICES = (
    DevicePlan("cam-1", ("10.77.1.11", "fd77:1::11"), "camera", udp=True),
    DevicePlan("cam-2", ("10.77.1.12",), "camera"),
    DevicePlan("meter-1", ("10.77.1.13",), "meter"),
    DevicePlan("sensor-1", ("fd77:1::14",), "sensor"),
)
"""The first one's addresses are those of the container; the others are added to it."""

DOOR = Peer(GATEWAY_AT_CORE[0], ALERT_PORT)
"""Where the verifier's alerts go."""

LINK = Peer(GATEWAY_AT_CORE[0], 8444)
"""Where the app server's agent attaches."""

CONSOLE = Peer("127.0.0.1", 8080)
"""Metrics, health and the read-only interface: for Prometheus, which shares the gateway's network namespace."""

ATTESTATION_PORT = 8100
"""Where SEDIMENT's verifier listens for devices."""

ATTEST_PERIOD = 4.0
"""Seconds between two attestations of one device: five of them fit into the maximum age."""

DATA_PERIOD = 0.1
"""Seconds between two DATA messages of one stream: a site that runs for days, and a cut that is seen at once."""

MAX_AGE = 20
"""Seconds for which a pass counts: a silent device lapses while a person watches."""

AGENT = "app-server"
"""Name of the agent beside the app server, in its certificate and among the gateway's targets."""

PREFIX = {4: 24, 6: 64}
"""Prefix lengths of both networks."""


def entrances(port: int = DATA_PORT) -> tuple[Peer, ...]:
    """Where the app server takes DATA, and devices connect: the path is routed, so these are the same."""
    return tuple(Peer(address, port) for address in APPSERVER)


def interface(address: str) -> Interface:
    """An address with the prefix length of its network."""
    made = ip_interface(address)
    return ip_interface(f"{address}/{PREFIX[made.version]}")


def host_of(role: str) -> tuple[tuple[Interface, ...], tuple[Address, ...]]:
    """The addresses that a host needs, and its gateways. Raises ``KeyError`` for a role that has no host."""
    hosts = {
        "devices": ([address for plan in DEVICES for address in plan.addresses], GATEWAY_AT_DEVICES),
        "appserver": (APPSERVER, GATEWAY_AT_CORE),
        "verifier": (VERIFIER, GATEWAY_AT_CORE),
    }
    addresses, gateways = hosts[role]
    return tuple(map(interface, addresses)), tuple(interface(gateway).ip for gateway in gateways)
