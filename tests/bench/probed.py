"""The service with a probe on its loop: ``python -m tests.bench.probed serve --config …``.

Every millisecond the probe asks to be woken. How late it comes is what any other piece of work on the loop waits;
how much CPU time the loop's thread spent meanwhile is the part of it that is the service's own work: a machine that
others use makes everything late. ``SIGUSR1`` forgets what was seen; ``SIGUSR2`` writes ``lag.json`` beside the
configuration.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

from gateway.__main__ import main
from gateway.watch.resources import ResourceWatch

TICK = 0.001
"""Seconds that the probe sleeps."""


class Probe:
    """What was seen: lateness and own work of each wake-up, in milliseconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._late: list[float] = []
        self._own: list[float] = []

    async def run(self) -> None:
        """Look for ever."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self.forget)
        loop.add_signal_handler(signal.SIGUSR2, self.write)
        while True:
            began, spent = time.monotonic(), time.thread_time()
            await asyncio.sleep(TICK)
            late = max(0.0, time.monotonic() - began - TICK)
            self._late.append(late * 1_000)
            self._own.append(min(late, time.thread_time() - spent) * 1_000)

    def forget(self) -> None:
        """Begin anew."""
        self._late, self._own = [], []

    def write(self) -> None:
        """Write every value, ascending; beginning anew."""
        late, own = sorted(self._late), sorted(self._own)
        self.forget()
        path = self._folder / "lag.json"
        part = path.with_suffix(".new")
        part.write_text(json.dumps({"late": late, "own": own}))
        part.rename(path)


def install(folder: Path) -> None:
    """Let the probe run beside the watch of resources, on the same loop."""
    original = ResourceWatch.run

    async def run(watch: ResourceWatch) -> None:
        probe = asyncio.create_task(Probe(folder).run())
        try:
            await original(watch)
        finally:
            probe.cancel()

    ResourceWatch.run = run  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    install(Path(sys.argv[sys.argv.index("--config") + 1]).parent)
    main()
