"""Operators' overrides: what they change and when, what a restart makes of them, what a bad disk does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.control.overrides import LONGEST, SHORTEST
from gateway.control.ports import Overridden
from gateway.core.errors import NotNow
from gateway.core.model import DENY, Applied, DeviceId, Standing
from gateway.core.policy import ADMITTED, PROBATION, Book, Profile
from tests.control.test_start import Machine
from tests.control.world import INVENTORY, World, running

S = Standing
CAM = DeviceId("cam-1")
ADDRESS = "10.0.0.1"
LOW = Book(node_default=PROBATION, suspect=PROBATION, profiles={"lockdown": Profile("lockdown", site=True)})
HIGH = replace(LOW, node_default=ADMITTED)


async def override(world: World, profile: str, seconds: float = 50.0) -> Overridden:
    done = world.overrides.override(CAM, profile, seconds, "unix:ann", "repair")
    await world.settle()
    return done


async def later(world: World, seconds: float) -> None:
    world.clock.advance(seconds)
    world.clockwork.turn()
    await world.settle()


def now_given(world: World) -> tuple[str, float | None]:
    view = world.devices.view(CAM)
    assert view is not None
    return view.decision.profile, view.decision.until


async def test_it_raises_what_a_trusted_device_gets_and_ends_exactly() -> None:
    async with running(book=LOW) as world:
        await world.passes("cam-1")
        begin = world.clock.now().wall
        done = await override(world, ADMITTED)
        assert (done.before, done.after, done.until) == (PROBATION, ADMITTED, begin + 50.0)
        assert done.why == "overridden by unix:ann to admitted until 2026-11-21 17:50:50+00:00: repair"
        assert now_given(world) == (ADMITTED, begin + 50.0)
        stands = world.stands(ADDRESS)
        assert stands.profile == ADMITTED
        # The kernel ends it even if nobody is left to do so.
        assert stands.remaining is not None
        assert stands.remaining <= 50.0
        await later(world, 49.5)
        assert world.stands(ADDRESS).profile == ADMITTED
        assert world.overrides.next() == world.clock.boot + 0.5
        await later(world, 0.5)
        assert world.stands(ADDRESS).profile == PROBATION
        assert now_given(world) == (PROBATION, begin + 100.0)
        assert world.overrides.count == 0
        assert world.overrides.next() is None


async def test_it_lowers_at_once_whatever_the_disk_does_and_the_end_gives_back() -> None:
    async with running(book=HIGH) as world:
        await world.passes("cam-1")
        world.journal.delay()
        done = await override(world, DENY)
        assert (done.before, done.after, done.until) == (ADMITTED, DENY, None)
        assert not world.admitted(ADDRESS)
        world.journal.release()
        await world.settle()
        await later(world, 50.0)
        assert world.stands(ADDRESS).profile == ADMITTED


async def test_what_admits_more_waits_for_the_journal() -> None:
    async with running(book=LOW) as world:
        await world.passes("cam-1")
        world.journal.delay()
        await override(world, ADMITTED)
        assert world.stands(ADDRESS).profile == PROBATION
        assert now_given(world)[0] == PROBATION
        world.journal.release()
        await world.settle()
        assert world.stands(ADDRESS).profile == ADMITTED
        (outcome,) = [fact for _, fact in world.journal.outcomes if fact.profile == ADMITTED]
        assert outcome.state is Applied.VERIFIED


async def test_a_disk_that_fails_opens_nothing_and_the_journal_ends_with_what_is_in_force() -> None:
    async with running(book=LOW) as world:
        await world.passes("cam-1")
        world.journal.delay()
        await override(world, ADMITTED)
        world.journal.fail()
        await world.settle()
        assert now_given(world)[0] == PROBATION
        with pytest.raises(NotNow, match="the journal cannot be written"):
            await override(world, ADMITTED)
        await override(world, DENY)
        assert not world.admitted(ADDRESS)
        world.journal.mend()
        world.journal.release()
        await world.settle()
        assert not world.admitted(ADDRESS)
        left = world.disk.overrides[CAM]
        assert (left.override.profile, left.left > 0) == (DENY, True)


async def test_a_lower_profile_admits_nobody_before_the_pass_is_durable() -> None:
    async with running(book=HIGH) as world:
        world.journal.delay()
        await world.passes("cam-1")
        await override(world, PROBATION)
        assert now_given(world)[0] == PROBATION
        assert not world.stands(ADDRESS).profile
        world.journal.release()
        await world.settle()
        assert world.stands(ADDRESS).profile == PROBATION


async def test_an_end_while_the_disk_is_full_gives_back_once_it_is_mended() -> None:
    async with running(book=HIGH) as world:
        await world.passes("cam-1")
        await override(world, DENY, 20.0)
        world.journal.fail()
        await later(world, 20.0)
        assert now_given(world)[0] == ADMITTED
        assert not world.admitted(ADDRESS), "what admits waits for the journal"
        await later(world, 1.0)
        assert not world.admitted(ADDRESS)
        world.journal.mend()
        await later(world, 1.0)
        assert world.stands(ADDRESS).profile == ADMITTED


async def test_an_end_that_lowers_waits_for_no_disk() -> None:
    async with running(book=LOW) as world:
        await world.passes("cam-1")
        await override(world, ADMITTED, 20.0)
        world.journal.fail()
        await later(world, 20.0)
        assert world.stands(ADDRESS).profile == PROBATION


async def test_a_failure_overtakes_an_override_that_opens() -> None:
    async with running(book=LOW) as world:
        await world.passes("cam-1")
        world.journal.delay()
        await override(world, ADMITTED)
        world.clock.advance(1)
        await world.fails("cam-1")
        assert not world.admitted(ADDRESS)
        world.journal.release()
        await world.settle()
        assert not world.admitted(ADDRESS)
        assert now_given(world) == (DENY, None)


async def test_the_operator_ends_it_and_without_one_nothing_happens() -> None:
    async with running(book=HIGH) as world:
        await world.passes("cam-1")
        before = len(world.disk.rows)
        done = world.overrides.end_override(CAM, "unix:bob", "early")
        assert (done.before, done.after, done.why) == (ADMITTED, ADMITTED, "no override is in force")
        await world.settle()
        assert len(world.disk.rows) == before
        await override(world, PROBATION)
        done = world.overrides.end_override(CAM, "unix:bob", "early")
        assert done.why == "the override to probation was ended by unix:bob: early"
        await world.settle()
        assert world.stands(ADDRESS).profile == ADMITTED
        row = max(world.disk.rows.items())[1]
        assert (row["kind"], row["event"], row["actor"], row["reason"]) == (
            "override",
            "override-ended",
            "unix:bob",
            "early",
        )
        assert [fact.subject for fact in world.facts.notices("override")] == ["cam-1", "cam-1"]


async def test_the_newest_act_wins_over_one_that_still_waits() -> None:
    async with running(book=LOW) as world:
        await world.passes("cam-1")
        world.journal.delay()
        await override(world, ADMITTED)
        world.overrides.end_override(CAM, "unix:bob", "no")
        world.journal.release()
        await world.settle()
        assert now_given(world)[0] == PROBATION
        assert world.stands(ADDRESS).profile == PROBATION
        assert world.disk.overrides[CAM].left == 0
        await override(world, ADMITTED, 30.0)
        await override(world, DENY, 40.0)
        assert not world.admitted(ADDRESS)
        await later(world, 35.0)
        assert not world.admitted(ADDRESS)
        await later(world, 5.0)
        assert world.stands(ADDRESS).profile == PROBATION


@pytest.mark.parametrize("standing", [S.UNKNOWN, S.DISTRUSTED, S.HELD, S.LAPSED])
async def test_it_gives_nobody_trust(standing: Standing) -> None:
    async with running(book=LOW) as world:
        if standing is not S.UNKNOWN:
            await world.passes("cam-1")
        if standing is S.DISTRUSTED:
            world.clock.advance(1)
            await world.fails("cam-1")
        elif standing is S.HELD:
            world.devices.hold(CAM, "unix:ann", "case open")
        elif standing is S.LAPSED:
            await later(world, 200.0)
        await override(world, ADMITTED)
        assert world.standing("cam-1") is standing
        assert not world.admitted(ADDRESS)
        assert now_given(world) == (DENY, None)


async def test_it_waits_for_a_device_that_attests_later() -> None:
    async with running(book=LOW) as world:
        await override(world, ADMITTED)
        await world.passes("cam-1")
        assert world.stands(ADDRESS).profile == ADMITTED
        world.clock.advance(1)
        await world.fails("cam-1")
        assert not world.admitted(ADDRESS)


async def test_deadline_and_override_whichever_comes_first() -> None:
    async with running(book=LOW) as world:
        await world.passes("cam-1")
        deadline = now_given(world)[1]
        await override(world, ADMITTED, 1_000.0)
        assert now_given(world) == (ADMITTED, deadline)
        await later(world, 100.0)
        assert world.standing("cam-1") is S.LAPSED
        await world.passes("cam-1")
        assert now_given(world)[0] == ADMITTED


@pytest.mark.parametrize(
    ("profile", "seconds", "why"),
    [
        ("gone", 60.0, "must be one of deny, probation, admitted"),
        ("lockdown", 60.0, "must be one of deny, probation, admitted"),
        (ADMITTED, SHORTEST / 2, "out of range"),
        (ADMITTED, LONGEST + 1, "out of range"),
        (ADMITTED, float("nan"), "out of range"),
        (ADMITTED, float("inf"), "out of range"),
    ],
)
async def test_what_is_none_is_refused_and_changes_nothing(profile: str, seconds: float, why: str) -> None:
    async with running(book=LOW) as world:
        rows = len(world.disk.rows)
        with pytest.raises(ValueError, match=why):
            await override(world, profile, seconds)
        with pytest.raises(KeyError):
            world.overrides.override(DeviceId("nobody"), ADMITTED, 60.0, "unix:ann", "x")
        with pytest.raises(KeyError):
            world.overrides.end_override(DeviceId("nobody"), "unix:ann", "x")
        await world.settle()
        assert (len(world.disk.rows), world.overrides.count) == (rows, 0)


# --- clocks -----------------------------------------------------------------------------------------------------


async def test_a_clock_set_forward_ends_it_and_one_set_back_prolongs_nothing() -> None:
    async with running(book=HIGH) as world:
        await override(world, DENY, 50.0)
        world.clock.jump(60.0)
        world.clockwork.turn()
        await world.settle()
        world.clockwork.turn()
        assert world.overrides.count == 0
        await override(world, DENY, 50.0)
        world.clock.jump(-3_600.0)
        await later(world, 49.0)
        assert world.overrides.count == 1
        await later(world, 1.0)
        assert world.overrides.count == 0
        await world.passes("cam-1")
        assert world.stands(ADDRESS).profile == ADMITTED


# --- restarts ---------------------------------------------------------------------------------------------------


async def test_a_kill_forgets_nothing_and_prolongs_nothing() -> None:
    machine = Machine()
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend, book=LOW) as world:
        await world.passes("cam-1")
        await override(world, ADMITTED, 50.0)
        until = now_given(world)[1]
    machine.clock.advance(10.0)
    async with running(**machine.restarted(), book=LOW) as world:  # type: ignore[arg-type]
        assert now_given(world) == (ADMITTED, until)
        assert world.stands(ADDRESS).profile == ADMITTED
        view = world.devices.view(CAM)
        assert view is not None
        assert view.override is not None
        assert (view.override.actor, view.override.reason) == ("unix:ann", "repair")
        await later(world, 39.0)
        assert world.overrides.count == 1
        await later(world, 1.0)
        assert now_given(world)[0] == PROBATION
    async with running(**machine.restarted(), book=LOW) as world:  # type: ignore[arg-type]
        assert world.overrides.count == 0


async def test_what_ended_while_the_gateway_was_down_is_over_and_said_once() -> None:
    machine = Machine()
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend, book=HIGH) as world:
        await override(world, DENY, 50.0)
    machine.clock.advance(60.0)
    async with running(**machine.restarted(), book=HIGH) as world:  # type: ignore[arg-type]
        assert world.overrides.count == 0
        (told,) = world.facts.notices("override")
        assert "ended while the gateway was down" in told.detail
    async with running(**machine.restarted(), book=HIGH) as world:  # type: ignore[arg-type]
        assert not world.facts.notices("override")


async def test_a_clock_set_back_while_the_gateway_was_down_gives_no_time() -> None:
    machine = Machine()
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend, book=HIGH) as world:
        await override(world, DENY, 50.0)
        world.clock.advance(30.0)
        world.devices.hold(DeviceId("cam-2"), "unix:ann", "anything that is committed")
        await world.settle()
    machine.clock.jump(-100.0)
    async with running(**machine.restarted(), book=HIGH) as world:  # type: ignore[arg-type]
        view = world.devices.view(CAM)
        assert view is not None
        assert view.override is not None
        assert view.override.until - world.clock.now().wall <= 20.0
        await later(world, 20.0)
        assert world.overrides.count == 0


async def ends_at(machine: Machine, boot: float) -> None:
    """A restart in the same boot: the override ends at that moment, and not before."""
    async with running(**machine.restarted(), book=LOW) as world:  # type: ignore[arg-type]
        assert world.overrides.count == 1
        assert world.overrides.next() == boot
        await later(world, boot - world.clock.boot)
        assert world.overrides.count == 0


async def test_a_clock_set_back_before_a_kill_gives_no_time() -> None:
    machine = Machine()
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend, book=LOW) as world:
        await override(world, ADMITTED, 50.0)
        end = world.clock.boot + 50.0
        world.clock.advance(30.0)  # and nothing is committed, which would tell the journal of a later wall time
        world.clock.jump(-110.0)
    await ends_at(machine, end)


async def test_a_clock_set_back_before_the_commit_gives_no_time() -> None:
    machine = Machine()
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend, book=LOW) as world:
        world.journal.delay()
        await override(world, ADMITTED, 50.0)
        end = world.clock.boot + 50.0
        world.clock.jump(-60.0)
        world.clock.advance(30.0)
        world.journal.release()
        await world.settle()
    assert machine.disk.overrides[CAM].left == 20.0
    await ends_at(machine, end)


async def test_an_override_of_after_the_clock_was_set_back_outlives_a_kill() -> None:
    machine = Machine()
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend, book=LOW) as world:
        await world.passes("cam-1")  # the journal knows of this wall time
        world.clock.jump(-100.0)
        await override(world, DENY, 50.0)
        end = world.clock.boot + 50.0
        world.clock.advance(20.0)
    await ends_at(machine, end)


async def test_an_override_that_stays_because_another_was_taken_back_keeps_its_end() -> None:
    machine = Machine()
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend, book=LOW) as world:
        await world.passes("cam-1")
        await override(world, PROBATION, 50.0)
        end = world.clock.boot + 50.0
        await later(world, 30.0)
        world.clock.jump(-60.0)
        world.clockwork.turn()
        world.journal.delay()
        await override(world, ADMITTED, 500.0)
        world.journal.fail()
        await world.settle()
        world.journal.mend()
        world.journal.release()
        await world.settle()
    await ends_at(machine, end)


async def test_an_end_that_is_committed_after_the_clock_was_set_back_is_one() -> None:
    machine = Machine()
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend, book=LOW) as world:
        await override(world, ADMITTED, 500.0)
        world.journal.delay()
        world.overrides.end_override(CAM, "unix:ann", "x")
        world.clock.jump(-60.0)
        world.journal.release()
        await world.settle()
    assert machine.disk.overrides[CAM].left == 0.0
    async with running(**machine.restarted(), book=LOW) as world:  # type: ignore[arg-type]
        assert world.overrides.count == 0


async def test_after_a_reboot_the_boot_clock_says_nothing_of_an_override() -> None:
    machine = Machine()
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend, book=LOW) as world:
        await override(world, ADMITTED, 50.0)
    machine.clock.advance(10.0)
    for boot in (5.0, 90_000.0):
        machine.clock.boot = boot
        async with running(boot_id=f"boot {boot}", **machine.restarted(), book=LOW) as world:  # type: ignore[arg-type]
            assert world.overrides.next() == boot + 40.0


async def test_a_device_that_is_gone_and_a_profile_that_is_gone() -> None:
    machine = Machine()
    async with running(
        clock=machine.clock,
        disk=machine.disk,
        backend=machine.backend,
        book=replace(LOW, profiles={"extra": Profile("extra", 70)}),
    ) as world:
        await world.passes("cam-1")
        await override(world, "extra", 50.0)
    async with running(**machine.restarted(), book=LOW) as world:  # type: ignore[arg-type]
        assert now_given(world)[0] == DENY  # fail closed: the book knows it no more
    async with running(**machine.restarted(), book=LOW, inventory=INVENTORY[1:]) as world:  # type: ignore[arg-type]
        assert world.overrides.count == 0


async def test_after_a_stop_nothing_is_followed() -> None:
    async with running(book=LOW) as world:
        await world.passes("cam-1")
        world.journal.delay()
        await override(world, ADMITTED)
        world.overrides.stop()
        world.journal.release()
        await world.settle()
        assert world.stands(ADDRESS).profile == PROBATION
        assert world.disk.overrides[CAM].override.profile == ADMITTED


# --- whatever happens ---------------------------------------------------------------------------------------------

STEPS = st.one_of(
    st.sampled_from(["pass", "fail", "hold", "release", "end", "delay", "undelay", "disk-full", "mend", "kill"]),
    st.sampled_from(["pass", "kill"]),
    st.tuples(st.just("override"), st.sampled_from([ADMITTED, PROBATION, DENY]), st.sampled_from([5.0, 30.0])),
    st.tuples(st.just("advance"), st.sampled_from([1.0, 4.0, 20.0, 70.0])),
    st.tuples(st.just("jump"), st.sampled_from([-60.0, 3.0, 60.0])),
)
Step = str | tuple[str, float] | tuple[str, str, float]


class Model:
    """When the newest override to ``admitted`` must have ended at the latest (boot seconds); 0: there is none.

    ``durable``: the same for the newest that the journal has; what it has not is forgotten by a kill.
    """

    def __init__(self) -> None:
        self.ends = 0.0
        self.durable = 0.0

    def killed(self) -> None:
        self.ends = self.durable

    async def take(self, world: World, step: Step) -> None:
        if isinstance(step, tuple):
            await self._take_with(world, step)
        elif step == "pass":
            world.clock.advance(1.0)
            await world.passes("cam-1")
        elif step == "fail":
            world.clock.advance(1.0)
            await world.fails("cam-1")
        elif step == "hold":
            world.devices.hold(CAM, "unix:ann", "x")
        elif step == "release":
            world.devices.release(CAM, "unix:ann", "x")
        elif step == "end":
            with suppress(NotNow):
                world.overrides.end_override(CAM, "unix:ann", "x")
                self.ends = 0.0
        else:
            {
                "delay": world.journal.delay,
                "undelay": world.journal.release,
                "disk-full": world.journal.fail,
                "mend": world.journal.mend,
            }[step]()
        world.clockwork.turn()
        await world.settle()
        if not world.journal.pending:
            self.durable = self.ends

    async def _take_with(self, world: World, step: tuple[str, float] | tuple[str, str, float]) -> None:
        if step[0] == "advance":
            world.clock.advance(float(step[1]))
        elif step[0] == "jump":
            world.clock.jump(float(step[1]))
        else:
            _, profile, seconds = step  # type: ignore[misc]
            with suppress(NotNow):
                world.overrides.override(CAM, str(profile), float(seconds), "unix:ann", "x")
                self.ends = world.clock.boot + float(seconds) if profile == ADMITTED else 0.0

    def check(self, world: World) -> None:
        stands, now = world.stands(ADDRESS), world.clock.boot
        standing = world.standing("cam-1")
        if stands.profile and not stands.tombstone:
            assert standing is S.TRUSTED, "an override gives nobody trust"
            assert stands.remaining is not None
        view = world.devices.view(CAM)
        assert view is not None
        if view.override is not None and view.override.profile == ADMITTED:
            assert self.ends > now
        if stands.profile == ADMITTED:
            # The book gives probation: only an override can have done this, and the kernel ends it with that.
            assert stands.remaining is not None
            assert now + stands.remaining <= self.ends + 0.001


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=4, max_size=20).map(lambda steps: ["pass", *steps]))
def test_whatever_happens_an_override_gives_no_more_and_no_longer(steps: list[Step]) -> None:
    async def scenario() -> None:
        machine = Machine()
        model = Model()
        left, parts = list(steps), {"clock": machine.clock, "disk": machine.disk, "backend": machine.backend}
        while True:
            async with running(**parts, book=LOW) as world:  # type: ignore[arg-type]
                while left:
                    step = left.pop(0)
                    if step == "kill":
                        break
                    await model.take(world, step)
                    model.check(world)
                else:
                    return
            model.killed()
            parts = machine.restarted()

    asyncio.run(scenario())
