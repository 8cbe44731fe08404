"""Keylime's revocation notifications, as its verifier posts them to a webhook. They can only lower.

The body is ``{"msg": text, "signature": base64}``; the signature covers the UTF-8 bytes of ``msg``, which is JSON
(keylime/cloud_verifier_common.py:365-392 and keylime/crypto.py:74-86 at 9b1f6e6a). It names no key: Keylime gives
every agent a revocation key of its own, so the key here is the one whose id is the agent's id, or else the one
called
``default``. ``event_time`` is ``time.asctime()``: local time without a zone, which the configuration must know.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import Outcome, Presented, Statement, Tier
from gateway.verdicts import strict_json
from gateway.verdicts.source import VerdictSource

DEFAULT_KEY = "default"
MESSAGE = 65_536  #: characters of ``msg``; the TPM policy within has a few thousand
SIGNATURE = 2_048  #: characters; of an RSA key of 8,192 bits 1,368

_ASCTIME = re.compile(r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) ([ 0-3][0-9]) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([0-9]{4})\Z")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def read(data: bytes, source: VerdictSource, _presented: Presented, _received: float) -> Sequence[Statement]:
    """Return the one statement of a notification. Raises ``InputRefused`` naming the step."""
    posted = strict_json.decode(data)
    message, written = _texts(posted)
    inner = strict_json.decode(message.encode("utf-8"))
    agent = inner.get("agent_id") if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or not isinstance(agent, str):
        raise _refused("msg is no object with the agent's id")
    # 4 key: the claimed agent chooses it, so that no agent's key speaks for another
    key = source.keys.get(agent) or source.keys.get(DEFAULT_KEY)
    if key is None:
        raise InputRefused(Refusal.KEY, f"this source has no key for agent {agent[:40]!a} and no default one")
    # 5 signature
    if not key.verify(_signature(written), message.encode("utf-8")):
        raise InputRefused(Refusal.SIGNATURE, "not made by the agent's revocation key")
    kind = inner.get("type")
    failed = kind == "revocation"
    return [
        Statement(
            agent,
            Outcome.FAILED if failed else Outcome.NOTED,
            _event_time(inner.get("event_time"), source),
            hashlib.sha256(message.encode("utf-8")).digest(),
            _reason(inner, kind),
            None,
            Tier.CONTRAINDICATED if failed else Tier.NONE,
        )
    ]


def _refused(what: str) -> InputRefused:
    return InputRefused(Refusal.FORMAT, what)


def _texts(posted: object) -> tuple[str, str]:
    if not isinstance(posted, dict) or set(posted) != {"msg", "signature"}:
        raise _refused("not an object of msg and signature")
    message, written = posted["msg"], posted["signature"]
    if not isinstance(message, str) or not isinstance(written, str) or len(message) > MESSAGE:
        raise _refused(f"msg and signature must be text, msg of at most {MESSAGE} characters")
    return message, written


def _signature(written: str) -> bytes:
    if not written:
        # Keylime sends "" when it was given no revocation key.
        raise InputRefused(Refusal.SIGNATURE, "not signed; give Keylime's tenant a revocation key")
    try:
        if len(written) > SIGNATURE:
            raise _refused("the signature is too long")
        return base64.b64decode(written, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused("the signature is not base64") from error


def _event_time(text: object, source: VerdictSource) -> int:
    match = _ASCTIME.match(text) if isinstance(text, str) else None
    if match is None or match[1] not in _MONTHS:
        raise _refused("event_time is not as asctime writes it, such as Fri Nov 21 22:20:11 2026")
    month = _MONTHS.index(match[1]) + 1
    day, hour, minute, second, year = (int(match[group]) for group in (2, 3, 4, 5, 6))
    try:
        return int(datetime(year, month, day, hour, minute, second, tzinfo=source.zone).timestamp())
    except (ValueError, OverflowError) as error:
        raise _refused("event_time is no time") from error


def _reason(inner: dict[str, Any], kind: object) -> str:
    words = ["Keylime", str(kind)]
    for name in ("severity_label", "event_id"):
        word = inner.get(name)
        if isinstance(word, str):
            words.append(word)
    return ascii(" ".join(words))[1:-1][:200]
