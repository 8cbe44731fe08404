"""Reading a journal for a rehearsal: the state of every device, and the events since a time, as one stream.

Works on a file that nobody writes and beside the running writer: a connection of its own that cannot write, and no
transaction that lasts longer than one batch, so that the writer's log never has to wait for a long reader.

What lives here: those two questions, blocking. What must not: writing, the loop, an opinion about an event.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from gateway.control.collecting import no_collection
from gateway.core.errors import JournalError
from gateway.core.model import DeviceId, Record, SourceName
from gateway.core.policy import Override
from gateway.core.rehearsal import Journalled
from gateway.journal import schema
from gateway.journal.rows import (
    NO_SOURCE,
    TRANSITION,
    JournalledDecoder,
    checksum,
    decode_override,
    decode_record,
)

BATCH = 4_096
"""Rows read at a time: some 3 MB, and about 20 ms in which the file is read."""

_FIRST = "SELECT min(first) FROM groups WHERE at >= ? AND facts > 0"
_LAST = "SELECT coalesce(max(seq), 0) FROM facts"
_ROWS = (
    "SELECT seq, at, kind, device, source, body, record FROM facts WHERE seq >= ? AND seq <= ? ORDER BY seq LIMIT ?"
)
_NEWER = (
    "SELECT seq, device, source, record FROM facts"
    " WHERE seq > ? AND record IS NOT NULL AND device <> ''{} ORDER BY seq"
)


class JournalReader:
    """One journal's file, open for reading. Use it in a ``with`` statement and in one thread at a time.

    Opening and every question raise ``JournalError`` when the file is missing, foreign, newer than this program,
    damaged or not readable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._told():
            self._db = schema.open_for_reading(path)
            try:
                schema.recognise(self._db, path)
            except BaseException:
                self._db.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def states(self) -> dict[tuple[DeviceId, SourceName], Record]:
        """The record of every (device, source), as of the newest committed row."""
        with self._told(), no_collection():
            texts = self._texts()
            return {
                (DeviceId(d), SourceName(s)): decode_record(text)
                for (d, s), (_, text) in texts.items()
                if s != NO_SOURCE
            }

    def overrides(self) -> dict[DeviceId, Override]:
        """The newest override of every device that has had one, also where it has ended since."""
        with self._told():
            texts = self._texts(" AND source = ''")
            return {DeviceId(d): decode_override(d, text) for (d, _), (_, text) in texts.items()}

    def _texts(self, which: str = "") -> dict[tuple[str, str], tuple[int, str]]:
        """The newest state of every (device, source) and the row that left it. ``which`` narrows the statements."""
        self._db.execute("BEGIN")  # the state and the rows behind it, from one moment
        try:
            return self._newest(which)
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _newest(self, which: str) -> dict[tuple[str, str], tuple[int, str]]:
        folded = self._db.execute("SELECT value FROM meta WHERE key = 'folded'").fetchone()
        texts: dict[tuple[str, str], tuple[int, str]] = {}
        rows = self._db.execute(
            f"SELECT device, source, rec, remaining, record, sum, until_boot FROM devices"  # noqa: S608 - our own words
            f" WHERE record IS NOT NULL{which}"
        )
        for device, source, seq, rest, record, stored, end in rows:
            if checksum(device, source, record, rest, end) != stored:
                raise JournalError(f"{self._path}: the state of device {device!r} is damaged")
            texts[device, source] = (seq, record)
        for seq, device, source, record in self._db.execute(_NEWER.format(which), (folded[0] if folded else 0,)):
            # A fold under way may know a newer row already.
            if seq > texts.get((device, source), (0, ""))[0]:
                texts[device, source] = (seq, record)
        return texts

    def since(self, wall: float) -> Iterator[Journalled]:
        """Every event committed since ``wall`` (UNIX seconds), in the journal's order, up to the newest row there
        is when the first one is asked for. Rows that are pruned meanwhile are left out."""
        with self._told():
            first = self._db.execute(_FIRST, (wall,)).fetchone()[0]
            last = self._db.execute(_LAST).fetchone()[0]
        decode = JournalledDecoder().decode
        while first is not None and first <= last:
            with self._told(), no_collection():
                rows = self._db.execute(_ROWS, (first, last, BATCH)).fetchall()
                events = [decode(at, *columns) for _, at, kind, *columns in rows if kind == TRANSITION]
            if not rows:
                return
            yield from events
            first = rows[-1][0] + 1

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what SQLite and the decoder say into the declared error."""
        try:
            yield
        except (sqlite3.Error, msgspec.MsgspecError, ValueError, OSError) as error:
            raise JournalError(f"{self._path}: cannot be read: {error}") from error
