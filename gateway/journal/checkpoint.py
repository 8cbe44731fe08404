"""Moving the write-ahead log into the file, beside the writer.

A checkpoint writes every page that changed and flushes the file: tens of milliseconds in which no verdict should
wait. SQLite lets a second connection do that while the writer goes on appending; only what was appended meanwhile
is left for the writer itself, and once that is moved too the log begins anew.

What lives here: one thread with one connection. What must not: rows.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from gateway.journal.schema import BUSY_SECONDS


class Checkpointer:
    """Runs a passive checkpoint when asked; never holds up a commit or a reader."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wanted = threading.Event()
        self._closing = False
        self._running = False
        self._finished = False
        self._thread = threading.Thread(target=self._run, name="journal-checkpoint", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask(self) -> None:
        """Move the log as it is now, unless that is under way."""
        if not self._running:
            self._running = True
            self._wanted.set()

    def finished(self) -> bool:
        """Whether a checkpoint asked for has ended; true once."""
        if not self._finished:
            return False
        self._finished = self._running = False
        return True

    def close(self) -> None:
        """End the thread, after the checkpoint under way."""
        self._closing = True
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closing:
                return
            self._move()
            self._finished = True

    def _move(self) -> None:
        # A connection each time: it costs less than a millisecond and leaves nothing open at the end.
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_SECONDS)
        try:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except (sqlite3.OperationalError, sqlite3.DatabaseError):
            # The writer's own attempt follows and is the one that is judged.
            return
        finally:
            connection.close()
