"""What has happened is told: in order, many at once, and never before what still waits to be done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.control.followed import Cause
from gateway.control.ports import Answered, Step
from gateway.control.telling import TOLD_AT_ONCE
from gateway.core.model import Applied, DeviceId, EventKind, Outcome, Timeliness, Verdict
from tests.control.world import SOURCE, World, running


def _report(world: World, number: int) -> None:
    cause = Cause(0, DeviceId(f"cam-{number}"), "admitted", world.clock.boot, 0)
    world.devices.enforced(world.gate, cause, Applied.VERIFIED, world.clock.boot)


async def test_what_came_of_verdicts_is_told_by_and_by_and_others_have_their_turn_between() -> None:
    async with running() as world:
        for number in range(5 * TOLD_AT_ONCE):
            _report(world, number)
        assert not world.facts.outcomes
        told = []
        for _ in range(10):
            await asyncio.sleep(0)
            told.append(len(world.facts.outcomes))
        assert told[:6] == [TOLD_AT_ONCE * turn for turn in (1, 2, 3, 4, 5, 5)]
        assert [fact.device for fact in world.facts.outcomes] == [f"cam-{n}" for n in range(5 * TOLD_AT_ONCE)]


async def test_the_more_is_untold_the_more_is_told_at_once() -> None:
    async with running() as world:
        for number in range(100 * TOLD_AT_ONCE):
            _report(world, number)
        assert not world.devices.at_rest
        await asyncio.sleep(0)
        assert len(world.facts.outcomes) == 100 * TOLD_AT_ONCE // 8
        await asyncio.wait_for(world.devices.flush(), 5.0)
        assert len(world.facts.outcomes) == 100 * TOLD_AT_ONCE
        assert world.devices.at_rest


async def test_at_the_stop_everything_is_told() -> None:
    async with running() as world:
        for number in range(3 * TOLD_AT_ONCE):
            _report(world, number)
        world.devices.stop()
        assert len(world.facts.outcomes) == 3 * TOLD_AT_ONCE


async def test_the_steps_of_a_turn_are_told_together_in_order_and_with_what_caused_them() -> None:
    async with running() as world:
        turns: list[Sequence[Step]] = []
        world.devices.telling.on_stepped = turns.append
        now = world.clock.now()
        for name, outcome in (("cam-1", Outcome.PASSED), ("cam-2", Outcome.FAILED)):
            issued = int(now.wall)
            said = Verdict(DeviceId(name), SOURCE, outcome, issued, Timeliness.FRESH, name.encode(), "", "")
            world.devices.verdict(said, now)
        assert not turns
        world.devices.hold(DeviceId("cam-2"), "unix:bob", "smoke")
        (steps,) = turns
        told = [(transition.device, transition.event.kind, verdict is not None) for transition, verdict, _ in steps]
        assert told == [
            ("cam-1", EventKind.PASSED, True),
            ("cam-2", EventKind.FAILED, True),
            ("cam-2", EventKind.HELD, False),
        ]
        assert world.facts.transitions == [transition for transition, _, _ in steps]


async def test_an_outcome_is_with_the_journal_before_anybody_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as world:
        order: list[str] = []
        heard: list[Answered] = []
        keep, see = world.journal.enforced, world.facts.enforced

        def kept(outcomes: Sequence[Answered]) -> None:
            order.append("journal")
            keep(outcomes)

        def seen(outcomes: Sequence[Answered]) -> None:
            order.append("window")
            see(outcomes)

        def hear(outcomes: Sequence[Answered]) -> None:
            order.append("sender")
            heard.extend(outcomes)

        monkeypatch.setattr(world.journal, "enforced", kept)
        monkeypatch.setattr(world.facts, "enforced", seen)
        world.devices.telling.on_enforced = hear
        await world.passes("cam-1")
        assert order == ["journal", "window", "sender"]
        ((row, fact),) = heard
        assert row > 0
        assert (fact.device, fact.state) == ("cam-1", Applied.VERIFIED)
        assert world.facts.outcomes == [fact]
