"""Passes: the only way up.

What lives here: what a pass does at every standing, weighed against every mark. What must not: what lowers.
"""

# ruff: noqa: ARG001 -- the handlers of one table share one signature

from __future__ import annotations

from gateway.core.lifecycle.rules import MAX_NONCES, Rules
from gateway.core.lifecycle.steps import (
    EXTENDED,
    HELD,
    LAPSED,
    LOWERED,
    RAISED,
    RECORDED,
    REFUSED,
    TRUSTED,
    Step,
    moved,
    ordered,
)
from gateway.core.model import Event, Record


def _pass(record: Record, event: Event, rules: Rules) -> Step:
    """Weigh a pass against every mark; it raises only when all of them are satisfied."""
    issued = event.issued_at
    refusal = _out_of_order(record, event)
    if refusal:
        return Step(record, REFUSED, refusal)
    nonces = (event.nonce,) if issued > record.newest else (*record.nonces, event.nonce)
    deadline: float = issued + rules.max_age
    if event.valid_until is not None and event.valid_until < deadline:
        deadline = float(event.valid_until)
    if record.standing is TRUSTED and record.deadline is not None and record.deadline > deadline:
        deadline = record.deadline
    objection = _objection(record, issued, rules)
    if objection:
        effect = RECORDED if record.standing is HELD else REFUSED
        return Step(ordered(record, issued, nonces), effect, objection)
    if deadline <= event.at:
        return _outlived(record, issued, nonces)
    if record.debt > 1:
        return _paid(record, issued, nonces)
    return _satisfied(record, deadline, issued, nonces)


def _out_of_order(record: Record, event: Event) -> str:
    """Say why the order marks forbid a pass, or return ``""``: older than the newest verdict, or seen before."""
    if event.issued_at > record.newest:
        return ""
    if event.issued_at < record.newest:
        return "pass refused: older than the newest accepted verdict"
    if event.nonce in record.nonces:
        return "pass refused: its nonce was seen before"
    if len(record.nonces) >= MAX_NONCES:
        return "pass refused: too many verdicts issued in one second"
    return ""


def _objection(record: Record, issued: int, rules: Rules) -> str:
    """Name the mark that forbids a pass to count, or return ``""``."""
    if issued <= record.epoch:
        return "pass does not count: not issued after the last failure"
    if record.suspected_since and issued <= record.suspected_since + rules.skew:
        return "pass does not count: not issued after the suspicion"
    if issued <= record.paid_at:
        return "pass does not count towards recovery: not issued later than the one before"
    return ""


def _outlived(record: Record, newest: int, nonces: tuple[bytes, ...]) -> Step:
    """A pass whose validity is over: it neither admits nor pays. It must not lift what stands below lapsed."""
    why = "pass does not admit: its validity is over"
    if record.standing < LAPSED:
        return Step(ordered(record, newest, nonces), RECORDED, why)
    after = moved(ordered(record, newest, nonces), LAPSED, None)
    return Step(after, LOWERED if record.standing is TRUSTED else RECORDED, why)


def _paid(record: Record, issued: int, nonces: tuple[bytes, ...]) -> Step:
    """One satisfying pass of the recovery, and more are owed."""
    debt = record.debt - 1
    after = Record(
        record.standing,
        record.deadline,
        issued,
        nonces,
        record.epoch,
        debt,
        issued,
        record.suspected_since,
        record.hold,
        record.graced,
    )
    return Step(after, RECORDED, f"passed, {debt} more needed to recover from the failure")


def _satisfied(record: Record, deadline: float, issued: int, nonces: tuple[bytes, ...]) -> Step:
    """Every mark is satisfied: trusted with a deadline and clear marks, or clear marks beneath a hold."""
    standing = record.standing
    held = standing is HELD
    after = Record(
        standing if held else TRUSTED,
        None if held else deadline,
        issued,
        nonces,
        record.epoch,
        hold=record.hold,
    )
    if held:
        return Step(after, RECORDED, "passed, recorded beneath the operator's hold")
    if standing is not TRUSTED:
        return Step(after, RAISED, "passed attestation")
    if deadline == record.deadline:
        return Step(after, RECORDED, "passed again, the deadline stays")
    return Step(after, EXTENDED, "passed again, the deadline moves on")


def pass_admits(record: Record, event: Event, rules: Rules) -> Step:
    """trusted until min(valid until, issued + maximum age)"""
    return _pass(record, event, rules)


def pass_extends(record: Record, event: Event, rules: Rules) -> Step:
    """the later deadline"""
    return _pass(record, event, rules)


def pass_answers(record: Record, event: Event, rules: Rules) -> Step:
    """trusted if issued after the suspicion + skew, else refused"""
    return _pass(record, event, rules)


def pass_recovers(record: Record, event: Event, rules: Rules) -> Step:
    """pays one of the debt; trusted when nothing is owed"""
    return _pass(record, event, rules)


def pass_beneath(record: Record, event: Event, rules: Rules) -> Step:
    """recorded beneath the hold: the debt is paid, the hold stays"""
    return _pass(record, event, rules)


def pass_refused(record: Record, event: Event, rules: Rules) -> Step:
    """refused"""
    return Step(record, REFUSED, "pass refused: the device is retired")
