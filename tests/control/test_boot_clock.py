"""Within one boot no deadline comes later than it was due, whatever becomes of wall clock, disk and service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.model import DeviceId, Hint, Outcome, SourceName, Standing, Timeliness, Verdict
from gateway.core.policy import ADMITTED, PROBATION, Book
from tests.control import world as worlds
from tests.control.test_start import Machine
from tests.control.world import RULES, SOURCE, World, device, running

CAM = DeviceId("cam-1")
ADDRESS = "10.0.0.1"
SECOND = SourceName("second")
MAX_AGE = RULES[SOURCE].max_age
BOOK = Book(node_default=ADMITTED, suspect=PROBATION)


@pytest.fixture(autouse=True, scope="module")
def _short_grace() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        rules = replace(RULES[SOURCE], grace=50.0)
        patch.setattr(worlds, "RULES", {SOURCE: rules, SECOND: rules})
        yield


def hinted(world: World) -> None:
    world.devices.hint(Hint(CAM, SourceName("watch"), adverse=True, reason="loud"), world.clock.now())
    world.devices.commit()


def passed_of(world: World, source: SourceName) -> None:
    now = world.clock.now()
    issued = int(now.wall)
    verdict = Verdict(CAM, source, Outcome.PASSED, issued, Timeliness.FRESH, str(issued).encode(), "PASS", "")
    world.devices.verdict(verdict, now)
    world.devices.commit()


def until_boot(world: World) -> float | None:
    """When the device's admission ends, where it has one."""
    slot = world.devices.slot(CAM)
    assert slot is not None
    return None if slot.decision.until is None else slot.until_boot


async def test_what_passed_is_known_although_the_clock_was_set_back() -> None:
    machine = Machine()
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend, book=BOOK) as world:
        await world.passes("cam-1")
        end = until_boot(world)
    for _ in range(3):
        machine.clock.advance(20.0)
        machine.clock.jump(-20.0)
        async with running(**machine.restarted(), book=BOOK) as world:  # type: ignore[arg-type]
            assert world.standing("cam-1") is Standing.TRUSTED
            assert until_boot(world) == end
            view = world.devices.view(CAM)
            assert view is not None
            assert end is not None
            assert view.decision.until == machine.clock.wall + end - machine.clock.boot
    machine.clock.advance(40.0)
    machine.clock.jump(-40.0)
    async with running(**machine.restarted(), book=BOOK) as world:  # type: ignore[arg-type]
        assert world.standing("cam-1") is Standing.LAPSED
        assert not world.admitted(ADDRESS)


async def test_a_later_row_of_an_older_pass_gives_no_time() -> None:
    machine = Machine()
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend, book=BOOK) as world:
        await world.passes("cam-1")
        end = until_boot(world)
        world.clock.advance(30.0)
        world.clock.jump(-60.0)
        world.clockwork.turn()
        hinted(world)
        await world.settle()
        assert world.standing("cam-1") is Standing.SUSPECT
        assert machine.disk.remaining[CAM, SOURCE] == MAX_AGE - 30.0
    async with running(**machine.restarted(), book=BOOK) as world:  # type: ignore[arg-type]
        assert until_boot(world) == end


async def test_a_pass_that_is_taken_back_leaves_the_end_that_was() -> None:
    machine = Machine()
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend, book=BOOK) as world:
        await world.passes("cam-1")
        end = until_boot(world)
        world.clock.advance(70.0)
        world.clock.jump(-60.0)
        world.clockwork.turn()
        world.journal.fail()
        await world.passes("cam-1")
        assert world.standing("cam-1") is Standing.TRUSTED
        assert until_boot(world) == end
        world.journal.mend()
        await world.settle()
        assert machine.disk.until_boot[CAM, SOURCE] == end
    async with running(**machine.restarted(), book=BOOK) as world:  # type: ignore[arg-type]
        assert until_boot(world) == end


async def test_a_clock_set_forward_holds_when_the_pass_is_taken_back() -> None:
    async with running(book=BOOK) as world:
        await world.passes("cam-1")
        world.clock.advance(10.0)
        world.clockwork.turn()
        world.journal.delay()
        await world.passes("cam-1")
        world.clock.jump(60.0)
        world.clockwork.turn()
        world.journal.fail()
        await world.settle()
        assert until_boot(world) == world.clock.boot + MAX_AGE - 70.0


async def test_what_another_source_said_keeps_its_end_when_a_pass_is_taken_back() -> None:
    inventory = (replace(device("cam-1", ADDRESS), also=(SECOND,)),)
    async with running(book=BOOK, inventory=inventory) as world:
        begin = world.clock.now()
        for source in (SOURCE, SECOND):
            passed_of(world, source)
        world.clock.advance(70.0)
        world.clock.jump(-60.0)
        world.clockwork.turn()
        await world.settle()
        world.journal.fail()
        passed_of(world, SECOND)
        await world.settle()
        slot = world.devices.slot(CAM)
        assert slot is not None
        end = (begin.wall + MAX_AGE, begin.boot + MAX_AGE)
        assert sorted(slot.ends) == [(SECOND, *end), (SOURCE, *end)]


async def test_a_deadline_cut_to_the_grace_comes_no_later() -> None:
    async with running(book=BOOK) as world:
        await world.passes("cam-1")
        end = until_boot(world)
        world.clock.advance(90.0)
        world.clock.jump(-80.0)
        world.clockwork.turn()
        world.devices.solicited = lambda *_: True
        world.verdict("cam-1", Outcome.REQUESTED)
        view = world.devices.view(CAM)
        assert view is not None
        assert view.decision.until == world.clock.wall + 50.0
        assert until_boot(world) == end


# --- whatever happens ---------------------------------------------------------------------------------------------

STEPS = st.one_of(
    st.sampled_from(["pass", "fail", "hint", "hold", "release", "request"]),
    st.sampled_from(["delay", "undelay", "disk-full", "mend", "kill"]),
    st.sampled_from(["pass", "kill"]),
    st.tuples(st.just("advance"), st.sampled_from([1.0, 4.0, 20.0, 70.0])),
    st.tuples(st.just("jump"), st.sampled_from([-110.0, -60.0, 3.0, 60.0])),
)
Step = str | tuple[str, float]


class Model:
    """When what rests on a pass must have ended at the latest (boot seconds), by the second that it was issued."""

    def __init__(self) -> None:
        self.ends: dict[int, float] = {}

    async def take(self, world: World, step: Step) -> None:
        journal, devices = world.journal, world.devices
        devices.solicited = lambda *_: True
        if isinstance(step, tuple):
            (world.clock.advance if step[0] == "advance" else world.clock.jump)(step[1])
        elif step == "pass":
            world.clock.advance(1.0)
            before = devices.record(CAM, SOURCE)
            world.verdict("cam-1", Outcome.PASSED)
            after = devices.record(CAM, SOURCE)
            assert before is not None
            assert after is not None
            if after.newest != before.newest:
                self.ends[after.newest] = world.clock.boot + MAX_AGE
        elif step == "fail":
            world.clock.advance(1.0)
            world.verdict("cam-1", Outcome.FAILED)
        else:
            {
                "hint": lambda: hinted(world),
                "request": lambda: world.verdict("cam-1", Outcome.REQUESTED),
                "hold": lambda: devices.hold(CAM, "unix:ann", "x"),
                "release": lambda: devices.release(CAM, "unix:ann", "x"),
                "delay": journal.delay,
                "undelay": journal.release,
                "disk-full": journal.fail,
                "mend": journal.mend,
            }[step]()
        world.clockwork.turn()
        await world.settle()

    def check(self, world: World) -> None:
        record, now, end = world.devices.record(CAM, SOURCE), world.clock.boot, until_boot(world)
        assert record is not None
        if end is not None:
            assert now < end <= self.ends[record.newest] + 0.001
        stands = world.stands(ADDRESS)
        if stands.profile and not stands.tombstone:
            assert stands.remaining is not None
            assert now + stands.remaining <= self.ends[record.newest] + 0.001
            kept = world.disk.records[CAM, SOURCE]  # and it rests on a pass that the journal has
            assert now + stands.remaining <= self.ends[kept.newest] + 0.001


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=4, max_size=20).map(lambda steps: ["pass", *steps]))
def test_whatever_happens_an_admission_ends_when_its_pass_is_too_old(steps: list[Step]) -> None:
    async def scenario() -> None:
        machine, model = Machine(), Model()
        left, parts = list(steps), {"clock": machine.clock, "disk": machine.disk, "backend": machine.backend}
        while True:
            async with running(**parts, book=BOOK) as world:  # type: ignore[arg-type]
                while left:
                    step = left.pop(0)
                    if step == "kill":
                        break
                    await model.take(world, step)
                    model.check(world)
                else:
                    return
            parts = machine.restarted()

    asyncio.run(scenario())
