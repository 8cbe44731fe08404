"""The service with a sampler inside: ``python -m tests.bench.profiled serve --config …``, not ``-m gateway serve``.

At each tick of the process's CPU clock every thread's stack is charged with the CPU time that this thread has used
since the tick before. Python 3.11 has no names for ``perf`` to show, so this tells lines and ``perf`` the kernel.
At the end, ``profile.json`` beside the configuration holds microseconds by thread and by line, alone and with what
the line called.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from gateway.__main__ import main

PERIOD = 0.002
_ROOT = str(Path(__file__).resolve().parents[2]) + "/"


class Sampler:
    """Charges CPU time to lines."""

    def __init__(self) -> None:
        self.alone: dict[str, Counter[str]] = {}
        self.within: dict[str, Counter[str]] = {}
        self.functions: dict[str, Counter[str]] = {}
        self._clocks: dict[int, int] = {}

    def tick(self, _number: int, frame: FrameType | None) -> None:
        """One tick; ``frame`` is the main thread's."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, top in sys._current_frames().items():
            name = names.get(ident)
            if name is None:
                continue
            clock = time.clock_gettime_ns(time.pthread_getcpuclockid(ident))
            used = (clock - self._clocks.get(ident, clock)) // 1_000
            self._clocks[ident] = clock
            if used:
                self._charge(name, frame if ident == threading.get_ident() else top, used)

    def _charge(self, thread: str, frame: FrameType | None, used: int) -> None:
        if frame is None:
            return
        alone = self.alone.setdefault(thread, Counter())
        within = self.within.setdefault(thread, Counter())
        functions = self.functions.setdefault(thread, Counter())
        alone[_line(frame)] += used
        seen: set[str] = set()
        while frame is not None:
            for place, counter in ((_line(frame), within), (_function(frame), functions)):
                if place not in seen:
                    seen.add(place)
                    counter[place] += used
            frame = frame.f_back

    def write(self, path: Path) -> None:
        """Write what was charged."""
        parts = {"alone": self.alone, "within": self.within, "functions": self.functions}
        path.write_text(
            json.dumps(
                {part: {thread: dict(c.most_common(80)) for thread, c in by.items()} for part, by in parts.items()}
            )
        )


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename.removeprefix(_ROOT)}:{frame.f_lineno}"


def _function(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename.removeprefix(_ROOT)}:{frame.f_code.co_qualname}"


if __name__ == "__main__":
    sampler = Sampler()
    signal.signal(signal.SIGPROF, sampler.tick)
    signal.setitimer(signal.ITIMER_PROF, PERIOD, PERIOD)
    config = Path(sys.argv[sys.argv.index("--config") + 1])
    try:
        main()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        sampler.write(config.parent / "profile.json")
