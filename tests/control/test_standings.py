"""What a relay of DATA is told: tightening at once, loosening when durable, wishes to attest again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.control.standings import ASK_AGAIN_SECONDS, DeviceStandings, Reach
from gateway.core.model import DeviceId, Outcome, Standing
from gateway.core.policy import Rate
from tests.control.world import World, running

CAM = DeviceId("cam-1")


@asynccontextmanager
async def followed(rate: Rate | None = None) -> AsyncIterator[tuple[World, DeviceStandings, list[DeviceId]]]:
    async with running() as world:
        reaches = {"admitted": Reach(frozenset({"feed"}), rate)}
        standings = DeviceStandings(lambda profile: reaches.get(profile, Reach(frozenset())), world.clock)
        told: list[DeviceId] = []
        standings.follow(told.append)
        world.devices.tell_standings(standings)
        yield world, standings, told


async def test_everybody_is_told_of_at_the_start() -> None:
    async with followed() as (_, standings, told):
        assert told == ["cam-1", "cam-2"]
        assert standings.until(CAM, "feed") == 0.0
        assert standings.until(DeviceId("nobody"), "feed") == 0.0


async def test_a_pass_admits_until_its_deadline_to_what_the_profile_reaches() -> None:
    async with followed() as (world, standings, _):
        await world.passes("cam-1")
        assert standings.until(CAM, "feed") == world.clock.boot + 100.0
        assert standings.until(CAM, "another") == 0.0
        assert standings.until(DeviceId("cam-2"), "feed") == 0.0


async def test_what_loosens_waits_for_the_commit_and_what_tightens_does_not() -> None:
    async with followed() as (world, standings, told):
        world.journal.delay()
        await world.passes("cam-1")
        assert world.standing("cam-1") is Standing.TRUSTED
        assert standings.until(CAM, "feed") == 0.0
        world.verdict("cam-1", Outcome.REQUESTED)  # recorded in a turn of its own: it opens nothing either
        assert standings.until(CAM, "feed") == 0.0
        world.journal.release()
        await world.settle()
        assert standings.until(CAM, "feed") > world.clock.boot
        world.journal.delay()
        before = len(told)
        world.verdict("cam-1", Outcome.FAILED)
        assert standings.until(CAM, "feed") == 0.0  # in the same turn
        assert told[before:] == ["cam-1"]
        world.journal.release()


async def test_a_pass_overtaken_by_a_failure_before_it_is_durable_never_opens() -> None:
    async with followed() as (world, standings, _):
        world.journal.delay()
        await world.passes("cam-1")
        world.clock.advance(1)
        world.verdict("cam-1", Outcome.FAILED)
        world.journal.release()
        await world.settle()
        assert standings.until(CAM, "feed") == 0.0


async def test_a_pass_that_cannot_be_journalled_opens_nothing() -> None:
    async with followed() as (world, standings, _):
        world.journal.delay()
        await world.passes("cam-1")
        world.journal.fail()
        world.journal.release()
        await world.settle()
        assert standings.until(CAM, "feed") == 0.0


async def test_a_later_pass_extends_and_the_deadline_ends_it() -> None:
    async with followed() as (world, standings, told):
        await world.passes("cam-1")
        world.clock.advance(50)
        await world.passes("cam-1")
        assert standings.until(CAM, "feed") == world.clock.boot + 100.0
        before = len(told)
        world.clock.advance(100)
        world.clockwork.turn()
        assert standings.until(CAM, "feed") == 0.0
        assert told[before:] == ["cam-1"]


async def test_a_hold_shuts_and_a_release_alone_does_not_open() -> None:
    async with followed() as (world, standings, _):
        await world.passes("cam-1")
        world.devices.hold(CAM, "anna", "trial")
        assert standings.until(CAM, "feed") == 0.0
        world.devices.release(CAM, "anna", "over")
        await world.settle()
        assert standings.until(CAM, "feed") == 0.0
        world.clock.advance(1)
        await world.passes("cam-1")
        assert standings.until(CAM, "feed") > 0.0


async def test_a_wish_is_told_until_it_is_answered_and_again_only_after_a_while() -> None:
    async with followed() as (world, standings, _):
        assert not standings.wanted(CAM)
        world.verdict("cam-1", Outcome.REQUESTED)
        assert standings.wanted(CAM)
        standings.asked(CAM)
        assert not standings.wanted(CAM)
        world.verdict("cam-1", Outcome.REQUESTED)
        assert not standings.wanted(CAM)
        world.clock.advance(ASK_AGAIN_SECONDS)
        assert standings.wanted(CAM)
        await world.passes("cam-1")  # it has attested: nothing is left to ask
        assert not standings.wanted(CAM)
        world.verdict("cam-1", Outcome.REQUESTED)
        assert standings.wanted(CAM)


async def test_a_wish_from_before_the_start_is_told_until_it_is_answered() -> None:
    async with followed() as (world, standings, _):
        standings.remember([CAM])
        assert standings.wanted(CAM)
        await world.passes("cam-1")
        assert not standings.wanted(CAM)


async def test_a_profile_with_a_rate_allows_so_many_messages_and_more_with_time() -> None:
    async with followed(Rate(2, 60.0)) as (world, standings, _):
        assert not standings.spend(CAM)  # not admitted: nothing to spend
        await world.passes("cam-1")
        assert [standings.spend(CAM) for _ in range(3)] == [True, True, False]
        world.clock.advance(29)
        assert not standings.spend(CAM)
        world.clock.advance(2)
        assert [standings.spend(CAM) for _ in range(2)] == [True, False]


async def test_without_a_rate_nothing_is_counted() -> None:
    async with followed() as (world, standings, _):
        await world.passes("cam-1")
        assert all(standings.spend(CAM) for _ in range(100))
