"""The journal's statements that are used from several sides: many rows at once, transactions, the table of values.

What lives here: SQL, and how it is sent. What must not: what must be remembered between two statements.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain as flatten
from typing import Any

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


class Insert:
    """Multi-row INSERT statements of a few fixed widths, so that SQLite prepares each only once."""

    def __init__(self, table: str, row: str, tail: str = "") -> None:
        self._sql = {n: f"INSERT INTO {table} VALUES {','.join([row] * n)}{tail}" for n in _WIDTHS}  # noqa: S608

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows, in order."""
        start, left = 0, len(rows)
        for width in _WIDTHS:
            while left >= width:
                part = rows[start : start + width]
                connection.execute(self._sql[width], list(flatten.from_iterable(part)))
                start, left = start + width, left - width


FACTS = Insert("facts", _FACT_ROW)
DEVICES = Insert("devices", "(?,?,?,?,?,?,?)", _DEVICE_TAIL)
OUTCOMES = Insert("outcomes", "(?,?,?,?,?,?,?,?,?,?,?)")
REFUSALS = Insert("refusals", "(?,?,?,?,?,?,?,?)", _REFUSAL_TAIL)


class Transaction:
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


def set_values(connection: sqlite3.Connection, **values: float | str | bytes) -> None:
    """Write into ``meta``."""
    marks = ",".join(["(?,?)"] * len(values))
    connection.execute(
        f"INSERT INTO meta VALUES {marks} ON CONFLICT (key) DO UPDATE SET value = excluded.value",  # noqa: S608
        list(flatten.from_iterable(values.items())),
    )
