"""Looking at a real kernel: links, routes, filters, programs and flowtables in namespaces of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Callable
from typing import NoReturn

import pytest

from gateway.watch.bypass import BypassWatch, look
from gateway.watch.bypass.look import Looker
from gateway.watch.bypass.rtnetlink import IFLA_XDP, NETLINK_NETFILTER, Kernel, LookError
from tests.netns import fork_in_namespaces, in_namespaces, run, unavailable

pytestmark = pytest.mark.netns

DEVICE, DEVICE6, NET6 = "10.1.0.7", "fd00:1::7", "fd00:1:0:7::/64"
SERVICE, SERVICE6 = "10.2.0.1", "fd00:2::1"
PATIENCE = 60.0

BPF_PROG_LOAD, BPF_PROG_TYPE_XDP, SYS_BPF_X86_64 = 5, 6, 321  # linux/bpf.h, asm/unistd_64.h
RTM_SETLINK, IFLA_XDP_FD, IFLA_XDP_FLAGS, XDP_FLAGS_SKB_MODE = 19, 1, 3, 2  # linux/rtnetlink.h, linux/if_link.h


def routed() -> None:
    """This namespace routes between devices (radio0) and servers (app0)."""
    run(
        "ip",
        "-batch",
        "-",
        stdin="""
link add radio0 type veth peer name radio1
link add app0 type veth peer name app1
link set radio0 up
link set radio1 up
link set app0 up
link set app1 up
address add 10.1.0.254/24 dev radio0
address add 10.2.0.254/24 dev app0
address add fd00:1::fe/64 dev radio0 nodad
address add fd00:2::fe/64 dev app0 nodad
route add fd00:1:0:7::/64 dev radio0
""",
    )


def looked() -> list[str]:
    return [each.what for each in look([SERVICE, SERVICE6], [DEVICE, DEVICE6, NET6])]


def test_a_router_between_two_links_has_no_way_around_it() -> None:
    def body() -> None:
        routed()
        assert looked() == []

    in_namespaces(body)


def test_an_address_without_a_route_is_no_way_around() -> None:
    def body() -> None:
        run("ip", "route", "add", "blackhole", "10.9.0.0/24")
        run("ip", "route", "add", "prohibit", "10.9.1.0/24")
        run("ip", "route", "add", "unreachable", "10.9.2.0/24")
        assert look([SERVICE], [DEVICE, "10.9.0.1", "10.9.1.1", "10.9.2.1"]) == ()

    in_namespaces(body)


def test_devices_and_service_on_one_bridge_are_found() -> None:
    def body() -> None:
        run(
            "ip",
            "-batch",
            "-",
            stdin="link add br0 type bridge\nlink set br0 up\naddress add 10.1.0.254/16 dev br0\n"
            "address add 10.2.0.254/16 dev br0\n",
        )
        (found,) = look([SERVICE], [DEVICE])
        assert "the bridge br0" in found.what

    in_namespaces(body)


def test_one_router_behind_which_both_are_is_found() -> None:
    def body() -> None:
        routed()
        run("ip", "route", "add", "default", "via", "10.2.0.1")
        (found,) = look([SERVICE], ["192.0.2.7", DEVICE])
        assert "devices (192.0.2.7) and the service at 10.2.0.1 share the link of app0" in found.what

    in_namespaces(body)


def test_thousands_of_addresses_are_asked_for() -> None:
    def body() -> None:
        routed()
        many = [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(5_000)]
        kernel = Kernel()
        routes = dict(kernel.routes(many, rest=0.0001))
        kernel.close()
        assert list(routes) == many
        assert sum(route is not None for route in routes.values()) == 250

    in_namespaces(body)


def add_filter() -> None:
    run("tc", "-batch", "-", stdin="filter add dev radio0 ingress protocol all u32 match u32 0 0 flowid 1:1\n")


def add_flowtable() -> None:
    run("nft", "add table inet fast")
    run("nft", "add flowtable inet fast path { hook ingress priority 0; devices = { radio0, app0 }; }")


def needs(feature: Callable[[], None]) -> None:
    """Skip where the kernel does not take this."""

    def tried() -> None:
        routed()
        run("tc", "qdisc", "add", "dev", "radio0", "clsact")
        feature()

    if (reason := unavailable()) or (reason := fork_in_namespaces(tried)):
        told = [line for line in reason.splitlines() if line.startswith("OSError")]
        pytest.skip(f"not to be had here: {told or reason}")


def test_filters_at_an_ingress_are_found_and_an_empty_one_is_not() -> None:
    needs(add_filter)

    def body() -> None:
        routed()
        run("tc", "qdisc", "add", "dev", "radio0", "clsact")
        assert looked() == []
        add_filter()
        (found,) = looked()
        assert "ingress of radio0" in found

    in_namespaces(body)


def test_a_flowtable_is_found() -> None:
    needs(add_flowtable)

    def body() -> None:
        routed()
        add_flowtable()
        (found,) = looked()
        assert "fast/path" in found

    in_namespaces(body)


def attach_program(interface: str) -> None:
    """Attach an XDP program that lets everything pass. Raises ``OSError``."""
    instructions = struct.pack("<BBhi", 0xB7, 0, 0, 2) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # r0 = XDP_PASS; exit
    code, licence = ctypes.create_string_buffer(instructions), ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "<IIQQ", BPF_PROG_TYPE_XDP, 2, ctypes.addressof(code), ctypes.addressof(licence)
    ) + bytes(96)
    program = ctypes.CDLL(None, use_errno=True).syscall(
        SYS_BPF_X86_64, BPF_PROG_LOAD, ctypes.create_string_buffer(attributes), len(attributes)
    )
    if program < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    nested = struct.pack("=HHi", 8, IFLA_XDP_FD, program) + struct.pack(
        "=HHI", 8, IFLA_XDP_FLAGS, XDP_FLAGS_SKB_MODE
    )
    body = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(interface), 0, 0)
    body += struct.pack("=HH", 4 + len(nested), IFLA_XDP | 0x8000) + nested
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as asking:
        asking.bind((0, 0))
        asking.send(struct.pack("=IHHII", 16 + len(body), RTM_SETLINK, 0x5, 1, 0) + body)
        (number,) = struct.unpack_from("=i", asking.recv(65_536), 16)
    os.close(program)
    if number:
        raise OSError(-number, os.strerror(-number))


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the test's own number of the bpf call is x86_64's")
def test_a_program_at_an_interface_is_found() -> None:
    needs(lambda: attach_program("radio0"))

    def body() -> None:
        routed()
        attach_program("radio0")
        (found,) = looked()
        assert "XDP program is attached to radio0" in found

    in_namespaces(body)


def test_the_watch_tells_what_opens_and_what_closes() -> None:
    async def body() -> None:
        routed()
        told: list[str] = []
        watch = BypassWatch([SERVICE], [DEVICE, "192.0.2.7"], told.append)
        working = asyncio.create_task(watch.run())
        run("ip", "route", "add", "192.0.2.0/24", "dev", "app0")
        await until(lambda: len(told) == 1)
        assert "share the link of app0" in told[0]
        assert watch.state.startswith("bypass: devices (192.0.2.7)")
        run("ip", "route", "del", "192.0.2.0/24")
        await until(lambda: len(told) == 2)
        assert told[1].startswith("closed again: devices (192.0.2.7)")
        assert watch.state == ""
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working

    in_namespaces(body)


def test_the_sockets_stay_open_from_look_to_look_and_are_closed_after_a_look_that_failed() -> None:
    """Closing the netfilter one makes every cut wait: it may not happen look after look."""

    def body() -> None:
        routed()
        looker = Looker([SERVICE], [DEVICE])
        assert looker.look(anew=True) == ()
        kernel = looker._kernel
        assert kernel is not None
        kept = dict(kernel._sockets)
        assert NETLINK_NETFILTER in kept
        assert looker.look(anew=False) == ()
        assert looker.look(anew=True) == ()
        assert looker._kernel is kernel
        assert kernel._sockets == kept
        assert all(each.fileno() >= 0 for each in kept.values())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernel, "flowtables", refuse)
            with pytest.raises(LookError, match="no answer"):
                looker.look(anew=False)
        assert all(each.fileno() == -1 for each in kept.values())
        assert looker.look(anew=False) == ()
        assert looker._kernel is not None
        assert looker._kernel is not kernel
        looker.close()
        looker.close()

    in_namespaces(body)


def refuse() -> NoReturn:
    raise LookError("no answer")


def test_without_the_right_to_look_it_says_so() -> None:
    if os.geteuid() == 0 or not unavailable():
        pytest.skip("root, and whoever may make namespaces, may look")
    with pytest.raises(LookError, match="kernel"):
        look([SERVICE], [DEVICE])


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.02)


def test_services_of_another_book_are_looked_for_at_once() -> None:
    async def body() -> None:
        routed()
        told: list[str] = []
        watch = BypassWatch([SERVICE], [DEVICE], told.append)
        task = asyncio.create_task(watch.run())
        try:
            async with asyncio.timeout(PATIENCE):
                while watch._looker._behind is None:
                    await asyncio.sleep(0.01)
                watch.aim(["10.1.0.9"])
                while not told:
                    await asyncio.sleep(0.01)
                assert "the service at 10.1.0.9 share the link of radio0" in told[0]
                watch.aim([SERVICE])
                while len(told) < 2:
                    await asyncio.sleep(0.01)
                assert told[1].startswith("closed again")
        finally:
            task.cancel()
            await asyncio.wait((task,))

    in_namespaces(body)
