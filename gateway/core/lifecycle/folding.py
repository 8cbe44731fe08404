"""The fold over a device's sources: one standing and one deadline from a record each.

What lives here: the fold and its quorum, and the cap that other rules put on a record. What must not: what an
event does.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.lifecycle.rules import Rules
from gateway.core.lifecycle.steps import LAPSED, SUSPECT, TRUSTED, UNKNOWN
from gateway.core.model import Record, Standing

_ADMITTING = frozenset((TRUSTED, SUSPECT))


def fold(records: Sequence[Record], quorum: int | None = None) -> tuple[Standing, float | None]:
    """Fold a device's records, one per source, into its standing and deadline: the lowest standing wins.

    The deadline (UNIX seconds) is the earliest one when the result admits (trusted, suspect). A source without a
    deadline admits nothing, so a suspect beside an unknown or lapsed source has none. No records: unknown.

    ``quorum``: so many sources must be trusted. Then, and only then, the others may be silent (unknown, lapsed);
    the deadline is the one after which fewer are left. A negative standing of any source still wins.
    """
    if quorum is not None:
        return _fold_quorum(records, quorum)
    if len(records) == 1:
        record = records[0]
        return record.standing, record.deadline if record.standing in _ADMITTING else None
    standing = min((record.standing for record in records), default=UNKNOWN)
    if standing not in _ADMITTING:
        return standing, None
    earliest: float | None = None
    for record in records:
        if record.deadline is None:
            return standing, None
        if earliest is None or record.deadline < earliest:
            earliest = record.deadline
    return standing, earliest


def _fold_quorum(records: Sequence[Record], quorum: int) -> tuple[Standing, float | None]:
    lowest, deadline = fold(records)
    if lowest < LAPSED:
        return lowest, deadline if len(records) >= quorum else None
    ends = sorted((r.deadline for r in records if r.standing is TRUSTED and r.deadline is not None), reverse=True)
    if len(ends) >= quorum:
        return TRUSTED, ends[quorum - 1]
    return min((r.standing for r in records if r.standing is not TRUSTED), default=UNKNOWN), None


def capped(record: Record, rules: Rules) -> Record:
    """Return a record that is good for no longer than the maximum age of these rules since its newest verdict.

    A maximum age that was lowered holds at once; a longer one only for the next pass.
    """
    if record.deadline is None or not record.newest or record.deadline <= record.newest + rules.max_age:
        return record
    return record._replace(deadline=record.newest + rules.max_age)
