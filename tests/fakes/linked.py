"""A path gate in memory behind a link that can be lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any

from gateway.control.ports import Clock, Resync
from gateway.core.errors import Unreached
from gateway.core.model import Address, Change, ChangeOutcome, Stands
from tests.fakes.backend import FakeBackend


class LinkedBackend(FakeBackend):
    """Implements ``Backend`` and ``Contact``. ``lose_link`` ends what is under way; ``restore_link`` asks for a
    look at everything."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, name="link")
        self.why = "no agent has attached yet"
        self._there = asyncio.Event()
        self._lost = asyncio.Event()
        self._sentences: asyncio.Queue[str] = asyncio.Queue()
        self.observed: list[Address] = []

    def lose_link(self, why: str = "the link was lost") -> None:
        self.why = why
        self._there.clear()
        self._lost.set()

    def restore_link(self) -> None:
        self.why = ""
        self._lost = asyncio.Event()
        self._there.set()
        self._sentences.put_nowait(Resync("attached"))

    async def reached(self) -> None:
        await self._there.wait()

    async def cut(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        return await self._over(super().cut(changes))

    async def apply(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        return await self._over(super().apply(changes))

    async def observe(self, addresses: Sequence[Address]) -> Mapping[Address, Stands]:
        self._check_link()
        self.observed += addresses
        return await super().observe(addresses)

    async def damages(self) -> AsyncIterator[str]:
        while True:
            yield await self._sentences.get()

    def damage(self, sentence: str) -> None:
        super().damage(sentence)
        self._sentences.put_nowait(sentence)

    def _check_link(self) -> None:
        if self.why:
            raise Unreached(self.name, self.why)

    async def _over(self, work: Coroutine[Any, Any, Sequence[ChangeOutcome]]) -> Sequence[ChangeOutcome]:
        """The work goes on when the link is lost; its answer does not arrive."""
        if self.why:
            work.close()
            self._check_link()
        task = asyncio.ensure_future(work)
        lost = asyncio.ensure_future(self._lost.wait())
        await asyncio.wait((task, lost), return_when=asyncio.FIRST_COMPLETED)
        lost.cancel()
        if task.done() and not self.why:
            return task.result()
        raise Unreached(self.name, self.why or "the link was lost")
