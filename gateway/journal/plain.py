"""Rows as windows see them: plain JSON-able values. Pure.

What must not live here: SQL, or an opinion about what is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.core.model import Transition
from gateway.journal.outcomes import OutcomeRow
from gateway.journal.rows import OUTCOME, REFUSAL, TRANSITION, StoredRow, decode_transition


def plain_outcome(row: OutcomeRow) -> dict[str, Any]:
    """An outcome as JSON-able values."""
    return {
        "target": row.target,
        "backend": row.backend,
        "profile": row.profile,
        "state": row.state,
        "detail": row.detail,
        "accepted_ms": row.accepted_ms,
        "verified_ms": row.verified_ms,
        "durable_ms": row.durable_ms,
    }


def plain_fact(row: StoredRow, outcomes: Sequence[OutcomeRow]) -> dict[str, Any]:
    """A row as windows show it. Every key is present for every kind of row; ``before`` and ``after`` are standing
    labels, ``deadline`` (UNIX seconds), ``epoch`` and ``debt`` those of the state after the event.

    ``outcomes``, newest first: ``outcome`` is the newest, ``outcomes`` the newest of each target.
    """
    newest: dict[str, OutcomeRow] = {}
    for outcome in outcomes:
        newest.setdefault(outcome.target, outcome)
    shown: dict[str, Any] = {
        "seq": row.seq,
        "at": row.at,
        "kind": row.kind,
        "device": row.device,
        "source": row.source,
        "event": None,
        "issued_at": None,
        "effect": None,
        "before": None,
        "after": None,
        "deadline": None,
        "epoch": None,
        "debt": None,
        "why": "",
        "reason": "",
        "actor": "",
        "refusal": None,
        "peer": None,
        "detail": None,
        "outcome": plain_outcome(outcomes[0]) if outcomes else None,
        "outcomes": [plain_outcome(outcome) for outcome in newest.values()],
    }
    if row.kind == TRANSITION:
        return shown | _plain_transition(decode_transition(row))
    body = msgspec.json.decode(row.body)
    if row.kind == REFUSAL:
        return shown | {**body, "why": body["detail"]}
    if row.kind == OUTCOME:
        own = plain_outcome(OutcomeRow(**body))
        return shown | {"outcome": own, "outcomes": [own], "why": body["detail"]}
    # A note's own fields come along; it cannot replace a column.
    columns = {"seq", "at", "kind", "device", "source", "outcome", "outcomes"}
    return shown | {key: value for key, value in body.items() if key not in columns}


def _plain_transition(fact: Transition) -> dict[str, Any]:
    event, after = fact.event, fact.after
    return {
        "event": event.kind.value,
        "issued_at": event.issued_at,
        "effect": fact.effect.value,
        "before": fact.before.standing.label,
        "after": after.standing.label,
        "deadline": after.deadline,
        "epoch": after.epoch,
        "debt": after.debt,
        "why": fact.why,
        "reason": event.reason,
        "actor": event.actor,
    }
