"""Keeping the journal's file small: whole groups that are old, and aggregated refusals that are old or too many.

What lives here: what is deleted, a slice at a time. What must not: when.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from gateway.journal.statements import Transaction, set_values

PRUNE_SLICE = 500
"""Rows pruned in one transaction: about a millisecond."""

REFUSAL_ROWS = 100_000
"""Aggregated refusals kept (about 15 MB): anyone can cause them."""

REFUSAL_SLACK = 2_000
"""How far below that number a pruning goes, so that a flood causes few of them (each about 10 ms)."""


def size(connection: sqlite3.Connection) -> int:
    """Bytes of the file that are in use."""
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def prune_groups(connection: sqlite3.Connection, newest: int, before: float, *, oldest: bool) -> bool:
    """Delete whole groups committed before ``before`` (UNIX seconds), or the oldest whatever their age.

    Up to a slice; returns whether anything was deleted. State, rows not yet folded and the newest group, which has
    the number ``newest``, stay.
    """
    folded = connection.execute("SELECT value FROM meta WHERE key='folded'").fetchone()
    rows = connection.execute(
        "SELECT id, last, highest_answered, facts + outcomes, digest FROM groups"
        " WHERE id < ? AND last <= ? AND (at < ? OR ?) ORDER BY id LIMIT ?",
        (newest, folded[0] if folded else -1, before, oldest, PRUNE_SLICE),
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
    with Transaction(connection):
        connection.execute("DELETE FROM facts WHERE seq <= ?", (max(row[1] for row in doomed),))
        connection.execute(
            "DELETE FROM outcomes WHERE seq <= ? AND grp <= ?", (max(row[2] for row in doomed), last[0])
        )
        connection.execute("DELETE FROM groups WHERE id <= ?", (last[0],))
        set_values(connection, anchor=last[0], anchor_digest=last[4])
    return True


def refusals(connection: sqlite3.Connection) -> int:
    """How many aggregated refusals there are."""
    found: int = connection.execute("SELECT count(*) FROM refusals").fetchone()[0]
    return found


def prune_refusals(connection: sqlite3.Connection, before: float) -> int:
    """Keep aggregated refusals within their age (``before``: UNIX seconds) and their number; returns how many there
    are now."""
    connection.execute("DELETE FROM refusals WHERE slot < ?", (int(before),))
    left = refusals(connection)
    if left > REFUSAL_ROWS:
        left -= connection.execute(
            "DELETE FROM refusals WHERE (slot, peer, refusal) IN"
            " (SELECT slot, peer, refusal FROM refusals ORDER BY slot, peer, refusal LIMIT ?)",
            (left - REFUSAL_ROWS + REFUSAL_SLACK,),
        ).rowcount
    return left
