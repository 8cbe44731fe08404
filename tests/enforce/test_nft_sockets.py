"""Sockets of this host with a device that was cut end at once; all others stay."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Iterator

import pytest

from gateway.core.model import Address
from gateway.enforce.nft.ruleset import Endpoint
from gateway.enforce.nft.sockets import SocketSweeper, destroy, is_local
from tests.netns import Space, in_namespaces, link, run

pytestmark = pytest.mark.netns

ONE, TWO, ONE6, NET6 = "10.1.0.1", "10.1.0.2", "fd00:1::1", "fd00:1::/64"
SERVER, SERVER6 = "10.1.0.254", "fd00:1::fe"
PORT, OTHER = 8001, 8002
PATIENCE = 60.0
HERE = """
address add 10.1.0.254/24 dev app0
address add fd00:1::fe/64 dev app0 nodad
link set app0 up
"""
THERE = """
address add 10.1.0.1/24 dev eth0
address add 10.1.0.2/24 dev eth0
address add fd00:1::1/64 dev eth0 nodad
link set eth0 up
"""
Ends = tuple[socket.socket, socket.socket]
SERVICES = [Endpoint(Address.parse(SERVER), PORT, "tcp"), Endpoint(Address.parse(SERVER6), PORT, "tcp")]


def site() -> Space:
    """This namespace serves; devices are in the one that is returned."""
    far = Space("devices")
    link("app0", far)
    run("ip", "-batch", "-", stdin=HERE)
    far.ip(THERE)
    return far


@contextlib.contextmanager
def connected(far: Space, source: str, port: int = PORT, listen: str = "") -> Iterator[Ends]:
    """A device's connection: its own end and the server's."""
    server = SERVER6 if ":" in source else SERVER
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    listening = socket.AF_INET6 if ":" in (listen or server) else socket.AF_INET
    with socket.socket(listening) as door, far.socket(family, socket.SOCK_STREAM) as device:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listen:
            door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        door.bind((listen or server, port))
        door.listen()
        device.bind((source, 0))
        device.settimeout(PATIENCE)
        device.connect((server, port))
        accepted, _ = door.accept()
        door.close()
        with accepted:
            accepted.settimeout(PATIENCE)
            yield device, accepted


def works(ends: Ends) -> bool:
    device, server = ends
    device.sendall(b"x")
    return server.recv(1) == b"x"


def ended(server: socket.socket) -> int:
    """The error with which a socket was ended; 0: it was not."""
    select.select([server], [], [], PATIENCE)
    return server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@pytest.mark.parametrize(("source", "cut"), [(ONE, ONE), (ONE6, ONE6), (ONE6, NET6)])
def test_the_servers_end_of_a_cut_device_ends_at_once(source: str, cut: str) -> None:
    def body() -> None:
        far = site()
        with connected(far, source) as ends:
            assert works(ends)
            assert destroy(SERVICES, {Address.parse(cut)}) == 1
            assert ended(ends[1]) == errno.ECONNABORTED
            assert destroy(SERVICES, {Address.parse(cut)}) == 0

    in_namespaces(body)


def test_a_server_that_listens_on_both_families_is_no_hiding_place() -> None:
    def body() -> None:
        far = site()
        with connected(far, ONE, listen="::") as ends:
            assert destroy(SERVICES, {Address.parse(ONE)}) == 1
            assert ended(ends[1]) == errno.ECONNABORTED

    in_namespaces(body)


def test_other_devices_other_services_and_listeners_stay() -> None:
    def body() -> None:
        far = site()
        with connected(far, TWO) as other_device, connected(far, ONE, OTHER) as other_service:
            assert destroy(SERVICES, {Address.parse(ONE), Address.parse(ONE6)}) == 0
            assert works(other_device)
            assert works(other_service)
        assert destroy([Endpoint(Address.parse("10.9.9.9"), PORT, "tcp")], {Address.parse(ONE)}) == 0

    in_namespaces(body)


def test_connected_datagram_sockets_end_too() -> None:
    def body() -> None:
        far = site()
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
            far.socket(socket.AF_INET, socket.SOCK_DGRAM) as device,
        ):
            device.bind((ONE, 0))
            server.bind((SERVER, PORT))
            server.connect(device.getsockname())
            assert destroy([Endpoint(Address.parse(SERVER), PORT, "udp")], {Address.parse(ONE)}) == 1
            assert ended(server) == errno.ECONNABORTED

    in_namespaces(body)


def test_the_thread_sweeps_what_it_is_told_and_finishes_before_it_stops() -> None:
    def body() -> None:
        far = site()
        sweeper = SocketSweeper(lambda: SERVICES)
        sweeper.start()
        with connected(far, ONE) as ends, connected(far, TWO) as others:
            sweeper.sweep([Address.parse(ONE)])
            assert ended(ends[1]) == errno.ECONNABORTED
            assert works(others)
            sweeper.sweep([])
            sweeper.sweep([Address.parse(TWO)])
            assert sweeper.stop(PATIENCE)
            assert ended(others[1]) == errno.ECONNABORTED
        assert (sweeper.destroyed, sweeper.trouble) == (2, "")

    in_namespaces(body)


def test_which_addresses_are_this_hosts() -> None:
    assert is_local(Address.parse("127.0.0.1"))
    assert not is_local(Address.parse("192.0.2.1"))
