"""The journal's SQL: one commit group, one fold slice, one pruning slice at a time. One thread at a time.

What lives here: the one writing connection, and what must be remembered between its statements. What must not:
threads, loops, retries.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from gateway.control.ports import Running
from gateway.core.model import DeviceId, Instant, Record, SourceName
from gateway.journal import chain, pruning
from gateway.journal.fold import Fold, Key, Tail
from gateway.journal.opening import Known, read_devices, replay, verify_newest
from gateway.journal.outcomes import OutcomeRow
from gateway.journal.refusals import RefusalRow
from gateway.journal.rows import FactRow, checksum, times_left
from gateway.journal.schema import PAGE_SIZE
from gateway.journal.statements import DEVICES, FACTS, LOOK_UP, OUTCOMES, REFUSALS, Transaction, set_values

_UNKNOWN = Tail(LOOK_UP, 0)

RESERVED = 1_000_000_000
"""Sequence numbers set aside when the journal is opened: after a crash numbering goes on behind them, so none that
was ever told to anybody is used again (at 10,000 a second, 28 hours without one successful commit)."""


class Group(NamedTuple):
    """What one transaction makes durable. ``orphans`` are rows that were lost but whose records were kept."""

    facts: Sequence[FactRow]
    outcomes: Sequence[OutcomeRow]
    refusals: Sequence[RefusalRow]
    orphans: Sequence[FactRow] = ()


class Remembered(NamedTuple):
    """What the file knew when it was opened. ``next_seq`` is the first number never used before; ``until_boot`` has
    what was left in this same boot."""

    records: Mapping[tuple[DeviceId, SourceName], Record]
    remaining: Mapping[tuple[DeviceId, SourceName], float]
    highest: float
    clean: bool
    boot_id: str
    next_seq: int
    overrides: Mapping[DeviceId, Running]
    until_boot: Mapping[tuple[DeviceId, SourceName], float]


class _Stored(NamedTuple):
    """Fact rows as they are to stand in the file, the same with their device's row before, and every device's
    newest."""

    rows: Sequence[tuple[object, ...]]
    tied: Sequence[tuple[object, ...]]
    tails: Mapping[Key, Tail]


class Store:
    """Statements on the one writing connection. Every method raises ``sqlite3.Error`` and has then changed
    nothing, in the file or in memory."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._fold = Fold(connection)
        self._digest = chain.START
        self._group = 0
        self._newest = 0
        self._reserved = 0
        self._refused = 0
        self.highest = 0.0
        self.logged = 0  # bytes, estimated, in the write-ahead log since the last checkpoint

    # --- opening ------------------------------------------------------------------------------------------

    def load(self, boot_id: str) -> Remembered:
        """Read everything and mark the journal as in use, durably. Raises ``JournalError`` for damaged rows."""
        meta = dict(self._db.execute("SELECT key, value FROM meta").fetchall())
        last = self._db.execute("SELECT id, highest, digest FROM groups ORDER BY id DESC LIMIT 1").fetchone()
        self._group, self.highest, self._digest = last or (0, 0.0, chain.START)
        folded = int(meta.get("folded", 0))
        verify_newest(self._db, folded, meta)
        boot = str(meta.get("boot_id", ""))
        # Version 1 kept no boot_first, nor any boot time: whatever row has one then is of this boot.
        known = Known(int(meta.get("boot_first", 0)) if boot == boot_id else None)
        read_devices(self._db, known)
        newest = replay(self._db, folded, known, self._fold)
        self._refused = pruning.refusals(self._db)
        next_seq = max(int(meta.get("reserved", 1)), newest + 1)
        self._newest = newest
        self._fold.begin(folded)
        self._reserved = next_seq + RESERVED
        first = next_seq if known.boot_first is None else known.boot_first
        set_values(self._db, clean=0, boot_id=boot_id, boot_first=first, reserved=self._reserved)
        clean = bool(meta.get("clean", 1))
        return Remembered(
            known.records, known.left, self.highest, clean, boot, next_seq, known.overrides, known.until_boot
        )

    def commit(self, group: Group, now: Instant, *, fold: bool = True) -> None:
        """Make one group durable; a fold under way takes its next slice along (no flush of its own).

        ``now``: one reading of both clocks, for all of its rows."""
        wall = now.wall
        number, highest = self._group + 1, max(self.highest, wall)
        keys = self._fold.slice() if fold else ()
        facts, outcomes = group.facts, sorted(group.outcomes, key=itemgetter(0))
        rows, tied, tails = self._stored(facts, now)
        value = chain.digest(self._digest, number, wall, highest, rows, outcomes)
        with Transaction(self._db):
            FACTS.run(self._db, tied)
            if group.orphans:
                DEVICES.run(self._db, [_orphan(row, now) for row in group.orphans])
            OUTCOMES.run(self._db, outcomes, number)
            REFUSALS.run(self._db, group.refusals)
            if keys:
                self._fold.write(keys)
            if facts and facts[-1].seq > self._reserved - RESERVED // 2:
                set_values(self._db, reserved=facts[-1].seq + RESERVED)
            self._db.execute(
                "INSERT INTO groups VALUES (?,?,?,?,?,?,?,?,?,?)",
                (number, wall, highest, *_range(facts), *_range(outcomes), value),
            )
        self._group, self.highest, self._digest = number, highest, value
        self._fold.note(tails)
        self._refused += len(group.refusals)
        if facts:
            self._newest = facts[-1].seq
            if self._newest > self._reserved - RESERVED // 2:
                self._reserved = self._newest + RESERVED
        self.logged += (
            self._fold.done(keys) + 4 * PAGE_SIZE + sum([len(row[5]) for row in facts]) * 2 + 100 * len(outcomes)
        )

    def _stored(self, facts: Sequence[FactRow], now: Instant) -> _Stored:
        """Every verdict comes by here: taken apart at once, and made as plain tuples."""
        rows: list[tuple[object, ...]] = []
        tied: list[tuple[object, ...]] = []
        tails: dict[Key, Tail] = {}
        before, sweep = self._fold.tails, self._fold.sweep
        wall, boot = now
        for seq, at, kind, device, source, body, record, deadline, until_boot in facts:
            rest = end = None
            if deadline is None:
                rows.append((seq, at, kind, device, source, body, record, None))
            else:
                rest, end = times_left(deadline, until_boot, wall, boot)
                rows.append((seq, at, kind, device, source, body, record, rest, end))
            if not device:
                tied.append((seq, at, kind, device, source, body, record, rest, 0, end))
                continue
            key = (device, source)
            last, rec = tails.get(key) or before.get(key) or sweep.get(key) or _UNKNOWN
            tied.append((seq, at, kind, device, source, body, record, rest, last, end))
            tails[key] = tuple.__new__(Tail, (seq, rec if record is None else seq))
        return _Stored(rows, tied, tails)

    # --- folding --------------------------------------------------------------------------------------------

    @property
    def behind(self) -> bool:
        """Whether ``devices`` does not know every row (a fold under way not counted)."""
        return bool(self._fold.tails)

    @property
    def fold_due(self) -> bool:
        """Whether enough rows have come to make a fold worth while, or the next start slow."""
        return self._fold.due(self._newest)

    @property
    def folding(self) -> bool:
        """Whether a fold is under way."""
        return self._fold.under_way

    def start_fold(self) -> None:
        """Begin to bring ``devices`` up to date with every row committed so far."""
        self._fold.start(self._newest)

    def fold_slice(self) -> None:
        """Take one slice in a transaction of its own."""
        keys = self._fold.slice()
        with Transaction(self._db):
            self._fold.write(keys)
        self.logged += self._fold.done(keys)

    # --- keeping the file small -------------------------------------------------------------------------------

    def size(self) -> int:
        """Bytes of the file that are in use."""
        return pruning.size(self._db)

    def prune(self, before: float, *, oldest: bool = False) -> bool:
        """Delete whole groups committed before ``before`` (UNIX seconds), or the oldest whatever their age, up to
        a slice; returns whether anything was deleted. State, rows not yet folded and the newest group stay."""
        return pruning.prune_groups(self._db, self._group, before, oldest=oldest)

    @property
    def crowded(self) -> bool:
        """Whether there are more aggregated refusals than are kept (repeats of one are counted again until the
        next pruning)."""
        return self._refused > pruning.REFUSAL_ROWS

    def prune_refusals(self, before: float) -> None:
        """Keep aggregated refusals within their age (``before``: UNIX seconds) and their number."""
        self._refused = pruning.prune_refusals(self._db, before)

    def checkpoint(self) -> None:
        """Move what is left of the write-ahead log into the file, so that it begins anew; never waits for a
        reader (then the next attempt moves it)."""
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self.logged = 0

    def close(self, next_seq: int) -> None:
        """Fold everything, mark the stop as clean, and close."""
        self.start_fold()
        while self._fold.under_way:
            self.fold_slice()
            self.start_fold()
        set_values(self._db, clean=1, reserved=next_seq)
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._db.close()

    def abandon(self) -> None:
        """Close without a word: the stop is not clean."""
        self._db.close()


def _orphan(row: FactRow, now: Instant) -> tuple[Any, ...]:
    device, source, record = row.device, row.source, row.record or ""
    rest = end = None
    if row.deadline is not None:
        rest, end = times_left(row.deadline, row.until_boot, *now)
    return (device, source, 0, row.seq, rest, record, checksum(device, source, record, rest, end), end)


def _range(rows: Sequence[FactRow] | Sequence[OutcomeRow]) -> tuple[int, int, int]:
    return (len(rows), rows[0].seq, rows[-1].seq) if rows else (0, 0, -1)
