"""ragate's own verdicts: strict JSON with a detached Ed25519 signature over the exact bytes.

The types below are the format: the published OpenAPI document is made from them. ``source`` must be the name under
which the gateway knows the sender, so that a document signed for one source is nothing at another that should
happen to have the same key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import Outcome, Presented, Statement, Tier
from gateway.verdicts import strict_json
from gateway.verdicts.proof import check_detached
from gateway.verdicts.source import STATEMENTS, VerdictSource

Seconds = Annotated[int, msgspec.Meta(ge=1, le=1 << 40, description="UNIX time in whole seconds")]


class PostedVerdict(msgspec.Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """What the sender says of one device."""

    device: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$",
            max_length=64,
            description="The device's id in the inventory.",
            examples=["cam-1"],
        ),
    ]
    result: Annotated[
        Literal["passed", "failed", "rejected", "doubted", "noted"],
        msgspec.Meta(
            description="passed raises; failed and rejected cut; doubted makes a trusted device suspect; noted is"
            " recorded without effect."
        ),
    ]
    issued_at: Seconds
    nonce: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^[A-Za-z0-9_-]{8,64}$",
            max_length=64,
            description="Never used twice for one device: random or counted.",
            examples=["b0d9a1c44f6e21aa"],
        ),
    ]
    expires_at: (
        Annotated[int, msgspec.Meta(ge=1, le=1 << 40, description="UNIX time in whole seconds; a pass needs it")]
        | None
    ) = None
    reason: Annotated[str, msgspec.Meta(max_length=200, description="For people.")] = ""


class PostedVerdicts(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of a request: one or many verdicts, judged in this order."""

    source: Annotated[str, msgspec.Meta(max_length=64, description="The sender's name in ragate.yaml.")]
    verdicts: Annotated[
        list[PostedVerdict], msgspec.Meta(min_length=1, max_length=STATEMENTS, description="In order.")
    ]


_DECODER = msgspec.json.Decoder(PostedVerdicts, strict=True)
_CONTROLS = bytes(range(32)) + b"\x7f"

_PASSED = Outcome.PASSED  # asked for every verdict; a member read from its Enum costs ten times as much
_MEANINGS = {
    "passed": (Outcome.PASSED, Tier.AFFIRMING),
    "failed": (Outcome.FAILED, Tier.CONTRAINDICATED),
    "rejected": (Outcome.REJECTED, Tier.CONTRAINDICATED),
    "doubted": (Outcome.DOUBTED, Tier.WARNING),
    "noted": (Outcome.NOTED, Tier.NONE),
}


def read(data: bytes, source: VerdictSource, presented: Presented, _received: float) -> Sequence[Statement]:
    """Return the statements of one document. Raises ``InputRefused`` naming the step.

    The signature is checked before the document is looked at: who has no key reaches no parser.
    """
    check_detached(data, source, presented)
    posted = _plain(data) or _strict(data)
    if posted.source != source.name:
        raise InputRefused(Refusal.SOURCE, f"written for source {posted.source[:40]!a}, not for this one")
    return [_statement(number, verdict) for number, verdict in enumerate(posted.verdicts)]


def _strict(data: bytes) -> PostedVerdicts:
    """Any document, and the word for what is wrong with it."""
    try:
        return msgspec.convert(strict_json.decode(data), PostedVerdicts, strict=True)
    except msgspec.ValidationError as error:
        raise InputRefused(Refusal.FORMAT, str(error)[:200]) from error


def _plain(data: bytes) -> PostedVerdicts | None:
    """Read a document as senders commonly write it in one pass; None: it must be looked at more closely.

    The quick reader keeps the last of two equal members and says nothing. Without a backslash, though, every
    member's name stands in the bytes as it is: one that stands there exactly as often as values were found for it
    stands nowhere twice.
    """
    if not data.isascii() or b"\\" in data or len(data.translate(None, _CONTROLS)) != len(data):
        return None
    try:
        posted = _DECODER.decode(data)
    except msgspec.DecodeError:  # its words would not be those of the strict reader
        return None
    verdicts = posted.verdicts
    many = len(verdicts)
    expiring = sum([verdict.expires_at is not None for verdict in verdicts])
    reasoned = sum([verdict.reason != "" for verdict in verdicts])
    for name, times in (
        (b'"source"', 1),
        (b'"verdicts"', 1),
        (b'"device"', many),
        (b'"result"', many),
        (b'"issued_at"', many),
        (b'"nonce"', many),
        (b'"expires_at"', expiring),
        (b'"reason"', reasoned),
    ):
        if data.count(name) != times:
            return None
    return posted


def _statement(number: int, verdict: PostedVerdict) -> Statement:
    outcome, tier = _MEANINGS[verdict.result]
    if outcome is _PASSED and verdict.expires_at is None:
        raise InputRefused(Refusal.FORMAT, f"a pass needs expires_at - at `$.verdicts[{number}]`")
    if not verdict.reason.isprintable():
        raise InputRefused(Refusal.FORMAT, f"reason must be printable - at `$.verdicts[{number}]`")
    return Statement(
        verdict.device,
        outcome,
        verdict.issued_at,
        verdict.nonce.encode("ascii"),
        verdict.reason or verdict.result,
        verdict.expires_at,
        tier,
    )
