"""Elements that somebody else changed are looked at until each has been judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.control import strays
from gateway.control.ports import Strayed
from gateway.control.strays import Strays
from gateway.core.errors import BackendError
from gateway.core.model import Address
from tests.control.world import running

ONE, TWO = Address.parse("10.0.0.1"), Address.parse("10.0.0.2")
NOBODYS = Address.parse("10.0.0.99")


class Looked:
    """A gate that notes what it was asked to look at."""

    def __init__(self, known: Sequence[Address] = (), admitted: Sequence[Address] = ()) -> None:
        self.known = known
        self.admitted = frozenset(admitted)
        self.wrong: set[Address] = set()
        self.moving: set[Address] = set()
        self.error: BackendError | None = None
        self.backlog = 0
        self.repairs = 0
        self.seen: list[list[Address]] = []
        self.storms: list[str] = []
        self.wait = 0.0
        self.on_look: Callable[[int], None] = lambda _: None

    async def look(self, addresses: Sequence[Address]) -> Sequence[Address]:
        self.seen.append(list(addresses))
        self.on_look(len(self.seen))
        await asyncio.sleep(0)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        wrong = self.wrong.intersection(addresses)
        self.wrong -= wrong
        self.repairs += len(wrong)
        return [address for address in addresses if address in self.moving]

    def surveyed(self) -> Sequence[Address]:
        return self.known

    def opens(self, address: Address) -> bool:
        return address not in self.admitted

    def waiting(self) -> int:
        return self.backlog

    def repaired(self, sentence: str) -> float:
        self.storms.append(sentence)
        return self.wait

    def unread(self, error: BackendError) -> None:
        self.storms.append(error.what)


@asynccontextmanager
async def looking(gate: Looked) -> AsyncIterator[Strays]:
    made = Strays(gate)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled(), task.exception()


async def all_judged(made: Strays) -> None:
    async with asyncio.timeout(60):
        while made.depth:
            await asyncio.sleep(0)
    await asyncio.sleep(0)


def many(count: int, net: int = 1) -> list[Address]:
    return [Address(bytes([10, net, n >> 8, n & 255]), 32) for n in range(count)]


async def test_what_moves_is_looked_at_again_until_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "RETRY_SECONDS", 0.0)
    gate = Looked()
    gate.moving = {TWO, NOBODYS}
    gate.on_look = lambda turn: gate.moving.discard(TWO if turn == 2 else NOBODYS) if turn > 1 else None
    async with looking(gate) as made:
        made.take(Strayed("told", [ONE, TWO, NOBODYS]))
        await all_judged(made)
    assert [set(seen) for seen in gate.seen] == [{ONE, TWO, NOBODYS}, {TWO, NOBODYS}, {NOBODYS}]


async def test_what_never_comes_to_rest_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "RETRY_SECONDS", 0.0)
    gate = Looked()
    gate.moving = {ONE}
    async with looking(gate) as made:
        made.take(Strayed("told", [ONE]))
        await all_judged(made)
    assert len(gate.seen) == strays.TRIES


@pytest.mark.parametrize("everything", [False, True])
async def test_what_was_told_is_not_forgotten_while_nothing_can_be_read(
    monkeypatch: pytest.MonkeyPatch, *, everything: bool
) -> None:
    monkeypatch.setattr(strays, "RETRY_SECONDS", 0.0)
    gate = Looked([ONE, TWO])
    gate.error = BackendError("nft", "no reply", transient=True)
    async with looking(gate) as made:
        made.take(Strayed("told", () if everything else [ONE, TWO], everything=everything))
        await all_judged(made)
    assert [set(seen) for seen in gate.seen] == [{ONE, TWO}, {ONE, TWO}]
    assert gate.storms[0] == "no reply"


async def test_a_survey_looks_first_at_what_may_stand_open_and_starves_nothing() -> None:
    shut, admitted = many(2_000), many(2_000, 2)
    gate = Looked([*admitted, *shut], admitted)
    async with looking(gate) as made:
        made.take(Strayed("a burst", everything=True))
        await all_judged(made)
    opening = [sum(address not in gate.admitted for address in seen) for seen in gate.seen]
    assert [len(seen) for seen in gate.seen] == [strays.BATCH] * 4
    assert opening == [750, 750, 500, 0]
    assert sorted(address.packed for seen in gate.seen for address in seen) == sorted(
        address.packed for address in gate.known
    )


async def test_what_is_told_singly_goes_ahead_of_a_survey_that_is_under_way() -> None:
    gate = Looked(many(20_000))
    async with looking(gate) as made:
        gate.on_look = lambda turn: made.take(Strayed("told", [NOBODYS])) if turn == 3 else None
        made.take(Strayed("a burst", everything=True))
        await all_judged(made)
    # the fourth look already; and the survey goes on to its end
    assert [place for place, seen in enumerate(gate.seen) if NOBODYS in seen] == [3]
    assert len(gate.seen) == 21


async def test_no_flood_of_single_reports_starves_a_survey() -> None:
    gate = Looked(many(5_000))
    async with looking(gate) as made:
        gate.on_look = lambda turn: made.take(Strayed("told", many(900, 3))) if turn < 200 else None
        made.take(Strayed("a burst", everything=True))
        await all_judged(made)
    surveyed = [place for place, seen in enumerate(gate.seen) if seen[0].packed[1] == 1]
    assert len(surveyed) == 5
    assert surveyed[-1] <= 10, "one slice after each batch of what was told"


async def test_what_is_told_of_very_many_is_a_survey_itself() -> None:
    gate = Looked()
    async with looking(gate) as made:
        gate.on_look = lambda turn: made.take(Strayed("one", [NOBODYS])) if turn == 1 else None
        made.take(Strayed("very many", many(5_000)))
        await all_judged(made)
    assert [place for place, seen in enumerate(gate.seen) if NOBODYS in seen] == [1]


async def test_a_survey_waits_for_its_repairs_and_what_is_told_singly_does_not() -> None:
    gate = Looked(many(3_000))
    gate.backlog = strays.ROOM + 1

    async with looking(gate) as made:
        made.take(Strayed("a burst", everything=True))
        made.take(Strayed("told", [NOBODYS]))
        async with asyncio.timeout(60):
            while not gate.seen:
                await asyncio.sleep(0)
        assert gate.seen == [[NOBODYS]]
        gate.backlog = 0
        await all_judged(made)
    assert len(gate.seen) == 4


async def test_repairs_that_never_end_hold_up_each_slice_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "ROOM_SECONDS", 0.01)
    gate = Looked(many(3_000))
    gate.backlog = strays.ROOM + 1
    async with looking(gate) as made:
        made.take(Strayed("a burst", everything=True))
        await all_judged(made)
    assert len(gate.seen) == 3


async def test_a_survey_counts_once_for_the_storm_and_its_pace_does_not_hold_up_what_is_told() -> None:
    gate = Looked(many(3_000))
    gate.wrong = set(gate.known)
    gate.wait = 3_600.0
    async with looking(gate) as made:
        made.take(Strayed("a burst", everything=True))
        await all_judged(made)
        assert gate.storms == ["a burst"]
        made.take(Strayed("another", everything=True))
        made.take(Strayed("told", [NOBODYS]))
        async with asyncio.timeout(60):
            while [NOBODYS] not in gate.seen or made.depth != 3_000:  # the next survey keeps the storm's pace
                await asyncio.sleep(0)
        assert len(gate.seen) == 4


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
            assert world.gate.drifts.storming is (number >= 5)
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
