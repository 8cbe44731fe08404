"""Want, have, diff, apply, look again: lanes, races, leases, drift, repair."""

from __future__ import annotations

import asyncio

import pytest

from gateway.control import drifts
from gateway.control.followed import drift
from gateway.core.model import DENY, Address, Applied, DeviceId, Outcome, Rule, Stands
from tests.control.world import LEASE, running

ONE = Address.parse("10.0.0.1")
TWO = Address.parse("10.0.0.2")
CAM = DeviceId("cam-1")


async def test_a_cut_does_not_wait_for_the_ordinary_lane() -> None:
    async with running() as world:
        await world.passes("cam-1")
        world.backend.hold_apply.clear()
        world.verdict("cam-2", Outcome.PASSED)
        await world.settle()
        world.clock.advance(1)
        await world.fails("cam-1")
        assert world.stands("10.0.0.1").tombstone
        assert not world.admitted("10.0.0.2")
        world.backend.hold_apply.set()
        await world.settle()
        assert world.admitted("10.0.0.2")


async def test_an_opening_under_way_never_outlives_a_cut_that_came_after_it() -> None:
    async with running() as world:
        world.backend.hold_apply.clear()
        world.verdict("cam-1", Outcome.PASSED)
        await world.settle()
        world.verdict("cam-1", Outcome.FAILED)
        await world.settle()
        world.backend.hold_apply.set()
        await world.settle()
        assert world.stands("10.0.0.1").tombstone
        assert not world.admitted("10.0.0.1")
        assert ("overtaken by a cut", Applied.FAILED) in {(f.detail, f.state) for f in world.facts.outcomes}


@pytest.mark.parametrize("tombstone", [True, False])
async def test_a_tombstone_of_before_does_not_stand_in_for_the_cut_of_an_opening_under_way(tombstone: bool) -> None:
    async with running() as world:
        world.gate.want(ONE, Rule(CAM, DENY, 0.0, tombstone=True))
        await world.settle()
        assert world.stands("10.0.0.1").tombstone
        world.backend.hold_apply.clear()
        world.gate.want(ONE, Rule(CAM, "admitted", world.clock.boot + 50))
        await world.settle()
        world.gate.want(ONE, Rule(CAM, DENY, 0.0, tombstone=tombstone))
        await world.settle()
        world.backend.hold_apply.set()
        await world.settle()
        assert not world.admitted("10.0.0.1")
        assert not tombstone or world.stands("10.0.0.1").tombstone
        assert world.gate.admitted == frozenset()


async def test_an_opening_under_way_is_withdrawn_when_its_device_lapses_meanwhile() -> None:
    async with running() as world:
        world.backend.hold_apply.clear()
        world.verdict("cam-1", Outcome.PASSED)
        await world.settle()
        world.clock.advance(101)
        world.clockwork.turn()
        await world.settle()
        world.backend.hold_apply.set()
        await world.settle()
        assert not world.admitted("10.0.0.1")
        assert world.gate.admitted == frozenset()


async def test_the_newest_wish_wins_and_nothing_queues_per_device() -> None:
    async with running() as world:
        world.backend.hold_apply.clear()
        world.gate.want(TWO, Rule(CAM, "admitted", world.clock.boot + 50))
        await world.settle()
        for end in range(60, 90):
            world.gate.want(ONE, Rule(CAM, "admitted", world.clock.boot + end))
        assert world.gate.depth == 1
        world.backend.hold_apply.set()
        await world.settle()
        assert world.stands("10.0.0.1").remaining == pytest.approx(89)


async def test_an_admission_ends_at_deadline_or_lease_whichever_is_nearer() -> None:
    async with running() as world:
        world.gate.want(ONE, Rule(CAM, "admitted", world.clock.boot + 30))
        world.gate.want(TWO, Rule(CAM, "admitted", world.clock.boot + 10_000))
        await world.settle()
        assert world.stands("10.0.0.1").remaining == pytest.approx(30)
        assert world.stands("10.0.0.2").remaining == pytest.approx(LEASE)


async def test_a_lease_half_over_is_renewed_by_a_living_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as world:
        world.gate.lease = 0.4  # the renewal loop looks every lease / 8
        world.gate.want(ONE, Rule(CAM, "admitted", world.clock.boot + 10_000))
        await world.settle()
        first = world.gate.lease_until(ONE)
        assert first is not None
        world.clock.advance(2)
        while world.gate.lease_until(ONE) == first:  # bounded by the suite's timeout
            await asyncio.sleep(0.01)
        assert (world.gate.lease_until(ONE) or 0) > first


async def test_drift_is_found_counted_and_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drifts, "SWEEP_STEP", 0.005)
    monkeypatch.setattr(drifts, "SWEEP_SECONDS", 0.01)
    async with running() as world:
        await world.passes("cam-1")
        world.clock.advance(1)
        await world.fails("cam-2")
        world.backend.lose(ONE)
        world.backend.lose(TWO)
        while not (world.admitted("10.0.0.1") and world.stands("10.0.0.2").tombstone):
            await asyncio.sleep(0.01)
        world.devices.commit()
        assert len(world.facts.notices("drift")) >= 2
        assert world.gate.repairs >= 2


async def test_an_admission_nobody_wished_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drifts, "SWEEP_STEP", 0.005)
    monkeypatch.setattr(drifts, "SWEEP_SECONDS", 0.01)
    async with running() as world:
        world.backend._admitted[TWO] = ("admitted", world.clock.boot + 1_000)
        while world.admitted("10.0.0.2"):
            await asyncio.sleep(0.01)
        assert world.gate.repairs >= 1


async def test_a_laid_again_baseline_is_filled_again_tombstones_first() -> None:
    async with running() as world:
        await world.passes("cam-1")
        world.clock.advance(1)
        await world.fails("cam-2")
        world.backend.damage("the ruleset was flushed")
        while not (world.admitted("10.0.0.1") and world.stands("10.0.0.2").tombstone):
            await world.settle()
        assert world.gate.repairs == 1


async def test_one_refused_address_spoils_no_other_and_shows_as_failed() -> None:
    async with running() as world:
        world.backend.refused.add(ONE)
        await world.passes("cam-2")
        world.verdict("cam-1", Outcome.PASSED)
        await world.settle()
        assert world.admitted("10.0.0.2")
        view = world.devices.view(CAM)
        assert view is not None
        assert view.targets[0].state == "failed"
        assert world.gate.failing == 1
        world.backend.refused.clear()
        while not world.admitted("10.0.0.1"):
            await asyncio.sleep(0.01)
        assert world.gate.failing == 0


async def test_forgetting_leaves_no_trace() -> None:
    async with running() as world:
        await world.fails("cam-1")
        world.gate.want(ONE, None)
        await world.settle()
        assert world.stands("10.0.0.1") == Stands("", None, tombstone=False)
        await world.gate.flush()


NOW = 1_000.0
ADMITTED = Rule(CAM, "admitted", NOW + 50)
CUT = Rule(CAM, DENY, 0.0, tombstone=True)


@pytest.mark.parametrize(
    ("expected", "stands", "wrong"),
    [
        (ADMITTED, Stands("admitted", 49.0, tombstone=False), False),
        (ADMITTED, Stands("admitted", None, tombstone=False), True),
        (ADMITTED, Stands("probation", 49.0, tombstone=False), True),
        (ADMITTED, Stands("", None, tombstone=False), True),
        (ADMITTED, Stands("admitted", 49.0, tombstone=True), True),
        (Rule(CAM, "admitted", NOW + 0.5), Stands("", None, tombstone=False), False),
        (CUT, Stands("", None, tombstone=True), False),
        (CUT, Stands("", None, tombstone=False), True),
        (CUT, Stands("admitted", 3.0, tombstone=True), True),
        (None, Stands("", None, tombstone=False), False),
        (None, Stands("", None, tombstone=True), False),
        (None, Stands("admitted", 3.0, tombstone=False), True),
    ],
)
def test_drift_names_what_is_wrong(expected: Rule | None, stands: Stands, *, wrong: bool) -> None:
    assert bool(drift(expected, stands, NOW)) is wrong


async def test_a_pass_within_a_young_lease_needs_no_change_in_the_kernel_and_a_short_deadline_does() -> None:
    async with running() as world:
        world.gate.want(ONE, Rule(CAM, "admitted", world.clock.boot + 10_000))
        world.gate.want(TWO, Rule(CAM, "admitted", world.clock.boot + 20))
        await world.settle()
        world.clock.advance(5)
        world.gate.want(ONE, Rule(CAM, "admitted", world.clock.boot + 10_000))
        world.gate.want(TWO, Rule(CAM, "admitted", world.clock.boot + 20))
        await world.settle()
        assert world.stands("10.0.0.1").remaining == pytest.approx(LEASE - 5)
        assert world.stands("10.0.0.2").remaining == pytest.approx(20)
