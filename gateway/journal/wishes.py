"""Which devices were asked to attest again and have not been judged since, as the journal has it.

Asked once at a start, beside the writer that has just loaded the file. A wish leaves no record, so it is found
where a device's newest row is newer than the row of its record, and among the rows that no state knows yet. What
must not live here: what a wish leads to.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from gateway.core.errors import JournalError
from gateway.core.model import DeviceId, EventKind
from gateway.journal import schema
from gateway.journal.rows import TRANSITION

WALK = 64
"""Rows of one device that are looked at, newest first: what lies between a wish and now changes nothing, and seldom
is there anything."""

_ANSWERS = frozenset({EventKind.PASSED, EventKind.FAILED, EventKind.FAILED_LATE, EventKind.RETIRED})
_BEHIND = "SELECT device, source, last, rec FROM devices WHERE last > rec AND source <> ''"
_ROW = "SELECT kind, body, prev FROM facts WHERE seq = ?"
_NEWER = "SELECT kind, device, source, body FROM facts WHERE seq > ? AND device <> '' AND source <> '' ORDER BY seq"


class _Happened(msgspec.Struct, frozen=True):
    """As much of a transition's body as is asked for."""

    event: EventKind


_decode = msgspec.json.Decoder(_Happened).decode


def wishes(path: Path) -> frozenset[DeviceId]:
    """The devices with a wish to attest that nothing has answered. Blocking: it reads the state of every device.

    Raises ``JournalError`` when the file cannot be read.
    """
    try:
        database = schema.open_for_reading(path)
        try:
            return _wishes(database)
        finally:
            database.close()
    except (sqlite3.Error, msgspec.MsgspecError, OSError) as error:
        raise JournalError(f"{path}: cannot be read: {error}") from error


def _wishes(database: sqlite3.Connection) -> frozenset[DeviceId]:
    database.execute("BEGIN")  # the state and the rows behind it, from one moment
    found: set[tuple[str, str]] = set()
    for device, source, last, rec in database.execute(_BEHIND).fetchall():
        if _pending(database, last, rec):
            found.add((device, source))
    folded = database.execute("SELECT value FROM meta WHERE key = 'folded'").fetchone()
    for kind, device, source, body in database.execute(_NEWER, (folded[0] if folded else 0,)):
        if kind != TRANSITION:
            continue
        event = _decode(body).event
        if event is EventKind.REQUESTED:
            found.add((device, source))
        elif event in _ANSWERS:
            found.discard((device, source))
    return frozenset(DeviceId(device) for device, _ in found)


def _pending(database: sqlite3.Connection, last: int, rec: int) -> bool:
    """Whether a wish stands between the row of a device's record and its newest one."""
    seq: int | None = last
    for _ in range(WALK):
        row = None if seq is None or seq <= rec else database.execute(_ROW, (seq,)).fetchone()
        if row is None:  # the record's own row, or one that was pruned
            return False
        kind, body, seq = row
        if kind == TRANSITION:
            event = _decode(body).event
            if event is EventKind.REQUESTED or event in _ANSWERS:
                return event is EventKind.REQUESTED
    return False
