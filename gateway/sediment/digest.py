"""HMAC-SHA256 (RFC 2104) with a key that was prepared once. No messages here.

The library's one-shot function looks its algorithm up and pads the key on every call, which costs half as much
again as the two hashes of a message: 3.3 microseconds against 2.2 (OpenSSL 3.0, 170 bytes).
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

_BLOCK = 64  #: bytes of one block of SHA-256
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


class Prepared(NamedTuple):
    """A key, padded and masked for the inner and the outer hash: as secret as the key."""

    inner: bytes
    outer: bytes


def prepare(key: bytes) -> Prepared:
    """What ``digest`` takes. A key of any length; one that is longer than a block stands for its hash."""
    padded = (sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    return Prepared(padded.translate(_INNER), padded.translate(_OUTER))


def digest(key: Prepared, covered: bytes) -> bytes:
    """The 32 bytes of the HMAC of ``covered``."""
    return sha256(key.outer + sha256(key.inner + covered).digest()).digest()
