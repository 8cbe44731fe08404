"""One event that has not happened: what it would change for one device, and why.

What lives here: the event made from a word, and its way through lifecycle and decision. What must not: other
devices' states beyond the one that the caller names, the time of day.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.core import lifecycle
from gateway.core.lifecycle import Rules
from gateway.core.model import (
    Decision,
    Device,
    DeviceId,
    Event,
    EventKind,
    Record,
    SourceName,
    Standing,
    Transition,
)
from gateway.core.policy import Book, Override, decide, quorum_for
from gateway.core.rehearsal.shifts import Shift, Shifts

IMAGINABLE: Mapping[str, EventKind] = {
    "passed": EventKind.PASSED,
    "failed": EventKind.FAILED,
    "rejected": EventKind.FAILED,
    "requested": EventKind.REQUESTED,
    "lapsed": EventKind.LAPSED,
    "held": EventKind.HELD,
    "released": EventKind.RELEASED,
    "hinted": EventKind.HINTED,
    "retired": EventKind.RETIRED,
}
"""The events that can be asked about, by their words."""

_EVERY_SOURCE = frozenset({EventKind.LAPSED, EventKind.HELD, EventKind.RELEASED, EventKind.RETIRED})
"""Events that are no source's own word: they happen to the device in all of them."""


class Hypothesis(NamedTuple):
    """What one event would do. Nothing has been changed.

    ``transitions``  one per source that the event concerns; their ``why`` says what the lifecycle made of it.
    ``shift``        what the device would gain and lose; None: it may do what it may do now.
    """

    event: Event
    transitions: tuple[Transition, ...]
    records: Mapping[SourceName, Record]
    before: Decision
    after: Decision
    shift: Shift | None


def imagine(word: str, at: float, records: Mapping[SourceName, Record]) -> Event:
    """Return the event of that name, as it would come in at UNIX time ``at``: fresh, and with a new nonce.

    A lapse comes when the latest deadline does, if that is later. Raises ``ValueError`` for a word that is none.
    """
    kind = IMAGINABLE.get(word)
    if kind is None:
        msg = f"event {word[:64]!r} must be one of {', '.join(IMAGINABLE)}"
        raise ValueError(msg)
    if kind is EventKind.LAPSED:
        at = max([at, *(record.deadline for record in records.values() if record.deadline is not None)])
        return Event(kind, at, reason="silent until its deadline")
    if kind in (EventKind.PASSED, EventKind.FAILED, EventKind.REQUESTED):
        seen = [nonce for record in records.values() for nonce in record.nonces]
        nonce = next(made for number in range(len(seen) + 1) if (made := number.to_bytes(16)) not in seen)
        return Event(kind, at, int(at), nonce=nonce, reason=f"supposed: {word}")
    return Event(kind, at, reason=f"supposed: {word}")


def hypothetical(
    device: Device,
    records: Mapping[SourceName, Record],
    event: Event,
    book: Book,
    rules: Mapping[SourceName, Rules],
    conflict: tuple[DeviceId, Standing] | None = None,
    override: Override | None = None,
    now: float | None = None,
) -> Hypothesis:
    """Return what ``event`` would change for a device whose records are ``records``, under ``book``.

    ``conflict``: the living device of lowest standing that shares an address with it, whatever that standing is.
    ``override``: an operator's word for the device, in force at ``now`` (UNIX seconds); it ends meanwhile if the
    event comes later than its end.
    Raises ``LifecycleError`` for an event that the table does not list.
    """
    sources = list(records) if event.kind in _EVERY_SOURCE else [device.source]
    after = dict(records)
    transitions: list[Transition] = []
    for source in sources:
        record = after.get(source, Record())
        step = lifecycle.step(record, event, rules[source])
        after[source] = step.record
        transitions.append(Transition(device.id, source, event, record, step.record, step.effect, step.why))
    old = _decide(device, records, book, conflict, override, now)
    then = None if now is None else max(now, event.at)
    new = _decide(device, after, book, conflict, override, then)
    shift = Shifts(book, book).between(old.profile, new.profile)
    return Hypothesis(event, tuple(transitions), after, old, new, shift)


def _decide(
    device: Device,
    records: Mapping[SourceName, Record],
    book: Book,
    conflict: tuple[DeviceId, Standing] | None,
    override: Override | None,
    now: float | None,
) -> Decision:
    standing, deadline = lifecycle.fold(tuple(records.values()), quorum_for(device, book))
    lower = conflict if conflict is not None and conflict[1] < standing else None
    return decide(device, standing, deadline, book, lower, override, now)
