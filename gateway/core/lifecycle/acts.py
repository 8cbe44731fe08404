"""Operators' acts, the inventory's, and what a start withholds.

What lives here: what each of these does at every standing. What must not: verdicts.
"""

# ruff: noqa: ARG001 -- the handlers of one table share one signature

from __future__ import annotations

from gateway.core.lifecycle.rules import Rules
from gateway.core.lifecycle.steps import (
    DISTRUSTED,
    HELD,
    LAPSED,
    LOWERED,
    RAISED,
    RECORDED,
    RETIRED,
    SUSPECT,
    UNKNOWN,
    Step,
    moved,
    suspicion,
)
from gateway.core.model import Event, Record


def holds(record: Record, event: Event, rules: Rules) -> Step:
    """held"""
    after = moved(record, HELD, None, hold=True)
    return Step(after, LOWERED, f"held: {event.reason}" if event.reason else "held by an operator")


def holds_beneath(record: Record, event: Event, rules: Rules) -> Step:
    """recorded: held once reinstated"""
    return Step(moved(record, RETIRED, None, hold=True), RECORDED, "hold recorded, the device is retired")


def releases(record: Record, event: Event, rules: Rules) -> Step:
    """what lies beneath: distrusted while a debt is owed, else lapsed"""
    beneath = DISTRUSTED if record.debt else LAPSED
    after = moved(record, beneath, None, hold=False)
    return Step(after, RAISED, f"released: {event.reason}" if event.reason else "released by an operator")


def releases_beneath(record: Record, event: Event, rules: Rules) -> Step:
    """recorded: the hold is gone, the device stays retired"""
    return Step(moved(record, RETIRED, None, hold=False), RECORDED, "release recorded, the device is retired")


def retires(record: Record, event: Event, rules: Rules) -> Step:
    """retired; marks kept"""
    return Step(moved(record, RETIRED, None), LOWERED, "the inventory no longer lists the device")


def reinstates(record: Record, event: Event, rules: Rules) -> Step:
    """by the marks: held, distrusted, suspect without a deadline, else unknown"""
    if record.hold:
        beneath = HELD
    elif record.debt:
        beneath = DISTRUSTED
    elif record.suspected_since:
        beneath = SUSPECT
    else:
        beneath = UNKNOWN
    return Step(moved(record, beneath, None), RAISED, "the inventory lists the device again")


def withholds(record: Record, event: Event, rules: Rules) -> Step:
    """suspect without a deadline"""
    after = moved(record, SUSPECT, None, suspicion(record, event))
    ended = record.deadline is not None  # every trusted record has one
    return Step(after, LOWERED if ended else RECORDED, f"withheld: {event.reason}")
