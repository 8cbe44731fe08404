"""Drift in a real kernel: whatever somebody else changes in the table is noticed by event and put right.

Each story has a path gate as the service has it: the nftables backend and the reconciler that keeps it. A second
program (``nft``) does the harm. Time limits are for a starved machine; the promise of ten seconds is held by the
long tests of a large site.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.control.ports import Notice, Strayed
from gateway.control.reconcile import Reconciler
from gateway.core.model import DENY, Address, DeviceId, Rule
from gateway.enforce.nft import Anchor, Baseline, Endpoint, GatedService, NftBackend, events, sets_in_use
from gateway.enforce.nft.guard import Guard
from gateway.enforce.nft.netlink import NetlinkSocket
from gateway.enforce.nft.standing import Layer
from tests.netns import KernelClock, in_namespaces, run

CLOCK = KernelClock()
CAM, NEXT, CUT, CAM6, NET = (
    Address.parse(text) for text in ("10.77.1.11", "10.77.1.12", "10.77.1.13", "fd77:1::11", "fd77:1:0:5::/64")
)
KNOWN = (CAM, NEXT, CUT, CAM6, NET)
MAC = bytes.fromhex("02000000000b")
ANCHORS = tuple(Anchor(each, "cams", MAC) for each in (CAM, CAM6, NET))
BOUND = '"cams" . 02:00:00:00:00:0b . 10.77.1.11'
SERVICE = GatedService(Endpoint(Address.parse("10.77.3.2"), 8001, "tcp"), frozenset({"admitted"}))


class Kept:
    """A path gate that is kept, and what was told of it."""

    def __init__(self, known: tuple[Address, ...] = KNOWN, anchors: tuple[Anchor, ...] = ANCHORS) -> None:
        made = Baseline((SERVICE,), inventory_size=len(known), sources=sets_in_use(known, anchors))
        self.backend = NftBackend(made, known, CLOCK, anchors)
        self.notices: list[Notice] = []
        self.gate = Reconciler(
            self.backend,
            target="gateway",
            clock=CLOCK,
            lease=600.0,
            report=lambda *_: None,
            notice=self.notices.append,
        )

    def admits(self, *addresses: Address) -> None:
        for each in addresses:
            self.gate.want(each, Rule(DeviceId("cam"), "admitted", CLOCK.now().boot + 3_600))

    def drifts(self) -> list[str]:
        return [notice.detail for notice in self.notices if notice.kind == "drift"]


Story = Callable[[Kept], Awaitable[None]]


def kept(story: Story) -> None:
    async def body() -> None:
        site = Kept()
        await site.backend.start()
        keeping = asyncio.create_task(site.gate.run())
        site.admits(CAM, CAM6, NET)
        site.gate.want(CUT, Rule(DeviceId("cut"), DENY, 0.0, tombstone=True))
        site.gate.want(NEXT, Rule(DeviceId("next"), DENY, 0.0))
        await until(lambda: not site.gate.depth and not site.gate.cut_depth and len(site.gate.admitted) == 3)
        await until(lambda: site.gate.stands(CUT) is not None)
        try:
            await story(site)
        finally:
            assert not keeping.done(), keeping
            keeping.cancel()
            await asyncio.wait((keeping,))
            await site.backend.stop()

    in_namespaces(body)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not holds():
            await asyncio.sleep(0.01)


def nft(command: str) -> str:
    return run("nft", "-f", "-", stdin=command + "\n")


def holds(name: str, text: str) -> bool | None:
    """Whether a set has an element; None while there is no such set: the table is being laid."""
    try:
        return text in run("nft", "list", "set", "inet", "ragate", name)
    except OSError:
        return None


async def changed(name: str, text: str, *, there: bool) -> None:
    async with asyncio.timeout(90):
        while await asyncio.to_thread(holds, name, text) is not there:
            await asyncio.sleep(0.02)


HARMS = [
    pytest.param(
        "delete element", "admitted4", "10.77.1.11", True, "expected admitted, found nothing", id="deleted"
    ),
    pytest.param("delete element", "admitted6", "fd77:1::11", True, "expected admitted", id="deleted, IPv6"),
    pytest.param("delete element", "admitted6n", "fd77:1:0:5::", True, "expected admitted", id="deleted, prefix"),
    pytest.param("delete element", "cut4", "10.77.1.13", True, "the tombstone is gone", id="tombstone"),
    pytest.param("add element", "admitted4", "10.77.1.12", False, "nothing admits it", id="foreign admission"),
    pytest.param("add element", "probation4", "10.77.1.13", False, "not alone", id="beside a tombstone"),
    pytest.param("add element", "admitted4", "10.9.9.9", False, "nothing admits it", id="nobody's address"),
    pytest.param("add element", "cut4", "10.77.1.11", False, "a tombstone stands", id="foreign tombstone"),
    pytest.param("delete element", "known4", "10.77.1.11", True, "known4: put right", id="known"),
    pytest.param("add element", "known4", "10.9.9.9", False, "known4: put right", id="foreign known"),
    pytest.param("delete element", "from.bound4", BOUND, True, "from.bound4: put right", id="anchor"),
    pytest.param(
        "add element",
        "from.bound4",
        '"else" . 02:00:00:00:00:0c . 10.77.1.11',
        False,
        "from.bound4: put right",
        id="foreign anchor",
    ),
]


@pytest.mark.netns
@pytest.mark.parametrize(("verb", "where", "element", "there", "words"), HARMS)
def test_one_element_is_noticed_by_event_and_put_right(
    verb: str, where: str, element: str, words: str, *, there: bool
) -> None:
    async def story(site: Kept) -> None:
        before = site.gate.repairs
        await asyncio.to_thread(nft, f"{verb} inet ragate {where} {{ {element} }}")
        await changed(where, element, there=there)
        await until(lambda: site.gate.repairs > before)
        assert any(words in each for each in site.drifts()), site.drifts()
        # Nothing else was touched: what was admitted stands, and no table was laid again.
        await until(lambda: not site.gate.depth and not site.gate.cut_depth)
        stands = await site.backend.observe(KNOWN)
        assert [one.profile for one in stands.values()] == ["admitted", "", "", "admitted", "admitted"]
        assert [one.tombstone for one in stands.values()] == [False, False, True, False, False]
        assert not any("laid again" in each for each in site.drifts())

    kept(story)


@pytest.mark.netns
@pytest.mark.parametrize(("where", "element"), [("from.bound4", BOUND), ("known4", "10.77.1.11")])
def test_an_element_taken_out_between_listening_and_looking_is_put_right_in_place(
    monkeypatch: pytest.MonkeyPatch, where: str, element: str
) -> None:
    harms = [f"delete element inet ragate {where} {{ {element} }}"]
    look = Guard._look

    def harmed(guard: Guard, netlink: NetlinkSocket, layer: Layer) -> str:
        if armed and harms:
            nft(harms.pop())
        return look(guard, netlink, layer)

    armed: list[bool] = []
    monkeypatch.setattr(Guard, "_look", harmed)

    async def story(site: Kept) -> None:
        armed.append(True)
        site.admits(NEXT)  # a change, after which the guard looks
        await until(lambda: bool(site.drifts()))
        assert site.drifts() == [f"somebody else changed 1 elements of {where}: put right"]
        await changed(where, element, there=True)

    kept(story)


@pytest.mark.netns
def test_what_we_change_ourselves_is_no_drift() -> None:
    async def story(site: Kept) -> None:
        for _ in range(20):
            for each in (CAM, CAM6, NET, NEXT):
                site.gate.want(each, Rule(DeviceId("cam"), DENY, 0.0, tombstone=True))
            await until(lambda: not site.gate.admitted)
            site.admits(CAM, CAM6, NET, NEXT)
            await until(lambda: len(site.gate.admitted) == 4)
        # A harm behind them: once it is told, whatever was to be told of ours would have been.
        await asyncio.to_thread(nft, "delete element inet ragate known4 { 10.77.1.11 }")
        await until(lambda: bool(site.drifts()))
        assert site.drifts() == ["somebody else changed 1 elements of known4: put right"]

    kept(story)


@pytest.mark.netns
@pytest.mark.parametrize(
    "harm",
    [
        "flush set inet ragate admitted4",
        "flush set inet ragate cut4",
        "flush set inet ragate known4",
        "flush set inet ragate from.bound4",
        "flush set inet ragate filled",
        "flush chain inet ragate source4",
        "insert rule inet ragate spoofed accept",
        "flush ruleset",
    ],
)
def test_a_whole_set_or_chain_comes_back_with_everything_that_stood(harm: str) -> None:
    async def story(site: Kept) -> None:
        rules = run("nft", "-s", "list", "chains")
        await asyncio.to_thread(nft, harm)
        await until(lambda: bool(site.drifts()))
        await changed("admitted4", "10.77.1.11", there=True)
        await changed("cut4", "10.77.1.13", there=True)
        await changed("known4", "10.77.1.11", there=True)
        await changed("from.bound4", BOUND, there=True)
        await changed("filled", "ipv4", there=True)
        assert await asyncio.to_thread(run, "nft", "-s", "list", "chains") == rules

    kept(story)


@pytest.mark.netns
def test_a_burst_that_the_kernel_cannot_tell_is_found_by_a_survey(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "WAITING_BYTES", 4_096)

    async def story(site: Kept) -> None:
        many = ", ".join(f"10.8.{n >> 8}.{n & 255}" for n in range(1_000))
        await asyncio.to_thread(
            nft,
            f"add element inet ragate cut4 {{ {many} }}\n"
            "add element inet ragate admitted4 { 10.77.1.12, 10.9.9.9 }\n"
            "delete element inet ragate admitted6 { fd77:1::11 }\n"
            "add element inet ragate known4 { 10.9.9.9 }",
        )
        await changed("admitted4", "10.9.9.9", there=False)
        await changed("admitted4", "10.77.1.12", there=False)
        await changed("admitted6", "fd77:1::11", there=True)
        await changed("known4", "10.9.9.9", there=False)
        assert any("more at once than the kernel could tell" in each for each in site.drifts())

    kept(story)


@pytest.mark.netns
def test_a_storm_is_told_paced_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.control.storms.LONGEST_WAIT", 0.5)

    async def story(site: Kept) -> None:
        for _ in range(8):
            before = site.gate.repairs
            await asyncio.to_thread(nft, "delete element inet ragate admitted4 { 10.77.1.11 }")
            await until(lambda before=before: site.gate.repairs > before)  # type: ignore[misc]
            await changed("admitted4", "10.77.1.11", there=True)
        assert site.gate.drifts.storming
        assert any("a storm" in each for each in site.drifts())

    kept(story)


@pytest.mark.netns
def test_who_keeps_flushing_finds_it_shut_and_little_to_undo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.control.storms.LONGEST_WAIT", 1.0)

    async def body() -> None:
        site = Kept()
        await site.backend.start()
        damages = site.backend.damages()
        flushes = 12
        for _ in range(flushes):
            await asyncio.to_thread(nft, "flush ruleset")
            async with asyncio.timeout(60):  # shut again, whatever the storm
                while "goto refuse" not in await asyncio.to_thread(run, "nft", "list", "ruleset"):
                    await asyncio.sleep(0.005)
        told: list[str] = []
        async with asyncio.timeout(60):
            while not told or "again and again" not in told[-1]:
                told.append(await anext(damages))
        await changed("known4", "10.77.1.11", there=True)
        assert len(told) < flushes, "the storm was fought"
        await site.backend.stop()

    in_namespaces(body)


async def test_reports_that_wait_are_told_as_one() -> None:
    backend = Kept().backend
    backend._stray(Strayed("one", (CAM,)))
    backend._stray(Strayed("two", (NEXT,)))
    backend._stray(Strayed("two", (), everything=True))
    damages = backend.damages()
    report = await anext(damages)
    assert isinstance(report, Strayed)
    assert (report, report.addresses, report.everything) == ("one; two", frozenset({CAM, NEXT}), True)
    backend._stray(Strayed("three", (CUT,)))
    assert (await anext(damages)) == "three"
