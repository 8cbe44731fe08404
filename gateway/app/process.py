"""How the service's processes run."""

from __future__ import annotations

import gc

SWITCH_SECONDS = 0.0005
"""How long a busy thread may keep the interpreter from another that has work: a verdict changes threads four times
(journal and lane, there and back), and Python's 5 ms each time would be the whole latency under load."""

YOUNG_OBJECTS = 50_000
"""Allocations between collections of the youngest generation: at 10,000 alerts a second the default of 700 would
collect every millisecond and, now and then, walk every device."""


def settle_garbage() -> None:
    """What was loaded stays for good: never walk it again looking for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 100)
    gc.enable()
