"""JWS in its compact form (RFC 7515): three parts, one signature, a key that the source has and the header only
names.

What the header says of keys and algorithms is never believed: the algorithm must be the one that the chosen key was
configured for, and keys that a header carries or points to (``jwk``, ``jku``, ``x5c``) are not looked at (RFC
8725). What must not live here: what the payload means.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from gateway.core.errors import InputRefused, Refusal
from gateway.verdicts import strict_json
from gateway.verdicts.keys import Algorithm
from gateway.verdicts.proof import named_key
from gateway.verdicts.source import VerdictSource

#: The names by which JOSE knows an algorithm (RFC 7518 section 3.1, RFC 8037, RFC 9864).
NAMES = {
    "EdDSA": Algorithm.ED25519,
    "Ed25519": Algorithm.ED25519,
    "ES256": Algorithm.ES256,
    "ES384": Algorithm.ES384,
    "RS256": Algorithm.RS256,
}

_BASE64URL = re.compile(rb"[A-Za-z0-9_-]*\Z")


def verified(token: bytes, source: VerdictSource) -> bytes:
    """Return the payload of a token that one of the source's keys signed.

    Raises ``InputRefused``: 2 format, 3 algorithm, 4 key, 5 signature.
    """
    parts = token.split(b".")
    if len(parts) != 3 or not all(parts):
        raise InputRefused(
            Refusal.FORMAT, "not three parts with dots between; unsigned and encrypted are not taken"
        )
    header = _header(decoded(parts[0]))
    payload, signature = decoded(parts[1]), decoded(parts[2])
    # 3 algorithm
    algorithm = NAMES.get(header["alg"])
    if algorithm is None or algorithm not in source.algorithms:
        raise InputRefused(Refusal.ALGORITHM, f"{header['alg'][:20]!a} is for none of this source's keys")
    # 4 key
    key = named_key(source, header.get("kid", ""))
    if key.algorithm is not algorithm:
        what = f"{header['alg'][:20]!a}, but its key is for {key.algorithm.value}"
        raise InputRefused(Refusal.ALGORITHM, what)
    # 5 signature
    if not key.verify(signature, token[: token.rindex(b".")]):
        raise InputRefused(Refusal.SIGNATURE, "not made by this source's key")
    return payload


def decoded(text: bytes) -> bytes:
    """base64url without padding, in its one canonical spelling (RFC 7515 section 2)."""
    if not _BASE64URL.match(text) or len(text) % 4 == 1:
        raise InputRefused(Refusal.FORMAT, "a part is not base64url without padding")
    data = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=") != text:
        raise InputRefused(Refusal.FORMAT, "a part is not base64url in its canonical spelling")
    return data


def _header(data: bytes) -> dict[str, Any]:
    header = strict_json.decode(data)
    if not isinstance(header, dict) or not isinstance(header.get("alg"), str):
        raise InputRefused(Refusal.FORMAT, "the header is no object that names its algorithm")
    if not isinstance(header.get("kid", ""), str):
        raise InputRefused(Refusal.FORMAT, "the header's key id is no text")
    if "crit" in header or "b64" in header:
        raise InputRefused(Refusal.FORMAT, "the header asks for extensions that are not taken")
    return header
