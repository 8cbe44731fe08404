"""The writer thread: everything that touches the file for writing happens on it, in the order it was handed in.

Whatever was queued while the last commit ran becomes the next commit group, so the groups are as large as the load
makes them and a single waiter waits for one flush. What nobody waits for (outcomes, unauthenticated refusals) rides
along with the next group, or goes after ``TICK``.

When the file cannot be written, entries are answered with the error, kept, and tried again with a back-off.

What lives here: batching, failure, upkeep. What must not: SQL, or anything that runs on the loop.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from queue import Empty, SimpleQueue
from typing import NamedTuple

from gateway.control.ports import Clock
from gateway.core.errors import JournalError
from gateway.core.model import Enforced, Record, Rejected, Transition
from gateway.journal.checkpoint import Checkpointer
from gateway.journal.fold import Key
from gateway.journal.outcomes import OutcomeRow, encode_outcome
from gateway.journal.refusals import Tally
from gateway.journal.rows import FactRow, Note, encode_entry, lost_entry, outcome_entry
from gateway.journal.store import Group, Store

MOST_IN_A_GROUP = 2_048
"""Entries taken for one commit group: bounds what the first of them waits for (about 50 ms of work)."""

TICK = 0.25
"""Seconds after which rows that nobody waits for are written although nothing else is."""

MOST_LINGERING = 2_048
"""Such rows at which the writer is woken at once."""

MOST_KEPT = 100_000
"""Fact rows kept while the file cannot be written (about 60 MB); more are counted as lost, but the newest record of
every device is always kept. Of outcomes as many are kept; rows beyond show none."""

PACE = 0.002
"""Least seconds from one commit's start to the next one's. On a quick disk a busy writer would otherwise make many
small groups, each costing about as much processor time as ten alerts. An entry that comes alone never waits."""

FIRST_RETRY = 0.1
LAST_RETRY = 5.0
"""Seconds between attempts on a file that cannot be written: the first, and the longest after doubling."""

HEARTBEAT = 30.0
"""Seconds without a commit after which an empty group is written: it moves the highest wall time on, and finds out
that the disk is full before a verdict does."""

IDLE = 0.5
"""Seconds without work after which upkeep begins."""

CHECKPOINT_IDLE = 1 * 1024 * 1024
CHECKPOINT_BUSY = 4 * 1024 * 1024
"""Bytes of write-ahead log at which it is moved into the file: when nothing is waiting, and in any case. SQLite's
own trigger (1,000 pages) is off, for it does all the work inside whatever commit comes by. Here most of it is done
beside the commits and the rest, what came meanwhile, between two of them."""

PRUNE_EVERY = 60.0
"""Seconds between looks at age and size. While there is something to prune, slices follow each other."""

DAY = 86_400.0

Done = Callable[[JournalError | None], None]

_BUGS = (sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.NotSupportedError)


class Prepared(NamedTuple):
    """An entry whose mapping, if it is one, was made a note on the caller's thread."""

    fact: Transition | Rejected | Note
    record: Record | None
    until_boot: float | None = None


class Unit(NamedTuple):
    """What one call handed in; never split over two groups. Row ``first`` is its first entry's."""

    first: int
    entries: Sequence[Prepared]
    done: Done | None


class OwnOutcome(NamedTuple):
    """An outcome that becomes a row of its own."""

    seq: int
    fact: Enforced


class Stop(NamedTuple):
    """The last thing handed in. ``next_seq`` is the first number not used."""

    next_seq: int


class Lost(NamedTuple):
    """Rows that could not be kept, by number and by their first and last sequence number."""

    times: int
    first: int
    last: int


class Limits(NamedTuple):
    """How long rows are kept (days) and how much of the file they may use (bytes)."""

    max_age_days: float
    max_bytes: int


class Writer:
    """Owns the store from ``start`` on. ``queue`` wakes the thread, ``lingering`` does not.

    ``deliver`` and ``stopped`` are called on the writer thread: the callbacks of a whole group at once, and once
    at the end (with an error when the stop is not clean). ``committed`` takes the seconds of each commit there.
    """

    def __init__(
        self,
        store: Store,
        checkpointer: Checkpointer,
        clock: Clock,
        limits: Limits,
        deliver: Callable[[Sequence[Done], JournalError | None], None],
        stopped: Callable[[JournalError | None], None],
    ) -> None:
        self.queue: SimpleQueue[Unit | OwnOutcome | Stop | None] = SimpleQueue()
        self.lingering: deque[Unit | tuple[int, Enforced]] = deque()
        self.settled = 0
        self.trouble = ""
        self.committed: Callable[[float], None] = _nobody
        self._store = store
        self._checkpointer = checkpointer
        self._clock = clock
        self._limits = limits
        self._deliver = deliver
        self._stopped = stopped
        self._stop: Stop | None = None
        self._dones: list[Done] = []
        self._facts: list[FactRow] = []
        self._outcomes: list[OutcomeRow] = []
        self._tally = Tally()
        self._orphans: dict[Key, FactRow] = {}
        self._lost: Lost | None = None
        self._delay = FIRST_RETRY
        self._retry_at = 0.0
        self._committed_at = self._pruned_at = time.monotonic()
        self._pruning = False
        self._upkeep_at = 0.0
        self._began = 0.0
        # A daemon: a process that ends by a fault must end, and the file is made to be left at any moment.
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._checkpointer.start()
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end after a ``Stop``; returns whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # --- the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        error: JournalError | None = JournalError("the journal's writer ended by a fault of the program")
        try:
            while self._stop is None:
                self._turn()
            error = self._finish(self._stop)
        finally:
            # Also on the way out of a fault: nobody may go on believing that something can be made durable.
            self._checkpointer.close()
            self.trouble = str(error) if error else "the journal is closed"
            self._answer(error)
            self._stopped(error)

    def _turn(self) -> None:
        """Take what is there, write it, and use the time when nothing is."""
        try:
            item = self.queue.get(timeout=self._patience())
        except Empty:
            self._take_lingering()
        else:
            self._pace(item)
            self._take_all(item)
        now = time.monotonic()
        if self.trouble and now < self._retry_at and self._stop is None:
            self._answer(JournalError(self.trouble))
        elif self._waiting() or self.trouble or now - self._committed_at >= HEARTBEAT:
            self._answer(self._commit())
            self._upkeep(idle=False)
        else:
            self._upkeep(idle=True)

    def _pace(self, item: Unit | OwnOutcome | Stop | None) -> None:
        """Let a group grow while commits follow each other closely."""
        early = self._began + PACE - time.monotonic()
        if early > 0 and self._stop is None and not isinstance(item, Stop):
            time.sleep(early)

    def _patience(self) -> float:
        if self.trouble:
            return min(max(self._retry_at - time.monotonic(), 0.001), TICK)
        busy = (self._store.folding or self._pruning) and time.monotonic() >= self._upkeep_at
        return 0.0 if busy else TICK

    def _take_all(self, item: Unit | OwnOutcome | Stop | None) -> None:
        wall = self._clock.now().wall
        left = self.queue.qsize()
        taken = 0
        while True:
            if isinstance(item, Unit):
                self._take(item, wall)
                taken += len(item.entries)
            elif isinstance(item, OwnOutcome):
                self._keep(outcome_entry(item.seq, item.fact, wall))
            elif isinstance(item, Stop):
                self._stop = item
            if not left or taken >= MOST_IN_A_GROUP:
                break
            item = self.queue.get()
            left -= 1
        self._take_lingering()

    def _take_lingering(self) -> None:
        lingering, outcomes = self.lingering, self._outcomes
        for _ in range(len(lingering)):
            item = lingering.popleft()
            if isinstance(item, Unit):
                self._take(item, 0.0)
            elif len(outcomes) < MOST_KEPT:
                outcomes.append(encode_outcome(*item))

    def _take(self, unit: Unit, wall: float) -> None:
        first, entries, done = unit
        if done is not None:
            self._dones.append(done)
        keep = self._keep if self.trouble else self._facts.append
        for seq, (fact, record, until_boot) in enumerate(entries, first):
            if isinstance(fact, Rejected) and record is None and not fact.authentic:
                self._tally.add(fact)
            else:
                keep(encode_entry(seq, fact, record, wall, until_boot))

    def _keep(self, row: FactRow) -> None:
        if (len(self._facts) < MOST_KEPT and not self._lost) or not self.trouble:
            self._facts.append(row)
            return
        times, first = (self._lost.times + 1, self._lost.first) if self._lost else (1, row.seq)
        self._lost = Lost(times, first, row.seq)
        self.settled += 1
        if row.record is not None:
            self._orphans[row.device, row.source] = row

    def _waiting(self) -> bool:
        return bool(self._dones or self._facts or self._tally or self._lost or self._outcomes)

    # --- committing -----------------------------------------------------------------------------------------

    def _commit(self) -> JournalError | None:
        """Write everything kept. After an outage in several groups: one that fits is better than one that does
        not."""
        while True:
            now = self._clock.now()
            # State first: should it end here again, what is durable is rather too new than too old.
            orphans = list(islice(self._orphans.values(), MOST_IN_A_GROUP))
            facts = [] if orphans else self._facts[:MOST_IN_A_GROUP] if self.trouble else self._facts
            last = not orphans and len(facts) == len(self._facts)
            lost = [lost_entry(*self._lost, now.wall)] if last and self._lost else []
            group = Group([*facts, *lost], self._outcomes, self._tally.rows(), orphans)
            began = self._began = time.monotonic()
            try:
                self._store.commit(group, now, fold=not self.trouble)
            except sqlite3.Error as error:
                return self._failed(error)
            self.committed(time.monotonic() - began)
            for row in orphans:
                del self._orphans[row.device, row.source]
            self.settled += len(facts) + self._tally.count
            self._facts = self._facts[len(facts) :]
            self._outcomes, self._tally = [], Tally()
            self._committed_at = time.monotonic()
            if last:
                self._lost, self.trouble, self._delay = None, "", FIRST_RETRY
                return None

    def _failed(self, error: sqlite3.Error) -> JournalError:
        _raise_bug(error)
        if self.trouble:
            self._delay = min(self._delay * 2, LAST_RETRY)
        self.trouble = f"the journal cannot be written: {error}"
        self._retry_at = time.monotonic() + self._delay
        return JournalError(self.trouble)

    def _answer(self, error: JournalError | None) -> None:
        if self._dones:
            dones, self._dones = self._dones, []
            self._deliver(dones, error)

    def _finish(self, stop: Stop) -> JournalError | None:
        """The last group has been tried: close, as clean when it was written."""
        self._checkpointer.close()
        if self.trouble:
            self._store.abandon()
            return JournalError(f"{self.trouble}; {len(self._facts)} rows were not written")
        try:
            self._store.close(stop.next_seq)
        except sqlite3.Error as error:
            return self._failed(error)
        return None

    # --- upkeep ---------------------------------------------------------------------------------------------

    def _upkeep(self, *, idle: bool) -> None:
        """Fold, checkpoint and prune: while nothing waits, or when it cannot be put off."""
        now = time.monotonic()
        if self.trouble or self._stop is not None or now < self._upkeep_at:
            return
        try:
            quiet = now - self._committed_at
            if self._store.fold_due or (idle and quiet >= IDLE and self._store.behind):
                self._store.start_fold()
            if idle and self._store.folding:
                self._store.fold_slice()
            if self._checkpointer.finished():
                self._store.checkpoint()
            elif self._store.logged >= (CHECKPOINT_IDLE if idle else CHECKPOINT_BUSY):
                self._checkpointer.ask()
            self._prune(idle=idle)
        except sqlite3.Error as error:
            # Not a failed commit: commits find out for themselves whether they can be made durable.
            _raise_bug(error)
            self._upkeep_at = time.monotonic() + LAST_RETRY

    def _prune(self, *, idle: bool) -> None:
        now = time.monotonic()
        before = self._clock.now().wall - self._limits.max_age_days * DAY
        if self._store.crowded:
            self._store.prune_refusals(before)
        if not self._pruning and now - self._pruned_at < PRUNE_EVERY:
            return
        self._pruned_at = now
        large = self._store.size() > self._limits.max_bytes
        again = self._pruning
        self._pruning = (idle or large) and self._store.prune(before, oldest=large)
        if not again:
            self._store.prune_refusals(before)


def _nobody(_seconds: float) -> None:
    """Takes commit durations where nobody measures."""


def _raise_bug(error: sqlite3.Error) -> None:
    """A statement that SQLite does not take is our fault, not the disk's: it must not be tried again for ever."""
    if isinstance(error, _BUGS):
        raise error
