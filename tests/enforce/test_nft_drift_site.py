"""Drift in a real kernel at a site of 100,000 devices: what the product promises about it, held to ten seconds.

Half of the devices are admitted. The set-up writes their elements in batches, as an earlier run of the gateway
would have left them, and has a second backend adopt them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from gateway.core.model import DENY, Address, DeviceId, Rule
from gateway.enforce.nft import Anchor
from gateway.enforce.nft.messages import (
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWSETELEM,
    SetName,
    element,
    element_messages,
)
from gateway.enforce.nft.netlink import NetlinkSocket
from gateway.enforce.nft.sources import place_of
from tests.enforce.test_nft_drift import CLOCK, Kept
from tests.netns import in_namespaces

SITE = 100_000
#: Seconds in which whatever somebody else changed is noticed and put right.
PROMISED = 10.0
#: Seconds for everything that is no promise of ours.
SET_UP = 300.0
#: Elements in one transaction of the other program.
AT_ONCE = 5_000
LEFT = 3_600.0

KNOWN = tuple(Address(bytes([10, *divmod(n // 250, 250), n % 250 + 1]), 32) for n in range(SITE))
ADMITTED, DENIED = KNOWN[: SITE // 2], KNOWN[SITE // 2 :]
NOBODYS = tuple(Address(bytes([11, *divmod(n // 250, 250), n % 250 + 1]), 32) for n in range(SITE // 2))
GATED = SetName("ragate", "admitted4", 4)

pytestmark = [pytest.mark.netns, pytest.mark.long, pytest.mark.timeout(600)]


class Large(Kept):
    """The site, and the socket of another program; ``nft`` itself reads whole sets before it does anything."""

    def __init__(self) -> None:
        super().__init__(KNOWN, tuple(Anchor(each, "cams", bytes([2, 0, *each.packed])) for each in KNOWN))
        self.other = NetlinkSocket()

    def change(self, kind: int, where: SetName, keys: Sequence[bytes], timeout_ms: int | None = None) -> None:
        for start in range(0, len(keys), AT_ONCE):
            elements = [element(key, timeout_ms) for key in keys[start : start + AT_ONCE]]
            self.other.transact(element_messages(kind, where, elements))

    def stands(self, where: SetName, key: bytes) -> bool:
        return self.other.get_element(where, key) is not None

    async def put_right(self, kind: int, where: SetName, key: bytes, limit: float = PROMISED) -> float:
        """Do one harm; seconds until it is undone, within the promise."""
        there = kind == NFT_MSG_DELSETELEM
        self.change(kind, where, [key])
        began = time.monotonic()
        while self.stands(where, key) is not there:
            await asyncio.sleep(0.001)
            assert time.monotonic() - began < limit, f"{where.name}: {self.drifts()[-5:]}"
        return time.monotonic() - began


def large(story: Callable[[Large], Awaitable[None]]) -> None:
    async def body() -> None:
        before = Large()
        await before.backend.start()
        before.change(NFT_MSG_NEWSETELEM, GATED, [each.packed for each in ADMITTED], int(LEFT * 1_000))
        await before.backend.stop()
        before.other.close()
        site = Large()
        assert await site.backend.start(), "what stands is adopted"
        until = CLOCK.now().boot + LEFT
        for each in ADMITTED:
            site.gate.adopt(each, Rule(DeviceId("cam"), "admitted", until))
            site.gate.want(each, Rule(DeviceId("cam"), "admitted", until))
        for each in DENIED:
            site.gate.want(each, Rule(DeviceId("cam"), DENY, 0.0))
        keeping = asyncio.create_task(site.gate.run())
        async with asyncio.timeout(SET_UP):
            while site.gate.depth or site.gate.cut_depth:
                await asyncio.sleep(0.05)
        try:
            await story(site)
            assert len(site.gate.admitted) == len(ADMITTED)
        finally:
            assert not keeping.done(), keeping
            keeping.cancel()
            await asyncio.wait((keeping,))
            await site.backend.stop()
            site.other.close()

    in_namespaces(body, 550.0)


def test_one_element_among_100_000_devices_is_put_right_and_told_within_ten_seconds() -> None:
    async def story(site: Large) -> None:
        bound, key = place_of(Anchor(KNOWN[333], "cams", bytes([2, 0, *KNOWN[333].packed])))
        for name, kind, packed in (
            ("admitted4", NFT_MSG_DELSETELEM, ADMITTED[33_333].packed),
            ("admitted4", NFT_MSG_NEWSETELEM, NOBODYS[9].packed),
            ("admitted4", NFT_MSG_NEWSETELEM, DENIED[9].packed),
            ("known4", NFT_MSG_DELSETELEM, KNOWN[55_555].packed),
            (bound, NFT_MSG_DELSETELEM, key),
        ):
            told = len(site.drifts())
            began = time.monotonic()
            repaired = await site.put_right(kind, SetName("ragate", name, len(packed)), packed)
            while len(site.drifts()) == told:
                await asyncio.sleep(0.001)
                assert time.monotonic() - began < PROMISED, f"{name}: nobody was told"
            verb = "delete" if kind == NFT_MSG_DELSETELEM else "add"
            noticed = time.monotonic() - began
            print(f"{verb} {name}: repaired in {repaired * 1e3:.0f} ms, told after {noticed * 1e3:.0f} ms")

    large(story)


def test_one_foreign_admission_while_100_000_are_surveyed_is_put_right_within_ten_seconds() -> None:
    """Another program admits half of the denied devices and as many addresses that nobody has, all at once: more
    than the kernel tells. While everything is looked at, single admissions come on top."""

    async def story(site: Large) -> None:
        burst = [each.packed for pair in zip(DENIED[1_000:], NOBODYS[1_000:], strict=True) for each in pair]
        await asyncio.to_thread(site.change, NFT_MSG_NEWSETELEM, GATED, burst)
        began = time.monotonic()
        while not any("more at once" in each for each in site.drifts()):
            await asyncio.sleep(0.001)
            assert time.monotonic() - began < PROMISED, "nobody was told"
        print(f"told after {(time.monotonic() - began) * 1e3:.0f} ms")
        # Told together with the end of the burst, perhaps: then it is found by the survey.
        with_it = await site.put_right(NFT_MSG_NEWSETELEM, GATED, DENIED[0].packed, SET_UP)
        print(f"an admission in the burst taken out again after {with_it:.1f} s")
        for single in (NOBODYS[0], DENIED[1], NOBODYS[1], DENIED[2]):
            depth = site.gate.drifts.depth
            took = await site.put_right(NFT_MSG_NEWSETELEM, GATED, single.packed)
            print(f"one more while {depth:,} wait to be looked at: {took * 1e3:.0f} ms")
        while (waiting := site.gate.drifts.depth + site.gate.cut_depth) > 0:
            await asyncio.sleep(0.05)
            assert time.monotonic() - began < SET_UP, (
                f"{waiting:,} wait, {site.gate.failing} fail: {site.drifts()[-9:]}"
            )
        whole = time.monotonic() - began
        print(f"all of {len(burst):,} taken out again after {whole:.1f} s")
        keys = {each.packed for each in ADMITTED}
        async with asyncio.timeout(SET_UP):
            while set(site.other.dump_keys(GATED)) != keys:
                await asyncio.sleep(0.1)

    large(story)
