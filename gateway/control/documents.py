"""The documents of profiles: who moved to which profile, what stands because of it, and whom to tell.

A device that changes its profile is noted and nothing more; what was noted is taken together, rendered beside the
loop, and declared to the advisory layers, seldom enough to leave the machine to the verdicts.
What must not live here: what a document says, sending it, deciding a profile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol

from gateway.control.devices import Devices
from gateway.control.ports import Clock, Notice, Renderer
from gateway.control.slots import Slot
from gateway.core.model import Device, DeviceId
from gateway.core.policy import NORMAL
from gateway.kubearmor.documents import Document
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.render import Rendering

PACE = 1.0
"""Least seconds between two declarations, and between two looks at the site's profile."""

SHARE = 0.1
"""Greatest part of the time spent rendering: with 100,000 addresses in a document that takes seconds."""

SLICE = 1_000
"""Devices taken in one turn of the loop: less than a millisecond."""


def _normal() -> str:
    return NORMAL


Moves = Sequence[tuple[Device, str]]
"""Devices with the profiles that they have now."""


class TakesDocuments(Protocol):
    """The part of an advisory layer that takes documents."""

    @property
    def name(self) -> str:
        """The ``backend`` label of metrics."""
        ...

    def declare_documents(self, documents: Sequence[Document], absent: frozenset[str] = frozenset()) -> None:
        """See ``Advisory``."""
        ...


class Documents:
    """Keeps advisory layers told; ``advisories`` stand under the target that each is at.

    ``renderer`` belongs to this object from here on: it is used in one thread at a time, never on the loop's.
    ``site`` tells the running profile of the site; it is asked once in ``PACE`` seconds and after every ``wake``.
    """

    def __init__(
        self,
        devices: Devices,
        renderer: Renderer,
        advisories: Mapping[str, TakesDocuments],
        clock: Clock,
        site: Callable[[], str] = _normal,
    ) -> None:
        self._devices = devices
        self._advisories = advisories
        self._clock = clock
        self._site = site
        self._moved: dict[DeviceId, None] = {}
        self._everybody = True
        self._wake = asyncio.Event()
        self._declared: tuple[object, str] | None = None  # renderer and site profile
        self._told = ""
        self._renderer = renderer
        self._documented = renderer.documented
        devices.on_moved = self.moved

    def use(self, renderer: Renderer) -> None:
        """Another library from here on (a book was reloaded): every device is looked at anew."""
        self._renderer = renderer
        self._documented = renderer.documented
        self._everybody = True
        self._wake.set()

    def wake(self) -> None:
        """The profile of the site may have changed."""
        self._wake.set()

    def moved(self, slot: Slot, before: str) -> None:
        """A device had another profile until now. Called for every such change, so: a note and no more."""
        if before in self._documented or slot.decision.profile in self._documented:
            self._moved[slot.device.id] = None
            self._wake.set()

    @property
    def pending(self) -> int:
        """Devices that were noted and not looked at yet."""
        return len(self._moved)  # one that moves back meanwhile is in it once

    async def run(self) -> None:
        """Work until cancelled. A document that cannot be made leaves the older ones standing and is told once."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self.turn()
            rest = max(PACE, (loop.time() - began) * (1 / SHARE - 1))
            await asyncio.sleep(rest)
            with suppress(TimeoutError):
                async with asyncio.timeout(PACE):
                    await self._wake.wait()

    async def turn(self) -> None:
        """Take what was noted, render, declare; nothing when nothing changed."""
        self._wake.clear()
        renderer, site = self._renderer, self._site()
        moves = await self._take()
        if not moves and self._declared == (renderer, site):
            return
        self._declared = (renderer, site)
        try:
            made = await asyncio.to_thread(_render, renderer, moves, site)
        except DocumentRefused as error:
            self._refused(str(error))
            return
        self._told = ""
        if renderer is self._renderer:  # otherwise there is another library since
            for target, advisory in self._advisories.items():
                advisory.declare_documents(made.at(target), renderer.networks(target))

    async def _take(self) -> Moves:
        """The devices that were noted with their profiles now, gathered in slices."""
        noted: Iterable[Slot | None]
        if self._everybody:
            noted = list(self._devices.slots()) if self._documented else ()
        else:
            noted = map(self._devices.slot, self._moved)
        self._everybody, self._moved = False, {}
        moves: list[tuple[Device, str]] = []
        slots = iter(noted)
        while part := list(islice(slots, SLICE)):
            moves += [(slot.device, slot.decision.profile) for slot in part if slot is not None]
            await asyncio.sleep(0)
        return moves

    def _refused(self, why: str) -> None:
        if why == self._told:
            return
        self._told = why
        for advisory in self._advisories.values():
            what = f"documents of profiles could not be made, the older ones stand: {why}"
            self._devices.notice(Notice("backend-error", advisory.name, what, self._clock.now().wall))
        self._devices.commit()


def _render(renderer: Renderer, moves: Moves, site: str) -> Rendering:
    for device, profile in moves:
        renderer.move(device, profile)
    return renderer.render(site)
