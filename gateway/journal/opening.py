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
    """What is being read at the opening; ``seqs``: the row that left each state in ``devices``."""

    __slots__ = ("left", "overrides", "records", "seqs")

    def __init__(self) -> None:
        self.records: dict[tuple[DeviceId, SourceName], Record] = {}
        self.left: dict[tuple[DeviceId, SourceName], float] = {}
        self.seqs: dict[Key, int] = {}
        self.overrides: dict[DeviceId, Running] = {}


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


def read_devices(connection: sqlite3.Connection) -> Known:
    """The states that ``devices`` has. Raises ``JournalError`` for a damaged one."""
    known = Known()
    records, left, seqs = known.records, known.left, known.seqs
    rows = connection.execute(
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


def replay(connection: sqlite3.Connection, folded: int, known: Known, fold: Fold) -> int:
    """Apply the rows that ``devices`` does not know yet, and let ``fold`` know of them.

    Returns the newest sequence number, ``folded`` without any.
    """
    newest = folded
    records, left, seqs = known.records, known.left, known.seqs
    rows = connection.execute(
        "SELECT seq, device, source, remaining, record FROM facts WHERE seq > ? ORDER BY seq", (folded,)
    )
    states: dict[Key, tuple[str, float | None]] = {}
    for seq, device, source, rest, record in rows:
        newest = seq
        if not device:
            continue
        key = (device, source)
        rec = fold.tails.get(key, Tail(0, 0)).rec
        if record is not None and seq > seqs.get(key, 0):
            rec = seq
            states[key] = (record, rest)
        fold.note({key: Tail(seq, rec)})
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
