"""Walking through the inventory for a list of devices, without ever holding the loop for long.

What lives here: what part of the list is asked for, and the walk. What must not: JSON or HTML.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple

from aiohttp import web

from gateway.console.problems import EXCERPT, Problem
from gateway.control.ports import DeviceView, Directory
from gateway.core.model import DeviceId, Standing

#: Devices that an answer lists at most.
MOST = 5_000

#: Devices made ready in one turn of the loop: 32 x 30 us is about a millisecond.
SLICE = 32

#: Devices passed over in one turn because they have another standing, or ids compared when looking for ``after``:
#: half a millisecond; a table of places would cost memory instead.
LOOKS = 2_000

_STANDINGS = {each.label: each for each in Standing}


class PageQuery(NamedTuple):
    """What part of the list is asked for."""

    limit: int
    after: str | None
    standing: Standing | None

    @classmethod
    def of(cls, request: web.Request, default: int) -> PageQuery:
        """Read the query; ``default`` devices when it does not say. Raises ``Problem`` (400) for unknown, repeated
        or impossible values."""
        query = request.query
        for name in query:
            if name not in cls._fields:
                raise _bad(f"unknown query parameter {name[:EXCERPT]!r}; known: limit, after, standing")
            if len(query.getall(name)) > 1:
                raise _bad(f"{name} is given more than once")
        limit = query.get("limit", str(default))
        if not (limit.isascii() and limit.isdigit() and len(limit) <= 5 and 1 <= int(limit) <= MOST):
            raise _bad(f"limit must be a whole number from 1 to {MOST}")
        standing = query.get("standing")
        if standing is not None and standing not in _STANDINGS:
            raise _bad(f"standing must be one of {', '.join(_STANDINGS)}")
        return cls(int(limit), query.get("after"), None if standing is None else _STANDINGS[standing])


class Slice(NamedTuple):
    """Some devices of a walk. ``last``: the device after which another walk goes on; None: there is none left."""

    views: Sequence[DeviceView]
    last: DeviceId | None


class Listing:
    """Walks through the inventory, in its order."""

    def __init__(self, directory: Directory, inventory: Callable[[], Sequence[DeviceId]]) -> None:
        self._directory = directory
        self._inventory = inventory

    async def walk(self, query: PageQuery) -> AsyncIterator[Slice]:
        """Yield what is asked for in slices. Raises ``Problem`` (400), before the first of them, when ``after`` is
        no device."""
        order = self._inventory()
        at = 0 if query.after is None else await self._behind(order, query.after)
        found = 0
        yield Slice((), None)
        while at < len(order) and found < query.limit:
            views, at = self._slice(order, at, min(SLICE, query.limit - found), query.standing)
            found += len(views)
            yield Slice(views, order[at - 1] if at < len(order) else None)
            # Writing into an empty buffer does not wait: let others have the loop.
            await asyncio.sleep(0)

    def _slice(
        self, order: Sequence[DeviceId], at: int, most: int, standing: Standing | None
    ) -> tuple[Sequence[DeviceView], int]:
        views: list[DeviceView] = []
        end = min(len(order), at + LOOKS)
        while at < end and len(views) < most:
            device = order[at]
            at += 1
            if standing is not None and self._directory.standing(device) is not standing:
                continue
            view = self._directory.view(device)
            if view is not None:
                views.append(view)
        return views, at

    @staticmethod
    async def _behind(order: Sequence[DeviceId], after: str) -> int:
        device = DeviceId(after)
        for start in range(0, len(order), LOOKS):
            with suppress(ValueError):
                return order.index(device, start, start + LOOKS) + 1
            await asyncio.sleep(0)
        raise _bad(f"after: {after[:EXCERPT]!r} is not in the inventory; begin again without it")


def _bad(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, detail)
