"""What the journal's file knows when it is opened: the states of devices, and the rows behind them.

What lives here: reading and vouching for what is read. What must not: writing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from gateway.control.ports import Running
from gateway.core.errors import JournalError
from gateway.core.model import DeviceId, Record, SourceName
from gateway.journal import chain
from gateway.journal.fold import Fold, Key, Tail
from gateway.journal.rows import NO_SOURCE, checksum, decode_override, decode_record


class Known:
    """What is being read at the opening; ``seqs``: the row that left each state in ``devices``. ``boot_first``: the
    first row of this boot (None: there is none yet); of rows before it ``until_boot`` means nothing now."""

    __slots__ = ("_sources", "boot_first", "left", "overrides", "records", "seqs", "until_boot")

    def __init__(self, boot_first: int | None = None) -> None:
        self.boot_first = boot_first
        self._sources: dict[str, SourceName] = {}
        self.until_boot: dict[tuple[DeviceId, SourceName], float] = {}
        self.records: dict[tuple[DeviceId, SourceName], Record] = {}
        self.left: dict[tuple[DeviceId, SourceName], float] = {}
        self.seqs: dict[Key, int] = {}
        self.overrides: dict[DeviceId, Running] = {}

    def take(self, device: str, source: str, record: str, rest: float | None, end: float | None, rec: int) -> None:
        """Take the state that row ``rec`` left, instead of what was known of the same before."""
        if self.boot_first is None or rec < self.boot_first:
            end = None
        if source == NO_SOURCE:
            self.overrides[DeviceId(device)] = Running(decode_override(device, record), rest or 0.0, end)
            return
        key = (DeviceId(device), self._sources.setdefault(source, SourceName(source)))
        self.records[key] = decode_record(record)
        if rest is not None:
            self.left[key] = rest
        elif key in self.left:
            del self.left[key]
        if end is not None:
            self.until_boot[key] = end
        elif key in self.until_boot:
            del self.until_boot[key]


def verify_newest(connection: sqlite3.Connection, folded: int, meta: Mapping[str, Any]) -> None:
    """Rows that ``devices`` does not know yet are about to become state: the chain must vouch for them.

    Raises ``JournalError`` where it does not.
    """
    first, vouched = connection.execute(
        "SELECT min(id), coalesce(sum(facts), 0) FROM groups WHERE last > ?", (folded,)
    ).fetchone()
    rows = connection.execute("SELECT count(*) FROM facts WHERE seq > ?", (folded,)).fetchone()[0]
    found = [f"{rows} rows, {vouched} written"] if rows != vouched else []
    if first is not None and not found:
        before = connection.execute("SELECT digest FROM groups WHERE id = ?", (first - 1,)).fetchone()
        anchor = bytes(meta.get("anchor_digest", chain.START))
        found = chain.verify(connection, first - 1, before[0] if before else anchor)
    if found:
        raise JournalError(f"the newest rows were changed: {found[0]}; put back a copy of the journal")


def read_devices(connection: sqlite3.Connection, known: Known) -> None:
    """Take the states that ``devices`` has. Raises ``JournalError`` for a damaged one."""
    rows = connection.execute(
        "SELECT device, source, rec, remaining, record, sum, until_boot FROM devices WHERE record IS NOT NULL"
    )
    for device, source, rec, rest, record, stored, end in rows:
        if checksum(device, source, record, rest, end) != stored:
            raise JournalError(f"the state of device {device!r} is damaged; put back a copy of the journal")
        known.take(device, source, record, rest, end, rec)
        known.seqs[device, source] = rec


def replay(connection: sqlite3.Connection, folded: int, known: Known, fold: Fold) -> int:
    """Apply the rows that ``devices`` does not know yet, and let ``fold`` know of them.

    Returns the newest sequence number, ``folded`` without any.
    """
    newest = folded
    rows = connection.execute(
        "SELECT seq, device, source, remaining, record, until_boot FROM facts WHERE seq > ? ORDER BY seq", (folded,)
    )
    states: dict[Key, tuple[str, float | None, float | None, int]] = {}
    for seq, device, source, rest, record, end in rows:
        newest = seq
        if not device:
            continue
        key = (device, source)
        rec = fold.tails.get(key, Tail(0, 0)).rec
        if record is not None and seq > known.seqs.get(key, 0):
            rec = seq
            states[key] = (record, rest, end, seq)
        fold.note({key: Tail(seq, rec)})
    for (device, source), state in states.items():
        known.take(device, source, *state)
    return newest
