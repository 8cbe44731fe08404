"""What loosens waits for its commit, whatever else happens to the device meanwhile, in the same turn or later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from gateway.control.ports import Entry
from gateway.core.errors import JournalError
from gateway.core.model import (
    DENY,
    Address,
    DeviceId,
    Hint,
    Outcome,
    Rule,
    SourceName,
    Standing,
    Timeliness,
    Transition,
    Verdict,
)
from gateway.core.policy import Profile
from tests.control import world as worlds
from tests.control.world import BOOK, SOURCE, World, device, running

CAM = DeviceId("cam-1")
ADDRESS = "10.0.0.1"
PROBATION = "probation"
Done = Callable[[JournalError | None], None]
GRACE = replace(BOOK, profiles={**BOOK.profiles, PROBATION: Profile(PROBATION, 40)}, suspect=PROBATION)


def says(world: World, outcome: Outcome, age: int = 0, name: str = "cam-1") -> None:
    """A verdict whose turn is not over yet."""
    now = world.clock.now()
    issued = int(now.wall) - age
    nonce = f"{outcome}{issued}".encode()
    verdict = Verdict(DeviceId(name), SOURCE, outcome, issued, Timeliness.FRESH, nonce, "", "")
    world.devices.verdict(verdict, now)


def _noted(world: World) -> None:
    world.verdict("cam-1", Outcome.NOTED)


def _released(world: World) -> None:
    world.devices.release(CAM, "unix:ann", "was it held?")


def _reloaded(world: World) -> None:
    slot = world.devices.slot(CAM)
    assert slot is not None
    world.devices.redecide(slot, world.clock.now())
    world.devices.tell(slot)


def _overridden(world: World) -> None:
    world.overrides.override(CAM, PROBATION, 50.0, "unix:ann", "less, while we look")


def _hinted(world: World) -> None:
    hint = Hint(CAM, SourceName("watch"), adverse=True, reason="loud")
    world.devices.hint(hint, world.clock.now())
    world.devices.commit()


@pytest.mark.parametrize("event", [_noted, _released, _reloaded, _overridden, _hinted])
async def test_no_event_opens_what_a_pass_before_it_has_raised(event: Callable[[World], None]) -> None:
    async with running(book=GRACE) as world:
        world.journal.delay()
        world.verdict("cam-1", Outcome.PASSED)
        event(world)
        await world.settle()
        assert not world.admitted(ADDRESS)
        world.journal.release()
        await world.settle()
        given = world.stands(ADDRESS).profile
        assert given == ("admitted" if event in (_noted, _released, _reloaded) else PROBATION)


@pytest.mark.parametrize("event", [_noted, _released, _reloaded, _overridden, _hinted])
async def test_no_event_prolongs_what_a_pass_before_it_has_extended(event: Callable[[World], None]) -> None:
    async with running(book=GRACE) as world:
        await world.passes("cam-1")
        world.clock.advance(60.0)
        world.journal.delay()
        world.verdict("cam-1", Outcome.PASSED)
        event(world)
        await world.settle()
        remaining = world.stands(ADDRESS).remaining
        assert remaining is not None
        assert remaining <= 40.0
        world.journal.release()
        await world.settle()
        wished = world.gate.wished(Address.parse(ADDRESS))
        assert wished is not None
        assert wished.until == world.clock.boot + (50.0 if event is _overridden else 100.0)


async def test_a_failure_cuts_though_a_newer_pass_came_in_the_same_turn() -> None:
    async with running() as world:
        await world.passes("cam-1")
        assert world.admitted(ADDRESS)
        world.clock.advance(5.0)
        world.journal.delay()
        says(world, Outcome.FAILED, age=3)
        for age in (2, 1, 0):  # enough to be trusted again
            says(world, Outcome.PASSED, age)
        world.devices.commit()
        await world.settle()
        assert world.standing("cam-1") is Standing.TRUSTED
        assert world.stands(ADDRESS).tombstone
        assert not world.stands(ADDRESS).profile
        world.journal.release()
        await world.settle()
        assert world.admitted(ADDRESS)


async def test_a_doubt_narrows_though_a_newer_pass_came_in_the_same_turn() -> None:
    async with running(book=GRACE) as world:
        await world.passes("cam-1")
        world.clock.advance(5.0)
        world.journal.delay()
        hint = Hint(CAM, SourceName("watch"), adverse=True, reason="loud")
        world.devices.hint(hint, world.clock.now())
        world.clock.advance(5.0)
        says(world, Outcome.PASSED)
        world.devices.commit()
        await world.settle()
        assert world.standing("cam-1") is Standing.TRUSTED
        assert world.stands(ADDRESS).profile == PROBATION
        world.journal.release()
        await world.settle()
        assert world.stands(ADDRESS).profile == "admitted"


async def test_what_was_narrow_stays_so_until_the_pass_is_kept() -> None:
    async with running(book=GRACE) as world:
        await world.passes("cam-1")
        _hinted(world)
        await world.settle()
        assert world.stands(ADDRESS).profile == PROBATION
        world.clock.advance(5.0)
        world.journal.delay()
        world.verdict("cam-1", Outcome.PASSED)
        _noted(world)
        await world.settle()
        assert world.stands(ADDRESS).profile == PROBATION
        world.journal.release()
        await world.settle()
        assert world.stands(ADDRESS).profile == "admitted"


async def test_what_is_to_be_narrow_is_so_at_once_though_a_pass_waits() -> None:
    async with running(book=GRACE) as world:
        await world.passes("cam-1")
        world.clock.advance(5.0)
        world.journal.delay()
        world.verdict("cam-1", Outcome.PASSED)
        _hinted(world)
        await world.settle()
        assert world.stands(ADDRESS).profile == PROBATION


class Follower:
    """What devices may have, as it was told last."""

    def __init__(self) -> None:
        self.profile = ""

    def stands(self, device: DeviceId, rule: Rule | None) -> None:
        if device == CAM and rule is not None:
            self.profile = rule.profile

    def tightens(self, device: DeviceId, rule: Rule | None) -> None:
        if device == CAM and rule is not None and BOOK.rank(rule.profile) < BOOK.rank(self.profile):
            self.profile = rule.profile

    def happened(self, transition: Transition) -> None:
        pass


async def test_who_follows_devices_hears_of_that_failure_too() -> None:
    async with running() as world:
        await world.passes("cam-1")
        told = Follower()
        world.devices.tell_standings(told)
        world.clock.advance(5.0)
        world.journal.delay()
        says(world, Outcome.FAILED, age=3)
        for age in (2, 1, 0):  # enough to be trusted again
            says(world, Outcome.PASSED, age)
        world.devices.commit()
        await world.settle()
        assert told.profile == DENY
        world.journal.release()
        await world.settle()
        assert told.profile == "admitted"


async def test_who_follows_devices_hears_what_is_left_of_a_pass_once_it_is_kept() -> None:
    async with running(book=GRACE) as world:
        told = Follower()
        world.devices.tell_standings(told)
        world.journal.delay()
        world.verdict("cam-1", Outcome.PASSED)
        _hinted(world)
        await world.settle()
        assert told.profile == DENY
        world.journal.release()
        await world.settle()
        assert told.profile == PROBATION


async def test_a_device_that_shares_an_address_does_not_open_what_another_ones_pass_has_raised() -> None:
    inventory = (device("cam-1", ADDRESS), device("cam-2", ADDRESS))
    async with running(inventory=inventory) as world:
        await world.passes("cam-1")
        world.journal.delay()
        world.verdict("cam-2", Outcome.PASSED)
        _noted(world)
        await world.settle()
        assert not world.admitted(ADDRESS)
        world.journal.release()
        await world.settle()
        assert world.admitted(ADDRESS)


@pytest.mark.parametrize("event", [_noted, _hinted])
async def test_what_rests_on_a_pass_that_was_not_kept_is_withheld(event: Callable[[World], None]) -> None:
    async with running(book=GRACE) as world:
        world.journal.delay()
        world.verdict("cam-1", Outcome.PASSED)
        event(world)
        world.journal.fail()
        await world.settle()
        assert not world.admitted(ADDRESS)
        view = world.devices.view(CAM)
        assert view is not None
        assert view.decision.profile == DENY
        world.journal.mend()
        world.journal.release()
        await world.settle()
        _noted(world)
        await world.settle()
        assert not world.admitted(ADDRESS)
        for _ in range(2):
            world.clock.advance(2.0)
            await world.passes("cam-1")
        assert world.admitted(ADDRESS)


async def test_a_pass_that_was_not_kept_is_nothing_to_who_shares_an_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    also = SourceName("second")
    monkeypatch.setattr(worlds, "RULES", {SOURCE: worlds.RULES[SOURCE], also: worlds.RULES[SOURCE]})
    one, other = device("cam-1", ADDRESS, "10.0.0.9"), device("cam-2", ADDRESS, "10.0.0.2")
    async with running(inventory=(replace(one, source=also), other)) as world:
        await world.passes("cam-2")
        assert not world.admitted("10.0.0.2")  # the lowest of both counts
        world.journal.delay()
        now = world.clock.now()
        issued = int(now.wall)
        verdict = Verdict(CAM, also, Outcome.PASSED, issued, Timeliness.FRESH, b"n", "", "")
        world.devices.verdict(verdict, now)
        world.devices.commit()
        world.journal.fail()
        await world.settle()
        own = world.devices.record(DeviceId("cam-2"), SOURCE)
        assert own is not None
        assert own.standing is Standing.TRUSTED  # it is not withheld
        view = world.devices.view(DeviceId("cam-2"))
        assert view is not None
        assert view.decision.profile == DENY
        assert not world.admitted(ADDRESS)
        world.journal.mend()
        world.journal.release()
        await world.settle()
        assert not world.admitted("10.0.0.2")


async def test_two_passes_that_were_not_kept_leave_nothing() -> None:
    async with running() as world:
        world.journal.delay()
        world.verdict("cam-1", Outcome.PASSED)
        world.clock.advance(1.0)
        world.verdict("cam-1", Outcome.PASSED)
        world.journal.fail()
        await world.settle()
        view = world.devices.view(CAM)
        assert view is not None
        assert view.decision.profile == DENY
        assert not world.admitted(ADDRESS)


class Answers:
    """What the journal answers, turn by turn: it answers those that it had taken when its disk was full."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._waiting: list[Done] = []
        record = world.journal.record

        def kept(entries: Sequence[Entry], done: Done | None = None) -> Sequence[int]:
            if done is not None:
                self._waiting.append(done)
            return record(entries, None)

        monkeypatch.setattr(world.journal, "record", kept)

    def next(self, error: JournalError | None) -> None:
        self._waiting.pop(0)(error)


async def test_a_pass_on_its_way_decides_what_becomes_of_one_that_was_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as world:
        answers, full = Answers(world, monkeypatch), JournalError("disk full")
        for _ in range(2):
            world.clock.advance(1.0)
            world.verdict("cam-1", Outcome.PASSED)
        answers.next(full)
        await world.settle()
        assert world.standing("cam-1") is Standing.TRUSTED
        assert not world.admitted(ADDRESS)
        answers.next(None)
        await world.settle()
        assert world.admitted(ADDRESS)  # the journal keeps the order: it has the first one, too
        world.clock.advance(1.0)
        world.verdict("cam-1", Outcome.PASSED)
        answers.next(full)
        answers.next(full)  # of the row that says that it was taken back
        await world.settle()
        assert world.admitted(ADDRESS)
        assert world.standing("cam-1") is Standing.TRUSTED


async def test_a_pass_that_was_kept_after_one_that_was_not_admits() -> None:
    async with running() as world:
        world.journal.delay()
        world.verdict("cam-1", Outcome.PASSED)
        world.journal.fail()
        await world.settle()
        world.journal.mend()
        world.journal.release()
        await world.settle()
        world.clock.advance(1.0)
        await world.passes("cam-1")
        assert world.admitted(ADDRESS)
        _noted(world)
        await world.settle()
        assert world.admitted(ADDRESS)
