"""The service with a profiler in every thread: ``python -m tests.bench.profiled serve --config …``.

Charges each function with the CPU time of its own thread (waiting for a lock, a disk or the interpreter costs
nothing). Every call costs about a microsecond more than without: compare shares, and count calls. ``SIGUSR1``
forgets what was charged so far, so that the start can be left out. At the end ``profile-THREAD.pstats`` and one
``profile.txt`` lie beside the configuration.
"""

from __future__ import annotations

import cProfile
import io
import pstats
import signal
import sys
import threading
import time
from pathlib import Path

from gateway.__main__ import main

LINES = 70
"""Functions told of each thread."""


class Profilers:
    """One profiler for each thread, started with it."""

    def __init__(self) -> None:
        self.by_thread: dict[str, cProfile.Profile] = {}

    def begin(self, name: str) -> cProfile.Profile:
        """Profile the calling thread from here on."""
        made = self.by_thread[name] = cProfile.Profile(time.thread_time)
        made.enable()
        return made

    def install(self) -> None:
        """Profile every thread that is started from now on."""
        run = threading.Thread.run
        profilers = self

        def profiled(thread: threading.Thread) -> None:
            made = profilers.begin(thread.name)
            try:
                run(thread)
            finally:
                made.disable()

        threading.Thread.run = profiled  # type: ignore[assignment,method-assign]

    def clear(self, *_: object) -> None:
        """Forget what was charged so far."""
        for made in self.by_thread.values():
            made.clear()

    def write(self, folder: Path) -> None:
        """Write what was charged."""
        text = io.StringIO()
        for name, made in self.by_thread.items():
            made.create_stats()
            if made.getstats():
                made.dump_stats(folder / f"profile-{name.split()[0]}.pstats")
                text.write(f"== {name}\n")
                stats = pstats.Stats(made, stream=text).sort_stats("tottime")
                stats.print_stats(LINES)
        (folder / "profile.txt").write_text(text.getvalue())


if __name__ == "__main__":
    profilers = Profilers()
    profilers.install()
    signal.signal(signal.SIGUSR1, profilers.clear)
    config = Path(sys.argv[sys.argv.index("--config") + 1])
    mine = profilers.begin("loop")
    try:
        main()
    finally:
        mine.disable()
        profilers.write(config.parent)
