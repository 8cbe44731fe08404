"""Elements that somebody else changed: looked at until each has been judged. No backend, no standings.

What must not live here: reading back and repairing, which whoever calls brings along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from gateway.core.model import Address

Check = Callable[[Sequence[Address]], Awaitable[Sequence[Address]]]
"""Reads addresses back and repairs them; returns those that could not be judged now."""

BATCH = 1_000
"""Addresses at one time: others get their turn in between."""
TRIES = 50
RETRY_SECONDS = 0.1
"""An address that is being changed is judged once its change has come to its end. Five seconds of that: a change
that does not end is repeated until it stands, and repairs the address itself."""


async def look_at(addresses: Iterable[Address], check: Check) -> None:
    """Have every address judged once."""
    pending = list(dict.fromkeys(addresses))
    for _ in range(TRIES):
        moving: list[Address] = []
        for start in range(0, len(pending), BATCH):
            moving += await check(pending[start : start + BATCH])
            await asyncio.sleep(0)
        if not moving:
            return
        pending = moving
        await asyncio.sleep(RETRY_SECONDS)
