"""What happens because time passes: deadlines, clock jumps, the advisory layers' turn.

What must not live here: deciding what a deadline means (the lifecycle does) or reading a real clock (it is handed
in).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.control.devices import Devices
from gateway.control.ports import Advisory, Clock, Journal, Notice, Timed
from gateway.control.reconcile import Reconciler

TICK = 0.25
"""Seconds between looks at the clocks when no deadline is nearer: bounds how late a clock jump is noticed."""

SLICE = 256
"""Deadlines stepped in one turn of the loop: about 10 ms of work."""

JUMP = 1.0
"""Seconds by which wall and boot time may drift apart between two looks before it counts as a jump."""

ADVISE = 1.0
"""Seconds between two declarations to an advisory layer (design: paced, after the cuts are in)."""

BEHIND = 120.0
"""Seconds by which the wall clock may be behind the journal's highest before nobody is admitted."""


class Clockwork:
    """Drives deadlines on the boot-time clock and watches the wall clock."""

    def __init__(
        self,
        devices: Devices,
        gates: Sequence[Reconciler],
        journal: Journal,
        clock: Clock,
        advisories: Sequence[Advisory] = (),
        highest_wall: float = 0.0,
        timed: Sequence[Timed] = (),
    ) -> None:
        self._devices = devices
        self._gates = gates
        self._journal = journal
        self._clock = clock
        self._advisories = advisories
        self._highest_wall = highest_wall
        self._timed = timed
        self._wake = asyncio.Event()
        self._nearest: float | None = None
        self._offset = 0.0
        self._advised = -1
        self._advise_at = 0.0
        self._writable = True

    async def run(self) -> None:
        """Work until cancelled."""
        self._devices.on_armed = self._armed
        now = self._clock.now()
        self._offset = now.wall - now.boot
        while True:
            self.turn()
            nearest = (self._devices.deadlines.next(), *(each.next() for each in self._timed))
            self._nearest = min((at for at in nearest if at is not None), default=None)
            wait = TICK
            if self._nearest is not None:
                wait = min(TICK, max(0.0, self._nearest - self._clock.now().boot))
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    def _armed(self) -> None:
        nearest = self._devices.deadlines.next()
        if nearest is not None and (self._nearest is None or nearest < self._nearest):
            self._nearest = nearest
            self._wake.set()

    def turn(self) -> None:
        """One look at the clocks: step what is due, notice jumps, tell the advisory layers."""
        now = self._clock.now()
        devices = self._devices
        if abs(now.wall - now.boot - self._offset) > JUMP:
            self._jumped(now.wall - now.boot - self._offset)
        due = devices.deadlines.pop(now.boot, SLICE)
        for device in due:
            devices.lapse(device, now)
        for each in self._timed:
            each.turn(now)
        if devices.barrier and devices.barrier.startswith("the clock"):
            self._clock_again(now.wall)
        if self._journal.writable is not self._writable:
            self._writable = self._journal.writable
            detail = "written again" if self._writable else "cannot be written: cuts go on, admissions are refused"
            devices.notice(Notice("journal", "journal", f"the journal {detail}", now.wall))
        devices.commit()
        if len(due) == SLICE:
            self._wake.set()
        self._advise(now.boot)

    def _jumped(self, by: float) -> None:
        now = self._clock.now()
        self._offset = now.wall - now.boot
        detail = f"the wall clock jumped by {by:+.1f} s against the boot-time clock; deadlines are armed anew"
        self._devices.notice(Notice("clock", "clock", detail, now.wall))
        for slot in self._devices.slots():
            if slot.ends:
                self._devices.rearm(slot, now)
        for each in self._timed:
            each.jumped(now)

    def _clock_again(self, wall: float) -> None:
        if wall >= self._highest_wall - BEHIND:
            self._devices.barrier = ""
            self._devices.notice(Notice("clock", "clock", "the clock has caught up: passes are taken again", wall))

    def _advise(self, boot: float) -> None:
        if not self._advisories or boot < self._advise_at:
            return
        version = sum(gate.admitted_version for gate in self._gates)
        if version == self._advised or any(gate.cut_depth for gate in self._gates):
            return
        self._advised = version
        self._advise_at = boot + ADVISE
        admitted = frozenset().union(*(gate.admitted for gate in self._gates))
        for advisory in self._advisories:
            advisory.declare(admitted)
