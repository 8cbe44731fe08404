"""The journal as the clockwork sees it: the loop's side of the writer thread.

What lives here: numbering, handing over, callbacks back on the loop. What must not: SQL, encoding, waiting.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import msgspec

from gateway.control.ports import Answered, Clock, Entry, Loaded
from gateway.core.errors import JournalError
from gateway.core.policy import Override
from gateway.journal.checkpoint import Checkpointer
from gateway.journal.history import SqliteHistory
from gateway.journal.outcomes import worth_a_row
from gateway.journal.rows import prepare, unauthenticated
from gateway.journal.schema import Opened, open_journal
from gateway.journal.store import Store
from gateway.journal.writer import MOST_LINGERING, Done, Limits, OwnOutcome, Prepared, Stop, Unit, Writer

MAX_AGE_DAYS = 30.0
MAX_BYTES = 5 * 1024**3

CLOSE_SECONDS = 30.0
"""Seconds for the last commit, the last fold and the last checkpoint: far beyond what a working disk needs."""


class SqliteJournal:
    """Implements ``Journal`` on one SQLite file; ``history`` implements ``History`` on the same.

    ``load`` opens the file and starts the writer thread; ``close`` ends both. Rows are kept for ``max_age_days``
    and while they use at most ``max_bytes``; the state of devices is kept for ever. ``on_commit`` takes the seconds
    of each commit group, on the writer's thread.
    """

    def __init__(
        self,
        path: Path,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        boot_id: str,
        max_age_days: float = MAX_AGE_DAYS,
        max_bytes: int = MAX_BYTES,
        on_commit: Callable[[float], None] | None = None,
    ) -> None:
        self._path = path
        self._loop = loop
        self._clock = clock
        self._boot_id = boot_id
        self._limits = Limits(max_age_days, max_bytes)
        self._on_commit = on_commit
        self._opened: Opened | None = None
        self._writer: Writer | None = None
        self._next = 0
        self._handed = 0
        self._closing = False
        self._fault: JournalError | None = None
        self._ended: asyncio.Future[JournalError | None] = loop.create_future()
        self.history = SqliteHistory(path)

    # --- start and stop ---------------------------------------------------------------------------------------

    def load(self) -> Loaded:
        """Open, check and read the file, and mark it as in use, durably. Once only.

        Raises ``JournalError`` with what to do: in use, damaged, foreign, newer, not writable.
        """
        if self._opened is not None or self._closing:
            raise JournalError(f"{self._path}: was already opened")
        opened = open_journal(self._path)
        collecting = gc.isenabled()
        # Nothing read here becomes garbage: looking for it among 100,000 new records costs a third of the time.
        gc.disable()
        try:
            store = Store(opened.connection)
            known = store.load(self._boot_id)
        except (sqlite3.Error, msgspec.MsgspecError, ValueError) as error:
            _release(opened)
            raise JournalError(f"{self._path}: cannot be read: {error}; put back a copy of the journal") from error
        except JournalError as error:
            _release(opened)
            raise JournalError(f"{self._path}: {error}") from error
        finally:
            if collecting:
                gc.enable()
        self._opened = opened
        self._next = known.next_seq
        checkpointer = Checkpointer(self._path)
        self._writer = Writer(store, checkpointer, self._clock, self._limits, self._hand_back, self._stopped)
        if self._on_commit is not None:
            self._writer.committed = self._on_commit
        self._writer.start()
        return Loaded(
            known.records,
            known.remaining,
            known.highest,
            known.clean,
            known.boot_id,
            known.overrides,
            known.until_boot,
        )

    async def close(self) -> None:
        """Commit what is queued, mark the stop as clean, release the file. Again: nothing happens.

        Raises ``JournalError`` when rows could not be written; the file is released all the same and the next
        start finds an unclean stop.
        """
        if self._closing:
            return
        self._closing = True
        self.history.close()
        if self._writer is None or self._opened is None:
            return
        self._writer.queue.put(Stop(self._next))
        # Not asyncio.timeout: the caller may be cancelled, and up to Python 3.11.2 that hides the time limit's end.
        done, _ = await asyncio.wait((self._ended,), timeout=CLOSE_SECONDS)
        if not done:
            # The thread is stuck in the disk; the lock stays with this process until it ends.
            raise JournalError(f"{self._path}: the last rows were not written in {CLOSE_SECONDS:.0f} s")
        error = self._ended.result()
        self._writer.join(1.0)
        _release(self._opened)
        if error is not None:
            raise error

    # --- the port ---------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether the last commit succeeded."""
        return self._writer is not None and not self._writer.trouble

    @property
    def trouble(self) -> str:
        """Why the journal cannot be written; empty while it can."""
        return "the journal is not open" if self._writer is None else self._writer.trouble

    @property
    def pending(self) -> int:
        """Entries handed in and not yet committed (nor given up)."""
        return 0 if self._writer is None else self._handed - self._writer.settled

    def record(self, entries: Sequence[Entry], done: Done | None = None) -> Sequence[int]:
        """Queue entries as one unit for the next commit group; see the port.

        A mapping is made JSON here: ``TypeError`` for values that JSON cannot carry. Raises ``JournalError``
        before ``load`` and after ``close``.
        """
        writer = self._alive()
        count, first = len(entries), self._next
        prepared = cast("Sequence[Prepared]", entries)
        for entry in entries:
            if not isinstance(entry.fact, tuple):
                prepared = [_ready(each) for each in entries]
                break
        self._next = first + count
        self._handed += count
        unit = Unit(first, prepared, done)
        if self._fault is not None and done is not None:
            self._loop.call_soon(done, self._fault)
        elif done is None and all(map(unauthenticated, entries)):
            self._linger(writer, (unit,))
        else:
            writer.queue.put(unit)
        return range(first, first + count)

    def enforced(self, outcomes: Sequence[Answered]) -> None:
        """Add each outcome to its row; 0: a row of its own, if it failed or says that it is a repair."""
        writer = self._alive()
        answers = [each for each in outcomes if each[0]]
        if answers:
            self._linger(writer, answers)
        if len(answers) == len(outcomes):
            return
        for seq, fact in outcomes:
            if not seq and worth_a_row(fact):
                writer.queue.put(OwnOutcome(self._next, fact))
                self._next += 1
                self._handed += 1

    def _alive(self) -> Writer:
        if self._writer is None or self._closing:
            raise JournalError(f"{self._path}: the journal is not open")
        return self._writer

    def _linger(self, writer: Writer, items: Sequence[Unit | Answered]) -> None:
        lingering = writer.lingering
        lingering.extend(items)
        waiting = len(lingering)
        if (waiting - len(items)) // MOST_LINGERING < waiting // MOST_LINGERING:
            writer.queue.put(None)

    def _end(self, error: JournalError | None) -> None:
        """The writer has ended. After a fault, answer what it left and what still comes."""
        self._fault = error
        self._ended.set_result(error)
        while self._writer is not None and not self._writer.queue.empty():
            item = self._writer.queue.get()
            if isinstance(item, Unit) and item.done is not None:
                item.done(error)

    # --- on the writer thread -----------------------------------------------------------------------------------

    def _hand_back(self, dones: Sequence[Done], error: JournalError | None) -> None:
        self._on_loop(_call, dones, error)

    def _stopped(self, error: JournalError | None) -> None:
        self._on_loop(self._end, error)

    def _on_loop(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            # The loop is closed: nobody is left to be told.
            if not self._loop.is_closed():
                raise


def _ready(entry: Entry) -> Prepared:
    fact, left, until_boot = entry
    if isinstance(left, Override):
        if isinstance(fact, tuple):
            msg = f"a transition leaves a record, not an override: {entry!r}"
            raise TypeError(msg)
        return Prepared(prepare(fact, left), None, until_boot)
    return Prepared(fact if isinstance(fact, tuple) else prepare(fact), left, until_boot)


def _call(dones: Sequence[Done], error: JournalError | None) -> None:
    for done in dones:
        done(error)


def _release(opened: Opened) -> None:
    opened.connection.close()
    os.close(opened.lock)
