"""The ground a site stands on: network namespaces when this process may make them, loopback otherwise.

What lives here: addresses, ports, sockets and the private folder of one site, decided once. What must not: the
parties themselves and what happens to them.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.simulate.child import NO_NAMESPACE
from gateway.simulate.namespaces import Network, Segment, has_ipv6, private_folder
from gateway.simulate.sockets import Peer, SocketMaker, own_namespace

DATA_PORT = 8001
"""The port on which SEDIMENT's app server takes DATA."""

ALERT_PORT = 8000
"""The port on which SEDIMENT's relying party takes alerts."""


@dataclass(frozen=True)
class DevicePlan:
    """A device to be: id, its addresses, its class label, and whether it sends datagrams as well."""

    id: str
    addresses: tuple[str, ...]
    kind: str
    udp: bool = False


@dataclass(frozen=True)
class Entrance:
    """One way to the app server: ``dial`` is where devices connect, ``server`` where the app server listens.

    ``name`` is the service's in the book.
    """

    name: str
    dial: Peer
    server: Peer


@dataclass(frozen=True)
class Ground:
    """Where everybody stands.

    ``gate`` is the path gate that fits (``nft`` or ``relay``); ``namespace`` a descriptor of the namespace in
    which the gateway runs (-1: this process's own); ``sockets`` who makes sockets for ``devices``, ``verifier``
    and ``appserver``; ``remarks`` what a person should know about this ground.
    """

    gate: str
    folder: Path
    devices: tuple[DevicePlan, ...]
    door: Peer
    verifier: str
    entrances: tuple[Entrance, ...]
    sockets: Mapping[str, SocketMaker]
    namespace: int
    remarks: tuple[str, ...]


@contextmanager
def namespace_ground() -> Iterator[Ground]:
    """Four namespaces: the gateway routes between devices, verifier and app server.

    Moves the calling thread into a mount namespace of its own, for good. Raises ``NamespacesUnavailableError``.
    """
    v6 = has_ipv6()
    hosts = {"devices": range(0x11, 0x16), "verifier": (2,), "appserver": (2,)}
    segments = [
        Segment.of(
            name,
            [f"10.77.{n}.1/24"] + [f"fd77:{n}::1/64"] * v6,
            [f"10.77.{n}.{_low(host)}/24" for host in numbers]
            + [f"fd77:{n}::{host:x}/64" for host in numbers if v6],
        )
        for n, (name, numbers) in enumerate(hosts.items(), start=1)
    ]
    servers = ["10.77.3.2"] + ["fd77:3::2"] * v6
    with private_folder() as folder, Network("gateway", segments) as network:
        yield Ground(
            gate="nft",
            folder=folder,
            devices=(
                DevicePlan("cam-1", ("10.77.1.11", *["fd77:1::11"] * v6), "camera", udp=True),
                DevicePlan("cam-2", ("10.77.1.12",), "camera"),
                DevicePlan("meter-1", ("10.77.1.13",), "meter"),
                DevicePlan("sensor-1", ("fd77:1::14" if v6 else "10.77.1.14",), "sensor"),
                DevicePlan("sensor-2", ("fd77:1::15" if v6 else "10.77.1.15",), "sensor"),
            ),
            door=Peer("10.77.2.1", ALERT_PORT),
            verifier="10.77.2.2",
            entrances=tuple(_direct(address) for address in servers),
            sockets={name: host.socket for name, host in network.hosts.items()},
            namespace=network.router.descriptor,
            remarks=() if v6 else ("this kernel has no IPv6: every device speaks IPv4",),
        )


@contextmanager
def loopback_ground(why: str) -> Iterator[Ground]:
    """Devices on loopback addresses of their own, a relay in front of the app server. ``why`` is remarked."""
    v6 = _can_bind("::1")
    remark = (
        "one device on ::1, the only IPv6 address that loopback has"
        if v6
        else "no IPv6 on loopback: every device speaks IPv4"
    )
    with ExitStack() as held:

        def place(host: str) -> Peer:
            return held.enter_context(reserved_port(host))

        folder = held.enter_context(tempfile.TemporaryDirectory(prefix="ragate-", ignore_cleanup_errors=True))
        entrances = [Entrance("feed", place("127.0.77.1"), place("127.0.77.3"))]
        if v6:
            # ::1 is the device's, so the app server cannot have it too: the relay forwards to IPv4.
            entrances.append(Entrance("feed6", place("::1"), place("127.0.77.4")))
        yield Ground(
            gate="relay",
            folder=Path(folder),
            devices=(
                DevicePlan("cam-1", ("127.0.77.11",), "camera"),
                DevicePlan("cam-2", ("127.0.77.12",), "camera"),
                DevicePlan("meter-1", ("127.0.77.13",), "meter"),
                DevicePlan("sensor-1", ("::1" if v6 else "127.0.77.14",), "sensor"),
                DevicePlan("sensor-2", ("127.0.77.15",), "sensor"),
            ),
            door=place("127.0.77.1"),
            verifier="127.0.77.2",
            entrances=tuple(entrances),
            sockets=dict.fromkeys(("devices", "verifier", "appserver"), own_namespace),
            namespace=NO_NAMESPACE,
            remarks=(why, remark),
        )


@contextmanager
def reserved_port(host: str) -> Iterator[Peer]:
    """A TCP port at ``host`` that nobody uses, kept from everybody who asks for any port. Raises ``OSError``.

    It is bound, not listening: whoever names it and sets ``SO_REUSEADDR`` may listen there, until then a connection
    is refused, and no other process is given it meanwhile (socket(7)).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, 0))
        yield Peer(host, held.getsockname()[1])


def _low(number: int) -> int:
    # fd77:1::11 and 10.77.1.11 are the same device: the IPv4 byte is written as the IPv6 group reads.
    return int(f"{number:x}")


def _direct(address: str) -> Entrance:
    at = Peer(address, DATA_PORT)
    return Entrance("feed6" if ":" in address else "feed", at, at)


def _can_bind(address: str) -> bool:
    try:
        with reserved_port(address):
            return True
    except OSError:
        return False
