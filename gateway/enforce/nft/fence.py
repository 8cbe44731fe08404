"""The order between the two lanes: a cut never waits behind the ordinary lane and is never undone by it.

Each lowering on the cut lane gets a serial number when it is asked for. The ordinary lane may not carry out, for
the same address, what was asked for before a later lowering; while one of its transactions is on its way, a
lowering of just those addresses waits for it to land, so that the lowering comes last. Thread-safe; no kernel,
no loop.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import NamedTuple

from gateway.core.model import Address, Change, ChangeKind

#: Seconds that one lane waits for the other's transaction on the same address. A foreign holder of the kernel's
#: lock was seen to keep it 0.16 s; beyond this the lowering goes first and the ordinary lane repeats it behind.
FLIGHT_SECONDS = 1.0

SUPERSEDED = "superseded by a later cut"
UNDER_WAY = "an earlier cut of this address is still under way"


class Dated(NamedTuple):
    """A change of the ordinary lane and the newest lowering's serial when it was asked for."""

    change: Change
    serial: int


class _Lowering(NamedTuple):
    serial: int
    change: Change
    pending: int  # lowerings of this address that have not landed


class Fence:
    """Shared by the caller's thread and both lanes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._serial = 0
        self._lowered: dict[Address, _Lowering] = {}
        self._flying: set[Address] = set()
        self._jobs = 0

    def lower(self, changes: Sequence[Change]) -> None:
        """Note lowerings at the moment they are asked for."""
        with self._changed:
            self._serial += 1
            for change in changes:
                before = self._lowered.get(change.address)
                pending = 1 if before is None else before.pending + 1
                self._lowered[change.address] = _Lowering(self._serial, change, pending)

    def landed(self, changes: Sequence[Change]) -> None:
        """Note that these lowerings are done with, whatever came of them."""
        with self._changed:
            for change in changes:
                lowering = self._lowered[change.address]
                if lowering.pending == 1 and not self._jobs:
                    del self._lowered[change.address]
                else:
                    self._lowered[change.address] = lowering._replace(pending=lowering.pending - 1)
            self._changed.notify_all()

    def open_job(self) -> int:
        """Note a job of the ordinary lane when it is asked for; returns the newest lowering's serial."""
        with self._changed:
            self._jobs += 1
            return self._serial

    def close_jobs(self, count: int) -> None:
        """Note that jobs of the ordinary lane are done with."""
        with self._changed:
            self._jobs -= count
            if not self._jobs:  # nobody is left whom a landed lowering could supersede
                self._lowered = {address: one for address, one in self._lowered.items() if one.pending}

    def flying(self, changes: Sequence[Change]) -> Collection[Address]:
        """Which of these addresses the ordinary lane has on their way."""
        with self._changed:
            if not self._flying:
                return ()
            return {change.address for change in changes if change.address in self._flying}

    def wait_landed(self, addresses: Collection[Address]) -> None:
        """Wait, at most ``FLIGHT_SECONDS``, until the ordinary lane has none of these on their way."""
        with self._changed:
            self._changed.wait_for(lambda: self._flying.isdisjoint(addresses), FLIGHT_SECONDS)

    def enter(self, dated: Sequence[Dated]) -> list[str]:
        """Ask to carry out changes of distinct addresses: "" for those that may, else why not.

        Those that may are on their way until ``leave``. Waits, at most ``FLIGHT_SECONDS``, for earlier lowerings
        of the same addresses to land.
        """
        with self._changed:
            if not self._lowered:  # nothing to wait for, and nothing to object
                self._flying.update([one.change.address for one in dated])
                return [""] * len(dated)
            self._changed.wait_for(lambda: not any(self._waits(one) for one in dated), FLIGHT_SECONDS)
            reasons = [self._objection(one) for one in dated]
            self._flying.update(
                one.change.address for one, reason in zip(dated, reasons, strict=True) if not reason
            )
            return reasons

    def leave(self, dated: Sequence[Dated]) -> list[Change]:
        """Note that changes let through have landed; returns later lowerings of the same addresses.

        Whoever gets them back repeats them at once: they may have landed too early to win.
        """
        with self._changed:
            self._flying.difference_update(one.change.address for one in dated)
            self._changed.notify_all()
            return [self._lowered[one.change.address].change for one in dated if self._superseded(one)]

    def _superseded(self, one: Dated) -> bool:
        lowering = self._lowered.get(one.change.address)
        if lowering is None or lowering.serial <= one.serial:
            return False
        if one.change.kind is ChangeKind.CUT:  # only forgetting undoes a tombstone
            return lowering.change.kind is ChangeKind.FORGET
        return one.change.kind is not ChangeKind.WITHDRAW

    def _waits(self, one: Dated) -> bool:
        lowering = self._lowered.get(one.change.address)
        return lowering is not None and lowering.pending > 0 and not self._superseded(one)

    def _objection(self, one: Dated) -> str:
        if self._superseded(one):
            return SUPERSEDED
        return UNDER_WAY if self._waits(one) else ""
