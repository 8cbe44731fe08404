"""The keys that authentication uses: reading them, and knowing the ones that anybody has. No files.

SEDIMENT ships its demo signing key and its demo device database in its public repository, and they are its
defaults. They are known here by SHA-256 fingerprints, never by the keys themselves.
"""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

RSA_BITS_MIN = 2048  #: bits; SEDIMENT's own size, and the least that NIST SP 800-131A allows
RSA_BITS_MAX = 8192  #: bits; verifying with a larger key would cost a millisecond an alert
HMAC_KEY_SIZE = 32  #: bytes of SEDIMENT's authKey
PEM_LIMIT = 16_384  #: bytes; the PEM of the largest key accepted has about 1,500
DISTINCT_MIN = 12  #: distinct bytes; 32 random bytes have fewer once in 10^25 keys

_HEX_KEY = re.compile(rb"[0-9A-Fa-f]{64}\Z")
_HEX_HALF = re.compile(rb"[0-9A-Fa-f]{32}\Z")

_PUBLISHED_SIGNING_KEY = "dd4d17d43913c53533e415a98fd9e214e08b579b87a2e65f070d86d5bce27705"

# authKey, encryptionKey and attestationKey of the eleven demo devices.
_PUBLISHED_HMAC_KEYS = frozenset(
    {
        "1215960722bc99146dc6b941d1c0edcac18d1ebc1b8a16995e431d5f1d982cb6",
        "13ba4b139ca9db835dddc5b1b56ed38cf0f93e0fc0c5b549322cd49144619e54",
        "17563f7b345819ae1af74181577898b0db291cef5b242e93b4908762b3d2753e",
        "26f936de6caa6c0e784aa1ab6753ed59136802e60a17305190d52c9b0cb04784",
        "2bddb6d9f48b066fa53c906552a66a3811d3bedf6a7eb8e83d28c136fb140b9c",
        "3273738a9f00dafb1fbc2babd64571dd7ba7e2744f564aad25cf1c6954f5c712",
        "32f8ec35b809d961f6a69c8e30f7d7173c79fc73a5d5918c981f8dbe14581e0b",
        "335ea12193793fb2cfc2a62fdf0e669048e0d52d75d2566a72e6561461de6a26",
        "3979fdf418bf504a5e0f776760ed4caeccc36ebdf05b72fff8833db98fa0a752",
        "3c61b35525eea7da954004d32a8ace7c0dd660d2c910bb5957778ad839c11890",
        "4de3ac2522242d00528cf3c02e59c17c4aa02532bdc63fb4e8522580e5cb8392",
        "5c08eee58b56c2e0f260fbb9d27095af027ae7e3234efd6f2a2f9f2fd1b6a2da",
        "6ef084c5acf0892a5039d9157331f9bbad9f9d3ac061b780e1785bb1b79cb74f",
        "6fb8a9b8eb234f7aa38e6c46b8d8eea25c595fb1f7f9d3a9361168615df3369e",
        "72f4cd39a0c62ac8d30982220da3c85537e05646980616b2f4cfe75a0ff44663",
        "790f1929b96044702711ffefa181a8a835cefc51db34c16df4691c5b2f66cecd",
        "7a9900e3058f1c10639ad49b15f619ffe3671050ce5d7e8d8460e059754aadca",
        "7c81fd029b37a26777ffb2dcede9d77dd74a62fd51b76933324da99dc9e97307",
        "8577841337d5edeeb202044a83008933b3295a04beecd6e19b6812d7f06a52d1",
        "95106523a006232e9c1344eff0fc2a3b6784ced480b3165dda05b0f9f98cc908",
        "a02b0380109d6991e1bcedd034549db5c5636f78812026d3ff7e72dacf2f462c",
        "a1014aee612c3d546d10b66bedf8407acf863ad98123f9ac912c6cdc291a69c3",
        "a47021f4ace91b5ad36356d61a1c529d15ff615ce8d7ba8b25fb99a37b994eb5",
        "a99bc154a0ec88c9f1d18ef9bc94a119495de69890d734cf8ad888c3cabb8502",
        "b3c12bf3d756bf29f6d481ea65471fc78117c6af1fe16756976122d84551bb20",
        "c79740c4c5d225f28795f3b320d00e0f6466408bda597d457090a6b0006a6c1c",
        "d7e5a03e49bb2923ab04ecaa0f935a75ae16cc40be079f2fdcc62e0b8a493286",
        "de17c15d43a7030ae62a16b861eb1b6de2b78e5d844bacc453661bcc92d42e9b",
        "e060a7596123ee506ebdc16fbecbb6782d094a8373c08f45dd9ce4fddd95d052",
        "e114e0e32cf132378a3d4f52921c51b3bbade719ab2ff78e524f693ffb3345b3",
        "f3377119f5529d3c00097f560d46b66688e2d38d7234bb11ed73ed360cc5dd87",
        "fa009c5d559d37df396e8604eb840850b73b3e6a0f0b8b6455309e50a959a467",
        "ff715d742a02c7d06de3ddff9d83132d2d49507fc561a9d234abe8b6d4198efb",
    }
)


def load_public_key(pem: bytes) -> RSAPublicKey:
    """Return the RSA public key (2048 to 8192 bits) in ``pem``.

    Raises ``ValueError`` that says what is wrong and what to give instead.
    """
    if len(pem) > PEM_LIMIT:
        msg = f"{len(pem)} bytes are no public key; give the verifier's RSA public key as PEM"
        raise ValueError(msg)
    if b"PRIVATE KEY-----" in pem:
        msg = "this is a private key; give the public one (openssl pkey -in KEY -pubout) and keep this one secret"
        raise ValueError(msg)
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        msg = "not a PEM public key; give the verifier's RSA public key, -----BEGIN PUBLIC KEY----- and so on"
        raise ValueError(msg) from error
    if not isinstance(key, RSAPublicKey):
        msg = "not an RSA key; SEDIMENT's verifier signs with RSA"
        raise ValueError(msg)
    if not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        msg = f"an RSA key of {key.key_size} bits; use one of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits"
        raise ValueError(msg)
    return key


def parse_hmac_key(data: bytes) -> bytes:
    """Return the 32-byte HMAC key in ``data``: 64 hex digits (white space around them is allowed) or 32 raw bytes.

    Raises ``ValueError``, which never shows the key, for anything else and for a key that was not made at random.
    """
    text = data.strip()
    if _HEX_KEY.match(text):
        key = bytes.fromhex(text.decode("ascii"))
    elif _HEX_HALF.match(text):
        msg = f"32 hex digits are 16 bytes; an HMAC key has {HMAC_KEY_SIZE}: give 64 hex digits"
        raise ValueError(msg)
    elif len(data) == HMAC_KEY_SIZE:
        key = data
    else:
        msg = f"{len(data)} bytes are no HMAC key; give 64 hex digits or {HMAC_KEY_SIZE} raw bytes"
        raise ValueError(msg)
    check_hmac_key(key)
    return key


def check_hmac_key(key: bytes) -> None:
    """Raise ``ValueError``, which never shows the key, when these bytes are no HMAC key made at random."""
    if len(key) != HMAC_KEY_SIZE:
        msg = f"an HMAC key has {HMAC_KEY_SIZE} bytes, not {len(key)}"
        raise ValueError(msg)
    step = (key[1] - key[0]) & 0xFF
    if len(set(key)) < DISTINCT_MIN or all((b - a) & 0xFF == step for a, b in pairwise(key)):
        msg = "this HMAC key is zero, repeats itself or counts; make one at random (openssl rand -hex 32)"
        raise ValueError(msg)


def is_published_signing_key(key: RSAPublicKey) -> bool:
    """Whether this is SEDIMENT's demo signing key, with which anyone can sign."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest() == _PUBLISHED_SIGNING_KEY


def is_published_hmac_key(key: bytes) -> bool:
    """Whether this is a key of SEDIMENT's demo device database, which anyone has."""
    return hashlib.sha256(key).hexdigest() in _PUBLISHED_HMAC_KEYS
