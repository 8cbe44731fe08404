"""COSE_Sign1 (RFC 9052 section 4.2): one payload, one signature, and a key that the source has.

As with JWS, the protected header names the algorithm and that must be the one the chosen key was configured for; an
algorithm in the unprotected header is not protected by anything and refused. What must not live here: what the
payload means.
"""

from __future__ import annotations

from typing import Any

import cbor2

from gateway.core.errors import InputRefused, Refusal
from gateway.verdicts import strict_cbor
from gateway.verdicts.keys import Algorithm
from gateway.verdicts.proof import named_key
from gateway.verdicts.source import VerdictSource

CWT_TAG, SIGN1_TAG = 61, 18  # RFC 8392 section 6, RFC 9052 section 2
_ALG, _CRIT, _KID = 1, 2, 4  # RFC 9052 section 3.1

#: The numbers by which COSE knows an algorithm (RFC 9053, RFC 8812, RFC 9864).
NUMBERS = {
    -8: Algorithm.ED25519,
    -19: Algorithm.ED25519,
    -7: Algorithm.ES256,
    -9: Algorithm.ES256,
    -35: Algorithm.ES384,
    -51: Algorithm.ES384,
    -257: Algorithm.RS256,
}


def verified(data: bytes, source: VerdictSource) -> bytes:
    """Return the payload of a message that one of the source's keys signed.

    Raises ``InputRefused``: 2 format, 3 algorithm, 4 key, 5 signature.
    """
    message = strict_cbor.decode(strict_cbor.untag(data, CWT_TAG, SIGN1_TAG))
    if not isinstance(message, list) or len(message) != 4:
        raise _refused("not an array of four: no COSE_Sign1")
    protected, unprotected, payload, signature = message
    if not (isinstance(protected, bytes) and isinstance(payload, bytes) and isinstance(signature, bytes)):
        raise _refused("protected header, payload and signature must be byte strings; nothing detached is taken")
    header = strict_cbor.decode(protected) if protected else {}
    if not isinstance(header, dict) or not isinstance(unprotected, dict):
        raise _refused("a header is no map")
    if _CRIT in header or _CRIT in unprotected:
        raise _refused("the header asks for extensions that are not taken")
    # 3 algorithm
    number = header.get(_ALG)
    algorithm = NUMBERS.get(number) if isinstance(number, int) and not isinstance(number, bool) else None
    if algorithm is None or algorithm not in source.algorithms:
        what = f"algorithm {ascii(number)[:20]} of the protected header is for none of this source's keys"
        raise InputRefused(Refusal.ALGORITHM, what)
    # 4 key
    key = named_key(source, _key_id(header, unprotected))
    if key.algorithm is not algorithm:
        what = f"algorithm {number}, but its key is for {key.algorithm.value}"
        raise InputRefused(Refusal.ALGORITHM, what)
    # 5 signature, over the Sig_structure of RFC 9052 section 4.4
    if not key.verify(signature, cbor2.dumps(["Signature1", protected, b"", payload])):
        raise InputRefused(Refusal.SIGNATURE, "not made by this source's key")
    return payload


def _key_id(protected: dict[Any, Any], unprotected: dict[Any, Any]) -> str:
    """The key id: only a name, so it may stand unprotected, but not twice."""
    if _ALG in unprotected:
        raise InputRefused(Refusal.ALGORITHM, "the unprotected header names an algorithm")
    if _KID in protected and _KID in unprotected:
        raise _refused("two key ids")
    key_id = protected.get(_KID, unprotected.get(_KID, b""))
    if not isinstance(key_id, bytes):
        raise _refused("the key id is no byte string")
    try:
        return key_id.decode("utf-8")
    except UnicodeDecodeError:
        return key_id.hex()


def _refused(what: str) -> InputRefused:
    return InputRefused(Refusal.FORMAT, what)
