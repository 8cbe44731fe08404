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
"""More allocations than deallocations after which the interpreter looks for garbage by itself: when a great deal is
new at once, such as the first verdicts of many devices."""

NEVER = (1 << 31) - 1
"""Looking at older generations takes the longer the more devices there are; the interpreter never does it by
itself."""

LOOK_SECONDS = 0.02
"""Seconds between two looks: a quarter of a millisecond each at 4,000 verdicts a second (docs/adr/0025)."""

LOOKS_LEFT_OUT = 5
"""After so many moments at which something was under way, one look does not wait for rest."""


def settle_garbage() -> None:
    """What was loaded stays for good: never walk it again looking for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, NEVER, NEVER)
    gc.enable()


async def collect_at_rest(at_rest: Callable[[], bool]) -> None:
    """Look for garbage often, among what is new, and if possible while nothing waits; until cancelled.

    The interpreter counts by how many there are more objects than before, and a verdict takes as many values away
    as it brings: what is young grows unseen, and walking it then stops everything for a long time. What is new is
    therefore walked at once, whatever that count, and what a look leaves counts as what stays: our values refer to
    no one in circles, and those of libraries that do are garbage as soon as a call has been taken (docs/adr/0025).
    """
    left_out = 0
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if at_rest() or left_out == LOOKS_LEFT_OUT:
            gc.collect(0)
            gc.freeze()
            left_out = 0
        else:
            left_out += 1
