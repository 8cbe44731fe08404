"""The status of one agent as Keylime's verifier answers it (``GET /v2.x/agents/ID``), posted on by whoever asked.

The answer names no agent (the path did) and is not signed, so it comes as ``{"agent_id": ID, "answer": {...}}``
with the proof that the source demands: the poster's client certificate, a detached signature, or both. A PASS is as
old as ``last_successful_attestation`` says, not as the question (docs/rest_apis/2_5/verifier.rst:76-84 and
keylime/cloud_verifier_common.py:266-361 at 9b1f6e6a).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import Outcome, Presented, Statement, Tier
from gateway.verdicts import strict_json
from gateway.verdicts.proof import check_detached
from gateway.verdicts.source import VerdictSource

#: Operational states (keylime/common/states.py at 9b1f6e6a): under periodic checking, and failed.
_CHECKED = frozenset({3, 4, 5, 6})
_FAILED = frozenset({7, 9, 10})
_STATUSES = frozenset({"PASS", "FAIL", "PENDING", "TIMEOUT"})
_MOST = 1 << 40


def read(data: bytes, source: VerdictSource, presented: Presented, received: float) -> Sequence[Statement]:
    """Return the one statement of an answer. Raises ``InputRefused`` naming the step."""
    check_detached(data, source, presented)
    posted = strict_json.decode(data)
    if not isinstance(posted, dict) or set(posted) != {"agent_id", "answer"}:
        raise _refused("not an object of agent_id and answer")
    agent, answer = posted["agent_id"], posted["answer"]
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(agent, str) or not isinstance(results, dict):
        raise _refused("agent_id must be text and answer.results an object")
    if answer.get("code") != 200:
        raise _refused("answer.code is not 200: Keylime did not tell a status")
    state, status = _state(results)
    outcome, tier, name = _meaning(state, status)
    told = _whole(results, name)
    # An agent can fail without ever having sent a quote; the answer is then the only time there is.
    issued_at = told or int(received)
    if outcome is Outcome.PASSED and not told:
        raise _refused("a PASS without last_successful_attestation says nothing of when")
    count = _whole(results, "attestation_count")
    mark = f"{outcome.value} {state} {status} {count} {told}"
    reason = f"Keylime {status or 'state'} (operational state {state}, {count} attestations)"
    return [Statement(agent, outcome, issued_at, hashlib.sha256(mark.encode()).digest(), reason, None, tier)]


def _refused(what: str) -> InputRefused:
    return InputRefused(Refusal.FORMAT, what)


def _state(results: Mapping[str, Any]) -> tuple[int | None, str]:
    state, status = results.get("operational_state"), results.get("attestation_status", "")
    if isinstance(state, bool) or not (state is None or (isinstance(state, int) and 0 <= state <= 10)):
        raise _refused("operational_state is none that Keylime has")
    if not isinstance(status, str) or (status and status not in _STATUSES):
        raise _refused("attestation_status is none that Keylime has")
    if state is None and not status:
        raise _refused("neither operational_state nor attestation_status says anything")
    return state, status


def _meaning(state: int | None, status: str) -> tuple[Outcome, Tier, str]:
    """Outcome, tier, and which member tells when. Both states must agree on a pass; one is enough for a failure.

    Keylime's PASS of a pull-mode agent that it cannot reach (state 4) goes on: the time of the last good quote is
    what keeps such a pass from counting as fresh.
    """
    if state in _FAILED or status == "FAIL":
        return Outcome.FAILED, Tier.CONTRAINDICATED, "last_received_quote"
    if status in ("PASS", "") and (state is None or state in _CHECKED):
        return Outcome.PASSED, Tier.AFFIRMING, "last_successful_attestation"
    return Outcome.NOTED, Tier.NONE, "last_received_quote"


def _whole(results: Mapping[str, Any], name: str) -> int:
    value = results.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise _refused(f"{name} must be a whole number")
    return value
