"""The garbage collector, put aside while a great many values are made.

What must not live here: collecting on purpose, or thresholds of the service.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the collector from going through a million young values again and again: none is garbage before the end,
    and looking for it takes a third of the time. Leaves it as it was."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
