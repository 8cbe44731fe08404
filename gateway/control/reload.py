"""The change of the running book: from one to the other with nothing open in between that either refuses.

Order: the path gates' static part goes to the zone that both books allow; from then on the new book decides; each
device is decided anew, and what tightens is wished at once; when that stands, what loosens; when that stands too,
the static part goes to the new book's zone. What must not live here: reading or judging a book, how a gate lays its
static part.

A device is decided under exactly one book at any moment: ``Slot.under`` says which. A verdict that arrives
meanwhile is decided under the new one, whether the device's turn has come or not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from gateway.control.devices import Devices
from gateway.control.ports import Clock, Notice
from gateway.control.reconcile import Reconciler
from gateway.control.slots import Slot
from gateway.core.errors import BackendError
from gateway.core.model import DENY, Address, Decision
from gateway.core.policy import Book, Zone, meet

SLICE = 0.0005
"""Seconds of work in one turn of the loop: a verdict meets some five turns on its way, and has 20 ms in all."""

REST = 0.001
"""Seconds in which the loop belongs to everybody else between two slices."""

STEP = 8
"""Devices between two looks at the clock: some 100 us."""

POLL = 0.01
"""Seconds between two looks at what the gates have still to do."""

FIRST_RETRY, LONGEST_RETRY = 0.1, 5.0
"""Seconds between attempts at the last step: until it succeeds less is open than the new book says."""

PATIENCE = 30.0
"""Seconds after which an operator is told what a change still waits for."""

Lay = Callable[[Zone], Awaitable[None]]
"""Makes a gate's static part this zone's, in one step, and reads it back. Raises ``BackendError``."""


class Swapped(NamedTuple):
    """Devices by what the change did to them: denied, given less (or otherwise as much), given more, nothing.

    ``slice`` is the longest piece of work on the loop in seconds of its own CPU time, ``seconds`` the whole.
    """

    cut: int
    narrowed: int
    opened: int
    same: int
    slice: float
    seconds: float


class Breath:
    """Gives the loop back after each slice of work, and keeps the longest."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._count = 0
        self.longest = 0.0
        self.begin()

    def begin(self) -> None:
        """A slice begins: what was waited for is no work of ours."""
        self._began, self._spent = self._clock.now().boot, time.thread_time()

    async def take(self) -> None:
        """One piece of work is done; others may have to come first."""
        self._count += 1
        if self._count % STEP:
            return
        spent = self._clock.now().boot - self._began
        if spent < SLICE:
            return
        await self.rest(REST)

    async def rest(self, seconds: float) -> None:
        """Let others have the loop for so long."""
        self.longest = max(self.longest, time.thread_time() - self._spent)
        await asyncio.sleep(seconds)
        self.begin()


class Swap:
    """One change of books. ``lay`` serves the gates' static part, ``doing`` and ``stuck`` are told what goes on."""

    def __init__(
        self,
        devices: Devices,
        gates: Sequence[Reconciler],
        clock: Clock,
        lay: Lay,
        doing: Callable[[str], None],
        stuck: Callable[[str], None],
    ) -> None:
        self._devices = devices
        self._gates = gates
        self._clock = clock
        self._lay = lay
        self._doing = doing
        self._stuck = stuck
        self._breath = Breath(clock)
        self._tally = {"cut": 0, "narrowed": 0, "opened": 0}
        self._devices_seen = 0
        self._looser: list[Slot] = []
        self._told: list[Address] = []

    async def run(self, book: Book, old: Zone, new: Zone) -> Swapped:
        """Change to a compiled book. Raises ``BackendError`` while nothing has changed; afterwards tries for ever.

        Cancelled in between, it leaves less open than the new book says; a start finds and mends that.
        """
        began = self._clock.now().boot
        self._doing("the static part goes to what both books allow")
        await self._lay(meet(old, new))
        self._breath.begin()
        self._devices.book = book
        self._doing("devices are decided under the new book; what tightens goes first")
        await self._redecide(book)
        await self._settled()
        self._doing("what loosens")
        for slot in self._looser:
            self._wish(slot)
            await self._breath.take()
        await self._settled()
        self._doing("the static part goes to the new book's")
        await self._lay_for_sure(new)
        spent = self._clock.now().boot - began
        same = self._devices_seen - sum(self._tally.values())
        return Swapped(**self._tally, same=same, slice=self._breath.longest, seconds=spent)

    async def _redecide(self, book: Book) -> None:
        waiting: list[Slot] = []
        for slot in self._devices.slots():
            if slot.opening:
                waiting.append(slot)
            elif slot.under is not book:
                self._turn(slot)
            self._devices_seen += 1
            await self._breath.take()
        for slot in waiting:
            while slot.opening:  # a verdict that raises is on its way to the disk: milliseconds
                await self._breath.rest(POLL)
            if slot.under is not book:
                self._turn(slot)
            self._wish(slot)  # whatever was wished meanwhile, in whatever order
            await self._breath.take()

    def _turn(self, slot: Slot) -> None:
        """Decide one device anew, with those whose standing bears on its addresses: they are wished together."""
        now = self._clock.now()
        sharers = self._sharers(slot)
        group = [slot, *(each for each in sharers if each.under is slot.under and not each.opening)]
        olds = [self._devices.redecide(each, now) for each in group]
        kinds = [self._kind(old, each.decision) for old, each in zip(olds, group, strict=True)]
        if set(kinds) == {"same"}:
            return
        for kind in kinds:
            if kind != "same":
                self._tally[kind] += 1
        if sharers:
            # One address has one rule, which may depend on any of them: told twice, in case it loosens.
            for each in (slot, *sharers):
                self._wish(each)
            self._looser += (slot, *sharers)
        elif kinds[0] == "opened":
            self._looser.append(slot)
        else:
            self._wish(slot)

    def _sharers(self, slot: Slot) -> list[Slot]:
        addresses, name = self._devices.addresses, slot.device.id
        names = addresses.sharers(name) | addresses.affected(name)
        return [other for each in names if (other := self._devices.slot(each)) is not None]

    def _kind(self, old: Decision, new: Decision) -> str:
        """What happens to a device. What is not certainly more counts as less: it is wished first."""
        book = self._devices.book
        was = DENY if old.until is None else old.profile
        gets = DENY if new.until is None else new.profile
        if (was, old.until, old.standing) == (gets, new.until, new.standing):
            return "same"
        if gets == DENY:
            return "cut" if was != DENY else "same" if old.standing is new.standing else "narrowed"
        if was == DENY or (was in book.profiles and book.rank(gets) > book.rank(was)):
            return "opened"
        return "narrowed"

    def _wish(self, slot: Slot) -> None:
        self._devices.tell(slot)
        self._told += slot.device.binding.addresses

    async def _settled(self) -> None:
        """Wait until everything told so far has been read back once, whatever was wished of it since."""
        told, self._told = self._told, []
        began = self._clock.now().boot
        for address in told:
            while any(gate.unsettled(address) for gate in self._gates):
                if self._clock.now().boot - began > PATIENCE:
                    self._stuck(f"{address} is not yet as the new book wants it; the gate keeps trying")
                await self._breath.rest(POLL)
            await self._breath.take()
        self._stuck("")

    async def _lay_for_sure(self, zone: Zone) -> None:
        retry = FIRST_RETRY
        while True:
            try:
                await self._lay(zone)
            except BackendError as error:
                what = f"the new book's static part cannot be laid, less is open than it says: {error.what}"
                self._stuck(what)
                if retry == FIRST_RETRY:
                    self._devices.notice(Notice("backend-error", error.backend, what, self._clock.now().wall))
                    self._devices.commit()
                await asyncio.sleep(retry)
                retry = min(retry * 2, LONGEST_RETRY)
            else:
                self._stuck("")
                return
