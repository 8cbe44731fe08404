"""What every handler of the table shares: its signature, what it returns, and how a record is copied.

What lives here: values and copies. What must not: a rule.
"""

# ruff: noqa: ARG001 -- the handlers of one table share one signature

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gateway.core.lifecycle.rules import Rules
from gateway.core.model import Effect, Event, Record, Standing

# Looking a member up on its class costs a tenth of a step's time in Python 3.11; a plain name costs nothing.
RETIRED, HELD, DISTRUSTED, SUSPECT, LAPSED, UNKNOWN, TRUSTED = Standing
RAISED, LOWERED, EXTENDED, RECORDED, NONE, REFUSED = Effect


class Step(NamedTuple):
    """What one event did: the record it leaves, the effect, and one sentence for people."""

    record: Record
    effect: Effect
    why: str


Handler = Callable[[Record, Event, Rules], Step]


def ordered(record: Record, newest: int, nonces: tuple[bytes, ...]) -> Record:
    """Move the order marks and nothing else."""
    return Record(
        record.standing,
        record.deadline,
        newest,
        nonces,
        record.epoch,
        record.debt,
        record.paid_at,
        record.suspected_since,
        record.hold,
        record.graced,
    )


def suspicion(record: Record, event: Event) -> float:
    """A wall clock that was set back must not date a suspicion earlier."""
    return max(record.suspected_since, event.at)


def moved(
    record: Record,
    standing: Standing,
    deadline: float | None,
    suspected_since: float | None = None,
    hold: bool | None = None,
) -> Record:
    """Copy a record with another standing and deadline; the other marks stay unless given."""
    return Record(
        standing,
        deadline,
        record.newest,
        record.nonces,
        record.epoch,
        record.debt,
        record.paid_at,
        record.suspected_since if suspected_since is None else suspected_since,
        record.hold if hold is None else hold,
        record.graced,
    )


def no_effect(record: Record, event: Event, rules: Rules) -> Step:
    """no effect"""
    return Step(record, NONE, "no effect")
