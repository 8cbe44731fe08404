"""The keys that verify results: which algorithm a key is for is decided when it is configured, never by a message.

What lives here: reading public keys, and verifying one signature with one key. What must not: choosing among keys
by anything that a message says of itself, files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

PEM_LIMIT = 16_384  #: bytes; the PEM of an RSA key of 8,192 bits has about 1,500
RSA_BITS_MIN, RSA_BITS_MAX = 2048, 8192  #: bits; NIST SP 800-131A's least, and a millisecond a signature
ED25519_SIGNATURE = 64  #: bytes

Verify = Callable[[bytes, bytes], bool]
"""Whether (signature, message) was made by the key."""


class Algorithm(Enum):
    """What a key may be for. The value is the word of the configuration."""

    ED25519 = "Ed25519"  # RFC 8032; JOSE EdDSA (RFC 8037) or Ed25519 (RFC 9864), COSE -8 or -19
    ES256 = "ES256"  # ECDSA P-256 with SHA-256; COSE -7 or -9
    ES384 = "ES384"  # ECDSA P-384 with SHA-384; COSE -35 or -51
    RS256 = "RS256"  # RSASSA-PKCS1-v1_5 with SHA-256; COSE -257 (RFC 8812)
    KEYLIME = "Keylime"  # RSASSA-PSS, SHA-256, MGF1, longest salt: keylime/crypto.py:74-86 at 9b1f6e6a

    __hash__ = object.__hash__  # members are singletons


@dataclass(frozen=True, slots=True)
class Key:
    """One public key of one source. ``fingerprint`` is the SHA-256 of its SubjectPublicKeyInfo."""

    id: str
    algorithm: Algorithm
    fingerprint: str
    verify: Verify = field(repr=False, compare=False)


def load_key(key_id: str, algorithm: Algorithm, pem: bytes) -> Key:
    """Return the PEM public key for exactly this algorithm. Raises ``ValueError`` saying what to give instead."""
    if len(pem) > PEM_LIMIT:
        msg = f"{len(pem)} bytes are no public key; give it as PEM"
        raise ValueError(msg)
    if b"PRIVATE KEY-----" in pem:
        msg = "this is a private key; give the public one (openssl pkey -in KEY -pubout) and keep this one secret"
        raise ValueError(msg)
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        msg = "not a PEM public key; give -----BEGIN PUBLIC KEY----- and so on"
        raise ValueError(msg) from error
    fingerprint = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    return Key(key_id, algorithm, fingerprint, _verifier(key, algorithm))


def _verifier(key: PublicKeyTypes, algorithm: Algorithm) -> Verify:
    if algorithm is Algorithm.ED25519 and isinstance(key, Ed25519PublicKey):
        return _ed25519(VerifyKey(key.public_bytes(Encoding.Raw, PublicFormat.Raw)))
    if algorithm is Algorithm.ES256 and isinstance(key, EllipticCurvePublicKey):
        if isinstance(key.curve, SECP256R1):
            return _ecdsa(key, 32, SHA256())
    elif algorithm is Algorithm.ES384 and isinstance(key, EllipticCurvePublicKey):
        if isinstance(key.curve, SECP384R1):
            return _ecdsa(key, 48, SHA384())
    elif algorithm in (Algorithm.RS256, Algorithm.KEYLIME) and isinstance(key, RSAPublicKey):
        if not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
            msg = f"an RSA key of {key.key_size} bits; use one of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits"
            raise ValueError(msg)
        pss = PSS(MGF1(SHA256()), PSS.MAX_LENGTH)
        return _rsa(key, PKCS1v15() if algorithm is Algorithm.RS256 else pss)
    msg = f"this key is not one for {algorithm.value}; give the right key, or the algorithm that it is for"
    raise ValueError(msg)


def _ed25519(key: VerifyKey) -> Verify:
    def verify(signature: bytes, message: bytes) -> bool:
        if len(signature) != ED25519_SIGNATURE:
            return False
        try:
            key.verify(message, signature)
        except BadSignatureError:
            return False
        return True

    return verify


def _ecdsa(key: EllipticCurvePublicKey, half: int, digest: HashAlgorithm) -> Verify:
    """JOSE and COSE write r and s one after the other, each as long as the curve's order (RFC 7518 3.4)."""
    algorithm = ECDSA(digest)

    def verify(signature: bytes, message: bytes) -> bool:
        if len(signature) != 2 * half:
            return False
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        try:
            key.verify(encode_dss_signature(r, s), message, algorithm)
        except InvalidSignature:
            return False
        return True

    return verify


def _rsa(key: RSAPublicKey, padding: PKCS1v15 | PSS) -> Verify:
    digest = SHA256()
    size = (key.key_size + 7) // 8

    def verify(signature: bytes, message: bytes) -> bool:
        if len(signature) != size:
            return False
        try:
            key.verify(signature, message, padding, digest)
        except InvalidSignature:
            return False
        return True

    return verify
