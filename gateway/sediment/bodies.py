"""The bodies of all message kinds, bytes to values and back. No keys, no trust, no time.

Header, ALERT and DATA, the kinds that come by the thousand, have readers of their own; this module knows the rest
and is the one table over all. Facts are those of SEDIMENT v1.0.0 (commit 00e2e3e):
``modules/protocol/Message.cpp`` lines 70-390 for the order of the fields, ``Message.hpp`` lines 21-63 for their
sizes, ``KeyBox.cpp`` and ``Measurement.cpp`` for the parts, ``Enum.hpp`` for the numbers; checked against recorded
messages of every kind but KEY_CHANGE, which was never seen. All integers are big endian.

Bodies, behind the device id::

    PASSPORT_REQUEST     reason u8
    PASSPORT_RESPONSE    endpoint, key box, measurements
    ATTESTATION_REQUEST  port u16, counter u32
    CHALLENGE            n u8, n evidence types u8; block size u32, block count u32, counter u32; nonce u16 + bytes
    EVIDENCE             measurement, counter u32, n u8, n items: type u8, encoding u8, value u16 + bytes
    GRANT, PASSPORT_CHECK  passport: prover id u8 + bytes, verifier id u8 + bytes, issued u32, expires u32,
                         signature u16 + bytes
    PERMISSION           admittance u8, cause u8, endpoint
    RESULT               acceptance u8
    KEY_CHANGE           key box, key box, measurements
    DUMMY                nothing
    CONFIG               text u32 + bytes

    endpoint             protocol u8, address u8 + bytes, port u16
    key box              purpose u8, type u8, key u16 + bytes
    measurements         n u8, n measurements: type u8, elapsed microseconds u32, number u32

A passport's signature covers its bytes from the prover id's length up to and including ``expires``
(``servers/firewall/Firewall.cpp`` lines 301-314).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import TypeVar

from gateway.core.errors import InputRefused, Refusal
from gateway.sediment.messages import (
    Acceptance,
    Admittance,
    AttestationRequest,
    Cause,
    Challenge,
    ConfigMessage,
    Dummy,
    Evidence,
    EvidenceItem,
    Grant,
    KeyBox,
    KeyChange,
    KeyPurpose,
    KeyType,
    Message,
    Passport,
    PassportCheck,
    PassportRequest,
    PassportResponse,
    Permission,
    Result,
)
from gateway.sediment.wire import (
    DIGEST_SIZE,
    HEADER_SIZE,
    IV_SIZE,
    SIGNATURE_MAX,
    SIGNATURE_MIN,
    Alert,
    Data,
    Endpoint,
    Header,
    Measurement,
    MessageId,
    Protocol,
    Reason,
    Span,
    decode_alert,
    decode_data,
    decode_header,
    encode_alert,
    encode_data,
    encode_endpoint,
    encode_message,
    encode_short,
)

M = TypeVar("M", bound=IntEnum)

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_MEASUREMENT = struct.Struct(">BII")
_TYPES = struct.Struct(">BB")
_IV_SIZES = (IV_SIZE, 0)
_CHECKSUM_SIZES = (DIGEST_SIZE, 0)


class _Reader:
    """Takes fields one after the other; refuses (``LENGTHS``) whatever is not all there."""

    __slots__ = ("at", "frame")

    def __init__(self, frame: bytes, at: int) -> None:
        self.frame = frame
        self.at = at

    def take(self, length: int, field: str) -> bytes:
        end = self.at + length
        if end > len(self.frame):
            raise InputRefused(Refusal.LENGTHS, f"the message ends inside its {field}")
        self.at, at = end, self.at
        return self.frame[at:end]

    def u8(self, field: str) -> int:
        return self.take(1, field)[0]

    def u16(self, field: str) -> int:
        data = self.take(2, field)
        return data[0] << 8 | data[1]

    def u32(self, field: str) -> int:
        return int.from_bytes(self.take(4, field), "big")

    def short(self, field: str) -> bytes:
        """Bytes behind a length of one byte."""
        return self.take(self.u8(f"{field} length"), field)

    def long(self, field: str) -> bytes:
        """Bytes behind a length of two bytes."""
        return self.take(self.u16(f"{field} length"), field)

    def word(self, known: Mapping[int, M], field: str) -> M:
        number = self.u8(field)
        if number not in known:
            raise InputRefused(Refusal.LENGTHS, f"{field} {number} is not one that the format lists")
        return known[number]

    def end(self) -> None:
        if left := len(self.frame) - self.at:
            raise InputRefused(Refusal.LENGTHS, f"{left} bytes are left over behind the message's last field")


def _numbers(kind: type[M]) -> Mapping[int, M]:
    return {int(member): member for member in kind}


_REASONS, _PROTOCOLS = _numbers(Reason), _numbers(Protocol)
_ACCEPTANCES, _ADMITTANCES, _CAUSES = _numbers(Acceptance), _numbers(Admittance), _numbers(Cause)
_PURPOSES, _KEY_TYPES = _numbers(KeyPurpose), _numbers(KeyType)


def _endpoint(body: _Reader) -> Endpoint:
    protocol = body.word(_PROTOCOLS, "endpoint protocol")
    return Endpoint(protocol, body.short("endpoint address"), body.u16("endpoint port"))


def _key_box(body: _Reader) -> KeyBox:
    purpose = body.word(_PURPOSES, "key purpose")
    return KeyBox(purpose, body.word(_KEY_TYPES, "key type"), body.long("key"))


def _measurement(body: _Reader) -> Measurement:
    return Measurement._make(_MEASUREMENT.unpack(body.take(_MEASUREMENT.size, "measurement")))


def _measurements(body: _Reader) -> tuple[Measurement, ...]:
    return tuple(_measurement(body) for _ in range(body.u8("measurement count")))


def _passport(body: _Reader) -> Passport:
    start = body.at
    prover, verifier = body.short("prover id"), body.short("verifier id")
    issued, expires = body.u32("issue date"), body.u32("expiry date")
    signed = Span(start, body.at)
    signature = body.long("signature")
    if not SIGNATURE_MIN <= len(signature) <= SIGNATURE_MAX:
        what = f"signature of {len(signature)} bytes is not within {SIGNATURE_MIN} to {SIGNATURE_MAX}"
        raise InputRefused(Refusal.LENGTHS, what)
    return Passport(prover, verifier, issued, expires, signature, signed)


def _challenge(header: Header, body: _Reader) -> Challenge:
    types = body.short("evidence types")
    size, count, counter = body.u32("block size"), body.u32("block count"), body.u32("counter")
    return Challenge(header, types, size, count, counter, body.long("challenge nonce"))


def _evidence(header: Header, body: _Reader) -> Evidence:
    measurement, counter = _measurement(body), body.u32("counter")
    count = body.u8("evidence count")
    items = tuple(
        EvidenceItem(body.u8("evidence type"), body.u8("evidence encoding"), body.long("evidence"))
        for _ in range(count)
    )
    return Evidence(header, measurement, counter, items)


def _config(header: Header, body: _Reader) -> ConfigMessage:
    return ConfigMessage(header, body.take(body.u32("text length"), "text"))


_Kind = MessageId
_BODIES: Mapping[MessageId, Callable[[Header, _Reader], Message]] = {
    _Kind.PASSPORT_REQUEST: lambda header, body: PassportRequest(header, body.word(_REASONS, "reason")),
    _Kind.PASSPORT_RESPONSE: lambda header, body: PassportResponse(
        header, _endpoint(body), _key_box(body), _measurements(body)
    ),
    _Kind.ATTESTATION_REQUEST: lambda header, body: AttestationRequest(
        header, body.u16("port"), body.u32("counter")
    ),
    _Kind.CHALLENGE: _challenge,
    _Kind.EVIDENCE: _evidence,
    _Kind.GRANT: lambda header, body: Grant(header, _passport(body)),
    _Kind.PASSPORT_CHECK: lambda header, body: PassportCheck(header, _passport(body)),
    _Kind.PERMISSION: lambda header, body: Permission(
        header, body.word(_ADMITTANCES, "admittance"), body.word(_CAUSES, "cause"), _endpoint(body)
    ),
    _Kind.RESULT: lambda header, body: Result(header, body.word(_ACCEPTANCES, "acceptance")),
    _Kind.KEY_CHANGE: lambda header, body: KeyChange(header, _key_box(body), _key_box(body), _measurements(body)),
    _Kind.DUMMY: lambda header, _body: Dummy(header),
    _Kind.CONFIG: _config,
}


def decode(frame: bytes) -> Message:
    """Decode one whole message of any kind, exactly: no byte missing, none left over, no number unknown.

    Raises ``InputRefused``: ``FRAMING`` for sizes and fixed lengths, ``KIND`` for an unknown message id,
    ``LENGTHS`` for a body that is not what the format says.
    """
    kind = decode_header(frame).message_id
    if kind is _Kind.ALERT:
        return decode_alert(frame)
    if kind is _Kind.DATA:
        return decode_data(frame)
    return decode_body(decode_header(frame), frame)


def decode_body(header: Header, frame: bytes) -> Message:
    """Decode what follows a header that is decoded already; for the kinds that have no reader of their own.

    Raises ``InputRefused`` (``LENGTHS``) like ``decode``, and ``KeyError`` for an ALERT or a DATA.
    """
    body = _Reader(frame, HEADER_SIZE + len(header.device))
    message = _BODIES[header.message_id](header, body)
    body.end()
    return message


def judge_data(frame: bytes, header: Header) -> None:
    """Refuse (``LENGTHS``) a DATA that ``decode_data`` would refuse, without taking it apart.

    ``header``: the frame's own. Most of what a relying party carries is DATA, and it looks at no field of it.
    """
    at = HEADER_SIZE + len(header.device)
    end = header.size
    try:
        at += 1 + frame[at] * _MEASUREMENT.size
        iv = frame[at]
        at += 1 + iv
        at += 2 + (frame[at] << 8 | frame[at + 1])
        checksum = frame[at]
    except IndexError:
        decode_data(frame, header)  # says where it ends
        raise
    if iv not in _IV_SIZES or checksum not in _CHECKSUM_SIZES or at + 1 + checksum != end:
        decode_data(frame, header)  # says what is wrong


# --- encoding -----------------------------------------------------------------------------------------------------


def _put(form: struct.Struct, field: str, *values: int) -> bytes:
    try:
        return form.pack(*values)
    except struct.error as error:
        msg = f"{field} out of range: {error}"
        raise ValueError(msg) from error


def _put_long(data: bytes, field: str) -> bytes:
    return _put(_U16, f"{field} length", len(data)) + data


def _put_key_box(box: KeyBox) -> bytes:
    return bytes((box.purpose, box.type)) + _put_long(box.key, "key")


def _put_measurements(measurements: tuple[Measurement, ...]) -> bytes:
    if len(measurements) > 255:
        msg = f"{len(measurements)} measurements; at most 255 can be sent"
        raise ValueError(msg)
    return bytes((len(measurements),)) + b"".join(_put(_MEASUREMENT, "measurement", *one) for one in measurements)


def encode_passport_signed(passport: Passport) -> bytes:
    """The bytes of a passport that its signature covers. Raises ``ValueError`` like ``encode``."""
    ids = encode_short(passport.prover_id, "prover id") + encode_short(passport.verifier_id, "verifier id")
    return ids + _put(_U32, "issue date", passport.issued) + _put(_U32, "expiry date", passport.expires)


def _put_items(items: tuple[EvidenceItem, ...]) -> bytes:
    if len(items) > 255:
        msg = f"{len(items)} pieces of evidence; at most 255 can be sent"
        raise ValueError(msg)
    parts = (
        _put(_TYPES, "evidence", item.type, item.encoding) + _put_long(item.value, "evidence") for item in items
    )
    return bytes((len(items),)) + b"".join(parts)


def encode_body(message: Message) -> bytes:  # noqa: PLR0911 -- one return for each kind
    """The bytes of a message behind its device id, for every kind but ALERT and DATA. Raises ``ValueError``."""
    match message:
        case PassportRequest(reason=reason):
            return bytes((reason,))
        case PassportResponse(verifier=verifier, key_box=box, measurements=measurements):
            return encode_endpoint(verifier) + _put_key_box(box) + _put_measurements(measurements)
        case AttestationRequest(port=port, counter=counter):
            return _put(_U16, "port", port) + _put(_U32, "counter", counter)
        case Challenge():
            numbers = (message.block_size, message.block_count, message.counter)
            counts = b"".join(_put(_U32, "block or counter", number) for number in numbers)
            nonce = _put_long(message.nonce, "challenge nonce")
            return encode_short(message.evidence_types, "evidence types") + counts + nonce
        case Evidence(measurement=measurement, counter=counter, items=items):
            return (
                _put(_MEASUREMENT, "measurement", *measurement) + _put(_U32, "counter", counter) + _put_items(items)
            )
        case Grant(passport=passport) | PassportCheck(passport=passport):
            return encode_passport_signed(passport) + _put_long(passport.signature, "signature")
        case Permission(admittance=admittance, cause=cause, relying_party=endpoint):
            return bytes((admittance, cause)) + encode_endpoint(endpoint)
        case Result(acceptance=acceptance):
            return bytes((acceptance,))
        case KeyChange(encryption=encryption, signing=signing, measurements=measurements):
            return _put_key_box(encryption) + _put_key_box(signing) + _put_measurements(measurements)
        case Dummy():
            return b""
        case ConfigMessage(text=text):
            return _put(_U32, "text length", len(text)) + text
    msg = f"{type(message).__name__} has an encoder of its own"
    raise ValueError(msg)


def encode(message: Message) -> bytes:
    """The message's bytes. The total size is computed; sizes and spans in the value are not consulted.

    Raises ``ValueError`` for a value that its field cannot hold.
    """
    if isinstance(message, Alert):
        return encode_alert(message)
    if isinstance(message, Data):
        return encode_data(message)
    return encode_message(message.header, encode_body(message))
