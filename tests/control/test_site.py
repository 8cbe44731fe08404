"""The site's profile follows the counts; alarms of resources follow the samples."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control import census as census_module
from gateway.control.census import Census
from gateway.control.ports import Usage
from gateway.control.site import REST
from gateway.core.model import Address, Binding, Device, DeviceId, SourceName, Standing
from gateway.core.policy import (
    NORMAL,
    Book,
    Condition,
    DeviceClass,
    Match,
    ResourceThreshold,
    SiteProfile,
    Thresholds,
    decide_site,
)
from tests.control.world import World, device, running

S = Standing
CAMS = DeviceClass("cams", Match(id="cam-*"))
BOOK = Book(
    node_default="admitted",
    classes=(CAMS, DeviceClass("unnamed", Match(id="*"))),
    site=(
        SiteProfile("lockdown", (Condition(S.DISTRUSTED, ">=", 2),)),
        SiteProfile("blind", (Condition(S.HELD, "==", 2, device_class="cams"),)),
        SiteProfile("elevated", (Condition(S.DISTRUSTED, ">=", 1),)),
        SiteProfile("normal"),
    ),
)
INVENTORY = (device("cam-1", "10.0.0.1"), device("cam-2", "10.0.0.2"), device("door-1", "10.0.0.3"))


async def fail_after_pass(world: World, name: str) -> None:
    await world.passes(name)
    world.clock.advance(1)
    await world.fails(name)
    world.clockwork.turn()


async def test_the_profile_follows_the_counts_and_says_why() -> None:
    async with running(book=BOOK, inventory=INVENTORY) as world:
        told: list[str] = []
        world.site.watch(told.append)
        world.clockwork.turn()
        assert world.site.profile == "normal"
        assert [fact.detail for fact in world.facts.notices("site")] == ["normal: site normal: no condition"]
        await fail_after_pass(world, "door-1")
        assert world.site.profile == "elevated"
        await fail_after_pass(world, "cam-1")
        begin = world.clock.now().wall
        assert (world.site.profile, world.site.chain) == ("lockdown", ("site lockdown: distrusted >= 2",))
        assert told == ["elevated", "lockdown"]
        assert [fact.detail for fact in world.facts.notices("site")][1:] == [
            "normal → elevated: site elevated: distrusted >= 1",
            "elevated → lockdown: site lockdown: distrusted >= 2",
        ]
        shown = world.site.now()
        assert (shown.profile, shown.since, shown.counts["distrusted"]) == ("lockdown", begin, 2)
        await world.settle()
        assert [row["subject"] for row in world.disk.rows.values() if row["kind"] == "site"] == [
            "normal",
            "elevated",
            "lockdown",
        ]


async def test_many_changes_of_one_turn_are_one_decision_and_none_is_no_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(book=BOOK, inventory=INVENTORY) as world:
        asked: list[int] = []

        def counted(*arguments: object) -> object:
            asked.append(1)
            return decide_site(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr("gateway.core.policy.decide_site", counted)
        world.clockwork.turn()
        for name in ("cam-1", "cam-2"):
            await world.passes(name)
        world.clock.advance(1)
        for name in ("cam-1", "cam-2"):
            await world.fails(name)
        assert len(asked) == 1
        world.clockwork.turn()
        assert len(asked) == 2
        world.clockwork.turn()
        await world.passes("door-1")
        world.clock.advance(1)
        world.clockwork.turn()
        assert (len(asked), world.site.profile) == (3, "lockdown")


async def test_conditions_over_a_class_count_its_devices_alone() -> None:
    async with running(book=BOOK, inventory=INVENTORY) as world:
        for name in ("cam-1", "door-1"):
            world.devices.hold(DeviceId(name), "unix:ann", "x")
        world.clockwork.turn()
        assert world.site.profile == "normal"
        world.devices.hold(DeviceId("cam-2"), "unix:ann", "x")
        world.clockwork.turn()
        assert world.site.profile == "blind"
        assert world.devices.census.by_class() == {
            "cams": {each.label: 2 if each is S.HELD else 0 for each in Standing}
        }


async def test_another_books_classes_are_counted_in_slices_while_the_old_rules_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(census_module, "SLICE", 1)
    async with running(book=BOOK, inventory=INVENTORY) as world:
        world.clockwork.turn()
        for name in ("cam-1", "cam-2"):
            world.devices.hold(DeviceId(name), "unix:ann", "x")
        world.clockwork.turn()
        assert world.site.profile == "blind"
        doors = SiteProfile("elevated", (Condition(S.HELD, ">=", 1, device_class="doors"),))
        other = Book(classes=(DeviceClass("doors", Match(id="door-*")),), site=(doors,))
        world.devices.book = other
        world.clockwork.turn()
        assert (world.site.profile, world.site.next()) == ("blind", world.clock.boot + REST)
        world.devices.release(DeviceId("cam-1"), "unix:ann", "x")
        world.clockwork.turn()
        assert world.site.profile == "blind", "the old rules run until every device is counted"
        world.clockwork.turn()
        world.devices.hold(DeviceId("door-1"), "unix:ann", "x")
        world.clockwork.turn()
        assert (world.site.profile, world.site.next()) == ("elevated", None)
        assert world.devices.census.by_class() == {"doors": {each.label: int(each is S.HELD) for each in Standing}}
        world.devices.release(DeviceId("door-1"), "unix:ann", "x")
        world.devices.book = Book()
        world.clockwork.turn()
        assert (world.site.profile, world.devices.census.by_class()) == (NORMAL, {})


async def test_without_rules_the_site_is_normal_and_silent() -> None:
    async with running(inventory=INVENTORY) as world:
        world.clockwork.turn()
        assert (world.site.profile, world.site.known()) == (NORMAL, (NORMAL,))
        assert not world.facts.notices("site")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(Standing)), max_size=60))
def test_the_census_is_what_counting_anew_would_find(moves: list[tuple[int, Standing]]) -> None:
    names = ["cam-1", "cam-2", "cam-3", "door-1", "door-2", "x"]
    devices = [
        Device(
            DeviceId(name), SourceName("v"), Binding(DeviceId(name), (Address.parse(f"10.0.0.{number + 1}"),)), ()
        )
        for number, name in enumerate(names)
    ]
    census, now = Census(BOOK), dict.fromkeys(names, S.UNKNOWN)
    for each in devices:
        census.add(each, S.UNKNOWN)
    for number, standing in moves:
        name = names[number]
        census.move(DeviceId(name), now[name], standing)
        now[name] = standing
    fresh = Census(BOOK)
    for each in devices:
        fresh.add(each, now[each.id])
    assert census.labelled() == fresh.labelled()
    assert census.by_class() == fresh.by_class()
    assert census.total == len(names) == sum(census.labelled().values())
    cams = [standing for name, standing in now.items() if name.startswith("cam")]
    assert census.by_class()["cams"] == {each.label: cams.count(each) for each in Standing}


# --- alarms -----------------------------------------------------------------------------------------------------

WATCHED = Book(thresholds=Thresholds(None, ResourceThreshold(0.9, 10.0), ResourceThreshold(0.8, 5.0)))


async def sampled(world: World, cpu: float | None, memory: float | None = None, seconds: float = 5.0) -> None:
    world.clock.advance(seconds)
    number = 0 if world.usage is None else world.usage.number + 1
    world.usage = Usage(number, cpu, memory)
    world.clockwork.turn()


async def test_an_alarm_is_raised_after_its_time_and_over_after_as_long() -> None:
    async with running(book=WATCHED) as world:
        for share in (0.95, 0.95):
            await sampled(world, share)
        assert not world.alarms.raised()
        await sampled(world, 0.97)
        assert world.alarms.raised() == {"cpu": "cpu: above 90% for 10 s, 97% now"}
        assert world.site.now().alarms == world.alarms.raised()
        for share in (0.5, 0.95, 0.5, 0.5):  # the second one begins the span anew
            await sampled(world, share)
            assert world.alarms.raised()
        await sampled(world, 0.9)  # above is above
        assert not world.alarms.raised()
        assert [fact.detail for fact in world.facts.notices("resources")] == [
            "cpu: above 90% for 10 s, 97% now",
            "cpu: not above 90% for 10 s, 90% now",
        ]
        assert all(view.decision.standing is S.UNKNOWN for view in world.devices.views())


async def test_a_gap_begins_a_span_anew_and_one_sample_is_looked_at_once() -> None:
    async with running(book=WATCHED) as world:
        for share in (0.9, 0.9, None, 0.9):
            await sampled(world, None, share, seconds=4.0)
        world.clock.advance(60.0)
        world.clockwork.turn()
        assert not world.alarms.raised()
        await sampled(world, None, 0.9)
        assert set(world.alarms.raised()) == {"memory"}


async def test_without_a_threshold_nothing_is_watched_and_one_that_goes_ends_its_alarm() -> None:
    async with running() as world:
        for _ in range(5):
            await sampled(world, 1.0, 1.0, seconds=100.0)
        assert not world.alarms.raised()
        assert not world.facts.notices("resources")
        world.devices.book = WATCHED
        for _ in range(2):
            await sampled(world, 1.0, 0.1, seconds=100.0)
        assert set(world.alarms.raised()) == {"cpu"}
        world.devices.book = Book()
        await sampled(world, 1.0)
        assert not world.alarms.raised()
