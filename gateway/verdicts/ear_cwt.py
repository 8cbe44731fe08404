"""EAR as CWT: the claims set in CBOR, signed as COSE_Sign1 (tags 18 and 61 may stand before it or not)."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.model import Presented, Statement
from gateway.verdicts import cose, ear, strict_cbor
from gateway.verdicts.source import VerdictSource


def read(data: bytes, source: VerdictSource, _presented: Presented, _received: float) -> Sequence[Statement]:
    """Return the statements of one token. Raises ``InputRefused`` naming the step."""
    payload = cose.verified(data, source)
    return ear.statements_of(strict_cbor.decode(payload), payload, source)
