"""What happens because time passes: due deadlines in slices, and the advisory layers' turn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from gateway.control import clockwork
from gateway.control.clockwork import Clockwork
from gateway.core.model import Address, DeviceId, Standing
from gateway.kubearmor.documents import Document
from tests.control.world import device, running


class Advised:
    """An advisory layer that remembers what it was told."""

    name = "kubearmor"

    def __init__(self) -> None:
        self.told: list[frozenset[Address]] = []

    def declare(self, admitted: frozenset[Address]) -> None:
        self.told.append(admitted)

    def declare_documents(self, documents: Sequence[Document], absent: frozenset[str] = frozenset()) -> None:
        raise AssertionError(documents, absent)

    def state(self) -> Mapping[str, str]:
        return {"state": "accepted"}

    async def run(self) -> None:
        await asyncio.Event().wait()


async def test_advisory_layers_hear_the_newest_truth_paced_and_only_when_it_changed() -> None:
    async with running() as world:
        advised = Advised()
        clock = Clockwork(world.devices, [world.gate], world.journal, world.clock, [advised])
        clock.turn()
        await world.passes("cam-1")
        clock.turn()
        assert advised.told == [frozenset()]
        world.clock.advance(clockwork.ADVISE)
        clock.turn()
        assert advised.told[-1] == {Address.parse("10.0.0.1"), Address.parse("fd00::1")}
        world.clock.advance(clockwork.ADVISE)
        clock.turn()
        assert len(advised.told) == 2
        await world.fails("cam-1")
        clock.turn()
        assert advised.told[-1] == frozenset()


async def test_many_deadlines_at_once_are_stepped_in_slices() -> None:
    inventory = [device(f"cam-{n}", f"10.1.{n // 250}.{n % 250 + 1}") for n in range(clockwork.SLICE + 10)]
    async with running(inventory=inventory) as world:
        for each in inventory:
            await world.passes(each.id)
        world.clock.advance(200)
        world.clockwork.turn()
        assert world.devices.counts()["lapsed"] == clockwork.SLICE
        world.clockwork.turn()
        assert world.devices.counts()["lapsed"] == len(inventory)


async def test_the_clock_task_wakes_for_a_deadline_nearer_than_its_tick() -> None:
    async with running() as world:
        task = asyncio.create_task(world.clockwork.run())
        await world.passes("cam-1")
        world.clock.advance(101)
        while world.standing("cam-1") is not Standing.LAPSED:  # bounded by the suite's timeout
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])


async def test_an_unwritable_journal_is_told_once_and_its_mending_too() -> None:
    async with running() as world:
        world.clockwork.turn()
        world.journal.fail()
        world.clockwork.turn()
        world.clockwork.turn()
        world.journal.mend()
        world.clockwork.turn()
        assert len(world.facts.notices("journal")) == 2
        assert world.devices.record(DeviceId("cam-1"), world.devices.view(DeviceId("cam-1")).device.source)  # type: ignore[union-attr]
