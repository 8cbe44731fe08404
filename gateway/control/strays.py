"""Elements that somebody else may have changed: looked at until each has been judged.

What was told of single addresses goes ahead of a survey of all of them, which goes on in slices in between: neither
waits for the other's end. In a survey what may stand open is looked at before what may only be shut. What must not
live here: reading back and repairing, which a gate brings along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol

from gateway.control.ports import Strayed
from gateway.core.errors import BackendError
from gateway.core.model import Address

BATCH = 1_000
"""Addresses at one time, and the most that go ahead of a survey: what is told of more is a survey itself."""
SHUT_SHARE = BATCH // 4
"""Addresses of each slice that may only be shut, while there are any: surveys asked for again and again do not keep
them waiting for ever."""
TRIES = 50
RETRY_SECONDS = 0.1
"""An address that is being changed is judged once its change has come to its end. Five seconds of that: a change
that does not end is repeated until it stands, and repairs the address itself."""
LONGEST_RETRY = 1.0
"""Seconds to the next look at the most while nothing can be read: nothing that was told is forgotten meanwhile."""
ROOM = BATCH
ROOM_SECONDS = 1.0
ROOM_LOOK = 0.005
"""A survey waits while more changes than this have not been made, so that the repair of what was told singly (and
any verdict's cut) never stands behind a whole survey's: a second for each slice at the most, because some may fail
again and again."""


class Gate(Protocol):
    """What a gate does for whoever looks at its elements."""

    @property
    def repairs(self) -> int:
        """How many differences were found ever."""
        ...

    async def look(self, addresses: Sequence[Address]) -> Sequence[Address]:
        """Read addresses back and repair them; returns those that were being changed and could not be judged.

        Raises ``BackendError``: then none was.
        """
        ...

    def surveyed(self) -> Iterable[Address]:
        """Every address for which something is wished."""
        ...

    def opens(self, address: Address) -> bool:
        """Whether whatever may be found there lets more through than is wished."""
        ...

    def waiting(self) -> int:
        """Addresses whose repair, or any other change, has not been made."""
        ...

    def repaired(self, sentence: str) -> float:
        """Something was found and repaired; seconds to leave it at that for, more than 0 in a storm."""
        ...

    def unread(self, error: BackendError) -> None:
        """What ails the backend."""
        ...


class Strays:
    """Looks for one gate. ``take`` what was told; ``run`` until cancelled."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._told: dict[Address, None] = {}
        self._opening: dict[Address, None] = {}
        self._shut: dict[Address, None] = {}
        self._moving: dict[Address, dict[Address, None]] = {}  # and to which of the three it belongs
        self._tries: dict[Address, int] = {}
        self._wake = asyncio.Event()
        self._saying = self._surveying = ""
        self._asked = 0
        self._found = 0  # by the survey that goes on
        self._pause = RETRY_SECONDS
        self._room_until = 0.0
        # Moments of the loop's clock until which what was told, a survey, and what was being changed are let be.
        self._told_at = self._survey_at = self._moving_at = 0.0

    def take(self, stray: Strayed) -> None:
        """Note what was told. Returns at once."""
        if len(self._told) + len(stray.addresses) <= BATCH:
            self._told |= dict.fromkeys(stray.addresses)
            self._saying = str(stray)
        else:
            self._survey(stray, stray.addresses)
        if stray.everything:
            self._found += 1  # counts for the storm even when nothing is found
            self._survey(stray, self._gate.surveyed())
        self._wake.set()

    def _survey(self, stray: Strayed, addresses: Iterable[Address]) -> None:
        """Look at these besides; what waits already keeps its place."""
        if not self._surveying:
            self._room_until = asyncio.get_running_loop().time() + ROOM_SECONDS
        self._surveying = str(stray)
        opens = self._gate.opens
        for address in addresses:
            (self._opening if opens(address) else self._shut)[address] = None

    @property
    def depth(self) -> int:
        """Addresses that have not been judged."""
        return self._asked + len(self._told) + len(self._opening) + len(self._shut) + len(self._moving)

    async def run(self) -> None:
        """Look at what was told, and in between at the next slice of a survey, until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            self._wake.clear()
            self._return(clock())
            told = bool(self._told) and clock() >= self._told_at
            if told:
                await self._look_at_told(clock)
            survey = bool(self._surveying) and clock() >= self._survey_at
            if survey:
                await self._look_at_slice(clock)
            if told or survey:
                await asyncio.sleep(0)  # others get their turn, whatever the gate does
            else:
                await self._rest()

    async def _rest(self) -> None:
        """Wait until something is told, or until something that waits is due."""
        due = [at for at, waits in self._waits() if waits]
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(due) if due else None):
                await self._wake.wait()

    def _waits(self) -> tuple[tuple[float, bool], ...]:
        return (
            (self._told_at, bool(self._told)),
            (self._survey_at, bool(self._surveying)),
            (self._moving_at, bool(self._moving)),
        )

    async def _look_at_told(self, clock: Callable[[], float]) -> None:
        batch = _taken(self._told, BATCH)
        found = await self._look(batch, [self._told] * len(batch), clock)
        if found:
            self._told_at = clock() + self._gate.repaired(self._saying)

    async def _look_at_slice(self, clock: Callable[[], float]) -> None:
        if self._gate.waiting() > ROOM and clock() < self._room_until:
            self._survey_at = clock() + ROOM_LOOK
            return
        shut = min(len(self._shut), max(SHUT_SHARE, BATCH - len(self._opening)))
        opening = _taken(self._opening, BATCH - shut)
        batch = [*opening, *_taken(self._shut, shut)]
        lanes = [self._opening] * len(opening) + [self._shut] * shut
        self._found += await self._look(batch, lanes, clock)
        self._room_until = clock() + ROOM_SECONDS
        if not (self._opening or self._shut):
            said, self._surveying = self._surveying, ""
            found, self._found = self._found, 0
            if found:
                self._survey_at = clock() + self._gate.repaired(said)

    async def _look(
        self, batch: Sequence[Address], lanes: Sequence[dict[Address, None]], clock: Callable[[], float]
    ) -> int:
        """Have a batch judged; how many differences were found. What could not be is kept for later."""
        before = self._gate.repairs
        self._asked = len(batch)
        try:
            moving = await self._gate.look(batch)
        except BackendError as error:
            self._gate.unread(error)
            for address, lane in zip(batch, lanes, strict=True):
                lane[address] = None
            self._told_at = self._survey_at = clock() + self._pause
            self._pause = min(self._pause * 2, LONGEST_RETRY)
            return 0
        finally:
            self._asked = 0
        self._pause = RETRY_SECONDS
        self._judged(dict(zip(batch, lanes, strict=True)), moving, clock())
        return self._gate.repairs - before

    def _judged(self, batch: Mapping[Address, dict[Address, None]], moving: Sequence[Address], now: float) -> None:
        tries = {address: self._tries.pop(address) + 1 for address in batch if address in self._tries}
        if moving and not self._moving:
            self._moving_at = now + RETRY_SECONDS
        for address in moving:
            if (tried := tries.get(address, 1)) < TRIES:
                self._tries[address] = tried
                self._moving[address] = batch[address]

    def _return(self, now: float) -> None:
        """What was being changed is to be looked at again."""
        if not self._moving or now < self._moving_at:
            return
        for address, lane in self._moving.items():
            lane[address] = None
        self._moving.clear()
        if (self._opening or self._shut) and not self._surveying:
            self._surveying = "what was being changed meanwhile"


def _taken(lane: dict[Address, None], most: int) -> list[Address]:
    taken = list(islice(lane, most))
    for address in taken:
        del lane[address]
    return taken
