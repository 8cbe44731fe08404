"""The journal's SQL: one commit group, one fold slice, one pruning slice at a time. One thread at a time.

Why state is folded: the state of a verdict's device stands beside its fact, at the end of the file. Writing it into
the table of devices at once would dirty one random page per verdict, and dearer ones the more devices there are.
So ``devices`` is brought up to date later, in key order and in small slices, when many of its rows share a page;
``meta.folded`` is the newest row that it knows, and loading replays the rows behind that.

What lives here: statements and what must be remembered between them. What must not: threads, loops, retries.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain as flatten
from itertools import islice
from typing import Any, NamedTuple

from gateway.control.ports import Running
from gateway.core.errors import JournalError
from gateway.core.model import DeviceId, Record, SourceName
from gateway.journal import chain
from gateway.journal.refusals import RefusalRow
from gateway.journal.rows import (
    NO_SOURCE,
    FactRow,
    OutcomeRow,
    StoredRow,
    checksum,
    decode_override,
    decode_record,
    remaining,
)
from gateway.journal.schema import PAGE_SIZE

RESERVED = 1_000_000_000
"""Sequence numbers set aside when the journal is opened: after a crash numbering goes on behind them, so none that
was ever told to anybody is used again (at 10,000 a second, 28 hours without one successful commit)."""

FOLD_AFTER = 32_768
"""(device, source) pairs with newer rows than ``devices`` knows, at which a fold begins. Replaying that many at
the next start takes about 0.2 s."""

REPLAYED = 65_536
"""Sequence numbers behind ``folded`` at which a fold begins however few devices they concern."""

SORTED_RUN = 1_024
"""Keys sorted at a time."""

FOLD_SLICE = 256
"""Pairs folded in one transaction: about a millisecond."""

PRUNE_SLICE = 500
"""Rows pruned in one transaction: about a millisecond."""

REFUSAL_ROWS = 100_000
"""Aggregated refusals kept (about 15 MB): anyone can cause them."""

REFUSAL_SLACK = 2_000
"""How far below that number a pruning goes, so that a flood causes few of them (each about 10 ms)."""

_WIDTHS = (64, 8, 1)
"""Rows a statement. SQLite runs each statement without the interpreter's lock and takes it again afterwards; on a
busy machine that taking is the dearest part, so many rows share one."""

_FACT_ROW = "(?,?,?,?,?,?,?,?,coalesce(?,(SELECT last FROM devices WHERE device=? AND source=?)))"
_DEVICE_TAIL = """ ON CONFLICT (device, source) DO UPDATE SET
    last = max(last, excluded.last),
    remaining = CASE WHEN excluded.rec > rec THEN excluded.remaining ELSE remaining END,
    record = CASE WHEN excluded.rec > rec THEN excluded.record ELSE record END,
    sum = CASE WHEN excluded.rec > rec THEN excluded.sum ELSE sum END,
    rec = max(rec, excluded.rec)"""
_REFUSAL_TAIL = """ ON CONFLICT (slot, peer, refusal) DO UPDATE SET
    times = times + excluded.times, first = min(first, excluded.first), last = max(last, excluded.last)"""


class _Insert:
    """Multi-row INSERT statements of a few fixed widths, so that SQLite prepares each only once."""

    def __init__(self, table: str, row: str, tail: str = "") -> None:
        self._sql = {n: f"INSERT INTO {table} VALUES {','.join([row] * n)}{tail}" for n in _WIDTHS}  # noqa: S608

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
        start, left = 0, len(rows)
        for width in _WIDTHS:
            while left >= width:
                part = rows[start : start + width]
                connection.execute(self._sql[width], list(flatten.from_iterable(part)))
                start, left = start + width, left - width


_FACTS = _Insert("facts", _FACT_ROW)
_DEVICES = _Insert("devices", "(?,?,?,?,?,?,?)", _DEVICE_TAIL)
_OUTCOMES = _Insert("outcomes", "(?,?,?,?,?,?,?,?,?,?,?)")
_REFUSALS = _Insert("refusals", "(?,?,?,?,?,?,?,?)", _REFUSAL_TAIL)

Key = tuple[str, str]


class Tail(NamedTuple):
    """A pair's newest row, and the newest one that left a record (0: none), where ``devices`` may not know them."""

    last: int
    rec: int


class Group(NamedTuple):
    """What one transaction makes durable. ``orphans`` are rows that were lost but whose records were kept."""

    facts: Sequence[FactRow]
    outcomes: Sequence[OutcomeRow]
    refusals: Sequence[RefusalRow]
    orphans: Sequence[FactRow] = ()


class Remembered(NamedTuple):
    """What the file knew when it was opened. ``next_seq`` is the first number never used before."""

    records: Mapping[tuple[DeviceId, SourceName], Record]
    remaining: Mapping[tuple[DeviceId, SourceName], float]
    highest: float
    clean: bool
    boot_id: str
    next_seq: int
    overrides: Mapping[DeviceId, Running]


class _Known:
    """What is being read at the opening; ``seqs``: the row that left each state in ``devices``."""

    __slots__ = ("left", "overrides", "records", "seqs")

    def __init__(self) -> None:
        self.records: dict[tuple[DeviceId, SourceName], Record] = {}
        self.left: dict[tuple[DeviceId, SourceName], float] = {}
        self.seqs: dict[Key, int] = {}
        self.overrides: dict[DeviceId, Running] = {}


class Store:
    """Statements on the one writing connection. Every method raises ``sqlite3.Error`` and has then changed
    nothing, in the file or in memory."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._tails: dict[Key, Tail] = {}
        self._sweep: dict[Key, Tail] = {}
        self._fresh: list[Key] = []
        self._runs: list[list[Key]] = []
        self._order: Iterator[Key] = iter(())
        self._ahead: list[Key] = []
        self._left = 0
        self._upto = 0
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
        self._verify_newest(folded, meta)
        known = self._devices()
        newest = max(folded, *self._replay(folded, known))
        self._refused = self._db.execute("SELECT count(*) FROM refusals").fetchone()[0]
        next_seq = max(int(meta.get("reserved", 1)), newest + 1)
        self._newest, self._upto = newest, folded
        self._reserved = next_seq + RESERVED
        self._set(clean=0, boot_id=boot_id, reserved=self._reserved)
        clean = bool(meta.get("clean", 1))
        boot = str(meta.get("boot_id", ""))
        return Remembered(known.records, known.left, self.highest, clean, boot, next_seq, known.overrides)

    def _verify_newest(self, folded: int, meta: Mapping[str, Any]) -> None:
        """Rows that ``devices`` does not know yet are about to become state: the chain must vouch for them."""
        first, vouched = self._db.execute(
            "SELECT min(id), coalesce(sum(facts), 0) FROM groups WHERE last > ?", (folded,)
        ).fetchone()
        rows = self._db.execute("SELECT count(*) FROM facts WHERE seq > ?", (folded,)).fetchone()[0]
        found = [f"{rows} rows, {vouched} written"] if rows != vouched else []
        if first is not None and not found:
            before = self._db.execute("SELECT digest FROM groups WHERE id = ?", (first - 1,)).fetchone()
            anchor = bytes(meta.get("anchor_digest", chain.START))
            found = chain.verify(self._db, first - 1, before[0] if before else anchor)
        if found:
            raise JournalError(f"the newest rows were changed: {found[0]}; put back a copy of the journal")

    def _devices(self) -> _Known:
        known = _Known()
        records, left, seqs = known.records, known.left, known.seqs
        rows = self._db.execute(
            "SELECT device, source, rec, remaining, record, sum FROM devices WHERE record IS NOT NULL"
        )
        sources: dict[str, SourceName] = {}
        for device, source, rec, rest, record, stored in rows:
            if checksum(device, source, record, rest) != stored:
                raise JournalError(f"the state of device {device!r} is damaged; put back a copy of the journal")
            if source == NO_SOURCE:
                known.overrides[DeviceId(device)] = Running(decode_override(device, record), rest or 0.0)
                seqs[device, source] = rec
                continue
            key = (DeviceId(device), sources.setdefault(source, SourceName(source)))
            records[key] = decode_record(record)
            seqs[key] = rec
            if rest is not None:
                left[key] = rest
        return known

    def _replay(self, folded: int, known: _Known) -> list[int]:
        """Apply the rows that ``devices`` does not know yet; returns the newest sequence number, if any."""
        newest: list[int] = [0]
        records, left, seqs = known.records, known.left, known.seqs
        rows = self._db.execute(
            "SELECT seq, device, source, remaining, record FROM facts WHERE seq > ? ORDER BY seq", (folded,)
        )
        states: dict[Key, tuple[str, float | None]] = {}
        for seq, device, source, rest, record in rows:
            newest[0] = seq
            if not device:
                continue
            key = (device, source)
            rec = self._tails.get(key, Tail(0, 0)).rec
            if record is not None and seq > seqs.get(key, 0):
                rec = seq
                states[key] = (record, rest)
            self._note({key: Tail(seq, rec)})
        for (device, source), (record, rest) in states.items():
            if source == NO_SOURCE:
                known.overrides[DeviceId(device)] = Running(decode_override(device, record), rest or 0.0)
                continue
            pair = (DeviceId(device), SourceName(source))
            records[pair] = decode_record(record)
            left.pop(pair, None)
            if rest is not None:
                left[pair] = rest
        return newest

    # --- one commit group -----------------------------------------------------------------------------------

    def commit(self, group: Group, wall: float, *, fold: bool = True) -> None:
        """Make one group durable; a fold under way takes its next slice along (no flush of its own)."""
        number, highest = self._group + 1, max(self.highest, wall)
        keys = self._slice() if fold else []
        stored = [StoredRow(*row[:7], remaining(row.deadline, wall)) for row in group.facts]
        outcomes = sorted(group.outcomes, key=lambda row: row.seq)
        value = chain.digest(self._digest, number, wall, highest, stored, outcomes)
        with _Transaction(self._db):
            tails = self._insert_facts(stored)
            if group.orphans:
                _DEVICES.run(self._db, [_orphan(row, wall) for row in group.orphans])
            if outcomes:
                _OUTCOMES.run(self._db, [(row.seq, number, n, *row[1:]) for n, row in enumerate(outcomes)])
            if group.refusals:
                _REFUSALS.run(self._db, group.refusals)
            if keys:
                self._fold(keys)
            if stored and stored[-1].seq > self._reserved - RESERVED // 2:
                self._set(reserved=stored[-1].seq + RESERVED)
            self._db.execute(
                "INSERT INTO groups VALUES (?,?,?,?,?,?,?,?,?,?)",
                (number, wall, highest, *_range(stored), *_range(outcomes), value),
            )
        self._group, self.highest, self._digest = number, highest, value
        self._note(tails)
        self._refused += len(group.refusals)
        if stored:
            self._newest = stored[-1].seq
            if self._newest > self._reserved - RESERVED // 2:
                self._reserved = self._newest + RESERVED
        self._folded(keys)
        self.logged += 4 * PAGE_SIZE + sum(len(row.body) for row in stored) * 2 + 100 * len(outcomes)

    def _insert_facts(self, rows: Sequence[StoredRow]) -> dict[Key, Tail]:
        tails: dict[Key, Tail] = {}
        params: list[tuple[object, ...]] = []
        for row in rows:
            key = (row.device, row.source)
            if not row.device:
                params.append((*row, 0, "", ""))
                continue
            known = tails.get(key) or self._tails.get(key) or self._sweep.get(key)
            params.append((*row, known and known.last, *key))
            rec = row.seq if row.record is not None else known.rec if known else 0
            tails[key] = Tail(row.seq, rec)
        _FACTS.run(self._db, params)
        return tails

    # --- folding --------------------------------------------------------------------------------------------

    @property
    def behind(self) -> bool:
        """Whether ``devices`` does not know every row (a fold under way not counted)."""
        return bool(self._tails)

    @property
    def fold_due(self) -> bool:
        """Whether enough rows have come to make a fold worth while, or the next start slow."""
        return not self._left and (
            len(self._tails) >= FOLD_AFTER or (self._newest - self._upto >= REPLAYED and bool(self._tails))
        )

    @property
    def folding(self) -> bool:
        """Whether a fold is under way."""
        return self._left > 0

    def start_fold(self) -> None:
        """Begin to bring ``devices`` up to date with every row committed so far."""
        if self._left or not self._tails:
            return
        runs, self._runs, self._fresh = [*self._runs, sorted(self._fresh)], [], []
        self._sweep, self._tails = self._tails, {}
        self._order = heapq.merge(*runs)
        self._left = len(self._sweep)
        self._upto = self._newest

    def fold_slice(self) -> None:
        """Take one slice in a transaction of its own."""
        keys = self._slice()
        with _Transaction(self._db):
            self._fold(keys)
        self._folded(keys)

    def _note(self, tails: Mapping[Key, Tail]) -> None:
        """Remember newest rows. New keys are sorted in small runs and merged later: sorting all of them at once
        would hold the interpreter, and with it the loop, for tens of milliseconds."""
        self._fresh += [key for key in tails if key not in self._tails]
        self._tails.update(tails)
        if len(self._fresh) >= SORTED_RUN:
            self._runs.append(sorted(self._fresh))
            self._fresh = []

    def _slice(self) -> list[Key]:
        if not self._ahead:
            self._ahead = list(islice(self._order, FOLD_SLICE))
        return self._ahead

    def _fold(self, keys: Sequence[Key]) -> None:
        tails = [self._sweep[key] for key in keys]
        wanted = [tail.rec for tail in tails if tail.rec]
        marks = ",".join("?" * len(wanted))
        found = {
            seq: (rest, record)
            for seq, rest, record in self._db.execute(
                f"SELECT seq, remaining, record FROM facts WHERE seq IN ({marks})",  # noqa: S608
                wanted,
            )
        }
        rows: list[tuple[object, ...]] = []
        for (device, source), (last, rec) in zip(keys, tails, strict=True):
            rest, record = found.get(rec, (None, None))
            if record is None:
                rows.append((device, source, last, 0, None, None, None))
            else:
                rows.append((device, source, last, rec, rest, record, checksum(device, source, record, rest)))
        _DEVICES.run(self._db, rows)
        if len(keys) == self._left:
            self._set(folded=self._upto)

    def _folded(self, keys: Sequence[Key]) -> None:
        if keys:
            self.logged += FOLD_SLICE * PAGE_SIZE // 4
            self._left -= len(keys)
            self._ahead = []
            if not self._left:
                self._sweep = {}

    # --- keeping the file small -------------------------------------------------------------------------------

    def size(self) -> int:
        """Bytes of the file that are in use."""
        pages, free, size = (
            int(self._db.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def prune(self, before: float, *, oldest: bool = False) -> bool:
        """Delete whole groups committed before ``before`` (UNIX seconds), or the oldest whatever their age, up to
        a slice; returns whether anything was deleted. State, rows not yet folded and the newest group stay."""
        folded = self._db.execute("SELECT value FROM meta WHERE key='folded'").fetchone()
        rows = self._db.execute(
            "SELECT id, last, highest_answered, facts + outcomes, digest FROM groups"
            " WHERE id < ? AND last <= ? AND (at < ? OR ?) ORDER BY id LIMIT ?",
            (self._group, folded[0] if folded else -1, before, oldest, PRUNE_SLICE),
        ).fetchall()
        doomed: list[tuple[Any, ...]] = []
        total = 0
        for row in rows:
            if doomed and (total + row[3] > PRUNE_SLICE or row[0] != doomed[-1][0] + 1):
                break
            doomed.append(row)
            total += row[3]
        if not doomed:
            return False
        last = doomed[-1]
        with _Transaction(self._db):
            self._db.execute("DELETE FROM facts WHERE seq <= ?", (max(row[1] for row in doomed),))
            self._db.execute(
                "DELETE FROM outcomes WHERE seq <= ? AND grp <= ?", (max(row[2] for row in doomed), last[0])
            )
            self._db.execute("DELETE FROM groups WHERE id <= ?", (last[0],))
            self._set(anchor=last[0], anchor_digest=last[4])
        return True

    @property
    def crowded(self) -> bool:
        """Whether there are more aggregated refusals than are kept (repeats of one are counted again until the
        next pruning)."""
        return self._refused > REFUSAL_ROWS

    def prune_refusals(self, before: float) -> None:
        """Keep aggregated refusals within their age (``before``: UNIX seconds) and their number."""
        self._db.execute("DELETE FROM refusals WHERE slot < ?", (int(before),))
        self._refused = self._db.execute("SELECT count(*) FROM refusals").fetchone()[0]
        if self.crowded:
            self._refused -= self._db.execute(
                "DELETE FROM refusals WHERE (slot, peer, refusal) IN"
                " (SELECT slot, peer, refusal FROM refusals ORDER BY slot, peer, refusal LIMIT ?)",
                (self._refused - REFUSAL_ROWS + REFUSAL_SLACK,),
            ).rowcount

    def checkpoint(self) -> None:
        """Move what is left of the write-ahead log into the file, so that it begins anew; never waits for a
        reader (then the next attempt moves it)."""
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self.logged = 0

    def close(self, next_seq: int) -> None:
        """Fold everything, mark the stop as clean, and close."""
        self.start_fold()
        while self._left:
            self.fold_slice()
            self.start_fold()
        self._set(clean=1, reserved=next_seq)
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._db.close()

    def abandon(self) -> None:
        """Close without a word: the stop is not clean."""
        self._db.close()

    def _set(self, **values: float | str | bytes) -> None:
        marks = ",".join(["(?,?)"] * len(values))
        self._db.execute(
            f"INSERT INTO meta VALUES {marks} ON CONFLICT (key) DO UPDATE SET value = excluded.value",  # noqa: S608
            list(flatten.from_iterable(values.items())),
        )


class _Transaction:
    """BEGIN … COMMIT, or ROLLBACK when anything goes wrong."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            # SQLite has already rolled back by itself after some errors (a full disk, for one).
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def _orphan(row: FactRow, wall: float) -> tuple[Any, ...]:
    rest = remaining(row.deadline, wall)
    record = row.record or ""
    return (row.device, row.source, 0, row.seq, rest, record, checksum(row.device, row.source, record, rest))


def _range(rows: Sequence[StoredRow] | Sequence[OutcomeRow]) -> tuple[int, int, int]:
    return (len(rows), rows[0].seq, rows[-1].seq) if rows else (0, 0, -1)
