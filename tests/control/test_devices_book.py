"""What the book says of a class reaches the single writer: maximum age, recovery, profiles, quarantine."""

from __future__ import annotations

from dataclasses import replace

from gateway.core.model import DENY, DeviceId, Outcome, Standing
from gateway.core.policy import PROBATION, Book, DeviceClass, Level, Match, Profile
from tests.control.test_start import Machine
from tests.control.world import INVENTORY, RULES, SOURCE, World, running

S = Standing
CAM, OTHER = DeviceId("cam-1"), DeviceId("cam-2")


def book(level: Level) -> Book:
    """``level`` is for cam-1 alone."""
    return Book(
        node_default="admitted",
        suspect=PROBATION,
        others={S.DISTRUSTED: "quarantine"},
        classes=(DeviceClass("first", Match(id="cam-1"), level),),
        profiles={"quarantine": Profile("quarantine", 10, ())},
    )


def deadline_left(world: World, device: DeviceId) -> float:
    view = world.devices.view(device)
    assert view is not None
    assert view.decision.until is not None
    return view.decision.until - world.clock.now().wall


async def test_the_maximum_age_of_a_class_comes_before_the_sources() -> None:
    async with running(book=book(Level(max_age=40.0))) as world:
        await world.passes("cam-1")
        await world.passes("cam-2")
        assert 39.0 <= deadline_left(world, CAM) <= 40.0
        assert deadline_left(world, OTHER) > 40.0
        assert RULES[SOURCE].max_age > 40.0


async def test_the_recovery_of_a_class_comes_before_the_sources() -> None:
    async with running(book=book(Level(recovery_passes=3))) as world:
        for name in ("cam-1", "cam-2"):
            await world.passes(name)
            world.clock.advance(1)
            await world.fails(name)
        standings = []
        for _ in range(3):
            world.clock.advance(1)
            for name in ("cam-1", "cam-2"):
                world.verdict(name, Outcome.PASSED)
            standings.append((world.standing("cam-1"), world.standing("cam-2")))
        assert standings == [(S.DISTRUSTED, S.DISTRUSTED), (S.DISTRUSTED, S.TRUSTED), (S.TRUSTED, S.TRUSTED)]


async def test_a_quorum_that_its_sources_cannot_meet_admits_nobody() -> None:
    async with running(book=book(Level(quorum=2))) as world:
        await world.passes("cam-1")
        assert world.standing("cam-1") is S.UNKNOWN
        assert not world.admitted("10.0.0.1")


async def test_a_profile_that_reaches_nothing_is_shown_and_enforced_as_a_cut() -> None:
    async with running(book=book(Level())) as world:
        await world.passes("cam-1")
        assert world.admitted("10.0.0.1")
        world.clock.advance(1)
        await world.fails("cam-1")
        view = world.devices.view(CAM)
        assert view is not None
        assert (view.decision.profile, view.decision.until) == ("quarantine", None)
        assert world.stands("10.0.0.1").tombstone
        slot = world.devices.slot(CAM)
        assert slot is not None
        for address in slot.device.binding.addresses:
            rule = world.devices.rule(slot, address)
            assert rule is not None
            assert rule.profile == DENY


async def test_a_shorter_maximum_age_holds_for_what_was_admitted_before_a_restart() -> None:
    machine = Machine()
    async with running(
        clock=machine.clock, disk=machine.disk, backend=machine.backend, book=book(Level())
    ) as world:
        await world.passes("cam-1")
        assert deadline_left(world, CAM) > 40.0
    shorter = book(Level(max_age=40.0))
    async with running(**machine.restarted(), book=shorter) as world:  # type: ignore[arg-type]
        assert deadline_left(world, CAM) <= 40.0
        assert world.admitted("10.0.0.1")


async def test_what_is_decided_was_made_ahead() -> None:
    async with running(book=replace(book(Level()), compiled={})) as world:
        assert set(world.devices.book.compiled) == {device.id for device in INVENTORY}


async def test_a_shorter_maximum_age_is_counted_from_the_newest_verdict_after_a_restart() -> None:
    machine = Machine()
    where = {"clock": machine.clock, "disk": machine.disk, "backend": machine.backend}
    async with running(**where, book=book(Level())) as world:  # type: ignore[arg-type]
        await world.passes("cam-1")
    machine.clock.advance(30)
    async with running(**machine.restarted(), book=book(Level(max_age=40.0))) as world:  # type: ignore[arg-type]
        assert deadline_left(world, CAM) <= 10.0
