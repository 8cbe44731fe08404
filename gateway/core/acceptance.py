"""Whether an authentic statement may count: how timely it is, whether it was said before, and in what order.

Shared by every format that makes verdicts. What lives here: the last steps of each verification plan (freshness,
replay, order, retired), which look at the statement, the device's record and the time of receipt. What must not:
keys, signatures, bytes of any format.

Raising is strict: a pass must satisfy every step. Lowering is generous: an authentic failure fails no freshness
check, it says how timely it is; only one that is already accounted for is refused. What does neither must be fresh
and moves no mark.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.errors import Refusal
from gateway.core.model import Outcome, Record, Standing, Timeliness

WINDOW_PAST = 120
"""Seconds that a timestamp may lie behind our clock: a slow attestation thread and clocks that drift apart."""

WINDOW_FUTURE = 2
"""Seconds that it may lie ahead: whole-second rounding and clocks kept by NTP. More would let a pass be kept."""

# Members that every statement is compared with, by name: reading one from its Enum costs ten times as much.
_FRESH, _STALE, _FUTURE, _LATE = Timeliness
_PASSED = Outcome.PASSED
_LOWERING = frozenset({Outcome.FAILED, Outcome.REJECTED})
_RETIRED = Standing.RETIRED


class Window(NamedTuple):
    """Seconds around our wall clock in which an issued-at is fresh."""

    past: int = WINDOW_PAST
    future: int = WINDOW_FUTURE


Weighed = tuple[Timeliness, tuple[Refusal, str] | None]
"""How timely a statement is, and the step that refuses it with a sentence, if one does."""


def weigh(outcome: Outcome, issued_at: int, nonce: bytes, record: Record, now: float, window: Window) -> Weighed:
    """Judge an authentic statement about the device of ``record`` at wall time ``now``."""
    if issued_at < now - window.past:
        timeliness = _STALE
    elif issued_at > now + window.future:
        timeliness = _FUTURE
    else:
        timeliness = _FRESH
    if outcome is _PASSED:
        return timeliness, _judge_raising(issued_at, nonce, record, now, window, timeliness)
    if outcome in _LOWERING:
        return _judge_lowering(issued_at, nonce, record, timeliness)
    return timeliness, _judge_freshness(issued_at, now, window, timeliness)


def _judge_freshness(
    issued_at: int, now: float, window: Window, timeliness: Timeliness
) -> tuple[Refusal, str] | None:
    if timeliness is _FRESH:
        return None
    age = now - issued_at
    if timeliness is _STALE:
        return Refusal.FRESHNESS, f"issued {age:.0f} s ago; at most {window.past} s are taken"
    return Refusal.FRESHNESS, f"issued {-age:.0f} s ahead; at most {window.future} s are taken"


def _judge_raising(
    issued_at: int, nonce: bytes, record: Record, now: float, window: Window, timeliness: Timeliness
) -> tuple[Refusal, str] | None:
    # freshness
    refusal = _judge_freshness(issued_at, now, window, timeliness)
    if refusal is not None:
        return refusal
    # replay
    if _is_replay(issued_at, nonce, record):
        return Refusal.REPLAY, f"this pass of {issued_at} was accepted before"
    # order
    if issued_at <= record.newest:
        return Refusal.ORDER, f"issued at {issued_at}, not after the newest accepted verdict of {record.newest}"
    if issued_at <= record.epoch:
        return Refusal.ORDER, f"issued at {issued_at}, not after the failure of {record.epoch}"
    # retired
    if record.standing is _RETIRED:
        return Refusal.RETIRED, "the device is retired"
    return None


def _judge_lowering(issued_at: int, nonce: bytes, record: Record, timeliness: Timeliness) -> Weighed:
    # replay
    if _is_replay(issued_at, nonce, record):
        return timeliness, (Refusal.REPLAY, f"this failure of {issued_at} was accepted before")
    # order: what an accepted failure has already done, this one cannot do again. Epoch 0 means none.
    if 0 < record.epoch >= issued_at:
        what = f"issued at {issued_at}; a failure of that second or a newer one ({record.epoch}) is already counted"
        return timeliness, (Refusal.ORDER, what)
    if timeliness is _FRESH and issued_at < record.newest:
        return _LATE, None
    return timeliness, None


def _is_replay(issued_at: int, nonce: bytes, record: Record) -> bool:
    """Whether this is one of the newest accepted second. Older ones need no memory: order refuses them."""
    return issued_at == record.newest and nonce in record.nonces
