"""No way around the path gate: borrowed addresses, second paths, privacy addresses, by real packets.

One site: a gateway with a bridge of devices (``cam`` and its neighbour), another link (``else``), a link to the
server, and a container on a bridge of its own whose port the gateway publishes. What must not get through is shown
to get through where nothing is asked of it: without anchors, or with the service named by one of its places only.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from gateway.core.errors import ConfigError
from gateway.core.model import Address, Applied, Change, ChangeKind
from gateway.enforce.nft import (
    Anchor,
    Baseline,
    Endpoint,
    GatedService,
    NftBackend,
    render_baseline_file,
    sets_in_use,
)
from gateway.enforce.nft.sources import complete, place_of
from tests.netns import (
    ARRIVES,
    Echo,
    KernelClock,
    Space,
    in_namespaces,
    link,
    run,
    sysctl,
    without_duplicate_detection,
)

CLOCK = KernelClock()
FEED, PUBLISHED = 8001, 8080
SERVER4, SERVER6, BOX = "10.77.3.2", "fd77:3::2", "172.18.0.2"
CAM4, CAM6, CAM_NET, PRIVATE = "10.77.1.11", "fd77:1::11", "fd77:1:0:5::/64", "fd77:1:0:5::1"
NEXT4, NEXT6, ELSE4 = "10.77.1.12", "fd77:1::12", "10.77.2.21"
GATEWAY = "10.77.1.1"
MACS = {"cam": "02:00:00:00:00:0b", "next": "02:00:00:00:00:0c", "else": "02:00:00:00:00:15"}
KNOWN = tuple(Address.parse(text) for text in (CAM4, CAM6, CAM_NET, NEXT4, NEXT6, ELSE4))
ADMITTED = frozenset({"admitted"})


def mac(name: str) -> bytes:
    return bytes.fromhex(MACS[name].replace(":", ""))


BOUND = tuple(Anchor(Address.parse(text), "cams", mac("cam")) for text in (CAM4, CAM6, CAM_NET))


def gated(*places: tuple[str, int]) -> tuple[GatedService, ...]:
    return tuple(
        GatedService(Endpoint(Address.parse(address), port, protocol), ADMITTED)
        for address, port in places
        for protocol in ("tcp", "udp")
    )


SERVER = gated((SERVER4, FEED), (SERVER6, FEED))


def baseline(services: Sequence[GatedService] = SERVER, anchors: Sequence[Anchor] = BOUND) -> Baseline:
    return Baseline(tuple(services), inventory_size=len(KNOWN), sources=sets_in_use(KNOWN, anchors))


class Street:
    """The gateway is the calling thread's namespace."""

    def __init__(self) -> None:
        without_duplicate_detection()
        self.spaces = {name: Space(name) for name in ("cam", "next", "else", "server", "box")}
        lines = ["link add cams type bridge", "link add boxes type bridge"]
        for name, space in self.spaces.items():
            with space.entered():
                without_duplicate_detection()
            link(f"to_{name}", space)
        lines += [f"link set to_{name} master cams" for name in ("cam", "next")]
        lines += ["link set to_box master boxes"]
        lines += [f"link set {each} up" for each in ("cams", "boxes", *(f"to_{name}" for name in self.spaces))]
        places = (
            ("10.77.1.1/24", "cams"),
            ("fd77:1::1/64", "cams"),
            ("fd77:1:0:5::f/64", "cams"),
            ("10.77.2.1/24", "to_else"),
            ("10.77.3.1/24", "to_server"),
            ("fd77:3::1/64", "to_server"),
            ("172.18.0.1/24", "boxes"),
        )
        lines += [f"addr add {address} dev {each}{' nodad' * (':' in address)}" for address, each in places]
        run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")
        sysctl("ipv4/ip_forward", "1")
        sysctl("ipv6/conf/all/forwarding", "1")
        self._host("cam", GATEWAY, CAM4, CAM6, PRIVATE, "fd77:1:0:5::2")
        self._host("next", GATEWAY, NEXT4, NEXT6)
        self._host("else", "10.77.2.1", ELSE4)
        self._host("server", "10.77.3.1", SERVER4, SERVER6)
        self._host("box", "172.18.0.1", BOX)

    def _host(self, name: str, router: str, *addresses: str) -> None:
        lines = [f"link set eth0 address {MACS[name]}"] if name in MACS else []
        lines += [
            f"addr add {one}/{64 if ':' in one else 24} dev eth0{' nodad' * (':' in one)}" for one in addresses
        ]
        lines += ["link set eth0 up", f"route add default via {router}"]
        six = {"10.77.1.1": "fd77:1::1", "10.77.3.1": "fd77:3::1"}.get(router)
        self.spaces[name].ip("\n".join([*lines, *([f"route add ::/0 via {six}"] if six else [])]) + "\n")

    def takes(self, thief: str, address: str) -> None:
        """A host takes an address that is another's."""
        width = "128 nodad" if ":" in address else "32"
        length, *rest = width.split()
        self.spaces[thief].ip(f"addr add {address}/{length} dev eth0 {' '.join(rest)}\n")


def until(holds: Callable[[], bool]) -> bool:
    """Whether something comes true, given time enough."""
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return holds()


class Ears:
    """Everything that a service received."""

    def __init__(self, space: Space | None, *places: tuple[str, int]) -> None:
        self.echoes = [Echo(space, *place) for place in places]

    def heard(self, token: bytes) -> bool:
        return any(token in data for echo in self.echoes for data in list(echo.received))

    def waits_for(self, token: bytes) -> bool:
        return until(lambda: self.heard(token))


_numbers = iter(range(1_000_000))


def say(space: Space, source: str, target: tuple[str, int]) -> bytes:
    """Send one datagram; what it says. An answer is nobody's business."""
    token = f"<{next(_numbers)}>".encode()
    with space.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        sender.sendto(token, target)
    return token


def connects(space: Space, source: str, target: tuple[str, int], seconds: float) -> bool:
    with space.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_STREAM) as caller:
        caller.bind((source, 0))
        caller.settimeout(seconds)
        try:
            caller.connect(target)
        except OSError:
            return False
        return True


def spoofed() -> int:
    listed = json.loads(run("nft", "-j", "list", "counters", "table", "inet", "ragate"))["nftables"]
    return sum(one["counter"]["packets"] for one in listed if "counter" in one)


async def admit(backend: NftBackend, *addresses: str) -> None:
    until = CLOCK.now().boot + 300
    changes = [Change(ChangeKind.ADMIT, Address.parse(one), "admitted", until) for one in addresses]
    assert all(one.state is Applied.VERIFIED for one in await backend.apply(changes))


Story = Callable[[Street, NftBackend], Awaitable[None]]


def on_the_street(
    story: Story, services: Sequence[GatedService] = SERVER, anchors: Sequence[Anchor] = BOUND
) -> None:
    async def body() -> None:
        street = Street()
        backend = NftBackend(baseline(services, anchors), KNOWN, CLOCK, anchors)
        await backend.start()
        await admit(backend, CAM4, CAM6, CAM_NET)
        try:
            await story(street, backend)
        finally:
            await backend.stop()

    in_namespaces(body)


ATTACKS = [
    pytest.param("next", CAM4, (SERVER4, FEED), id="neighbour behind the same bridge"),
    pytest.param("next", CAM6, (SERVER6, FEED), id="neighbour, IPv6"),
    pytest.param("next", "fd77:1:0:5::1", (SERVER6, FEED), id="neighbour, one of its privacy addresses"),
    pytest.param("next", "fd77:1:0:5:9::9", (SERVER6, FEED), id="neighbour, an unused privacy address"),
    pytest.param("else", CAM4, (SERVER4, FEED), id="another interface"),
]


@pytest.mark.netns
@pytest.mark.parametrize("asked", [True, False], ids=["anchored", "not anchored"])
def test_a_borrowed_address_gets_through_only_where_nothing_is_asked_of_it(*, asked: bool) -> None:
    async def story(street: Street, _: NftBackend) -> None:
        ears = Ears(street.spaces["server"], (SERVER4, FEED), (SERVER6, FEED))
        for attack in ATTACKS:
            thief, address, target = attack.values
            assert isinstance(thief, str)
            assert isinstance(address, str)
            assert isinstance(target, tuple)
            street.takes(thief, address)
            before = spoofed() if asked else 0
            stolen = say(street.spaces[thief], address, target)
            if asked:  # it was there, and was dropped
                assert until(lambda before=before: spoofed() > before), attack.id  # type: ignore[misc]
            six = ":" in address
            honest = say(street.spaces["cam"], CAM6 if six else CAM4, (SERVER6 if six else SERVER4, FEED))
            assert ears.waits_for(honest), attack.id
            assert ears.waits_for(stolen) if not asked else not ears.heard(stolen), attack.id

    on_the_street(story, anchors=BOUND if asked else ())


@pytest.mark.netns
def test_the_honest_device_passes_with_each_of_its_addresses() -> None:
    async def story(street: Street, backend: NftBackend) -> None:
        ears = Ears(street.spaces["server"], (SERVER4, FEED), (SERVER6, FEED))
        for address in (CAM4, CAM6, PRIVATE, "fd77:1:0:5::2"):
            target = (SERVER6 if ":" in address else SERVER4, FEED)
            assert ears.waits_for(say(street.spaces["cam"], address, target)), address
            assert connects(street.spaces["cam"], address, target, ARRIVES), address
        # A new privacy address of the same card needs nothing of anybody.
        street.takes("cam", "fd77:1:0:5:abcd::1")
        assert ears.waits_for(say(street.spaces["cam"], "fd77:1:0:5:abcd::1", (SERVER6, FEED)))
        assert spoofed() == 0
        # Whoever is not anchored is judged as ever: by the address alone.
        await admit(backend, NEXT4)
        assert ears.waits_for(say(street.spaces["next"], NEXT4, (SERVER4, FEED)))

    on_the_street(story)


@pytest.mark.netns
def test_a_spoofed_packet_is_dropped_whatever_it_is_for_and_counted() -> None:
    async def story(street: Street, backend: NftBackend) -> None:
        ears = Ears(None, (GATEWAY, 9000))
        street.takes("next", CAM4)
        stolen = say(street.spaces["next"], CAM4, (GATEWAY, 9000))
        assert until(lambda: spoofed() == 1)
        honest = say(street.spaces["next"], NEXT4, (GATEWAY, 9000))
        assert ears.waits_for(honest)
        assert not ears.heard(stolen)
        assert until(lambda: backend.spoofed == 1)

    on_the_street(story)


@pytest.mark.netns
@pytest.mark.parametrize(
    "anchor",
    [
        pytest.param(Anchor(Address.parse(CAM4), routed_back=True), id="reverse path"),
        pytest.param(Anchor(Address.parse(CAM4), "cams", routed_back=True), id="own interface, reverse path"),
        pytest.param(Anchor(Address.parse(CAM4), "cams"), id="upstream by one interface"),
    ],
)
def test_an_address_of_another_interface_is_dropped(anchor: Anchor) -> None:
    async def story(street: Street, _: NftBackend) -> None:
        ears = Ears(street.spaces["server"], (SERVER4, FEED))
        street.takes("else", CAM4)
        stolen = say(street.spaces["else"], CAM4, (SERVER4, FEED))
        assert until(lambda: spoofed() == 1)
        assert ears.waits_for(say(street.spaces["cam"], CAM4, (SERVER4, FEED)))
        assert not ears.heard(stolen)
        if anchor.routed_back:  # the route moves: the device is where it leads, and nowhere else
            run("ip", "route", "add", f"{CAM4}/32", "dev", "to_else")
            moved = say(street.spaces["cam"], CAM4, (SERVER4, FEED))
            found = say(street.spaces["else"], CAM4, (SERVER4, FEED))
            assert until(lambda: spoofed() == (3 if anchor.interface else 2))
            if not anchor.interface:
                assert ears.waits_for(found)
            assert not ears.heard(moved)

    on_the_street(story, anchors=(anchor,))


NAT = f"""
add table ip site
add chain ip site pre {{ type nat hook prerouting priority dstnat; }}
add chain ip site post {{ type nat hook postrouting priority srcnat; }}
add rule ip site pre ip daddr {GATEWAY} meta l4proto {{ tcp, udp }} th dport {PUBLISHED} dnat to {BOX}:{FEED}
"""


@pytest.mark.netns
@pytest.mark.parametrize(
    "named",
    [
        pytest.param(((GATEWAY, PUBLISHED),), id="as clients see it"),
        pytest.param(((BOX, FEED),), id="as the host listens"),
        pytest.param(((GATEWAY, PUBLISHED), (BOX, FEED)), id="both"),
    ],
)
def test_a_published_port_is_gated_under_either_name(named: tuple[tuple[str, int], ...]) -> None:
    async def story(street: Street, backend: NftBackend) -> None:
        run("nft", "-f", "-", stdin=NAT)
        ears = Ears(street.spaces["box"], (BOX, FEED))
        front = (GATEWAY, PUBLISHED)
        refused = say(street.spaces["next"], NEXT4, front)
        assert ears.waits_for(say(street.spaces["cam"], CAM4, front))
        assert not ears.heard(refused)
        assert connects(street.spaces["cam"], CAM4, front, ARRIVES)
        assert not connects(street.spaces["next"], NEXT4, front, 0.3)
        # A live flow ends with its admission, in both directions.
        with street.spaces["cam"].socket(socket.AF_INET, socket.SOCK_DGRAM) as live:
            live.bind((CAM4, 0))
            live.settimeout(ARRIVES)
            live.sendto(b"before", front)
            assert live.recv(100) == b"before"
            (outcome,) = await backend.cut([Change(ChangeKind.CUT, Address.parse(CAM4))])
            assert outcome.state is Applied.VERIFIED
            live.sendto(b"after", front)
            await admit(backend, NEXT4)
            assert ears.waits_for(say(street.spaces["next"], NEXT4, front))
            assert not ears.heard(b"after")
        # The way to the container itself: gated where it is named.
        direct = say(street.spaces["cam"], CAM4, (BOX, FEED))
        assert ears.waits_for(say(street.spaces["next"], NEXT4, front))
        assert ears.heard(direct) is ((BOX, FEED) not in named)

    on_the_street(story, services=gated(*named))


@pytest.mark.netns
def test_what_the_server_says_to_a_published_flow_ends_with_the_admission() -> None:
    async def story(street: Street, backend: NftBackend) -> None:
        run("nft", "-f", "-", stdin=NAT)
        with (
            street.spaces["box"].socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
            street.spaces["cam"].socket(socket.AF_INET, socket.SOCK_DGRAM) as cam,
        ):
            server.bind((BOX, FEED))
            cam.bind((CAM4, 0))
            for each in (server, cam):
                each.settimeout(ARRIVES)
            cam.sendto(b"hello", (GATEWAY, PUBLISHED))
            _, peer = server.recvfrom(100)
            server.sendto(b"first", peer)
            assert cam.recv(100) == b"first"
            await backend.cut([Change(ChangeKind.CUT, Address.parse(CAM4))])
            server.sendto(b"second", peer)
            await admit(backend, CAM4)
            server.sendto(b"third", peer)
            assert cam.recv(100) == b"third"

    on_the_street(story, services=gated((GATEWAY, PUBLISHED)))


def proxy(listen: tuple[str, int], onward: tuple[str, int]) -> None:
    """What a container engine runs beside its rules: takes a connection on the host and makes one of its own."""
    server = socket.create_server(listen)

    def carry(one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(1_000):
                other.sendall(data)
        except OSError:
            pass

    def serve() -> None:
        while True:
            client, _ = server.accept()
            beyond = socket.create_connection(onward, timeout=ARRIVES)
            for pair in ((client, beyond), (beyond, client)):
                threading.Thread(target=carry, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


@pytest.mark.netns
@pytest.mark.parametrize("named", [True, False], ids=["published port named", "container alone named"])
def test_a_userland_proxy_is_gated_where_its_port_is_named(*, named: bool) -> None:
    async def story(street: Street, _: NftBackend) -> None:
        Ears(street.spaces["box"], (BOX, FEED))
        proxy((GATEWAY, PUBLISHED), (BOX, FEED))
        assert connects(street.spaces["cam"], CAM4, (GATEWAY, PUBLISHED), ARRIVES)
        if named:
            assert not connects(street.spaces["next"], NEXT4, (GATEWAY, PUBLISHED), 0.3)
        else:
            assert connects(street.spaces["next"], NEXT4, (GATEWAY, PUBLISHED), ARRIVES)

    places = ((GATEWAY, PUBLISHED), (BOX, FEED)) if named else ((BOX, FEED),)
    on_the_street(story, services=gated(*places))


@pytest.mark.netns
def test_a_hairpin_is_judged_by_who_asks() -> None:
    """The service stands on the devices' own bridge and is reached by the gateway's address, translated twice."""

    async def story(street: Street, backend: NftBackend) -> None:
        street.spaces["next"].ip("addr add 10.77.1.40/24 dev eth0\n")
        ears = Ears(street.spaces["next"], ("10.77.1.40", FEED))
        run(
            "nft",
            "-f",
            "-",
            stdin=NAT.replace(f"{BOX}:{FEED}", f"10.77.1.40:{FEED}")
            + f"add rule ip site post ip daddr 10.77.1.40 th dport {FEED} masquerade\n",
        )
        front = (GATEWAY, PUBLISHED)
        assert connects(street.spaces["cam"], CAM4, front, ARRIVES)
        assert not connects(street.spaces["else"], ELSE4, front, 0.3)
        assert not connects(street.spaces["next"], NEXT4, front, 0.3)
        assert ears.waits_for(say(street.spaces["cam"], CAM4, front))
        await backend.cut([Change(ChangeKind.CUT, Address.parse(CAM4))])
        assert not connects(street.spaces["cam"], CAM4, front, 0.3)

    on_the_street(story, services=gated((GATEWAY, PUBLISHED)))


@pytest.mark.netns
def test_an_address_that_changed_hands_follows_the_inventory() -> None:
    """The camera was replaced: after a start with the new card's MAC the old one is a stranger."""

    async def body() -> None:
        street = Street()
        ears = Ears(street.spaces["server"], (SERVER4, FEED))
        street.takes("next", CAM4)
        first = NftBackend(baseline(), KNOWN, CLOCK, BOUND)
        await first.start()
        await admit(first, CAM4, NEXT4)
        await first.stop()
        moved = tuple(each._replace(mac=mac("next")) for each in BOUND)
        second = NftBackend(baseline(anchors=moved), KNOWN, CLOCK, moved)
        assert await second.start()
        old = say(street.spaces["cam"], CAM4, (SERVER4, FEED))
        assert until(lambda: spoofed() == 1)
        assert ears.waits_for(say(street.spaces["next"], CAM4, (SERVER4, FEED)))
        assert not ears.heard(old)
        await second.stop()
        # Nothing is asked of anybody any more: the sets are gone, and what was admitted still is.
        third = NftBackend(baseline(anchors=()), KNOWN, CLOCK)
        assert await third.start()
        assert ears.waits_for(say(street.spaces["cam"], CAM4, (SERVER4, FEED)))
        assert "from." not in run("nft", "list", "table", "inet", "ragate")
        await third.stop()

    in_namespaces(body)


@pytest.mark.netns
def test_shut_until_every_anchor_stands() -> None:
    async def story(street: Street, _: NftBackend) -> None:
        ears = Ears(street.spaces["server"], (SERVER4, FEED))
        assert ears.waits_for(say(street.spaces["cam"], CAM4, (SERVER4, FEED)))

    on_the_street(story)

    async def unfilled() -> None:
        street = Street()
        ears = Ears(street.spaces["server"], (SERVER4, FEED), (SERVER4, 9000))
        text = render_baseline_file(baseline(), KNOWN, BOUND)
        run("nft", "-f", "-", stdin=text)
        run("nft", "add", "element", "inet", "ragate", "admitted4", "{", CAM4, "timeout", "60s", "}")
        assert ears.waits_for(say(street.spaces["cam"], CAM4, (SERVER4, FEED)))
        run("nft", "flush", "set", "inet", "ragate", "filled")
        shut = say(street.spaces["cam"], CAM4, (SERVER4, FEED))
        server = say(street.spaces["box"], BOX, (SERVER4, 9000))
        assert ears.waits_for(server)
        assert not ears.heard(shut)

    in_namespaces(unfilled)


def test_addresses_without_an_anchor_are_let_be_and_cost_nothing() -> None:
    assert sets_in_use(KNOWN, ()) == ()
    assert sets_in_use(KNOWN, [Anchor(each) for each in KNOWN]) == ()
    # Beside an anchored address of the same kind they have a place of their own, or they would be shut out.
    assert sets_in_use(KNOWN, BOUND[:1]) == ("from.bound4", "from.loose4")
    assert sets_in_use(KNOWN, BOUND) == ("from.bound4", "from.bound6", "from.bound6n", "from.loose4", "from.loose6")


def test_the_strictest_of_several_anchors_of_an_address_counts() -> None:
    cam = Address.parse(CAM4)
    strict, lax = Anchor(cam, "cams", mac("cam")), Anchor(cam)
    assert complete([cam], [lax, strict, strict]) == (strict,)
    assert complete([cam], [Anchor(Address.parse("10.9.9.9"), "cams")]) == (lax,)
    assert place_of(strict) == ("from.bound4", b"cams".ljust(16, b"\0") + mac("cam") + b"\0\0" + cam.packed)


def test_a_profile_cannot_take_the_name_of_a_set_of_ours() -> None:
    with pytest.raises(ConfigError, match="filled"):
        Baseline(SERVER, profiles=("admitted", "filled"))
