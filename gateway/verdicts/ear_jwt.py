"""EAR as JWT: the claims set in JSON, signed as a compact JWS."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.model import Presented, Statement
from gateway.verdicts import ear, jws, strict_json
from gateway.verdicts.source import VerdictSource


def read(data: bytes, source: VerdictSource, _presented: Presented, _received: float) -> Sequence[Statement]:
    """Return the statements of one token (a final line break is forgiven). Raises ``InputRefused`` naming the
    step."""
    payload = jws.verified(data.removesuffix(b"\n"), source)
    return ear.statements_of(strict_json.decode(payload), payload, source)
