"""The lifecycle: what each event does to the standing and marks of one (device, source).

Everything that changes a standing lives in this file, and this file knows nothing else: state is one table over
all (standing, event) pairs, an unlisted pair is an error, and on an error nothing has changed. The fold over a
device's sources is here too. What must not: which profile a standing gets, addresses, time of its own.

Raising is strict, lowering is generous. The marks (order, epoch, debt, suspicion) bind a pass whatever standing
it meets; only satisfying passes clear them.
"""

# ruff: noqa: ARG001 -- the handlers of one table share one signature

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from gateway.core.errors import LifecycleError
from gateway.core.model import Effect, Event, EventKind, Outcome, Record, Standing, Timeliness, Verdict

#: Nonces remembered for the newest second. A verifier sends one or two verdicts of a device in one second, while
#: a device can put any number of nonces of its own under one signature: the memory must have an end.
MAX_NONCES = 32

# Looking a member up on its class costs a tenth of a step's time in Python 3.11; a plain name costs nothing.
_RETIRED, _HELD, _DISTRUSTED, _SUSPECT, _LAPSED, _UNKNOWN, _TRUSTED = Standing
_RAISED, _LOWERED, _EXTENDED, _RECORDED, _NONE, _REFUSED = Effect


@dataclass(frozen=True, slots=True)
class Rules:
    """How one source's verdicts are weighed. Times in seconds.

    ``max_age``          a pass admits for at most this long after it was issued.
    ``recovery_passes``  satisfying passes owed after a failure, each issued later than the one before.
    ``skew``             how far the source's clock may be ahead of ours when a pass must be newer than a suspicion.
    ``grace``            what a solicited REQUESTED leaves of a deadline, once per accepted pass.

    Raises ``ValueError`` for values under which a failure could be forgotten or nothing would ever admit.
    """

    max_age: float = 900.0
    recovery_passes: int = 2
    skew: float = 2.0
    grace: float = 300.0

    def __post_init__(self) -> None:
        if not (self.max_age > 0 and self.recovery_passes >= 1 and self.skew >= 0 and self.grace >= 0):
            msg = f"max_age must be above 0, recovery_passes at least 1, skew and grace not negative: {self}"
            raise ValueError(msg)

    def with_own(self, *, max_age: float | None, recovery_passes: int | None) -> Rules:
        """The same with another maximum age or recovery, where given: the book may know a device better."""
        return _with_own(self, max_age, recovery_passes)


@lru_cache(maxsize=1_024)
def _with_own(rules: Rules, max_age: float | None, recovery_passes: int | None) -> Rules:
    return replace(
        rules,
        max_age=rules.max_age if max_age is None else max_age,
        recovery_passes=rules.recovery_passes if recovery_passes is None else recovery_passes,
    )


class Step(NamedTuple):
    """What one event did: the record it leaves, the effect, and one sentence for people."""

    record: Record
    effect: Effect
    why: str


Handler = Callable[[Record, Event, Rules], Step]


def step(record: Record, event: Event, rules: Rules) -> Step:
    """Return what ``event`` makes of ``record``; never changes its arguments.

    Raises ``LifecycleError`` for a pair that the table does not list.
    """
    handler = TABLE.get((record.standing, event.kind))
    if handler is None:
        msg = f"no rule for {event.kind!r} at standing {record.standing!r}"
        raise LifecycleError(msg)
    return handler(record, event, rules)


def event_of(verdict: Verdict, at: float, *, solicited: bool = False) -> Event:
    """Return the lifecycle's event for a verdict that was authenticated at wall time ``at``.

    A failure that is not fresh still counts, as ``FAILED_LATE``; a pass that is not fresh is only noted.
    ``solicited``: a REQUESTED that answers our own request of the last 5 s.
    """
    fresh = verdict.timeliness is Timeliness.FRESH
    kind = (_FRESH_KINDS if fresh else _OTHER_KINDS)[verdict.outcome]
    return Event(
        kind,
        at,
        verdict.issued_at,
        verdict.valid_until,
        verdict.nonce,
        verdict.reason,
        solicited=solicited and kind is EventKind.REQUESTED,
    )


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
    standing = min((record.standing for record in records), default=_UNKNOWN)
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
    if lowest < _LAPSED:
        return lowest, deadline if len(records) >= quorum else None
    ends = sorted((r.deadline for r in records if r.standing is _TRUSTED and r.deadline is not None), reverse=True)
    if len(ends) >= quorum:
        return _TRUSTED, ends[quorum - 1]
    return min((r.standing for r in records if r.standing is not _TRUSTED), default=_UNKNOWN), None


def capped(record: Record, rules: Rules) -> Record:
    """Return a record that is good for no longer than the maximum age of these rules since its newest verdict.

    A maximum age that was lowered holds at once; a longer one only for the next pass.
    """
    if record.deadline is None or not record.newest or record.deadline <= record.newest + rules.max_age:
        return record
    return replace(record, deadline=record.newest + rules.max_age)


# --- passes: the only way up -------------------------------------------------------------------------------------


def _pass(record: Record, event: Event, rules: Rules) -> Step:
    """Weigh a pass against every mark; it raises only when all of them are satisfied."""
    issued = event.issued_at
    refusal = _out_of_order(record, event)
    if refusal:
        return Step(record, _REFUSED, refusal)
    nonces = (event.nonce,) if issued > record.newest else (*record.nonces, event.nonce)
    deadline: float = issued + rules.max_age
    if event.valid_until is not None and event.valid_until < deadline:
        deadline = float(event.valid_until)
    if record.standing is _TRUSTED and record.deadline is not None and record.deadline > deadline:
        deadline = record.deadline
    objection = _objection(record, issued, rules)
    if objection:
        effect = _RECORDED if record.standing is _HELD else _REFUSED
        return Step(_ordered(record, issued, nonces), effect, objection)
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
    if record.debt and issued <= record.paid_at:
        return "pass does not count towards recovery: not issued later than the one before"
    return ""


def _ordered(
    record: Record, newest: int, nonces: tuple[bytes, ...], debt: int | None = None, paid_at: int = 0
) -> Record:
    """Move the order marks, and those of the recovery when a ``debt`` is given; nothing else."""
    return Record(
        record.standing,
        record.deadline,
        newest,
        nonces,
        record.epoch,
        record.debt if debt is None else debt,
        record.paid_at if debt is None else paid_at,
        record.suspected_since,
        record.hold,
        record.graced,
    )


def _outlived(record: Record, newest: int, nonces: tuple[bytes, ...]) -> Step:
    """A pass whose validity is over: it neither admits nor pays. It must not lift what stands below lapsed."""
    why = "pass does not admit: its validity is over"
    if record.standing < _LAPSED:
        return Step(_ordered(record, newest, nonces), _RECORDED, why)
    after = _moved(_ordered(record, newest, nonces), _LAPSED, None)
    return Step(after, _LOWERED if record.standing is _TRUSTED else _RECORDED, why)


def _paid(record: Record, issued: int, nonces: tuple[bytes, ...]) -> Step:
    """One satisfying pass of the recovery, and more are owed."""
    debt = record.debt - 1
    after = _ordered(record, issued, nonces, debt, issued)
    return Step(after, _RECORDED, f"passed, {debt} more needed to recover from the failure")


def _satisfied(record: Record, deadline: float, issued: int, nonces: tuple[bytes, ...]) -> Step:
    """Every mark is satisfied: trusted with a deadline and clear marks, or clear marks beneath a hold."""
    standing = record.standing
    held = standing is _HELD
    after = Record(
        standing if held else _TRUSTED,
        None if held else deadline,
        issued,
        nonces,
        record.epoch,
        hold=record.hold,
    )
    if held:
        return Step(after, _RECORDED, "passed, recorded beneath the operator's hold")
    if standing is not _TRUSTED:
        return Step(after, _RAISED, "passed attestation")
    if deadline == record.deadline:
        return Step(after, _RECORDED, "passed again, the deadline stays")
    return Step(after, _EXTENDED, "passed again, the deadline moves on")


def _pass_admits(record: Record, event: Event, rules: Rules) -> Step:
    """trusted until min(valid until, issued + maximum age)"""
    return _pass(record, event, rules)


def _pass_extends(record: Record, event: Event, rules: Rules) -> Step:
    """the later deadline"""
    return _pass(record, event, rules)


def _pass_answers(record: Record, event: Event, rules: Rules) -> Step:
    """trusted if issued after the suspicion + skew, else refused"""
    return _pass(record, event, rules)


def _pass_recovers(record: Record, event: Event, rules: Rules) -> Step:
    """pays one of the debt; trusted when nothing is owed"""
    return _pass(record, event, rules)


def _pass_beneath(record: Record, event: Event, rules: Rules) -> Step:
    """recorded beneath the hold: the debt is paid, the hold stays"""
    return _pass(record, event, rules)


def _pass_refused(record: Record, event: Event, rules: Rules) -> Step:
    """refused"""
    return Step(record, _REFUSED, "pass refused: the device is retired")


# --- failures ----------------------------------------------------------------------------------------------------


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
    effect = _LOWERED if standing < record.standing else _RECORDED
    return Step(after, effect, f"failed attestation ({event.reason})" if event.reason else "failed attestation")


def _fails(record: Record, event: Event, rules: Rules) -> Step:
    """distrusted; epoch and debt set"""
    return _failed(record, event, rules, _DISTRUSTED)


def _fails_beneath(record: Record, event: Event, rules: Rules) -> Step:
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
    return Step(after, _LOWERED if ended else _RECORDED, "authentic failure, but not fresh")


def _late(record: Record, event: Event, rules: Rules) -> Step:
    """suspect without a deadline"""
    return _suspected(record, event, _SUSPECT)


def _late_beneath(record: Record, event: Event, rules: Rules) -> Step:
    """recorded: suspicion and epoch marked, the standing stays"""
    return _suspected(record, event, record.standing)


# --- hints, requests, time ---------------------------------------------------------------------------------------


def _hint_suspects(record: Record, event: Event, rules: Rules) -> Step:
    """suspect, keeping the deadline (none when the book cuts for this hint)"""
    after = _moved(record, _SUSPECT, None if event.cut else record.deadline, _suspicion(record, event))
    return Step(after, _LOWERED, f"hint of failure ({event.reason})" if event.reason else "hint of failure")


def _hint_cuts(record: Record, event: Event, rules: Rules) -> Step:
    """no effect, but the deadline ends when the book cuts for this hint"""
    if not event.cut or record.deadline is None:
        return Step(record, _NONE, "hint of failure: already suspect")
    return Step(_moved(record, _SUSPECT, None), _LOWERED, "hint of failure that the book cuts for")


def _requested(record: Record, event: Event, rules: Rules) -> Step:
    """recorded"""
    return Step(record, _RECORDED, "re-attestation was requested")


def _requested_of_trusted(record: Record, event: Event, rules: Rules) -> Step:
    """recorded; if solicited, once per pass: deadline := min(deadline, now + grace)"""
    if not event.solicited or record.graced or record.deadline is None:
        return Step(record, _RECORDED, "re-attestation was requested")
    deadline = min(record.deadline, event.at + rules.grace)
    after = Record(
        record.standing,
        deadline,
        record.newest,
        record.nonces,
        record.epoch,
        record.debt,
        record.paid_at,
        record.suspected_since,
        record.hold,
        graced=True,
    )
    if deadline == record.deadline:
        return Step(after, _RECORDED, "re-attestation requested by us, the deadline is within the grace already")
    return Step(after, _EXTENDED, "re-attestation requested by us, the deadline is cut to the grace")


def _noted(record: Record, event: Event, rules: Rules) -> Step:
    """recorded"""
    return Step(record, _RECORDED, f"noted ({event.reason})" if event.reason else "noted")


def _lapses(record: Record, event: Event, rules: Rules) -> Step:
    """lapsed, when a deadline has passed"""
    if record.deadline is None:
        return Step(record, _NONE, "no deadline to pass")
    if event.at < record.deadline:
        return Step(record, _NONE, "the deadline has not passed yet")
    return Step(_moved(record, _LAPSED, None), _LOWERED, "the deadline passed without a new attestation")


# --- operators, inventory, start ---------------------------------------------------------------------------------


def _holds(record: Record, event: Event, rules: Rules) -> Step:
    """held"""
    after = _moved(record, _HELD, None, hold=True)
    return Step(after, _LOWERED, f"held: {event.reason}" if event.reason else "held by an operator")


def _holds_beneath(record: Record, event: Event, rules: Rules) -> Step:
    """recorded: held once reinstated"""
    return Step(_moved(record, _RETIRED, None, hold=True), _RECORDED, "hold recorded, the device is retired")


def _releases(record: Record, event: Event, rules: Rules) -> Step:
    """what lies beneath: distrusted while a debt is owed, else lapsed"""
    beneath = _DISTRUSTED if record.debt else _LAPSED
    after = _moved(record, beneath, None, hold=False)
    return Step(after, _RAISED, f"released: {event.reason}" if event.reason else "released by an operator")


def _releases_beneath(record: Record, event: Event, rules: Rules) -> Step:
    """recorded: the hold is gone, the device stays retired"""
    return Step(_moved(record, _RETIRED, None, hold=False), _RECORDED, "release recorded, the device is retired")


def _retires(record: Record, event: Event, rules: Rules) -> Step:
    """retired; marks kept"""
    return Step(_moved(record, _RETIRED, None), _LOWERED, "the inventory no longer lists the device")


def _reinstates(record: Record, event: Event, rules: Rules) -> Step:
    """by the marks: held, distrusted, suspect without a deadline, else unknown"""
    if record.hold:
        beneath = _HELD
    elif record.debt:
        beneath = _DISTRUSTED
    elif record.suspected_since:
        beneath = _SUSPECT
    else:
        beneath = _UNKNOWN
    return Step(_moved(record, beneath, None), _RAISED, "the inventory lists the device again")


def _withholds(record: Record, event: Event, rules: Rules) -> Step:
    """suspect without a deadline"""
    after = _moved(record, _SUSPECT, None, _suspicion(record, event))
    ended = record.standing is _TRUSTED or record.deadline is not None
    return Step(after, _LOWERED if ended else _RECORDED, "withheld: kernel and journal disagree")


def _no_effect(record: Record, event: Event, rules: Rules) -> Step:
    """no effect"""
    return Step(record, _NONE, "no effect")


def _suspicion(record: Record, event: Event) -> float:
    """A wall clock that was set back must not date a suspicion earlier."""
    return max(record.suspected_since, event.at)


def _moved(
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


# --- the table ---------------------------------------------------------------------------------------------------

_ADMITTING = frozenset((_TRUSTED, _SUSPECT))

_FRESH_KINDS: Mapping[Outcome, EventKind] = {
    Outcome.PASSED: EventKind.PASSED,
    Outcome.FAILED: EventKind.FAILED,
    Outcome.REJECTED: EventKind.FAILED,
    Outcome.REQUESTED: EventKind.REQUESTED,
    Outcome.NOTED: EventKind.NOTED,
}
_OTHER_KINDS: Mapping[Outcome, EventKind] = {
    Outcome.PASSED: EventKind.NOTED,  # authentication refuses these; if one came by, it would raise nothing
    Outcome.FAILED: EventKind.FAILED_LATE,
    Outcome.REJECTED: EventKind.FAILED_LATE,
    Outcome.REQUESTED: EventKind.REQUESTED,
    Outcome.NOTED: EventKind.NOTED,
}

# One row per event; columns are the standings, lowest first.
# fmt: off
_ROWS: Mapping[EventKind, tuple[Handler, ...]] = {
    #                       retired  held  distrusted  suspect  lapsed  unknown  trusted
    EventKind.PASSED: (
        _pass_refused, _pass_beneath, _pass_recovers, _pass_answers, _pass_admits, _pass_admits, _pass_extends),
    EventKind.FAILED: (
        _fails_beneath, _fails_beneath, _fails, _fails, _fails, _fails, _fails),
    EventKind.FAILED_LATE: (
        _late_beneath, _late_beneath, _late_beneath, _late, _late, _late, _late),
    EventKind.REQUESTED: (
        _requested, _requested, _requested, _requested, _requested, _requested, _requested_of_trusted),
    EventKind.NOTED: (
        _noted, _noted, _noted, _noted, _noted, _noted, _noted),
    EventKind.HINTED: (
        _no_effect, _no_effect, _no_effect, _hint_cuts, _no_effect, _no_effect, _hint_suspects),
    EventKind.LAPSED: (
        _no_effect, _no_effect, _no_effect, _lapses, _no_effect, _no_effect, _lapses),
    EventKind.HELD: (
        _holds_beneath, _no_effect, _holds, _holds, _holds, _holds, _holds),
    EventKind.RELEASED: (
        _releases_beneath, _releases, _no_effect, _no_effect, _no_effect, _no_effect, _no_effect),
    EventKind.PASSPORT: (
        _no_effect, _no_effect, _no_effect, _no_effect, _no_effect, _no_effect, _no_effect),
    EventKind.RETIRED: (
        _no_effect, _retires, _retires, _retires, _retires, _retires, _retires),
    EventKind.REINSTATED: (
        _reinstates, _no_effect, _no_effect, _no_effect, _no_effect, _no_effect, _no_effect),
    EventKind.WITHHELD: (
        _no_effect, _no_effect, _no_effect, _withholds, _no_effect, _no_effect, _withholds),
}
# fmt: on

#: What every event does at every standing. Total: the check below runs at import.
TABLE: Mapping[tuple[Standing, EventKind], Handler] = {
    (standing, kind): handler
    for kind, row in _ROWS.items()
    for standing, handler in zip(Standing, row, strict=True)
}
if len(TABLE) != len(Standing) * len(EventKind):
    missing = ", ".join(kind.value for kind in EventKind if kind not in _ROWS)
    raise LifecycleError(f"the lifecycle table lacks: {missing}")


def table_markdown() -> str:
    """Return the table as the page ``docs/lifecycle.md``: one row per event, highest standing first."""
    standings = sorted(Standing, reverse=True)
    head = " | ".join(standing.label for standing in standings)
    lines = [
        "# Lifecycle",
        "",
        "What each event does to the standing of one device at one source. Generated from the table in",
        "`gateway/core/lifecycle.py`; a test keeps this page equal to it. Every pair is listed: an unlisted one is",
        "an error and changes nothing. A pass counts only when it is newer than the last accepted verdict, than",
        "the last failure and than any suspicion, whatever the standing.",
        "",
        f"| event | {head} |",
        "|---" * (len(standings) + 1) + "|",
    ]
    for kind in EventKind:
        cells = " | ".join((TABLE[standing, kind].__doc__ or "").strip() for standing in standings)
        lines.append(f"| {kind.value} | {cells} |")
    return "\n".join(lines) + "\n"
