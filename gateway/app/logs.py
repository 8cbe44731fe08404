"""How the service's processes log: JSON lines on standard error, written by a thread of their own.

A line takes a quarter of a millisecond when nothing is in the processor's caches, and for ever when whoever reads
standard error has stopped reading; neither may delay a cut. So the loop only hands its lines over, and wakes
nobody: a thread that wakes asks for the interpreter just when the journal's needs it. What must not live here: what
is worth a line.
"""

from __future__ import annotations

import atexit
import datetime as dt
import sys
import threading
import time
from collections import deque
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import structlog

from gateway.console.log import PatientFile

#: Lines that wait for a file that does not take them; later ones are counted and left out.
MOST_WAITING = 1_000
#: Seconds after which the thread looks for lines.
LOOK_SECONDS = 0.05
#: Seconds that the end of the process waits for its last lines.
LAST_SECONDS = 2.0

_RENDER = structlog.processors.JSONRenderer()

_Line = tuple[str, float, MutableMapping[str, Any]]


class LogThread:
    """Writes lines in the order in which they were handed over. ``lost`` counts those left out."""

    def __init__(self, file: TextIO) -> None:
        self._file = PatientFile(file)
        self._waiting: deque[_Line | threading.Event] = deque()
        self._hurry = threading.Event()
        self._untold = 0
        self.lost = 0
        threading.Thread(target=self._run, name="ragate-log", daemon=True).start()

    def hand_over(self, level: str, line: MutableMapping[str, Any]) -> None:
        """Take one line; returns at once, whatever becomes of it."""
        waiting = len(self._waiting)
        if waiting >= MOST_WAITING:
            self.lost += 1
            self._untold += 1
            return
        if self._untold:
            untold, self._untold = self._untold, 0
            self._waiting.append(("warning", time.time(), {"event": "lines left out", "count": untold}))
        self._waiting.append((level, time.time(), line))
        if waiting >= MOST_WAITING // 2:
            self._hurry.set()

    def flush(self, seconds: float) -> bool:
        """Wait until everything handed over so far is written; False if it was not within ``seconds``."""
        done = threading.Event()
        self._waiting.append(done)
        self._hurry.set()
        return done.wait(seconds)

    def _run(self) -> None:
        while True:
            self._hurry.wait(LOOK_SECONDS)
            self._hurry.clear()
            while self._waiting:
                taken = self._waiting.popleft()
                if isinstance(taken, threading.Event):
                    self._file.flush()
                    taken.set()
                    continue
                self._file.write(rendered(*taken) + "\n")
                if not self._waiting:
                    self._file.flush()


def rendered(level: str, at: float, line: MutableMapping[str, Any]) -> str:
    """One line; ``at``: UNIX seconds at which it was handed over."""
    stamp = dt.datetime.fromtimestamp(at, dt.UTC).isoformat().replace("+00:00", "Z")
    line = {**line, "level": level, "timestamp": stamp}
    return cast("str", _RENDER(None, level, line))


class _Handing:
    """What the library calls with a line that is ready."""

    def __init__(self, thread: LogThread) -> None:
        self._thread = thread

    def msg(self, level: str, line: MutableMapping[str, Any]) -> None:
        self._thread.hand_over(level, line)

    debug = info = warning = error = critical = msg


def _whole(_logger: object, level: str, line: MutableMapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (level, line), {}


def configure_logging() -> LogThread:
    """Set up the log of this process."""
    thread = LogThread(sys.stderr)
    structlog.configure(processors=[_whole], logger_factory=lambda *_: _Handing(thread))
    atexit.register(thread.flush, LAST_SECONDS)
    return thread
