"""A rehearsal says what then happens: supposed events and replays against the real clockwork."""

from __future__ import annotations

import pytest

from gateway.control.ports import Entry
from gateway.core.model import DeviceId, Record, Transition
from gateway.core.policy import Book
from gateway.core.rehearsal import IMAGINABLE, Journalled, hypothetical, imagine, replay
from tests.control.world import INVENTORY, RULES, SOURCE, World, running
from tests.fakes.clock import ManualClock

STORIES = {
    "unknown": (),
    "trusted": ("passes",),
    "distrusted": ("passes", "fails"),
    "recovering": ("fails", "passes"),
    "lapsed": ("passes", "lapses"),
    "held": ("passes", "holds"),
    "beneath": ("passes", "holds", "fails"),
}
BOOK = Book(node_default="admitted", suspect="probation")


async def tell(world: World, story: tuple[str, ...]) -> None:
    for word in story:
        world.clock.advance(10)
        if word == "passes":
            await world.passes("cam-1")
        elif word == "fails":
            await world.fails("cam-1")
        elif word == "holds":
            world.devices.hold(DeviceId("cam-1"), "unix:alice", "lens replaced")
        else:
            world.clock.advance(200)
            world.devices.lapse(DeviceId("cam-1"), world.clock.now())
            world.devices.commit()
        await world.settle()


@pytest.mark.parametrize("word", IMAGINABLE)
@pytest.mark.parametrize("story", STORIES)
async def test_what_is_supposed_is_what_happens(story: str, word: str) -> None:
    async with running(book=BOOK) as world:
        await tell(world, STORIES[story])
        world.clock.advance(10)
        slot = world.devices.slot(DeviceId("cam-1"))
        assert slot is not None
        event = imagine(word, world.clock.now().wall, slot.records)
        supposed = hypothetical(slot.device, slot.records, event, BOOK, RULES)
        assert supposed.before == slot.decision
        transition = world.devices.apply(slot, SOURCE, event, world.clock.now(), 0.0)
        world.devices.commit()
        assert supposed.transitions == (transition,)
        assert supposed.records == slot.records
        assert supposed.after == slot.decision


def journalled(entry: Entry) -> Journalled | None:
    fact = entry.fact
    if not isinstance(fact, Transition):
        return None
    return Journalled(fact.device, fact.source, fact.event, fact.before, fact.after)


async def test_what_was_journalled_replays_to_itself_across_a_restart() -> None:
    clock = ManualClock()
    begin = clock.now().wall
    async with running(clock=clock, book=BOOK) as world:
        for story in STORIES.values():
            await tell(world, story)
        world.devices.release(DeviceId("cam-1"), "unix:alice", "done")
        await world.passes("cam-2")
        await world.settle()
        disk, backend, committed = world.disk, world.backend, list(world.journal.committed)
    clock.advance(30)
    async with running(clock=clock, disk=disk, backend=backend, book=BOOK) as world:
        await tell(world, ("passes", "passes", "lapses"))
        committed += world.journal.committed
        standing = world.standing("cam-1")
        states = {(each, SOURCE): record for each, record in _records(world).items()}
    rows = [row for _, entry in committed if (row := journalled(entry)) is not None]
    end = clock.now().wall
    found = replay(rows, INVENTORY, states, BOOK, BOOK, lambda *_: RULES[SOURCE], begin, end)
    assert (found.devices, found.standings, found.rejoined) == ((), 0, 0)
    assert found.events == len(rows) > 15
    assert [row.after.standing for row in rows if row.device == "cam-1"][-1] is standing


def _records(world: World) -> dict[DeviceId, Record]:
    return {slot.device.id: slot.records[SOURCE] for slot in world.devices.slots()}
