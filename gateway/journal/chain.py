"""The digest chain: what makes a changed, removed or inserted row show.

Each commit group's digest is SHA-256 over the digest before it and the group's canonical bytes: the JSON of its
number, wall times, fact rows and outcome rows, as they stand in the file. A fact row without ``until_boot`` has no
place for it there, as in version 1: its groups still match, and a boot time that was taken away, put in or changed
shows. Aggregated refusals are not covered (anyone can cause them, and they are added up in place); device state is
guarded row by row with a checksum.

What lives here: the digest and its recomputation. What must not: writing.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

START = bytes(32)
"""The digest before the first group."""

FINDINGS = 100
"""Findings after which verification stops: the file is broken, more lines would not say more."""

FACT_COLUMNS = "seq, at, kind, device, source, body, record, remaining, until_boot"
OUTCOME_COLUMNS = "seq, target, backend, profile, state, detail, accepted_ms, verified_ms, durable_ms"


class GroupRow(NamedTuple):
    """One commit group. Ranges are inclusive, (0, -1) when empty."""

    id: int
    at: float
    highest: float
    facts: int
    first: int
    last: int
    outcomes: int
    lowest_answered: int
    highest_answered: int
    digest: bytes


_json = msgspec.json.Encoder()


def digest(
    before: bytes,
    number: int,
    at: float,
    highest: float,
    facts: Sequence[tuple[object, ...]],
    outcomes: Sequence[tuple[object, ...]],
) -> bytes:
    """The digest of group ``number`` behind the digest ``before``. Rows (``StoredRow`` and ``OutcomeRow``, or plain
    tuples like them; no ``until_boot``, no place for it) in the order of reading back."""
    return hashlib.sha256(before + _json.encode((number, at, highest, facts, outcomes))).digest()


def _recomputed(connection: sqlite3.Connection, before: bytes, group: GroupRow) -> tuple[bytes, int, int]:
    facts = connection.execute(
        f"SELECT {FACT_COLUMNS} FROM facts WHERE seq BETWEEN ? AND ? ORDER BY seq",  # noqa: S608
        (group.first, group.last),
    ).fetchall()
    facts = [row[:-1] if row[-1] is None else row for row in facts]
    outcomes = connection.execute(
        f"SELECT {OUTCOME_COLUMNS} FROM outcomes "  # noqa: S608
        "WHERE seq BETWEEN ? AND ? AND grp = ? ORDER BY seq, n",
        (group.lowest_answered, group.highest_answered, group.id),
    ).fetchall()
    return digest(before, group.id, group.at, group.highest, facts, outcomes), len(facts), len(outcomes)


def _groups(connection: sqlite3.Connection, after: int) -> Iterator[GroupRow]:
    for row in connection.execute("SELECT * FROM groups WHERE id > ? ORDER BY id", (after,)):
        yield GroupRow(*row)


def verify(connection: sqlite3.Connection, after: int, before: bytes) -> list[str]:
    """Recompute every digest behind group ``after``, whose digest is ``before``; one sentence per finding.

    After a finding the chain goes on from the stored digest, so one changed row is one finding. Raises
    ``sqlite3.Error`` when the file cannot be read.
    """
    found: list[str] = []
    expected = after + 1
    for group in _groups(connection, after):
        if len(found) >= FINDINGS:
            found.append("more findings were left out")
            break
        if group.id != expected:
            found.append(f"groups {expected} to {group.id - 1} are missing")
        expected = group.id + 1
        value, facts, outcomes = _recomputed(connection, before, group)
        if facts != group.facts or outcomes != group.outcomes:
            found.append(
                f"group {group.id} (rows {group.first} to {group.last}) was written with {group.facts} facts and "
                f"{group.outcomes} outcomes, the file has {facts} and {outcomes}"
            )
        elif value != group.digest:
            found.append(f"group {group.id} (rows {group.first} to {group.last}) does not match its digest")
        before = group.digest
    return found
