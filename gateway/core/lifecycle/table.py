"""The table of the lifecycle: which event a verdict is, and what every event does at every standing.

What lives here: the table, total over all (standing, event) pairs, and its page for people. What must not: what a
handler does.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.errors import LifecycleError
from gateway.core.lifecycle.acts import (
    holds,
    holds_beneath,
    reinstates,
    releases,
    releases_beneath,
    retires,
    withholds,
)
from gateway.core.lifecycle.lowering import (
    fails,
    fails_beneath,
    hint_cuts,
    hint_suspects,
    lapses,
    late,
    late_beneath,
    noted,
    requested,
    requested_of_trusted,
)
from gateway.core.lifecycle.passes import (
    pass_admits,
    pass_answers,
    pass_beneath,
    pass_extends,
    pass_recovers,
    pass_refused,
)
from gateway.core.lifecycle.rules import Rules
from gateway.core.lifecycle.steps import Handler, Step, no_effect
from gateway.core.model import Event, EventKind, Outcome, Record, Standing, Timeliness, Verdict

# One row per event; columns are the standings, lowest first.
# fmt: off
_ROWS: Mapping[EventKind, tuple[Handler, ...]] = {
    #                       retired  held  distrusted  suspect  lapsed  unknown  trusted
    EventKind.PASSED: (
        pass_refused, pass_beneath, pass_recovers, pass_answers, pass_admits, pass_admits, pass_extends),
    EventKind.FAILED: (
        fails_beneath, fails_beneath, fails, fails, fails, fails, fails),
    EventKind.FAILED_LATE: (
        late_beneath, late_beneath, late_beneath, late, late, late, late),
    EventKind.REQUESTED: (
        requested, requested, requested, requested, requested, requested, requested_of_trusted),
    EventKind.NOTED: (
        noted, noted, noted, noted, noted, noted, noted),
    EventKind.HINTED: (
        no_effect, no_effect, no_effect, hint_cuts, no_effect, no_effect, hint_suspects),
    EventKind.LAPSED: (
        no_effect, no_effect, no_effect, lapses, no_effect, no_effect, lapses),
    EventKind.HELD: (
        holds_beneath, no_effect, holds, holds, holds, holds, holds),
    EventKind.RELEASED: (
        releases_beneath, releases, no_effect, no_effect, no_effect, no_effect, no_effect),
    EventKind.PASSPORT: (
        no_effect, no_effect, no_effect, no_effect, no_effect, no_effect, no_effect),
    EventKind.RETIRED: (
        no_effect, retires, retires, retires, retires, retires, retires),
    EventKind.REINSTATED: (
        reinstates, no_effect, no_effect, no_effect, no_effect, no_effect, no_effect),
    EventKind.WITHHELD: (
        no_effect, no_effect, no_effect, withholds, no_effect, no_effect, withholds),
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


def step(record: Record, event: Event, rules: Rules) -> Step:
    """Return what ``event`` makes of ``record``; never changes its arguments.

    Raises ``LifecycleError`` for a pair that the table does not list.
    """
    handler = TABLE.get((record.standing, event.kind))
    if handler is None:
        msg = f"no rule for {event.kind!r} at standing {record.standing!r}"
        raise LifecycleError(msg)
    return handler(record, event, rules)


_FRESH_KINDS: Mapping[Outcome, EventKind] = {
    Outcome.PASSED: EventKind.PASSED,
    Outcome.FAILED: EventKind.FAILED,
    Outcome.REJECTED: EventKind.FAILED,
    Outcome.REQUESTED: EventKind.REQUESTED,
    Outcome.NOTED: EventKind.NOTED,
    Outcome.DOUBTED: EventKind.HINTED,
}
_OTHER_KINDS: Mapping[Outcome, EventKind] = {
    Outcome.PASSED: EventKind.NOTED,  # authentication refuses these; if one came by, it would raise nothing
    Outcome.FAILED: EventKind.FAILED_LATE,
    Outcome.REJECTED: EventKind.FAILED_LATE,
    Outcome.REQUESTED: EventKind.REQUESTED,
    Outcome.NOTED: EventKind.NOTED,
    Outcome.DOUBTED: EventKind.NOTED,  # authentication refuses these, too
}


# Asked for every verdict; a member read from its Enum costs ten times as much.
_FRESH = Timeliness.FRESH
_REQUESTED = EventKind.REQUESTED


def event_of(verdict: Verdict, at: float, *, solicited: bool = False) -> Event:
    """Return the lifecycle's event for a verdict that was authenticated at wall time ``at``.

    A failure that is not fresh still counts, as ``FAILED_LATE``; a pass that is not fresh is only noted.
    ``solicited``: a REQUESTED that answers our own request of the last 5 s.
    """
    kind = (_FRESH_KINDS if verdict.timeliness is _FRESH else _OTHER_KINDS)[verdict.outcome]
    return Event(
        kind,
        at,
        verdict.issued_at,
        verdict.valid_until,
        verdict.nonce,
        verdict.reason,
        "",
        solicited and kind is _REQUESTED,
    )


def table_markdown() -> str:
    """Return the table as the page ``docs/lifecycle.md``: one row per event, highest standing first."""
    standings = sorted(Standing, reverse=True)
    head = " | ".join(standing.label for standing in standings)
    lines = [
        "# Lifecycle",
        "",
        "What each event does to the standing of one device at one source. Generated from the table in",
        "`gateway/core/lifecycle/table.py`; a test keeps this page equal to it. Every pair is listed: an unlisted",
        "one is an error and changes nothing. A pass counts only when it is newer than the last accepted verdict,",
        "than the last failure and than any suspicion, whatever the standing.",
        "",
        f"| event | {head} |",
        "|---" * (len(standings) + 1) + "|",
    ]
    for kind in EventKind:
        cells = " | ".join((TABLE[standing, kind].__doc__ or "").strip() for standing in standings)
        lines.append(f"| {kind.value} | {cells} |")
    return "\n".join(lines) + "\n"
