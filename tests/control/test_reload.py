"""The change of books: every device under one book at a time, tighten before loosen, nothing open in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from gateway.control.reload import Swap, Swapped
from gateway.core.errors import BackendError
from gateway.core.model import Address, Change, ChangeOutcome, DeviceId, Outcome, Standing
from gateway.core.policy import Book, DeviceClass, Level, Match, Profile, Service, Zone, compile_book, meet, zone_of
from tests.control.test_start import Machine
from tests.control.world import LEASE, World, device, running
from tests.fakes.backend import FakeBackend
from tests.fakes.clock import ManualClock

FEED, STATUS = (Service(name, ip_address("10.77.3.2"), port) for name, port in (("feed", 8001), ("status", 8002)))
VIP = Profile("vip", 120, "all")
LESS = Profile("less", 60, ("status",))
OLD = Book((FEED, STATUS), node_default="admitted", suspect="probation", profiles={"vip": VIP, "less": LESS})
CAMERAS = tuple(device(f"cam-{number}", f"10.0.0.{number}") for number in range(1, 7))
#: cam-7 and cam-8 are bound to one address.
SHARED = tuple(device(f"cam-{number}", "10.0.0.77", f"10.0.0.{number}") for number in (7, 8))
INVENTORY = (*CAMERAS, *SHARED)


class Kernel(FakeBackend):
    """A path gate with a static part, which looks at every step whether something is open that may not be."""

    def __init__(self, clock: ManualClock, zone: Zone) -> None:
        super().__init__(clock, profiles=("probation", "less", "admitted", "vip", "gone", "fresh"))
        self.zone = zone
        self.laid: list[Zone] = []
        self.refuse: list[BackendError] = []
        self.steps: list[str] = []
        self.may: dict[Address, set[str]] | None = None

    async def lay(self, zone: Zone) -> None:
        await asyncio.sleep(0)
        if self.refuse:
            raise self.refuse.pop(0)
        self.zone = zone
        self.laid.append(zone)
        self.steps.append("laid")
        self._look()

    def reach(self, address: Address) -> set[str]:
        stands = self.stands(address)
        if stands.tombstone or not stands.profile:
            return set()
        return {service.name for service in self.zone.reaches.get(stands.profile, ())}

    def _take(self, change: Change) -> ChangeOutcome:
        outcome = super()._take(change)
        self.steps.append(f"{change.kind.value} {change.address}")
        self._look()
        return outcome

    def _look(self) -> None:
        for address, may in (self.may or {}).items():
            assert self.reach(address) <= may, f"{address} reaches {self.reach(address)} and may {may}"


@asynccontextmanager
async def world_of(book: Book = OLD, **how: Any) -> AsyncIterator[tuple[World, Kernel]]:
    clock = ManualClock()
    kernel = Kernel(clock, zone_of(book))
    async with running(clock=clock, backend=kernel, inventory=INVENTORY, book=book, **how) as world:
        yield world, kernel


def services(world: World, name: str, book: Book) -> set[str]:
    """What a book lets a device reach by what is decided now."""
    view = world.devices.view(DeviceId(name))
    assert view is not None
    if view.decision.until is None:
        return set()
    return {service.name for service in book.reach(view.decision.profile)}


def swap_of(world: World, kernel: Kernel, told: list[str] | None = None) -> Swap:
    said = [] if told is None else told
    return Swap(world.devices, [world.gate], world.clock, kernel.lay, lambda _: None, said.append)


def compiled(book: Book) -> Book:
    return compile_book(book, INVENTORY)


async def change(world: World, kernel: Kernel, new: Book, old: Book = OLD) -> Swapped:
    async with asyncio.timeout(60):
        return await swap_of(world, kernel).run(compiled(new), zone_of(old), zone_of(new))


async def test_a_book_that_decides_alike_touches_nothing() -> None:
    async with world_of() as (world, kernel):
        await world.passes("cam-1")
        kernel.steps.clear()
        new = replace(OLD, classes=(DeviceClass("none", Match(id="x*"), Level({Standing.TRUSTED: "less"})),))
        swapped = await change(world, kernel, new)
        assert (swapped.cut, swapped.narrowed, swapped.opened, swapped.same) == (0, 0, 0, len(INVENTORY))
        assert kernel.steps == ["laid", "laid"]
        assert all(slot.under is world.devices.book for slot in world.devices.slots())
        assert world.admitted("10.0.0.1")


async def test_cut_first_then_open_then_the_new_static_part() -> None:
    async with world_of() as (world, kernel):
        for name in ("cam-1", "cam-2", "cam-3"):
            await world.passes(name)
        first = replace(OLD, devices={DeviceId("cam-2"): "deny"})
        await change(world, kernel, first)
        kernel.steps.clear()
        new = replace(OLD, devices={DeviceId("cam-1"): "deny", DeviceId("cam-3"): "less"})
        swapped = await change(world, kernel, new, first)
        assert (swapped.cut, swapped.narrowed, swapped.opened, swapped.same) == (1, 1, 1, len(INVENTORY) - 3)
        assert kernel.steps[0] == kernel.steps[-1] == "laid"
        assert sorted(kernel.steps[1:3]) == ["admit 10.0.0.3", "withdraw 10.0.0.1"]
        assert kernel.steps[3:-1] == ["admit 10.0.0.2"]
        assert [world.stands(f"10.0.0.{n}").profile for n in (1, 2, 3)] == ["", "admitted", "less"]


@pytest.mark.parametrize("turned", [False, True], ids=["narrower", "wider"])
async def test_while_profiles_change_their_meaning_nobody_reaches_what_neither_book_gives(turned: bool) -> None:
    """Profiles that swap their services, one that goes, one that comes, devices that move between all of them."""
    gone, fresh = Profile("gone", 70, ("status",)), Profile("fresh", 70, ("feed",))
    one = replace(
        OLD,
        profiles={"vip": VIP, "less": LESS, "gone": gone},
        devices={DeviceId(f"cam-{n}"): p for n, p in enumerate(("less", "gone", "vip", "deny", "admitted"), 1)},
    )
    two = Book(
        (FEED, STATUS),
        node_default="admitted",
        suspect="probation",
        profiles={"vip": VIP, "less": Profile("less", 60, ("feed",)), "fresh": fresh},
        devices={DeviceId(f"cam-{n}"): p for n, p in enumerate(("fresh", "less", "deny", "less", "fresh"), 1)},
    )
    old, new = (two, one) if turned else (one, two)
    async with world_of(old) as (world, kernel):
        for each in INVENTORY:
            await world.passes(each.id)
        was = {each.id: services(world, each.id, old) for each in CAMERAS}
        new_decisions = {name: new.devices.get(name, "admitted") for name in was}
        gets = {
            name: {service.name for service in new.reach(profile)} if isinstance(profile, str) else set()
            for name, profile in new_decisions.items()
        }
        kernel.may = {each.binding.addresses[0]: was[each.id] | gets[each.id] for each in CAMERAS}
        await change(world, kernel, new, old)
        for each in CAMERAS:
            assert kernel.reach(each.binding.addresses[0]) == gets[each.id]


async def test_devices_that_share_an_address_are_decided_together() -> None:
    async with world_of() as (world, kernel):
        await world.passes("cam-7")
        await world.passes("cam-8")
        shared = Address.parse("10.0.0.77")
        assert kernel.reach(shared) == {"feed", "status"} or kernel.reach(shared) == {"feed"}
        new = replace(OLD, devices={DeviceId("cam-8"): "deny"})
        kernel.may = {Address.parse("10.0.0.8"): kernel.reach(shared)}
        await change(world, kernel, new)
        assert kernel.reach(shared) == set()
        assert world.admitted("10.0.0.7")
        await change(world, kernel, OLD, new)
        assert world.admitted("10.0.0.77")
        assert world.admitted("10.0.0.8")


async def test_a_verdict_that_comes_meanwhile_is_decided_by_the_new_book() -> None:
    async with world_of() as (world, kernel):
        await world.passes("cam-1")
        new = replace(OLD, node_default="less", devices={DeviceId("cam-1"): "deny"})
        kernel.hold_cut.clear()
        task = asyncio.create_task(change(world, kernel, new))
        while not world.gate._cutting:
            await asyncio.sleep(0)
        await world.passes("cam-5")
        assert world.stands("10.0.0.5").profile == "less", "while the change waits for its cuts"
        assert not task.done()
        kernel.hold_cut.set()
        swapped = await task
        assert not world.admitted("10.0.0.1")
        assert swapped.cut == 1


async def test_a_pass_on_its_way_to_the_disk_opens_what_the_new_book_gives_and_not_before() -> None:
    async with world_of() as (world, kernel):
        world.journal.delay()
        world.verdict("cam-1", Outcome.PASSED)
        kernel.may = {Address.parse("10.0.0.1"): set()}
        new = replace(OLD, devices={DeviceId("cam-1"): "less"})
        task = asyncio.create_task(change(world, kernel, new))
        slot = world.devices.slot(DeviceId("cam-1"))
        assert slot is not None
        while slot.opening == 1 and world.devices.slot(DeviceId("cam-6")).under is not world.devices.book:  # type: ignore[union-attr]
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert slot.under is not world.devices.book, "it waits for its commit"
        assert not task.done()
        kernel.may = None
        world.journal.release()
        await task
        assert world.stands("10.0.0.1").profile == "less"


async def test_an_old_wish_that_becomes_durable_late_is_made_under_the_new_book() -> None:
    async with world_of() as (world, kernel):
        world.journal.delay()
        world.verdict("cam-1", Outcome.PASSED)
        world.devices.book = compiled(replace(OLD, devices={DeviceId("cam-1"): "less"}))
        slot = world.devices.slot(DeviceId("cam-1"))
        assert slot is not None
        floor = slot.floor
        world.devices.redecide(slot, world.clock.now())
        slot.floor = floor  # as after a change that ranks no lower
        world.journal.release()
        await world.settle()
        assert kernel.stands(Address.parse("10.0.0.1")).profile == "less"
        assert slot.opening == 0


async def test_a_gate_that_cannot_be_made_ready_changes_nothing() -> None:
    async with world_of() as (world, kernel):
        await world.passes("cam-1")
        before = world.devices.book
        kernel.refuse.append(BackendError("nft", "busy", transient=True))
        kernel.steps.clear()
        with pytest.raises(BackendError, match="busy"):
            await change(world, kernel, replace(OLD, node_default="deny"))
        assert world.devices.book is before
        assert kernel.steps == []
        assert world.admitted("10.0.0.1")


async def test_the_last_step_is_tried_until_it_succeeds_and_less_is_open_meanwhile() -> None:
    wider = replace(OLD, profiles={"vip": VIP, "less": Profile("less", 60, "all")})
    before = replace(OLD, devices={DeviceId("cam-1"): "less"})
    new = replace(wider, devices={DeviceId("cam-1"): "less"})
    async with world_of(before) as (world, kernel):
        await world.passes("cam-1")
        told: list[str] = []
        swap = swap_of(world, kernel, told)
        laid = kernel.lay
        failing = [BackendError("nft", "busy", transient=True), BackendError("nft", "busy", transient=True)]

        async def lay(zone: Zone) -> None:
            if kernel.laid and failing:
                raise failing.pop()
            await laid(zone)

        swap._lay = lay
        async with asyncio.timeout(60):
            await swap.run(compiled(new), zone_of(before), zone_of(new))
        assert kernel.laid == [meet(zone_of(before), zone_of(new)), zone_of(new)]
        assert any("less is open" in each for each in told)
        assert told[-1] == ""
        assert world.facts.notices("backend-error")
        assert kernel.reach(Address.parse("10.0.0.1")) == {"feed", "status"}


async def test_a_failing_address_holds_the_last_step_back_until_it_is_mended() -> None:
    async with world_of() as (world, kernel):
        await world.passes("cam-1")
        kernel.refused.add(Address.parse("10.0.0.1"))
        task = asyncio.create_task(change(world, kernel, replace(OLD, node_default="deny")))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert len(kernel.laid) == 1
        assert not task.done()
        kernel.refused.clear()
        await task
        assert len(kernel.laid) == 2
        assert not world.admitted("10.0.0.1")


async def test_a_shorter_maximum_age_holds_at_once_and_a_longer_one_with_the_next_pass() -> None:
    async with world_of() as (world, kernel):
        await world.passes("cam-1")
        issued = int(world.clock.now().wall)

        def left() -> float:
            view = world.devices.view(DeviceId("cam-1"))
            assert view is not None
            assert view.decision.until is not None
            return view.decision.until - issued

        def aged(seconds: float) -> Book:
            return replace(OLD, classes=(DeviceClass("all", Match(id="cam-*"), Level(max_age=seconds)),))

        swapped = await change(world, kernel, aged(40.0))
        assert swapped.narrowed == 1
        assert left() == 40.0
        remaining = world.stands("10.0.0.1").remaining
        assert remaining is not None
        assert remaining <= 40.0
        await change(world, kernel, aged(90.0), aged(40.0))
        assert left() == 40.0
        world.clock.advance(1)
        await world.passes("cam-1")
        assert left() == 91.0


async def test_a_quorum_that_comes_denies_and_one_that_goes_admits_again() -> None:
    async with world_of() as (world, kernel):
        await world.passes("cam-1")
        strict = replace(OLD, classes=(DeviceClass("all", Match(id="cam-*"), Level(quorum=2)),))
        assert (await change(world, kernel, strict)).cut == 1
        assert not world.admitted("10.0.0.1")
        assert world.standing("cam-1") is Standing.UNKNOWN
        assert (await change(world, kernel, OLD, strict)).opened == 1
        assert world.admitted("10.0.0.1")
        assert world.devices.counts()["trusted"] == 1


@pytest.mark.parametrize("stop_at", range(1, 4), ids=["first static part", "decisions", "last static part"])
async def test_killed_in_the_middle_a_start_under_the_new_book_is_consistent(stop_at: int) -> None:
    machine = Machine()
    new = replace(OLD, devices={DeviceId("cam-1"): "deny", DeviceId("cam-2"): "less"})
    profiles = ("probation", "less", "admitted", "vip")
    machine.backend = FakeBackend(machine.clock, profiles=profiles)
    where: Mapping[str, Any] = {"clock": machine.clock, "disk": machine.disk}
    async with running(backend=machine.backend, inventory=INVENTORY, book=OLD, **where) as world:
        for name in ("cam-1", "cam-2", "cam-3"):
            await world.passes(name)
        calls = 0
        blocked = asyncio.Event()

        async def lay(_zone: Zone) -> None:
            nonlocal calls
            calls += 1
            if calls == (1 if stop_at == 1 else 2):
                blocked.set()
                await asyncio.Event().wait()

        if stop_at == 2:
            machine.backend.hold_cut.clear()
        swap = Swap(world.devices, [world.gate], world.clock, lay, lambda _: None, lambda _: None)
        task = asyncio.create_task(swap.run(compiled(new), zone_of(OLD), zone_of(new)))
        async with asyncio.timeout(60):
            while not (blocked.is_set() or (stop_at == 2 and world.gate._cutting)):
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
    again = machine.restarted()
    machine.backend._profiles = frozenset(profiles)
    async with running(inventory=INVENTORY, book=new, **again) as world:  # type: ignore[arg-type]
        assert not world.admitted("10.0.0.1")
        assert world.stands("10.0.0.2").profile == "less"
        assert world.stands("10.0.0.3").profile == "admitted"
        remaining = world.stands("10.0.0.3").remaining
        assert remaining is not None
        assert remaining <= LEASE
