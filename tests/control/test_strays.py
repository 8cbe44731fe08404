"""Elements that somebody else changed are looked at until each has been judged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.control import strays
from gateway.control.ports import Strayed
from gateway.core.model import Address
from tests.control.world import running

ONE, TWO = Address.parse("10.0.0.1"), Address.parse("10.0.0.2")
NOBODYS = Address.parse("10.0.0.99")


async def test_what_moves_is_looked_at_again_until_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "RETRY_SECONDS", 0.0)
    seen: list[Sequence[Address]] = []

    async def check(addresses: Sequence[Address]) -> Sequence[Address]:
        seen.append(addresses)
        return addresses[1:]

    await strays.look_at([ONE, TWO, ONE, NOBODYS], check)
    assert seen == [[ONE, TWO, NOBODYS], [TWO, NOBODYS], [NOBODYS]]


async def test_what_never_comes_to_rest_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "RETRY_SECONDS", 0.0)
    tries = 0

    async def check(addresses: Sequence[Address]) -> Sequence[Address]:
        nonlocal tries
        tries += 1
        return addresses

    await strays.look_at([ONE], check)
    assert tries == strays.TRIES


async def test_a_large_site_is_looked_at_in_batches() -> None:
    sizes: list[int] = []

    async def check(addresses: Sequence[Address]) -> Sequence[Address]:
        sizes.append(len(addresses))
        return ()

    await strays.look_at([Address(bytes([10, 1, n >> 8, n & 255]), 32) for n in range(2_500)], check)
    assert sizes == [strays.BATCH, strays.BATCH, 500]


@pytest.mark.parametrize("everything", [False, True])
async def test_what_others_changed_is_repaired_at_once_and_told(*, everything: bool) -> None:
    async with running() as world:
        await world.passes("cam-1")
        world.backend.lose(ONE)
        world.backend._admitted[TWO] = ("admitted", world.clock.boot + 1_000)
        world.backend._admitted[NOBODYS] = ("admitted", world.clock.boot + 1_000)
        named = (NOBODYS,) if everything else (ONE, TWO, NOBODYS)
        world.backend._reports.put_nowait(Strayed("somebody changed it", named, everything=everything))
        while not world.admitted("10.0.0.1") or world.admitted("10.0.0.2") or NOBODYS in world.backend._admitted:
            await asyncio.sleep(0.01)
        assert world.gate.repairs == (4 if everything else 3)
        world.devices.commit()
        told = [notice.detail for notice in world.facts.notices("drift")]
        assert any("expected admitted" in each for each in told)
        assert any(str(NOBODYS) in each for each in told)
        assert any("somebody" in each for each in told) is everything


async def test_a_storm_is_told_and_repairs_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.control.storms.FIRST_WAIT", 0.01)
    monkeypatch.setattr("gateway.control.storms.LONGEST_WAIT", 0.02)
    async with running() as world:
        await world.passes("cam-1")
        for number in range(8):
            repaired = world.gate.repairs
            world.backend.lose(ONE)
            world.backend._reports.put_nowait(Strayed("somebody changed it", (ONE,)))
            while world.gate.repairs == repaired or not world.admitted("10.0.0.1"):
                await asyncio.sleep(0.01)
            assert world.gate.storming is (number >= 5)
        world.devices.commit()
        assert len([one for one in world.facts.notices("drift") if "storm" in one.detail]) == 1


async def test_a_flood_of_differences_is_told_in_few_words() -> None:
    async with running() as world:
        strangers = [Address(bytes([10, 9, 0, n]), 32) for n in range(100)]
        for each in strangers:
            world.backend._admitted[each] = ("admitted", world.clock.boot + 1_000)
        world.backend._reports.put_nowait(Strayed("somebody changed them", strangers))
        while any(each in world.backend._admitted for each in strangers):
            await asyncio.sleep(0.01)
        assert world.gate.repairs == 100
        world.devices.commit()
        drifts = world.facts.notices("drift")
        assert sum(one.times for one in drifts) == 100
        assert len(drifts) < 10
