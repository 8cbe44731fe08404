"""The detached signature over the exact bytes of a document, for formats that carry none of their own."""

from __future__ import annotations

from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import Presented
from gateway.verdicts.keys import Key
from gateway.verdicts.source import VerdictSource


def named_key(source: VerdictSource, key_id: str) -> Key:
    """The source's key of this id; without an id, its only one. Raises ``InputRefused`` (key)."""
    if key_id:
        key = source.keys.get(key_id)
        if key is None:
            raise InputRefused(Refusal.KEY, f"no key {key_id[:40]!a} belongs to this source")
        return key
    if len(source.keys) != 1:
        raise InputRefused(Refusal.KEY, "no key is named, and this source has several")
    return next(iter(source.keys.values()))


def check_detached(data: bytes, source: VerdictSource, presented: Presented) -> None:
    """Steps 4 and 5 over the exact bytes. Raises ``InputRefused`` (key, signature)."""
    if not source.proof.signature:
        # A signature that nobody asked for is not looked at, and must not look as if it had been.
        if presented.signature or presented.key_id:
            raise InputRefused(
                Refusal.SIGNATURE, "this source is known by its certificate; leave the signature out"
            )
        return
    if not presented.signature:
        raise InputRefused(Refusal.SIGNATURE, "no signature came with the document")
    if not named_key(source, presented.key_id).verify(presented.signature, data):
        raise InputRefused(Refusal.SIGNATURE, "not made by this source's key over exactly these bytes")
