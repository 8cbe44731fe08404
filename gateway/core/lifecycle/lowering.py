"""Failures, hints, requests and the passing of time: none of them raises.

What lives here: what each of these does at every standing. What must not: passes, operators' acts.
"""

# ruff: noqa: ARG001 -- the handlers of one table share one signature

from __future__ import annotations

from gateway.core.lifecycle.rules import MAX_NONCES, Rules
from gateway.core.lifecycle.steps import (
    DISTRUSTED,
    EXTENDED,
    LAPSED,
    LOWERED,
    NONE,
    RECORDED,
    SUSPECT,
    Step,
    moved,
    suspicion,
)
from gateway.core.model import Event, Record, Standing


def _failed(record: Record, event: Event, rules: Rules, standing: Standing) -> Step:
    """Set epoch and debt, and fall to ``standing``."""
    issued, newest, nonces = event.issued_at, record.newest, record.nonces
    if issued > newest:
        newest, nonces = issued, (event.nonce,)
    elif issued == newest and event.nonce not in nonces and len(nonces) < MAX_NONCES:
        nonces = (*nonces, event.nonce)
    after = Record(
        standing,
        None,
        newest,
        nonces,
        max(record.epoch, issued),
        rules.recovery_passes,
        0,
        record.suspected_since,
        record.hold,
        record.graced,
    )
    effect = LOWERED if standing < record.standing else RECORDED
    return Step(after, effect, f"failed attestation ({event.reason})" if event.reason else "failed attestation")


def fails(record: Record, event: Event, rules: Rules) -> Step:
    """distrusted; epoch and debt set"""
    return _failed(record, event, rules, DISTRUSTED)


def fails_beneath(record: Record, event: Event, rules: Rules) -> Step:
    """recorded: epoch and debt set, the standing stays"""
    return _failed(record, event, rules, record.standing)


def _suspected(record: Record, event: Event, standing: Standing) -> Step:
    """Mark the suspicion of an authentic failure that is not fresh, without probation."""
    # A failure dated in the future must not lock the device out until that time has come.
    epoch = max(record.epoch, event.issued_at) if event.issued_at <= event.at else record.epoch
    after = Record(
        standing,
        None,
        record.newest,
        record.nonces,
        epoch,
        record.debt,
        record.paid_at,
        record.suspected_since or event.at,
        record.hold,
        record.graced,
    )
    ended = standing < record.standing or record.deadline is not None
    return Step(after, LOWERED if ended else RECORDED, "authentic failure, but not fresh")


def late(record: Record, event: Event, rules: Rules) -> Step:
    """suspect without a deadline"""
    return _suspected(record, event, SUSPECT)


def late_beneath(record: Record, event: Event, rules: Rules) -> Step:
    """recorded: suspicion and epoch marked, the standing stays"""
    return _suspected(record, event, record.standing)


# --- hints, requests, time ---------------------------------------------------------------------------------------


def hint_suspects(record: Record, event: Event, rules: Rules) -> Step:
    """suspect, keeping the deadline (none when the book cuts for this hint)"""
    after = moved(record, SUSPECT, None if event.cut else record.deadline, suspicion(record, event))
    return Step(after, LOWERED, f"hint of failure ({event.reason})" if event.reason else "hint of failure")


def hint_cuts(record: Record, event: Event, rules: Rules) -> Step:
    """no effect, but the deadline ends when the book cuts for this hint"""
    if not event.cut or record.deadline is None:
        return Step(record, NONE, "hint of failure: already suspect")
    return Step(moved(record, SUSPECT, None), LOWERED, "hint of failure that the book cuts for")


def requested(record: Record, event: Event, rules: Rules) -> Step:
    """recorded"""
    return Step(record, RECORDED, "re-attestation was requested")


def requested_of_trusted(record: Record, event: Event, rules: Rules) -> Step:
    """recorded; if solicited, once per pass: deadline := min(deadline, now + grace)"""
    if not event.solicited or record.graced or record.deadline is None:
        return Step(record, RECORDED, "re-attestation was requested")
    deadline = min(record.deadline, event.at + rules.grace)
    after = record._replace(deadline=deadline, graced=True)
    if deadline == record.deadline:
        return Step(after, RECORDED, "re-attestation requested by us, the deadline is within the grace already")
    return Step(after, EXTENDED, "re-attestation requested by us, the deadline is cut to the grace")


def noted(record: Record, event: Event, rules: Rules) -> Step:
    """recorded"""
    return Step(record, RECORDED, f"noted ({event.reason})" if event.reason else "noted")


def lapses(record: Record, event: Event, rules: Rules) -> Step:
    """lapsed, when a deadline has passed"""
    if record.deadline is None:
        return Step(record, NONE, "no deadline to pass")
    if event.at < record.deadline:
        return Step(record, NONE, "the deadline has not passed yet")
    return Step(moved(record, LAPSED, None), LOWERED, "the deadline passed without a new attestation")
