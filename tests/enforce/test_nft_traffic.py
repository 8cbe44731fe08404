"""The path gate judged by real flows: client - gateway - server, each in a network namespace of its own."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable

import pytest

from gateway.core.model import Address, Applied, Change, ChangeKind
from gateway.enforce.nft import (
    Baseline,
    Endpoint,
    GatedService,
    NftBackend,
    render_baseline_file,
    uninstall,
)
from gateway.enforce.nft.libnftables import run_commands
from tests.netns import (
    ARRIVES,
    SILENCE,
    Echo,
    Flow,
    KernelClock,
    Site,
    blocked,
    in_namespaces,
    passes,
    run,
    sysctl,
)

pytestmark = pytest.mark.netns

ADMITTED = frozenset({"admitted"})
BOTH = frozenset({"admitted", "probation"})
FEED, STATUS, OTHER, ATTEST = 8001, 8002, 9000, 8100
SERVER4, SERVER6 = "10.77.3.2", "fd77:3::2"
DEVICE4, DEVICE6, DEVICE_NET = "10.77.1.11", "fd77:1::11", "fd77:1:0:5::/64"
STRANGER4, STRANGER6 = "10.77.1.99", "fd77:1::99"
KNOWN = [Address.parse(text) for text in (DEVICE4, "10.77.1.12", DEVICE6, "fd77:1::12", DEVICE_NET)]
CLOCK = KernelClock()


def endpoint(address: str, port: int, protocol: str = "tcp") -> Endpoint:
    return Endpoint(Address.parse(address), port, protocol)


def services(*addresses: str) -> tuple[GatedService, ...]:
    return tuple(
        GatedService(endpoint(address, port, protocol), profiles)
        for address in addresses
        for port, profiles in ((FEED, ADMITTED), (STATUS, BOTH))
        for protocol in ("tcp", "udp")
    )


BASELINE = Baseline(
    services(SERVER4, SERVER6),
    corridor=(endpoint(SERVER4, ATTEST), endpoint(SERVER6, ATTEST)),
    inventory_size=len(KNOWN),
)


def admit(address: str, profile: str = "admitted", seconds: float = 60.0) -> Change:
    return Change(ChangeKind.ADMIT, Address.parse(address), profile, CLOCK.now().boot + seconds)


def cut(address: str) -> Change:
    return Change(ChangeKind.CUT, Address.parse(address))


def with_gate(story: Callable[[Site, NftBackend], Awaitable[None]], baseline: Baseline = BASELINE) -> None:
    """Run a story at a site whose gateway has the path gate."""

    async def body() -> None:
        site = Site()
        backend = NftBackend(baseline, KNOWN, CLOCK)
        assert await backend.start() is False
        try:
            await story(site, backend)
        finally:
            await backend.stop()

    in_namespaces(body)


async def applied(backend: NftBackend, *changes: Change) -> None:
    for outcome in await backend.apply(changes):
        assert outcome.state is Applied.VERIFIED, outcome


async def severed(backend: NftBackend, *addresses: str) -> None:
    for outcome in await backend.cut([cut(address) for address in addresses]):
        assert outcome.state is Applied.VERIFIED, outcome


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("device", "source", "server"),
    [
        (DEVICE4, DEVICE4, SERVER4),
        (DEVICE6, DEVICE6, SERVER6),
        (DEVICE_NET, "fd77:1:0:5::1", SERVER6),
    ],
)
def test_admission_opens_and_a_cut_stops_the_live_flow(kind: str, device: str, source: str, server: str) -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        echo = Echo(site.server, server, FEED)
        assert blocked(kind, site.client, source, (server, FEED))
        assert not echo.received
        await applied(backend, admit(device))
        flow = Flow(kind, site.client, (source, 0), (server, FEED))
        assert flow.opens()
        assert flow.echoes()
        await severed(backend, device)
        before = len(echo.received)
        assert not flow.echoes(SILENCE)
        assert len(echo.received) == before
        assert blocked(kind, site.client, source, (server, FEED))
        await applied(backend, admit(device))
        assert passes(kind, site.client, source, (server, FEED))

    with_gate(story)


@pytest.mark.parametrize(("device", "server"), [(DEVICE4, SERVER4), (DEVICE6, SERVER6)])
def test_a_cut_stops_what_the_server_sends_too(device: str, server: str) -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        speaker = site.server.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
        speaker.bind((server, FEED))
        listener = Flow("udp", site.client, (device, 5000), (server, FEED)).socket
        await applied(backend, admit(device))
        speaker.sendto(b"first", (device, 5000))
        assert listener.recv(100) == b"first"
        await severed(backend, device)
        speaker.sendto(b"second", (device, 5000))
        listener.settimeout(SILENCE)
        with pytest.raises(TimeoutError):
            listener.recv(100)

    with_gate(story)


def test_every_address_of_a_prefix_and_no_other() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        Echo(site.server, SERVER6, FEED)
        await applied(backend, admit(DEVICE_NET))
        assert passes("tcp", site.client, "fd77:1:0:5::1", (SERVER6, FEED))
        assert passes("tcp", site.client, "fd77:1:0:5::2", (SERVER6, FEED))
        assert blocked("tcp", site.client, DEVICE6, (SERVER6, FEED))

    with_gate(story)


def test_a_profile_reaches_its_services_only() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        for port in (FEED, STATUS):
            Echo(site.server, SERVER4, port)
        await applied(backend, admit(DEVICE4, "probation"))
        assert passes("tcp", site.client, DEVICE4, (SERVER4, STATUS))
        assert blocked("tcp", site.client, DEVICE4, (SERVER4, FEED))
        await applied(backend, admit(DEVICE4))
        assert passes("tcp", site.client, DEVICE4, (SERVER4, FEED))
        assert blocked("tcp", site.client, "10.77.1.12", (SERVER4, FEED))

    with_gate(story)


def test_the_corridor_is_always_open_and_the_rest_of_the_host_is_not() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        for address in (SERVER4, SERVER6):
            for port in (ATTEST, OTHER):
                Echo(site.server, address, port)
        for device, server in ((DEVICE4, SERVER4), (DEVICE6, SERVER6), ("fd77:1:0:5::1", SERVER6)):
            assert passes("tcp", site.client, device, (server, ATTEST))
        await severed(backend, DEVICE4, DEVICE6, DEVICE_NET)
        for device, server in ((DEVICE4, SERVER4), (DEVICE6, SERVER6), ("fd77:1:0:5::1", SERVER6)):
            assert passes("tcp", site.client, device, (server, ATTEST))
            assert blocked("tcp", site.client, device, (server, OTHER))
            # even as a source port the corridor's number opens nothing else
            assert not Flow("tcp", site.client, (device, ATTEST), (server, OTHER)).opens(SILENCE)

    with_gate(story)


def test_unrelated_traffic_is_left_alone() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        Echo(site.server, SERVER4, OTHER)
        Echo(site.server, SERVER6, OTHER)
        Echo(None, "10.77.1.1", OTHER)
        with site.server.entered():
            run("ip", "addr", "add", "10.77.3.3/24", "dev", "eth0")
        Echo(site.server, "10.77.3.3", OTHER)
        await severed(backend, DEVICE4)
        # a host that is no device reaches what is not gated; a device reaches hosts without a gated service
        assert passes("tcp", site.client, STRANGER4, (SERVER4, OTHER))
        assert passes("udp", site.client, STRANGER6, (SERVER6, OTHER))
        assert passes("tcp", site.client, DEVICE4, ("10.77.1.1", OTHER))
        assert passes("tcp", site.client, DEVICE4, ("10.77.3.3", OTHER))
        assert passes("udp", site.client, DEVICE4, ("10.77.3.3", OTHER), size=4_000)

    with_gate(story)


def test_strangers_need_to_be_listed() -> None:
    listed = Baseline(
        services(SERVER4),
        always_allowed=(ipaddress.ip_network("10.77.1.96/28"), ipaddress.ip_network("10.77.1.11/32")),
    )

    async def story(site: Site, backend: NftBackend) -> None:
        Echo(site.server, SERVER4, FEED)
        assert passes("tcp", site.client, STRANGER4, (SERVER4, FEED))
        # a device is judged as a device even where a listed prefix covers it
        assert blocked("tcp", site.client, DEVICE4, (SERVER4, FEED))

    with_gate(story, listed)

    async def unlisted(site: Site, backend: NftBackend) -> None:
        Echo(site.server, SERVER4, FEED)
        assert blocked("tcp", site.client, STRANGER4, (SERVER4, FEED))
        assert blocked("udp", site.client, STRANGER6, (SERVER6, FEED))

    with_gate(unlisted)


def test_a_translated_destination_is_judged_by_where_it_goes() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        run_commands(
            "add table ip nat\n"
            "add chain ip nat pre { type nat hook prerouting priority dstnat; }\n"
            f"add rule ip nat pre tcp dport 80 dnat to {SERVER4}:{FEED}\n"
        )
        echo = Echo(site.server, SERVER4, FEED)
        assert blocked("tcp", site.client, DEVICE4, ("10.77.1.1", 80))
        await applied(backend, admit(DEVICE4))
        flow = Flow("tcp", site.client, (DEVICE4, 0), ("10.77.1.1", 80))
        assert flow.opens()
        assert flow.echoes()
        await severed(backend, DEVICE4)
        before = len(echo.received)
        assert not flow.echoes(SILENCE)
        assert len(echo.received) == before

    with_gate(story)


def test_services_on_the_gateway_itself() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        local = [Echo(None, address, FEED) for address in ("10.77.1.1", "fd77:1::1")]
        for device, address in ((DEVICE4, "10.77.1.1"), (DEVICE6, "fd77:1::1")):
            assert blocked("tcp", site.client, device, (address, FEED))
            await applied(backend, admit(device))
            flow = Flow("tcp", site.client, (device, 0), (address, FEED))
            assert flow.opens()
            assert flow.echoes()
            await severed(backend, device)
            assert not flow.echoes(SILENCE)
        seen = [len(echo.received) for echo in local]
        # the host's own programs reach them over its own addresses
        for address in ("10.77.1.1", "fd77:1::1"):
            assert passes("tcp", None, address, (address, FEED))
        assert [len(echo.received) for echo in local] == [count + 1 for count in seen]

    with_gate(story, Baseline(services("10.77.1.1", "fd77:1::1"), inventory_size=4))


def test_what_the_gateway_itself_sends() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        for address in (SERVER4, SERVER6):
            Echo(site.server, address, FEED)
        assert passes("tcp", None, "10.77.3.1", (SERVER4, FEED))
        assert passes("udp", None, "fd77:3::1", (SERVER6, FEED))
        # a device's address on the gateway is a device's address
        run("ip", "addr", "add", "10.77.1.12/32", "dev", "lo")
        assert blocked("tcp", None, "10.77.1.12", (SERVER4, FEED))

    with_gate(story)


def test_a_host_reaches_admitted_devices_and_they_only_answer() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        Echo(site.client, DEVICE4, OTHER)
        Echo(site.server, SERVER4, OTHER)
        assert blocked("tcp", site.server, SERVER4, (DEVICE4, OTHER))
        await applied(backend, admit(DEVICE4, "probation"))
        assert blocked("tcp", site.server, SERVER4, (DEVICE4, OTHER))
        await applied(backend, admit(DEVICE4))
        flows = [Flow(kind, site.server, (SERVER4, 0), (DEVICE4, OTHER)) for kind in ("tcp", "udp")]
        assert all(flow.opens() and flow.echoes() for flow in flows)
        assert blocked("tcp", site.client, DEVICE4, (SERVER4, OTHER))
        await severed(backend, DEVICE4)
        assert not any(flow.echoes(SILENCE) for flow in flows)

    with_gate(story)


def test_a_flow_older_than_the_gate_does_not_open_other_ports() -> None:
    async def body() -> None:
        site = Site()
        Echo(site.server, SERVER4, OTHER)
        old = Flow("tcp", site.client, (DEVICE4, 0), (SERVER4, OTHER))
        assert old.opens()
        assert old.echoes()
        backend = NftBackend(BASELINE, KNOWN, CLOCK)
        await backend.start()
        await applied(backend, admit(DEVICE4))
        assert not old.echoes(SILENCE)
        await backend.stop()

    in_namespaces(body)


def test_large_datagrams_in_fragments() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        for server, device in ((SERVER4, DEVICE4), (SERVER6, DEVICE6)):
            echo = Echo(site.server, server, FEED)
            await applied(backend, admit(device))
            assert passes("udp", site.client, device, (server, FEED), size=4_000)
            await severed(backend, device)
            before = len(echo.received)
            assert blocked("udp", site.client, device, (server, FEED), size=4_000)
            assert len(echo.received) == before

    with_gate(story)


def test_fragments_without_tracking_reach_no_protected_host() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        echo = Echo(site.server, SERVER4, OTHER)
        assert passes("udp", site.client, STRANGER4, (SERVER4, OTHER), size=4_000)
        run_commands(
            "add table inet early\n"
            "add chain inet early pre { type filter hook prerouting priority -450; }\n"
            "add rule inet early pre ip frag-off & 0x3fff != 0 notrack\n"
        )
        before = len(echo.received)
        assert blocked("udp", site.client, STRANGER4, (SERVER4, OTHER), size=4_000)
        assert len(echo.received) == before

    with_gate(story)


def ping(raw: socket.socket, target: str, seconds: float) -> bool:
    """Whether an echo request (ICMP, ICMPv6) sent through a raw socket is answered."""
    six = raw.family == socket.AF_INET6
    # ICMP type 8, identifier 77, sequence 1, and their checksum; the kernel fills in ICMPv6's
    request = struct.pack(">BBHHH", 128 if six else 8, 0, 0 if six else 0xFFFF - 0x0800 - 77 - 1, 77, 1)
    raw.sendto(request, (target, 0))
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        raw.settimeout(left)
        try:
            data = raw.recv(2_000)
        except TimeoutError:
            return False
        if (data[0] == 129) if six else (data[20] == 0):
            return True
    return False


def test_echo_requests() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        for device, server, stranger in ((DEVICE4, SERVER4, STRANGER4), (DEVICE6, SERVER6, STRANGER6)):
            six = ":" in device
            family = socket.AF_INET6 if six else socket.AF_INET
            protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
            for address, admitted, answered in (
                (stranger, False, True),
                (device, False, False),
                (device, True, False),
            ):
                if admitted:
                    await applied(backend, admit(device))
                with site.client.socket(family, socket.SOCK_RAW, protocol) as raw:
                    raw.bind((address, 0))
                    assert ping(raw, server, ARRIVES if answered else SILENCE) is answered
            with site.server.socket(family, socket.SOCK_RAW, protocol) as raw:
                raw.bind((server, 0))
                assert ping(raw, device, ARRIVES)
                await severed(backend, device)
                assert not ping(raw, device, SILENCE)

    with_gate(story)


def test_packet_too_big_and_neighbour_discovery_pass() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        # the gateway's own link to the server is narrow: senders must hear of it, the flow must go on
        echo = Echo(site.server, SERVER6, FEED)
        run("ip", "link", "set", "servers", "mtu", "1300")
        await applied(backend, admit(DEVICE6))
        assert passes("tcp", site.client, DEVICE6, (SERVER6, FEED), size=20_000)
        assert sum(map(len, echo.received)) == 20_000

    with_gate(story)

    async def on_link(site: Site, backend: NftBackend) -> None:
        # the gateway itself is the protected host: a cut device must still find it on the link
        await severed(backend, DEVICE6)
        run("ip", "-6", "neigh", "flush", "dev", "devices")
        with site.client.entered():
            run("ip", "-6", "neigh", "flush", "dev", "eth0")
        Echo(None, "fd77:1::1", ATTEST)
        assert passes("tcp", site.client, DEVICE6, ("fd77:1::1", ATTEST))
        assert blocked("tcp", site.client, DEVICE6, ("fd77:1::1", OTHER))

    with_gate(on_link, Baseline(services("fd77:1::1"), corridor=(endpoint("fd77:1::1", ATTEST),)))


def test_extension_headers_hide_nothing() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        echo = Echo(site.server, SERVER6, FEED)
        options = struct.pack("BBBBBBBB", 0, 0, 1, 4, 0, 0, 0, 0)  # one PadN option of six bytes
        sender = site.client.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sender.bind((DEVICE6, 0))
        ancillary = [(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, options)]
        sender.sendmsg([b"hidden"], ancillary, 0, (SERVER6, FEED))
        assert blocked("udp", site.client, DEVICE6, (SERVER6, FEED))
        assert not echo.received
        await applied(backend, admit(DEVICE6))
        sender.sendmsg([b"shown"], ancillary, 0, (SERVER6, FEED))
        sender.settimeout(5)
        assert sender.recv(100) == b"shown"

    with_gate(story)


def test_a_source_route_from_a_device_is_refused() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        del backend
        with site.server.entered():
            sysctl("ipv6/conf/all/seg6_enabled", "1")
            sysctl("ipv6/conf/eth0/seg6_enabled", "1")
            run("ip", "addr", "add", "fd77:3::3/64", "dev", "eth0", "nodad")
        listener = site.server.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        listener.bind((SERVER6, FEED))
        # by way of fd77:3::3, which has no gated service, on to the service
        with site.client.entered():
            run(
                "ip", "-6", "route", "add", SERVER6, "encap", "seg6", "mode", "inline", "segs", "fd77:3::3",
                "dev", "eth0", "via", "fd77:1::1",
            )  # fmt: skip
        sender = site.client.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sender.bind((DEVICE6, 0))
        sender.sendto(b"around", (SERVER6, FEED))
        listener.settimeout(SILENCE)
        with pytest.raises(TimeoutError):
            listener.recv(100)

    with_gate(story)


def test_an_admission_ends_when_its_process_was_killed() -> None:
    def body() -> None:
        site = Site()
        Echo(site.server, SERVER4, FEED)
        child = os.fork()
        if child == 0:
            asyncio.run(_admit_and_wait())
            os._exit(1)
        assert _eventually(lambda: DEVICE4 in run("nft", "list", "ruleset").partition("set admitted4")[2])
        live = Flow("tcp", site.client, (DEVICE4, 0), (SERVER4, FEED))
        assert live.opens()
        assert live.echoes()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert _eventually(lambda: blocked("udp", site.client, DEVICE4, (SERVER4, FEED)))
        assert not live.echoes(SILENCE)
        assert "set cut4" in run("nft", "list", "ruleset")

    in_namespaces(body)


async def _admit_and_wait() -> None:
    backend = NftBackend(BASELINE, KNOWN, CLOCK)
    await backend.start()
    await backend.apply([admit("10.77.1.12")])
    await backend.apply([admit(DEVICE4, seconds=3.0)])
    await asyncio.sleep(60)


def _eventually(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
    return False


def test_flush_ruleset_under_traffic_is_repaired() -> None:
    async def story(site: Site, backend: NftBackend) -> None:
        Echo(site.server, SERVER4, FEED)
        await applied(backend, admit(DEVICE4))
        await severed(backend, "10.77.1.12")
        flow = Flow("tcp", site.client, (DEVICE4, 0), (SERVER4, FEED))
        assert flow.opens()
        assert flow.echoes()
        damages = backend.damages()
        await asyncio.to_thread(run, "nft", "flush ruleset")
        async with asyncio.timeout(60):
            assert "laid again" in await anext(damages)
        assert not flow.echoes(SILENCE)
        assert blocked("tcp", site.client, "10.77.1.12", (SERVER4, FEED))
        await applied(backend, admit(DEVICE4))
        assert passes("tcp", site.client, DEVICE4, (SERVER4, FEED))

    with_gate(story)


def test_uninstall_leaves_nothing_and_opens_everything() -> None:
    async def body() -> None:
        site = Site()
        Echo(site.server, SERVER4, FEED)
        before = run("nft", "list", "ruleset")
        backend = NftBackend(BASELINE, KNOWN, CLOCK)
        await backend.start()
        assert blocked("tcp", site.client, DEVICE4, (SERVER4, FEED))
        await backend.stop()
        assert blocked("tcp", site.client, DEVICE4, (SERVER4, FEED))
        for _ in range(2):
            uninstall()
            assert run("nft", "list", "ruleset") == before == ""
        assert passes("tcp", site.client, DEVICE4, (SERVER4, FEED))

    in_namespaces(body)


def test_the_baseline_file_shuts_before_anything_runs() -> None:
    async def body() -> None:
        site = Site()
        Echo(site.server, SERVER4, FEED)
        Echo(site.server, SERVER4, OTHER)
        text = render_baseline_file(BASELINE, KNOWN)
        run("nft", "-f", "-", stdin=text)
        assert blocked("tcp", site.client, DEVICE4, (SERVER4, FEED))
        assert blocked("tcp", site.client, DEVICE4, (SERVER4, OTHER))
        backend = NftBackend(BASELINE, KNOWN, CLOCK)
        assert await backend.start() is False  # loaded, but never lived in
        await applied(backend, admit(DEVICE4))
        run("nft", "-f", "-", stdin=text)  # loaded once more beside the running gate
        assert passes("tcp", site.client, DEVICE4, (SERVER4, FEED))
        await backend.stop()

    in_namespaces(body)
