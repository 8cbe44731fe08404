"""How the service's processes run.

What lives here: how threads take turns, and when garbage is looked for. What must not: any part of the service.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

SWITCH_SECONDS = 0.0005
"""How long a busy thread may keep the interpreter from another that has work: a verdict changes threads four times
(journal and lane, there and back), and Python's 5 ms each time would be the whole latency under load."""

YOUNG_OBJECTS = 5_000
"""Allocations after which garbage is looked for among young objects whatever goes on: 1 to 5 ms, in which nothing
is cut or opened (of 50,000 it was 10 to 70). A posted verdict leaves three such objects, so that this is seldom."""

NEVER = (1 << 31) - 1
"""Looking at older generations takes the longer the more devices there are; the interpreter never does it by
itself."""

LOOK_SECONDS = 0.02
"""Seconds between two looks for a moment in which nothing is under way."""

YOUNG_AT_REST = 2_000
"""Allocations that make it worth while then."""

GROWN_AT_REST = 100_000
"""Allocations after which all that has come since is looked through at such a moment, and then taken for what
stays: some 30 ms, once for about ten thousand devices that attest for the first time."""


def settle_garbage() -> None:
    """What was loaded stays for good: never walk it again looking for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, NEVER, NEVER)
    gc.enable()


async def collect_at_rest(at_rest: Callable[[], bool]) -> None:
    """Look for garbage at moments in which nothing waits, so that no verdict does; until cancelled.

    Ordinary work leaves none (values refer to no one in circles), so that what is young then is mostly new state,
    and looking at it often costs no more than looking seldom, but never long.
    """
    looked = seen = 0  # objects that were young in looks of ours; all looks, as of ours
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        young, looks, _ = gc.get_count()
        grown = looked + young + YOUNG_OBJECTS * max(0, looks - seen)  # the interpreter has looked by itself, too
        if (young < YOUNG_AT_REST and grown < GROWN_AT_REST) or not at_rest():
            continue
        if grown < GROWN_AT_REST:
            gc.collect(0)
            looked = grown
        else:
            settle_garbage()
            looked = 0
        seen = gc.get_count()[1]
