"""What stands against what is wished, at one gate: looked for all the time, counted, told, and paced in a storm.

What must not live here: reading back and repairing (the gate does both), wishes, and in which order many are looked
at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gateway.control.ports import Clock, Notice, Strayed
from gateway.control.storms import LONGEST_WAIT, Storm
from gateway.control.strays import Strays
from gateway.core.errors import BackendError, Unreached
from gateway.core.model import DENY, Address, Rule

SWEEP_SECONDS = 60.0
"""A full read-back of every address takes this long on a small site."""

SWEEP_RATE = 200
"""Addresses read back in a second at the most: 25 us each, half a percent of a core, however large the site (a full
read-back of 100,000 addresses then takes eight minutes; a damaged ruleset is noticed at once by other means)."""

SWEEP_STEP = 0.25

DRIFT_NAMED = 5
"""Addresses of one look that are told of one by one; the rest are counted."""


class Gate(Protocol):
    """What a gate does for whoever looks for differences."""

    async def look(self, addresses: Sequence[Address]) -> Sequence[Address]:
        """Read addresses back, repair and tell; returns those that are being changed and cannot be judged now.

        Raises ``BackendError``: then none was.
        """
        ...

    def waiting(self) -> int:
        """Addresses whose change has not been begun."""
        ...


class Drifts:
    """Looks after one gate; ``want`` is what is wished there. All methods run on the loop's thread."""

    def __init__(
        self,
        gate: Gate,
        name: str,
        want: Mapping[Address, Rule | None],
        clock: Clock,
        notice: Callable[[Notice], None],
    ) -> None:
        """``name``: the backend's, for notices."""
        self._gate = gate
        self._name = name
        self._want = want
        self._clock = clock
        self._notice = notice
        self._storm = Storm()
        self._strays = Strays(self)
        self.repairs = 0

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep(), name=f"{self._name}-sweep")
            tasks.create_task(self._strays.run(), name=f"{self._name}-strays")

    async def _sweep(self) -> None:
        """Read everything back, slowly and for ever; what is not as it should be is repaired and counted."""
        while True:
            addresses = list(self._want)
            step = max(1, int(min(len(addresses) / SWEEP_SECONDS, SWEEP_RATE) * SWEEP_STEP))
            for start in range(0, len(addresses), step):
                await asyncio.sleep(SWEEP_STEP)
                try:
                    await self._gate.look(addresses[start : start + step])
                except BackendError as error:
                    self.unread(error)
            if not addresses:
                await asyncio.sleep(SWEEP_STEP)

    # --- telling ----------------------------------------------------------------------------------------

    def tell(self, wrongs: Sequence[str]) -> None:
        """Count what was wrong and is being repaired, and tell of it: of a flood as a whole."""
        self.repairs += len(wrongs)
        wall = self._clock.now().wall
        for wrong in wrongs[:DRIFT_NAMED]:
            self._notice(Notice("drift", self._name, wrong, wall))
        if (more := len(wrongs) - DRIFT_NAMED) > 0:
            self._notice(Notice("drift", self._name, f"and {more:,} addresses more", wall, more))

    def unread(self, error: BackendError) -> None:
        """Tell that nothing could be read back; a link that is down is told elsewhere."""
        if not isinstance(error, Unreached):
            self._notice(Notice("backend-error", self._name, error.what, self._clock.now().wall))

    @property
    def storming(self) -> bool:
        """Whether somebody keeps changing what is repaired."""
        return self._storm.raging(self._clock.now().boot)

    def repaired(self, sentence: str) -> float:
        """Something was found and repaired; seconds to leave it at that for, more than 0 in a storm."""
        raging, wait = self.storming, self._storm.repaired(self._clock.now().boot)
        if wait and not raging:
            what = (
                f"a storm: {sentence}, again and again; repaired every {LONGEST_WAIT:g} s at the most from here on"
            )
            self._notice(Notice("drift", self._name, what, self._clock.now().wall))
        return wait

    @property
    def depth(self) -> int:
        """Addresses that others may have changed and that have not been judged."""
        return self._strays.depth

    # --- what was told ----------------------------------------------------------------------------------

    def strayed(self, stray: Strayed) -> None:
        """Somebody else changed elements: they are looked at now, and in a storm every few seconds."""
        if stray.everything or not stray.addresses:
            self.tell([stray])
        if not stray.everything and not stray.addresses:  # put right already, by whoever told
            self.repaired(stray)
        self._strays.take(stray)

    async def look(self, addresses: Sequence[Address]) -> Sequence[Address]:
        """As the gate's."""
        return await self._gate.look(addresses)

    def waiting(self) -> int:
        """As the gate's."""
        return self._gate.waiting()

    def surveyed(self) -> Sequence[Address]:
        """Every address for which something is wished."""
        return list(self._want)

    def opens(self, address: Address) -> bool:
        """Whether whatever may be found there lets more through than is wished: nothing admits it."""
        rule = self._want.get(address)
        return rule is None or rule.profile == DENY
