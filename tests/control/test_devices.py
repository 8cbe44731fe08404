"""One verdict, one direction: what a turn does to journal, gate and windows, and in which order."""

from __future__ import annotations

import pytest

from gateway.core.errors import BackendError
from gateway.core.model import AnchorKind, Applied, DeviceId, Effect, Outcome, Standing, Timeliness
from tests.control.world import INVENTORY, SOURCE, World, device, running
from tests.fakes.backend import FakeBackend
from tests.fakes.clock import ManualClock


async def test_a_pass_admits_every_address_and_is_followed_to_read_back_and_commit() -> None:
    async with running() as world:
        await world.passes("cam-1")
        assert world.standing("cam-1") is Standing.TRUSTED
        assert world.admitted("10.0.0.1")
        assert world.admitted("fd00::1")
        assert not world.admitted("10.0.0.2")
        (fact,) = world.facts.outcomes
        assert (fact.device, fact.state, fact.profile) == ("cam-1", Applied.VERIFIED, "admitted")
        assert fact.verified == fact.durable == world.clock.boot


async def test_an_admission_waits_for_its_commit_and_a_cut_does_not() -> None:
    async with running() as world:
        world.journal.delay()
        world.verdict("cam-1", Outcome.PASSED)
        await world.settle()
        assert world.standing("cam-1") is Standing.TRUSTED
        assert not world.admitted("10.0.0.1")
        world.journal.release()
        await world.settle()
        assert world.admitted("10.0.0.1")

        world.journal.delay()
        world.verdict("cam-1", Outcome.FAILED)
        await world.settle()
        assert world.stands("10.0.0.1").tombstone
        assert world.stands("fd00::1").tombstone
        assert world.facts.outcomes[-1].profile == "admitted"  # not yet reported: the row is not durable
        world.journal.release()
        await world.settle()
        assert world.facts.outcomes[-1].profile == "deny"


async def test_a_failure_that_overtakes_a_waiting_admission_wins() -> None:
    async with running() as world:
        world.journal.delay()
        world.verdict("cam-1", Outcome.PASSED)
        world.verdict("cam-1", Outcome.FAILED)
        await world.settle()
        assert world.stands("10.0.0.1").tombstone
        world.journal.release()
        await world.settle()
        assert world.stands("10.0.0.1").tombstone
        assert not world.admitted("10.0.0.1")
        states = {(fact.profile, fact.state) for fact in world.facts.outcomes}
        assert ("admitted", Applied.FAILED) in states
        assert ("deny", Applied.VERIFIED) in states


async def test_recovery_needs_two_passes_the_second_issued_later() -> None:
    async with running() as world:
        await world.passes("cam-1")
        world.clock.advance(1)
        await world.fails("cam-1")
        world.clock.advance(1)
        await world.passes("cam-1")
        assert world.standing("cam-1") is Standing.DISTRUSTED
        assert world.stands("10.0.0.1").tombstone
        world.clock.advance(1)
        await world.passes("cam-1")
        assert world.standing("cam-1") is Standing.TRUSTED
        assert world.admitted("10.0.0.1")


async def test_a_device_lapses_at_its_deadline_on_the_boot_clock_even_if_the_wall_clock_is_set_back() -> None:
    async with running() as world:
        await world.passes("cam-1")
        world.clockwork.turn()
        world.clock.jump(-3_600)
        world.clockwork.turn()
        world.clock.advance(99)
        world.clockwork.turn()
        assert world.standing("cam-1") is Standing.TRUSTED
        world.clock.advance(1.5)
        world.clockwork.turn()
        await world.settle()
        assert world.standing("cam-1") is Standing.LAPSED
        assert not world.admitted("10.0.0.1")
        assert world.facts.notices("clock")


async def test_a_wall_clock_set_forward_lapses_at_once() -> None:
    async with running() as world:
        await world.passes("cam-1")
        world.clockwork.turn()
        world.clock.jump(3_600)
        world.clockwork.turn()
        await world.settle()
        assert world.standing("cam-1") is Standing.LAPSED
        assert not world.admitted("10.0.0.1")


async def test_when_the_journal_cannot_be_written_cuts_act_and_admissions_do_not() -> None:
    async with running() as world:
        await world.passes("cam-1")
        world.journal.fail()
        world.clock.advance(1)
        await world.fails("cam-1")
        assert world.stands("10.0.0.1").tombstone
        assert world.raising() is False
        # What was already on its way when the disk filled up is taken back.
        world.verdict("cam-2", Outcome.PASSED)
        await world.settle()
        assert not world.admitted("10.0.0.2")
        assert world.standing("cam-2") is Standing.UNKNOWN
        world.journal.mend()
        await world.settle()
        assert world.raising() is True
        assert world.disk.records[DeviceId("cam-1"), SOURCE].standing is Standing.DISTRUSTED
        assert world.disk.records[DeviceId("cam-2"), SOURCE].standing is Standing.UNKNOWN


async def test_an_operator_holds_and_releases_and_the_device_must_attest_again() -> None:
    async with running() as world:
        await world.passes("cam-1")
        held = world.devices.hold(DeviceId("cam-1"), "unix:ann", "smoke from the housing")
        await world.settle()
        assert held.effect is Effect.LOWERED
        assert world.stands("10.0.0.1").tombstone
        world.clock.advance(1)
        await world.passes("cam-1")
        assert world.standing("cam-1") is Standing.HELD
        world.devices.hold(DeviceId("cam-1"), "unix:bob", "held already")
        view = world.devices.view(DeviceId("cam-1"))
        assert view is not None
        assert view.held is not None
        assert (view.held.event.actor, view.held.event.reason) == ("unix:ann", "smoke from the housing")
        world.devices.release(DeviceId("cam-1"), "unix:ann", "replaced")
        await world.settle()
        assert world.standing("cam-1") is Standing.LAPSED
        released = world.devices.view(DeviceId("cam-1"))
        assert released is not None
        assert released.held is None
        assert not world.admitted("10.0.0.1")
        world.clock.advance(1)
        await world.passes("cam-1")
        assert world.admitted("10.0.0.1")
        with pytest.raises(KeyError):
            world.devices.hold(DeviceId("nobody"), "unix:ann", "no such device")


async def test_who_held_a_device_before_a_restart_is_not_known_and_who_holds_it_again_is() -> None:
    name = DeviceId("cam-1")
    async with running() as before:
        before.devices.hold(name, "unix:ann", "smoke from the housing")
        await before.settle()
    async with running(disk=before.disk) as world:
        assert world.standing("cam-1") is Standing.HELD
        assert (forgotten := world.devices.view(name)) is not None
        assert forgotten.held is None
        for actor in ("unix:bob", "unix:cid"):
            world.devices.hold(name, actor, "the smoke is still there")
            assert (view := world.devices.view(name)) is not None
            assert view.held is not None
            assert view.held.event.actor == "unix:bob"


def _resting(world: World) -> bool:
    # Asked anew each time: a type checker takes an attribute once asserted for settled.
    return world.devices.at_rest


async def test_a_verdict_under_way_is_no_rest() -> None:
    async with running() as world:
        await world.settle()
        assert _resting(world)
        world.journal.delay()
        world.verdict("cam-1", Outcome.PASSED)
        await world.settle()
        assert not _resting(world)  # its commit has not come back
        world.backend.hold_apply.clear()
        world.journal.release()
        await world.settle()
        assert not _resting(world)  # the backend has not answered
        world.backend.hold_apply.set()
        await world.settle()
        assert world.admitted("10.0.0.1")
        assert _resting(world)


async def test_devices_that_share_an_address_are_judged_by_the_lowest_of_them() -> None:
    inventory = (device("cam-1", "10.0.0.1"), device("cam-2", "10.0.0.1", "10.0.0.2"))
    async with running(inventory=inventory) as world:
        assert world.facts.notices("conflict")
        await world.passes("cam-1")
        assert not world.admitted("10.0.0.1")
        await world.passes("cam-2")
        assert world.admitted("10.0.0.1")
        assert world.admitted("10.0.0.2")
        world.clock.advance(1)
        await world.fails("cam-1")
        assert world.stands("10.0.0.1").tombstone
        view = world.devices.view(DeviceId("cam-2"))
        assert view is not None
        assert view.decision.standing is Standing.DISTRUSTED
        assert view.records[SOURCE].standing is Standing.TRUSTED


async def test_an_anchored_device_is_not_lowered_by_an_unanchored_claim_to_its_address() -> None:
    inventory = (device("cam-1", "10.0.0.1"), device("cam-2", "10.0.0.1", anchor=AnchorKind.NONE))
    async with running(inventory=inventory) as world:
        await world.passes("cam-1")
        assert world.admitted("10.0.0.1")
        await world.fails("cam-2")
        assert world.admitted("10.0.0.1")


async def test_a_late_failure_makes_suspect_and_is_told() -> None:
    async with running() as world:
        await world.passes("cam-1")
        world.verdict("cam-1", Outcome.FAILED, age=500, timeliness=Timeliness.STALE)
        await world.settle()
        assert world.standing("cam-1") is Standing.SUSPECT
        assert not world.admitted("10.0.0.1")
        assert world.facts.notices("late-failure")


async def test_counts_follow_standings() -> None:
    async with running() as world:
        assert world.devices.counts()["unknown"] == len(INVENTORY)
        await world.passes("cam-1")
        counts = world.devices.counts()
        assert (counts["trusted"], counts["unknown"]) == (1, len(INVENTORY) - 1)
        assert sum(counts.values()) == len(INVENTORY)


async def test_a_view_shows_deadline_lease_and_latency() -> None:
    async with running() as world:
        await world.passes("cam-1")
        view = world.devices.view(DeviceId("cam-1"))
        assert view is not None
        assert view.decision.until == int(world.clock.wall) + 100
        assert view.lease_until == pytest.approx(world.clock.wall + 100, abs=1)
        assert view.last_ms == 0.0
        (target,) = view.targets
        assert (target.state, target.wanted, target.required) == ("verified", "admitted", True)
        assert world.devices.view(DeviceId("nobody")) is None
        assert len(list(world.devices.views())) == len(INVENTORY)


async def test_a_backend_that_fails_is_tried_again_until_it_obeys() -> None:
    clock = ManualClock()
    backend = FakeBackend(clock)
    async with running(clock=clock, backend=backend) as world:
        await world.passes("cam-1")
        backend.fail_next(BackendError("nft", "the kernel is busy", transient=True))
        world.clock.advance(1)
        await world.fails("cam-1")
        while not world.stands("10.0.0.1").tombstone:  # bounded by the suite's timeout
            await world.settle()
        assert world.facts.notices("backend-error")
