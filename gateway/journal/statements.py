"""The journal's statements that are used from several sides: many rows at once, transactions, the table of values.

What lives here: SQL, and how it is sent. What must not: what must be remembered between two statements.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain as flatten
from typing import Any

_WIDTHS = (64, 32, 16, 8, 4, 2, 1)
"""Rows a statement. SQLite runs each statement without the interpreter's lock and takes it again afterwards, three
times; on a busy machine that taking is the dearest part, so many rows share one."""

LOOK_UP = -1
"""For a device's row before, as ``_FACT_ROW`` has it: ``devices`` may know it. Not None, for which sqlite3 seeks an
adapter every time."""

_FACT_ROW = (
    "({0},{1},{2},{3},{4},{5},{6},{7},"
    "CASE {8} WHEN -1 THEN (SELECT last FROM devices WHERE device={3} AND source={4}) ELSE {8} END,{9})"
)
_OUTCOME_ROW = "({0},?2,?1+{row},{1},{2},{3},{4},{5},{6},{7},{8})"
_DEVICE_TAIL = """ ON CONFLICT (device, source) DO UPDATE SET
    last = max(last, excluded.last),
    remaining = CASE WHEN excluded.rec > rec THEN excluded.remaining ELSE remaining END,
    record = CASE WHEN excluded.rec > rec THEN excluded.record ELSE record END,
    sum = CASE WHEN excluded.rec > rec THEN excluded.sum ELSE sum END,
    until_boot = CASE WHEN excluded.rec > rec THEN excluded.until_boot ELSE until_boot END,
    rec = max(rec, excluded.rec)"""
_REFUSAL_TAIL = """ ON CONFLICT (slot, peer, refusal) DO UPDATE SET
    times = times + excluded.times, first = min(first, excluded.first), last = max(last, excluded.last)"""


class Insert:
    """Multi-row INSERT statements of a few fixed widths, so that SQLite prepares each only once.

    ``row``: one row's values. ``{0}`` is the first of its own ``columns``, ``{row}`` its place in the statement,
    ``?1`` the statement's own place among all rows; ``?2`` and on are the ``common`` values of all rows.
    """

    def __init__(self, table: str, columns: int, row: str = "", tail: str = "", common: int = 0) -> None:
        row = row or f"({','.join(f'{{{column}}}' for column in range(columns))})"
        self._sql = {}
        for width in _WIDTHS:
            first = range(common + 2, common + 2 + width * columns, columns)
            own = [[f"?{number}" for number in range(start, start + columns)] for start in first]
            rows = ",".join([row.format(*marks, row=place) for place, marks in enumerate(own)])
            self._sql[width] = f"INSERT INTO {table} VALUES {rows}{tail}"  # noqa: S608

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]], *common: object) -> None:
        """Insert rows, in order."""
        start, left = 0, len(rows)
        for width in _WIDTHS:
            while left >= width:
                own = flatten.from_iterable(rows[start : start + width])
                connection.execute(self._sql[width], [start, *common, *own])
                start, left = start + width, left - width


FACTS = Insert("facts", 10, _FACT_ROW)
DEVICES = Insert("devices", 8, tail=_DEVICE_TAIL)
OUTCOMES = Insert("outcomes", 9, _OUTCOME_ROW, common=1)
REFUSALS = Insert("refusals", 8, tail=_REFUSAL_TAIL)


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
