"""SEDIMENT's wire format: header, ALERT and DATA, bytes to values and back. No keys, no trust, no time.

Facts are those of SEDIMENT v1.0.0 (sediment-lfproject/remote-attestation, commit 00e2e3e), checked against
recorded messages. All integers are big endian, nothing is padded, strings are raw bytes without a character set.

Header of every message::

    offset  size  field                                   signed  under the HMAC
    0       2     total size, itself included             no      no
    2       2     digest length, always 32                no      no
    4       32    HMAC-SHA256 of bytes 36 to the end      no      (is it)
    36      2     nonce length, always 32                 no      yes
    38      32    nonce, random for each message          no      yes
    70      1     message id                              no      yes
    71      4     timestamp, UNIX seconds of the sender   no      yes
    75      1     device id length L                      yes     yes
    76      L     device id                               yes     yes

ALERT body, from offset o = 76 + L::

    o       1     verifier id length V                    yes
    o+1     V     verifier id                             yes
    +0      1     reason                                  yes
    +1      4+A   endpoint (below)                        yes
    +5+A    2     signature length S                      no
    +7+A    S     RSA PKCS#1 v1.5 SHA-256 signature       no

The signature covers bytes 75 to total - 2 - S: device id length up to and including the endpoint's port. It
covers neither nonce nor timestamp: only the device's own HMAC key does.

Endpoint: protocol u8, address length A u8, address (ASCII), port u16.

DATA body: count u8 of measurements, each type u8, elapsed microseconds u32, optional u32; iv length u8 = 16, iv;
payload length u16, payload; checksum length u8 = 32, checksum = HMAC-SHA256(device's key, payload). A device told
not to encrypt sends an empty iv, one told not to sign an empty checksum (``apps/common/Prover.cpp`` lines 802-847).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from gateway.core.errors import InputRefused, Refusal

DIGEST_SIZE = 32  #: bytes of an HMAC-SHA256
NONCE_SIZE = 32  #: bytes; SEDIMENT writes the length but never varies it
IV_SIZE = 16  #: bytes: one AES block
HMAC_START = 36  #: first byte under the HMAC; it runs to the end of the frame
KIND_AT = 70  #: offset of the message id
SIGNED_START = 75  #: first byte under an ALERT's signature
HEADER_SIZE = 76  #: bytes before the device id: the smallest frame there is
FRAME_LIMIT = 32_000  #: bytes; SEDIMENT's receivers have a buffer of this size, so nothing longer is real
SIGNATURE_MIN = 256  #: bytes: RSA-2048, the smallest key that is accepted
SIGNATURE_MAX = 1024  #: bytes: RSA-8192; a larger key would let one frame cost a millisecond of verification

_HEADER = struct.Struct(">HH32sH32sBIB")
_SIZE = struct.Struct(">H")
_IV_SIZES = (IV_SIZE, 0)
_CHECKSUM_SIZES = (DIGEST_SIZE, 0)
_ENDPOINT_HEAD = struct.Struct(">BB")
_MEASUREMENT = struct.Struct(">BII")


class MessageId(IntEnum):
    """Message ids 1 to 14. The format lists 15 to 17 (revocation) too; no message of those was ever seen."""

    PASSPORT_REQUEST = 1
    PASSPORT_RESPONSE = 2
    ATTESTATION_REQUEST = 3
    CHALLENGE = 4
    EVIDENCE = 5
    GRANT = 6
    ALERT = 7
    PASSPORT_CHECK = 8
    PERMISSION = 9
    DATA = 10
    RESULT = 11
    KEY_CHANGE = 12
    DUMMY = 13
    CONFIG = 14

    __hash__ = int.__hash__  # the library's own hash costs a Python call each time


class Reason(IntEnum):
    """Why an ALERT was sent. A real verifier sends only PASS, FAILED_ATTEST and REQUESTED."""

    INIT = 1
    EXPIRATION = 2
    TIME_OUT = 3
    REQUESTED = 4
    SQN_OUT_OF_SYNC = 5
    FAILED_AUTH = 6
    FAILED_ATTEST = 7
    USER_REJECT = 8
    PASS = 9


class Protocol(IntEnum):
    """Transport of an endpoint."""

    NONE = 0
    TCP = 1
    UDP = 2
    BLUETOOTH = 3


# Look-ups by plain dict and name: calling an Enum or reading a member costs ten times as much.
_MESSAGE_IDS = {int(member): member for member in MessageId}
_REASONS = {int(member): member for member in Reason}
_PROTOCOLS = {int(member): member for member in Protocol}
_ALERT = MessageId.ALERT
_DATA = MessageId.DATA


class Header(NamedTuple):
    """What every message begins with. ``size`` is the whole frame in bytes, ``timestamp`` UNIX seconds."""

    size: int
    digest: bytes
    nonce: bytes
    message_id: MessageId
    timestamp: int
    device: bytes


class Endpoint(NamedTuple):
    """Where something is said to be. ``port`` is the number on the wire, which SEDIMENT may have byte-swapped."""

    protocol: Protocol
    address: bytes
    port: int


class Span(NamedTuple):
    """Offsets ``[start, end)`` into the frame."""

    start: int
    end: int


class Alert(NamedTuple):
    """An ALERT. ``signed`` is the span that the signature covers; encoding does not consult it."""

    header: Header
    verifier_id: bytes
    reason: Reason
    endpoint: Endpoint
    signature: bytes
    signed: Span = Span(0, 0)


class Measurement(NamedTuple):
    """One timing that a device reports with DATA: type, elapsed microseconds, and a number of its own."""

    type: int
    elapsed: int
    optional: int


class Data(NamedTuple):
    """A DATA message: what a device sends to the application."""

    header: Header
    measurements: tuple[Measurement, ...]
    iv: bytes
    payload: bytes
    checksum: bytes


def judge_size(size: int, limit: int = FRAME_LIMIT) -> None:
    """Refuse (``FRAMING``) a total size that no message has."""
    if not HEADER_SIZE <= size <= limit:
        raise InputRefused(Refusal.FRAMING, f"total size {size} is not within {HEADER_SIZE} to {limit}")


def judge_length_of(field: str, length: int) -> None:
    """Refuse (``FRAMING``) a length other than 32: digest and nonce, the two ``field`` names, have no other."""
    if length != DIGEST_SIZE:
        raise InputRefused(Refusal.FRAMING, f"{field} length {length} is not {DIGEST_SIZE}")


def judge_message_id(number: int) -> MessageId:
    """Return the message id. Refuse (``KIND``) numbers outside 1 to 14."""
    kind = _MESSAGE_IDS.get(number)
    if kind is None:
        raise InputRefused(Refusal.KIND, f"message id {number} is not known")
    return kind


def decode_header(frame: bytes) -> Header:
    """Decode the header of one whole frame.

    Raises ``InputRefused``: ``FRAMING`` for sizes and fixed lengths, ``KIND`` for an unknown message id,
    ``LENGTHS`` for a device id that does not fit in the frame.
    """
    have = len(frame)
    if have < HEADER_SIZE:
        raise InputRefused(Refusal.FRAMING, f"{have} bytes are fewer than a header's {HEADER_SIZE}")
    size, digest_length, digest, nonce_length, nonce, number, timestamp, length = _HEADER.unpack_from(frame)
    judge_size(size)
    if size != have:
        raise InputRefused(Refusal.FRAMING, f"total size says {size} but the frame has {have} bytes")
    judge_length_of("digest", digest_length)
    judge_length_of("nonce", nonce_length)
    kind = judge_message_id(number)
    end = HEADER_SIZE + length
    if end > have:
        raise InputRefused(Refusal.LENGTHS, f"device id of {length} bytes does not fit into {have}")
    return Header(size, digest, nonce, kind, timestamp, frame[HEADER_SIZE:end])


def decode_alert(frame: bytes) -> Alert:
    """Decode one whole ALERT, exactly: no byte missing, none left over, every number one that the format lists.

    Raises ``InputRefused`` as ``decode_header`` does, ``KIND`` for another message and ``LENGTHS`` for a body
    that is not exactly as long as its inner lengths say or that holds an unknown reason or protocol.
    """
    header = decode_header(frame)
    if header.message_id is not _ALERT:
        raise InputRefused(Refusal.KIND, f"{header.message_id.name} is not an ALERT")
    end = header.size
    at = HEADER_SIZE + len(header.device)
    if at >= end:
        raise _ends_in("verifier id")
    verifier_end = at + 1 + frame[at]
    if verifier_end >= end:
        raise _ends_in("verifier id or reason")
    reason = _REASONS.get(frame[verifier_end])
    if reason is None:
        raise InputRefused(Refusal.LENGTHS, f"alert reason {frame[verifier_end]} is not within 1 to 9")
    endpoint, endpoint_end = _decode_endpoint(frame, verifier_end + 1)
    signature_start = endpoint_end + 2
    if signature_start > end:
        raise _ends_in("signature length")
    length = frame[endpoint_end] << 8 | frame[endpoint_end + 1]
    if signature_start + length != end:
        raise _left_over("signature", length, end - signature_start)
    if not SIGNATURE_MIN <= length <= SIGNATURE_MAX:
        what = f"signature of {length} bytes is not within {SIGNATURE_MIN} to {SIGNATURE_MAX}"
        raise InputRefused(Refusal.LENGTHS, what)
    signed = Span(SIGNED_START, endpoint_end)
    return Alert(header, frame[at + 1 : verifier_end], reason, endpoint, frame[signature_start:], signed)


def decode_data(frame: bytes, header: Header | None = None) -> Data:
    """Decode one whole DATA, exactly. Raises ``InputRefused`` as ``decode_alert`` does.

    ``header``: the frame's own, when it is decoded already.
    """
    if header is None:
        header = decode_header(frame)
    if header.message_id is not _DATA:
        raise InputRefused(Refusal.KIND, f"{header.message_id.name} is not DATA")
    end = header.size
    at = HEADER_SIZE + len(header.device)
    if at >= end:
        raise _ends_in("measurement count")
    measured = at + 1 + frame[at] * _MEASUREMENT.size
    if measured >= end:
        raise _ends_in("measurements")
    measurements = tuple(map(Measurement._make, _MEASUREMENT.iter_unpack(frame[at + 1 : measured])))
    iv_end = measured + 1 + frame[measured]
    if frame[measured] not in _IV_SIZES:
        raise InputRefused(Refusal.LENGTHS, f"iv length {frame[measured]} is neither {IV_SIZE} nor 0")
    if iv_end + 2 > end:
        raise _ends_in("iv or payload length")
    (length,) = _SIZE.unpack_from(frame, iv_end)
    payload_end = iv_end + 2 + length
    if payload_end >= end:
        raise _ends_in("payload")
    length = frame[payload_end]
    if length not in _CHECKSUM_SIZES:
        raise InputRefused(Refusal.LENGTHS, f"checksum length {length} is neither {DIGEST_SIZE} nor 0")
    if payload_end + 1 + length != end:
        raise _left_over("checksum", length, end - payload_end - 1)
    payload = frame[iv_end + 2 : payload_end]
    return Data(header, measurements, frame[measured + 1 : iv_end], payload, frame[payload_end + 1 :])


def _decode_endpoint(frame: bytes, at: int) -> tuple[Endpoint, int]:
    """Decode the endpoint at ``at``; return it and the offset behind its port."""
    end = len(frame)
    if at + 2 > end:
        raise _ends_in("endpoint")
    protocol = _PROTOCOLS.get(frame[at])
    if protocol is None:
        raise InputRefused(Refusal.LENGTHS, f"endpoint protocol {frame[at]} is not within 0 to 3")
    address_end = at + 2 + frame[at + 1]
    if address_end + 2 > end:
        raise _ends_in("endpoint address or port")
    port = frame[address_end] << 8 | frame[address_end + 1]
    return Endpoint(protocol, frame[at + 2 : address_end], port), address_end + 2


def _ends_in(field: str) -> InputRefused:
    return InputRefused(Refusal.LENGTHS, f"the message ends inside its {field}")


def _left_over(field: str, says: int, has: int) -> InputRefused:
    return InputRefused(Refusal.LENGTHS, f"{field} length says {says} but {has} bytes follow")


def encode_header(header: Header) -> bytes:
    """The header's bytes, device id included; ``header.size`` is written as it is.

    Raises ``ValueError`` for a value that its field cannot hold.
    """
    if len(header.digest) != DIGEST_SIZE or len(header.nonce) != NONCE_SIZE:
        msg = f"digest and nonce have {DIGEST_SIZE} bytes each, not {len(header.digest)} and {len(header.nonce)}"
        raise ValueError(msg)
    try:
        size, digest, nonce, kind, timestamp, device = header
        head = _HEADER.pack(size, DIGEST_SIZE, digest, NONCE_SIZE, nonce, kind, timestamp, len(device))
    except struct.error as error:
        msg = f"header value out of range: {error}"
        raise ValueError(msg) from error
    return head + device


def encode_endpoint(endpoint: Endpoint) -> bytes:
    """The endpoint's bytes. Raises ``ValueError`` for a value that its field cannot hold."""
    try:
        head = _ENDPOINT_HEAD.pack(endpoint.protocol, len(endpoint.address))
        return head + endpoint.address + _SIZE.pack(endpoint.port)
    except struct.error as error:
        msg = f"endpoint value out of range: {error}"
        raise ValueError(msg) from error


def encode_signed_part(device: bytes, verifier_id: bytes, reason: Reason, endpoint: Endpoint) -> bytes:
    """The bytes of an ALERT that its signature covers: device id length up to and including the port.

    Raises ``ValueError`` for a value that its field cannot hold.
    """
    return encode_short(device, "device id") + _signed_body(verifier_id, reason, endpoint)


def encode_signature(signature: bytes) -> bytes:
    """The end of an ALERT: signature length and signature. Raises ``ValueError`` like ``encode_alert``."""
    return _length16(len(signature), "signature") + signature


def encode_alert(alert: Alert) -> bytes:
    """The ALERT's bytes. The total size is computed; ``header.size`` and ``signed`` are not consulted.

    Raises ``ValueError`` for a value that its field cannot hold.
    """
    signed = _signed_body(alert.verifier_id, alert.reason, alert.endpoint)
    return encode_message(alert.header, signed + encode_signature(alert.signature))


def encode_data(data: Data) -> bytes:
    """The DATA's bytes. The total size is computed; ``header.size`` is not consulted.

    Raises ``ValueError`` for a value that its field cannot hold.
    """
    return encode_message(data.header, encode_data_body(data.measurements, data.iv, data.payload, data.checksum))


def encode_data_body(measurements: Sequence[Measurement], iv: bytes, payload: bytes, checksum: bytes) -> bytes:
    """The bytes of a DATA that follow its device id. Raises ``ValueError`` like ``encode_data``."""
    count = len(measurements)
    if len(iv) not in _IV_SIZES or len(checksum) not in _CHECKSUM_SIZES or count > 255:
        msg = (
            f"DATA has an iv of {IV_SIZE} or 0 bytes, a checksum of {DIGEST_SIZE} or 0, at most 255 measurements, "
            f"not {len(iv)}, {len(checksum)} and {count}"
        )
        raise ValueError(msg)
    try:
        measured = b"".join(_MEASUREMENT.pack(*one) for one in measurements)
    except struct.error as error:
        msg = f"measurement out of range: {error}"
        raise ValueError(msg) from error
    length = _length16(len(payload), "payload")
    parts = (bytes((count,)), measured, bytes((len(iv),)), iv, length, payload, bytes((len(checksum),)), checksum)
    return b"".join(parts)


def _signed_body(verifier_id: bytes, reason: Reason, endpoint: Endpoint) -> bytes:
    return encode_short(verifier_id, "verifier id") + bytes((reason,)) + encode_endpoint(endpoint)


def encode_message(header: Header, body: bytes) -> bytes:
    """Header and body as one message of the right total size. Raises ``ValueError`` like ``encode_alert``."""
    size = HEADER_SIZE + len(header.device) + len(body)
    if size > FRAME_LIMIT:
        msg = f"a message of {size} bytes; at most {FRAME_LIMIT} can be sent"
        raise ValueError(msg)
    return encode_header(header._replace(size=size)) + body


def encode_short(text: bytes, field: str) -> bytes:
    """Bytes behind a length of one byte. Raises ``ValueError`` for more than that can say."""
    if len(text) > 255:
        msg = f"{field} has {len(text)} bytes; at most 255 can be sent"
        raise ValueError(msg)
    return bytes((len(text),)) + text


def _length16(length: int, field: str) -> bytes:
    if length > 0xFFFF:
        msg = f"{field} has {length} bytes; at most 65535 can be sent"
        raise ValueError(msg)
    return _SIZE.pack(length)
