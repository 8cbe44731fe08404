"""Outcomes as rows. Pure: values in, values out.

What lives here: what is kept of an outcome, and which of them deserve a row of their own. What must not: SQL, or
the rows that they answer.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.model import Applied, Enforced
from gateway.journal.text import label


class OutcomeRow(NamedTuple):
    """What came of row ``seq`` at one target. Milliseconds since the envelope was received; None: not known."""

    seq: int
    target: str
    backend: str
    profile: str
    state: str
    detail: str
    accepted_ms: float | None
    verified_ms: float | None
    durable_ms: float | None


_STATES = {state: state.value for state in Applied}
"""Read for every outcome: a member's own ``value`` costs ten times as much as a look-up."""


_WHOLE = 1.5 * 2**52
"""Added and taken away again it leaves a whole number, never -0.0: ``round`` costs five times as much, and fails
for what is not finite."""


def encode_outcome(seq: int, fact: Enforced) -> OutcomeRow:
    """What came of row ``seq``."""
    _, target, backend, profile, state, detail, received, accepted, verified, durable = fact
    known = received > 0
    row = (
        seq,
        target if target.isascii() else label(target),
        backend if backend.isascii() else label(backend),
        profile if profile.isascii() else label(profile),
        _STATES[state],
        detail if detail.isascii() else label(detail),
        # Milliseconds since then, to the microsecond; None where a moment is not known (0).
        ((accepted - received) * 1e6 + _WHOLE - _WHOLE) / 1e3 if known and accepted > 0 else None,
        ((verified - received) * 1e6 + _WHOLE - _WHOLE) / 1e3 if known and verified > 0 else None,
        ((durable - received) * 1e6 + _WHOLE - _WHOLE) / 1e3 if known and durable > 0 else None,
    )
    return tuple.__new__(OutcomeRow, row)  # OutcomeRow(...) costs twice as much


def worth_a_row(fact: Enforced) -> bool:
    """Whether an outcome that answers no row deserves one: it failed, or is a repair (which says so in
    ``detail``); renewals and timers would fill the file with nothing."""
    return fact.state is Applied.FAILED or (fact.received <= 0 and bool(fact.detail))
