"""The clockwork with fakes around it: manual clock, journal and path gate in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from gateway.control.alarms import Alarms
from gateway.control.clockwork import Clockwork
from gateway.control.devices import Devices
from gateway.control.overrides import Overrides
from gateway.control.ports import Answered, Fact, Notice, Step, Usage
from gateway.control.reconcile import Reconciler
from gateway.control.site import Site
from gateway.control.start import restore
from gateway.core.lifecycle import Rules
from gateway.core.model import (
    Address,
    AnchorKind,
    Binding,
    Device,
    DeviceId,
    Enforced,
    Outcome,
    SourceName,
    Standing,
    Stands,
    Timeliness,
    Transition,
    Verdict,
)
from gateway.core.policy import Book
from tests.fakes.backend import FakeBackend
from tests.fakes.clock import ManualClock
from tests.fakes.journal import Disk, FakeJournal

SOURCE = SourceName("verifier")
RULES = {SOURCE: Rules(max_age=100.0)}
BOOK = Book(node_default="admitted", suspect="deny")
LEASE = 120.0


def device(name: str, *addresses: str, anchor: AnchorKind = AnchorKind.UPSTREAM) -> Device:
    """One inventory entry."""
    bound = tuple(Address.parse(address) for address in addresses)
    return Device(DeviceId(name), SOURCE, Binding(DeviceId(name), bound, anchor))


INVENTORY = (device("cam-1", "10.0.0.1", "fd00::1"), device("cam-2", "10.0.0.2"))


class Facts:
    """An observer that keeps everything."""

    def __init__(self) -> None:
        self.all: list[Fact | Transition | Enforced] = []

    def stepped(self, steps: Sequence[Step]) -> None:
        self.all += [transition for transition, _, _ in steps]

    def enforced(self, outcomes: Sequence[Answered]) -> None:
        self.all += [fact for _, fact in outcomes]

    def observe(self, fact: Fact) -> None:
        self.all.append(fact)

    @property
    def outcomes(self) -> list[Enforced]:
        return [fact for fact in self.all if isinstance(fact, Enforced)]

    @property
    def transitions(self) -> list[Transition]:
        return [fact for fact in self.all if isinstance(fact, Transition)]

    def notices(self, kind: str) -> list[Notice]:
        return [fact for fact in self.all if isinstance(fact, Notice) and fact.kind == kind]


class World:
    """One gateway's clockwork. ``disk`` and ``backend`` outlive it, as a file and a kernel do."""

    def __init__(
        self,
        clock: ManualClock,
        disk: Disk,
        backend: FakeBackend,
        inventory: Sequence[Device],
        boot_id: str = "boot",
        book: Book = BOOK,
    ) -> None:
        self.clock = clock
        self.disk = disk
        self.backend = backend
        self.facts = Facts()
        self.boot_id = boot_id
        self.journal = FakeJournal(clock, disk, boot_id)
        self.loaded = self.journal.load()
        self.devices = Devices(inventory, book, RULES, self.journal, clock, [self.facts])
        self.gate = Reconciler(
            backend,
            target="gateway",
            clock=clock,
            lease=LEASE,
            report=self.devices.enforced,
            notice=self.devices.notice,
        )
        self.devices.add_gate(self.gate)
        self.overrides = Overrides(self.devices, (self.gate,), self.journal, clock, [self.facts])
        self.usage: Usage | None = None
        self.alarms = Alarms(self.devices, lambda: self.usage)
        self.site = Site(self.devices, self.alarms)
        timed = (self.overrides, self.site, self.alarms)
        self.clockwork = Clockwork(
            self.devices, [self.gate], self.journal, clock, (), self.loaded.highest_wall, timed
        )

    async def settle(self) -> None:
        """Let everything that is ready to run do so."""
        for _ in range(60):
            await asyncio.sleep(0)

    def verdict(
        self, name: str, outcome: Outcome, *, age: int = 0, timeliness: Timeliness = Timeliness.FRESH
    ) -> None:
        now = self.clock.now()
        issued = int(now.wall) - age
        nonce = f"{name}{issued}{outcome}".encode()
        verdict = Verdict(DeviceId(name), SOURCE, outcome, issued, timeliness, nonce, outcome.value, "")
        self.devices.verdict(verdict, now)
        self.devices.commit()

    async def passes(self, name: str) -> None:
        self.verdict(name, Outcome.PASSED)
        await self.settle()

    async def fails(self, name: str) -> None:
        self.verdict(name, Outcome.FAILED)
        await self.settle()

    def standing(self, name: str) -> Standing:
        view = self.devices.view(DeviceId(name))
        assert view is not None
        return view.decision.standing

    def raising(self) -> bool:
        """Whether a pass would be taken now."""
        return self.devices.may_raise

    def stands(self, address: str) -> Stands:
        return self.backend.stands(Address.parse(address))

    def admitted(self, address: str) -> bool:
        stands = self.stands(address)
        return bool(stands.profile) and not stands.tombstone


@asynccontextmanager
async def running(
    *,
    clock: ManualClock | None = None,
    disk: Disk | None = None,
    backend: FakeBackend | None = None,
    inventory: Sequence[Device] = INVENTORY,
    boot_id: str = "boot",
    book: Book = BOOK,
) -> AsyncIterator[World]:
    """A restored, running world; leaving it is a kill: nothing is closed in order."""
    clock = clock or ManualClock()
    world = World(clock, disk or Disk(), backend or FakeBackend(clock), inventory, boot_id, book)
    world.overrides.remember(world.loaded)
    await restore(world.devices, world.loaded, [world.gate], world.journal, clock, RULES, world.boot_id)
    task = asyncio.create_task(world.gate.run())
    await world.settle()
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.wait([task])
