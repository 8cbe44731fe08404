"""Questions to the memory, answered off the loop's thread and beside the writer.

What lives here: read-only queries. What must not: writing, or an opinion about what is read.
"""

from __future__ import annotations

import asyncio
import heapq
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway.core.errors import JournalError
from gateway.core.model import DeviceId
from gateway.core.rehearsal import Journalled
from gateway.journal import chain, schema
from gateway.journal.outcomes import OutcomeRow
from gateway.journal.plain import plain_fact
from gateway.journal.refusals import WINDOW
from gateway.journal.rehearse import JournalReader
from gateway.journal.rows import StoredRow, checksum

READERS = 2
"""Threads: one slow question does not block the others, and many cannot take the machine."""

MOST_ROWS = 10_000
"""Rows that one question returns at most (about 10 MB of values)."""

QUESTION_SECONDS = 10.0
"""Seconds after which a question is given up."""

VERIFY_SECONDS = 3_600.0
"""Seconds after which a verification is given up."""

_STEPS = 100_000
"""SQLite instructions between two looks at the time (about a millisecond)."""

T = TypeVar("T")


class SqliteHistory:
    """Implements ``History`` on the journal's file, with read-only connections and threads of its own.

    Also works alone, on a file that nobody writes. Every method raises ``JournalError`` when the file cannot be
    read or the answer takes too long.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="journal-read")
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._closed = False

    async def verdicts(self, device: DeviceId, limit: int) -> Sequence[Mapping[str, Any]]:
        """The newest rows of a device, newest first; keys as ``rows.plain_fact`` says."""
        return await self._ask(lambda db: _verdicts(db, device, _clamp(limit)))

    async def refusals(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """The newest aggregated refusals, newest window first: ``at`` (window start, UNIX seconds), ``seconds``,
        ``peer`` (prefix), ``refusal``, ``source``, ``times``, ``first``, ``last``, ``detail`` (one sample)."""
        return await self._ask(lambda db: _refusals(db, _clamp(limit)))

    async def facts(self, after_seq: int, limit: int) -> Sequence[Mapping[str, Any]]:
        """Rows behind ``after_seq``, oldest first."""
        return await self._ask(lambda db: _facts(db, after_seq, _clamp(limit)))

    def since(self, wall: float) -> Iterator[Journalled]:
        """Every event since ``wall`` (UNIX seconds), oldest first, on a connection of its own: blocking, for a
        thread that has the time. See ``JournalReader.since``."""
        with JournalReader(self._path) as reader:
            yield from reader.since(wall)

    async def verify_chain(self) -> Sequence[str]:
        """Check the whole file and recompute every digest; one sentence per finding, none when all is well.

        Reads everything: about ten seconds per gigabyte, at most ``VERIFY_SECONDS``. Raises ``JournalError`` for a
        file that cannot be read or that a newer version wrote.
        """
        return await self._ask(lambda db: _verify(db, self._path), VERIFY_SECONDS)

    def close(self) -> None:
        """End what runs (within a millisecond) and release threads and files. Later questions raise
        ``JournalError``."""
        self._closed = True
        self._pool.shutdown(wait=True)
        for connection in self._open:
            connection.close()
        self._open.clear()

    async def _ask(self, question: Callable[[sqlite3.Connection], T], seconds: float = QUESTION_SECONDS) -> T:
        if self._closed:
            raise JournalError(f"{self._path}: the journal is closed")
        deadline = time.monotonic() + seconds
        return await asyncio.wrap_future(self._pool.submit(self._answer, question, deadline))

    def _answer(self, question: Callable[[sqlite3.Connection], T], deadline: float) -> T:
        try:
            with self._connection(deadline) as connection:
                connection.execute("BEGIN")  # one snapshot for all of a question's statements
                try:
                    return question(connection)
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        except (sqlite3.Error, msgspec.MsgspecError, ValueError, OSError) as error:
            raise JournalError(f"{self._path}: cannot be read: {error}") from error

    @contextmanager
    def _connection(self, deadline: float) -> Iterator[sqlite3.Connection]:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = schema.open_for_reading(self._path)
            self._open.append(connection)
        # A handler that returns true makes SQLite end the statement with "interrupted".
        connection.set_progress_handler(lambda: self._closed or time.monotonic() > deadline, _STEPS)
        try:
            yield connection
        finally:
            connection.set_progress_handler(None, 0)


#: Outcomes of one row that are read: one or two for each target.
_OUTCOMES = 64


def _clamp(limit: int) -> int:
    return max(0, min(limit, MOST_ROWS))


def _shown(db: sqlite3.Connection, row: StoredRow) -> dict[str, Any]:
    answers = db.execute(
        f"SELECT {chain.OUTCOME_COLUMNS} FROM outcomes WHERE seq = ? ORDER BY grp DESC, n DESC LIMIT {_OUTCOMES}",  # noqa: S608
        (row.seq,),
    ).fetchall()
    return plain_fact(row, [OutcomeRow(*answer) for answer in answers])


def _heads(db: sqlite3.Connection, device: str) -> list[int]:
    """The newest row of the device from each source: from ``devices``, or from rows that it does not know yet."""
    folded = db.execute("SELECT value FROM meta WHERE key = 'folded'").fetchone()
    heads = dict(db.execute("SELECT source, last FROM devices WHERE device = ?", (device,)).fetchall())
    newer = "SELECT source, max(seq) FROM facts WHERE seq > ? AND device = ? GROUP BY source"
    for source, seq in db.execute(newer, (folded[0] if folded else -1, device)):
        heads[source] = max(seq, heads.get(source, 0))
    return list(heads.values())


def _verdicts(db: sqlite3.Connection, device: str, limit: int) -> list[dict[str, Any]]:
    """Follow each source's rows back, newest of all first; a pruned row ends its line."""
    ahead = [-seq for seq in _heads(db, device)]
    heapq.heapify(ahead)
    found: list[dict[str, Any]] = []
    while ahead and len(found) < limit:
        line = db.execute(
            f"SELECT {chain.FACT_COLUMNS}, prev FROM facts WHERE seq = ?",  # noqa: S608
            (-heapq.heappop(ahead),),
        ).fetchone()
        if line is None:
            continue
        found.append(_shown(db, StoredRow(*line[:-1])))
        if line[-1]:
            heapq.heappush(ahead, -line[-1])
    return found


def _facts(db: sqlite3.Connection, after: int, limit: int) -> list[dict[str, Any]]:
    rows = db.execute(
        f"SELECT {chain.FACT_COLUMNS} FROM facts WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608
        (after, limit),
    ).fetchall()
    return [_shown(db, StoredRow(*row)) for row in rows]


def _refusals(db: sqlite3.Connection, limit: int) -> list[dict[str, Any]]:
    names = ("at", "peer", "refusal", "source", "times", "first", "last", "detail")
    rows = db.execute(
        "SELECT slot, peer, refusal, source, times, first, last, sample FROM refusals"
        " ORDER BY slot DESC, last DESC LIMIT ?",
        (limit,),
    )
    return [dict(zip(names, row, strict=True)) | {"seconds": WINDOW} for row in rows]


def _verify(db: sqlite3.Connection, path: Path) -> list[str]:
    try:
        schema.check(db, path, whole=True)
    except (JournalError, sqlite3.DatabaseError) as error:
        return [f"the file is damaged: {error}"]
    schema.recognise(db, path)
    meta = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('anchor', 'anchor_digest')").fetchall())
    found = chain.verify(db, meta.get("anchor", 0), meta.get("anchor_digest", chain.START))
    rows, vouched = db.execute(
        "SELECT (SELECT count(*) FROM facts), (SELECT coalesce(sum(facts), 0) FROM groups)"
    ).fetchone()
    if rows > vouched:
        found.append(f"{rows - vouched} rows belong to no commit group")
    broken = [
        device
        for device, source, rest, record, stored, end in db.execute(
            "SELECT device, source, remaining, record, sum, until_boot FROM devices WHERE record IS NOT NULL"
        )
        if checksum(device, source, record, rest, end) != stored
    ]
    if broken:
        found.append(f"the state of {len(broken)} devices does not match its checksum, first {broken[0]!r}")
    return found
