"""Composing ALERT and DATA with keys in hand, for surrogate sites and tests. The service itself never signs.

PKCS#1 v1.5 is deterministic and the signature covers neither nonce nor timestamp, so one signature serves every
alert with the same device, reason and endpoint: sign once with ``sign_alert_body``, head often with
``compose_message``.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from gateway.sediment.digest import Prepared, digest
from gateway.sediment.wire import (
    DIGEST_SIZE,
    FRAME_LIMIT,
    HMAC_START,
    NONCE_SIZE,
    SIGNED_START,
    Endpoint,
    Measurement,
    MessageId,
    Protocol,
    Reason,
    encode_data_body,
    encode_signature,
    encode_signed_part,
)

REQUESTED_ENDPOINT = Endpoint(Protocol.NONE, b"192.168.0.166", 8000)
"""What a verifier puts into every REQUESTED: a compiled-in default that belongs to nobody."""

_START = struct.Struct(">HH")
_MIDDLE = struct.Struct(">H32sBI")
_NO_DIGEST = bytes(DIGEST_SIZE)


def evidence_endpoint(address: bytes, port: int) -> Endpoint:
    """The endpoint as PASS and FAILED_ATTEST report it: the device's source address, its port byte-swapped."""
    return Endpoint(Protocol.TCP, address, (port & 0xFF) << 8 | port >> 8)


def sign_alert_body(
    *, device: bytes, verifier_id: bytes, reason: Reason, endpoint: Endpoint, signing_key: RSAPrivateKey
) -> bytes:
    """An ALERT from byte 75 on: signed part, signature length, signature. Costs one RSA signature.

    Raises ``ValueError`` for a value that its field cannot hold.
    """
    signed = encode_signed_part(device, verifier_id, reason, endpoint)
    return signed + encode_signature(signing_key.sign(signed, PKCS1v15(), SHA256()))


def compose_message(
    *, message_id: MessageId, timestamp: int, nonce: bytes, tail: bytes, hmac_key: bytes | None
) -> bytes:
    """Put a header before ``tail``, which begins with the device id's length (byte 75).

    Without ``hmac_key`` the digest stays zero: so sends a verifier that does not know the device. Raises
    ``ValueError`` for a nonce that has not 32 bytes, a timestamp that is no u32 or a message over 32,000 bytes.
    """
    covered = _covered(message_id, timestamp, nonce, tail)
    found = _NO_DIGEST if hmac_key is None else hmac.digest(hmac_key, covered, "sha256")
    return _START.pack(HMAC_START + len(covered), DIGEST_SIZE) + found + covered


def compose_prepared(message_id: MessageId, timestamp: int, nonce: bytes, tail: bytes, key: Prepared) -> bytes:
    """The same with a key that was prepared: for who answers by the thousand. Raises ``ValueError`` likewise."""
    covered = _covered(message_id, timestamp, nonce, tail)
    return _START.pack(HMAC_START + len(covered), DIGEST_SIZE) + digest(key, covered) + covered


def _covered(message_id: MessageId, timestamp: int, nonce: bytes, tail: bytes) -> bytes:
    """What the HMAC covers: everything behind the digest."""
    size = SIGNED_START + len(tail)
    if len(nonce) != NONCE_SIZE or size > FRAME_LIMIT:
        msg = f"a nonce has {NONCE_SIZE} bytes and a message at most {FRAME_LIMIT}, not {len(nonce)} and {size}"
        raise ValueError(msg)
    try:
        return _MIDDLE.pack(NONCE_SIZE, nonce, message_id, timestamp) + tail
    except struct.error as error:
        msg = f"timestamp {timestamp} does not fit into four bytes"
        raise ValueError(msg) from error


def compose_alert(
    *,
    device: bytes,
    verifier_id: bytes,
    reason: Reason,
    endpoint: Endpoint,
    timestamp: int,
    nonce: bytes,
    signing_key: RSAPrivateKey,
    hmac_key: bytes | None,
) -> bytes:
    """A whole ALERT, signed and under the device's HMAC. Raises ``ValueError`` as its two halves do."""
    tail = sign_alert_body(
        device=device, verifier_id=verifier_id, reason=reason, endpoint=endpoint, signing_key=signing_key
    )
    return compose_message(
        message_id=MessageId.ALERT, timestamp=timestamp, nonce=nonce, tail=tail, hmac_key=hmac_key
    )


def compose_data(
    *,
    device: bytes,
    timestamp: int,
    nonce: bytes,
    payload: bytes,
    iv: bytes,
    hmac_key: bytes,
    measurements: Sequence[Measurement] = (),
) -> bytes:
    """A whole DATA. The payload travels as it is given: encrypting it is the caller's affair.

    Raises ``ValueError`` for a value that its field cannot hold.
    """
    if len(device) > 255:
        msg = f"device id has {len(device)} bytes; at most 255 can be sent"
        raise ValueError(msg)
    checksum = hmac.digest(hmac_key, payload, "sha256")
    tail = bytes((len(device),)) + device + encode_data_body(measurements, iv, payload, checksum)
    return compose_message(
        message_id=MessageId.DATA, timestamp=timestamp, nonce=nonce, tail=tail, hmac_key=hmac_key
    )
