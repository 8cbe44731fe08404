from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InputRefused, Refusal
from gateway.sediment import messages as codec
from gateway.sediment.bodies import decode, encode, encode_passport_signed, judge_data
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
    Passport,
    PassportCheck,
    PassportRequest,
    PassportResponse,
    Permission,
    Result,
)
from gateway.sediment.wire import (
    HMAC_START,
    Data,
    Endpoint,
    Header,
    Measurement,
    MessageId,
    Protocol,
    Reason,
    Span,
    decode_data,
    decode_header,
    encode_header,
)
from tests.fuzz.mutants import honest, mutants
from tests.sediment.recorded import (
    VALID,
    Message,
    messages,
    of_kind,
    published_hmac_keys,
    published_key,
    refusal_of,
    unhurried,
)

RECORDED = [message for file in VALID for message in messages(file)]

UNSIGNED = Span(0, 0)
u8, u16, u32 = st.integers(0, 255), st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1)
shorts, longs = st.binary(max_size=255), st.binary(max_size=600)
endpoints = st.builds(Endpoint, st.sampled_from(Protocol), shorts, u16)
boxes = st.builds(KeyBox, st.sampled_from(KeyPurpose), st.sampled_from(KeyType), longs)
measurements = st.builds(Measurement, u8, u32, u32)
lists = st.lists(measurements, max_size=20).map(tuple)
passports = st.builds(Passport, shorts, shorts, u32, u32, st.binary(min_size=256, max_size=600), st.just(UNSIGNED))


def headers(kind: MessageId) -> st.SearchStrategy[Header]:
    fixed = st.binary(min_size=32, max_size=32)
    return st.builds(Header, st.just(0), fixed, fixed, st.just(kind), u32, shorts)


_K = MessageId
anything: st.SearchStrategy[codec.Message] = st.one_of(
    st.builds(PassportRequest, headers(_K.PASSPORT_REQUEST), st.sampled_from(Reason)),
    st.builds(PassportResponse, headers(_K.PASSPORT_RESPONSE), endpoints, boxes, lists),
    st.builds(AttestationRequest, headers(_K.ATTESTATION_REQUEST), u16, u32),
    st.builds(Challenge, headers(_K.CHALLENGE), shorts, u32, u32, u32, longs),
    st.builds(
        Evidence,
        headers(_K.EVIDENCE),
        measurements,
        u32,
        st.lists(st.builds(EvidenceItem, u8, u8, longs), max_size=5).map(tuple),
    ),
    st.builds(Grant, headers(_K.GRANT), passports),
    st.builds(PassportCheck, headers(_K.PASSPORT_CHECK), passports),
    st.builds(Permission, headers(_K.PERMISSION), st.sampled_from(Admittance), st.sampled_from(Cause), endpoints),
    st.builds(Result, headers(_K.RESULT), st.sampled_from(Acceptance)),
    st.builds(KeyChange, headers(_K.KEY_CHANGE), boxes, boxes, lists),
    st.builds(Dummy, headers(_K.DUMMY)),
    st.builds(ConfigMessage, headers(_K.CONFIG), longs),
)


def test_recordings_cover_every_kind_but_key_change() -> None:
    seen = Counter(message.kind for message in RECORDED)
    assert set(MessageId.__members__) - set(seen) == {"KEY_CHANGE"}
    assert sum(seen.values()) == len(RECORDED) == 595


@pytest.mark.parametrize("message", RECORDED, ids=lambda m: m.name)
def test_every_recorded_message_is_the_encoding_of_what_it_decodes_to(message: Message) -> None:
    decoded = decode(message.frame)
    assert decoded.header.message_id.name == message.kind
    assert decoded.header.size == len(message.frame)
    assert encode(decoded) == message.frame


@pytest.mark.parametrize("message", RECORDED, ids=lambda m: m.name)
def test_every_recorded_field(message: Message) -> None:
    fields = message.fields
    match decode(message.frame):
        case ConfigMessage(text=text):
            assert text.rstrip(b"\0").decode() == fields["configs"].rstrip("\0")
        case PassportRequest(reason=reason):
            assert reason.name == fields["reason"]
        case PassportResponse(verifier=verifier, key_box=box, measurements=listed):
            assert verifier.address.decode() == fields["endpoint"]["address"]
            assert (verifier.protocol, verifier.port) == (
                fields["endpoint"]["protocol_n"],
                fields["endpoint"]["port"],
            )
            assert box == (fields["key_box"]["purpose"], fields["key_box"]["enc_type"], b"")
            assert [] == list(listed) == fields["measurements"]
        case AttestationRequest(port=port, counter=counter):
            assert (port, counter) == (fields["port"], fields["counter"])
        case Challenge() as challenge:
            assert challenge.nonce.hex() == fields["challenge_nonce"]
            numbers = (fields["block_size"], fields["block_count"], fields["counter"])
            assert (challenge.block_size, challenge.block_count, challenge.counter) == numbers
            assert len(challenge.evidence_types) == len(fields["evidence_types"])
        case Evidence(measurement=measurement, counter=counter, items=items):
            told = fields["measurement"]
            assert measurement == (told["type"], told["elapsed_us"], told["optional"])
            assert counter == fields["counter"]
            assert [item.value.hex() for item in items] == [item["value"] for item in fields["items"]]
        case Grant(passport=passport) | PassportCheck(passport=passport):
            told = fields["passport"]
            assert passport.prover_id.decode() == told["prover_id"]
            assert passport.verifier_id.decode() == told["verifier_id"]
            assert (passport.issued, passport.expires) == (told["issue"], told["expire"])
            assert passport.signature.hex() == told["signature"]
        case Permission(admittance=admittance, cause=cause, relying_party=endpoint):
            assert (admittance.name, cause.name) == (fields["admittance"], fields["cause"])
            assert endpoint.port == fields["endpoint"]["port"]
        case Result(acceptance=acceptance):
            assert acceptance.name == fields["acceptance"]
        case Dummy():
            assert fields == {}


@pytest.mark.parametrize("kind", ["GRANT", "PASSPORT_CHECK"])
def test_every_recorded_passport_is_signed_over_the_span_that_decoding_reports(kind: str) -> None:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    found = [message for message in RECORDED if message.kind == kind]
    assert found
    for message in found:
        decoded = decode(message.frame)
        assert isinstance(decoded, Grant | PassportCheck)
        passport = decoded.passport
        start, end = passport.signed
        assert message.frame[start:end] == encode_passport_signed(passport)
        published_key().verify(passport.signature, message.frame[start:end], PKCS1v15(), SHA256())


def test_every_recorded_message_of_a_known_device_is_under_its_hmac() -> None:
    keys = published_hmac_keys()
    for message in RECORDED:
        header = decode(message.frame).header
        key = next((key for device, key in keys.items() if device.encode() == header.device), None)
        if key is not None and any(header.digest):
            assert hmac.digest(key, message.frame[HMAC_START:], "sha256") == header.digest


@unhurried
@given(anything)
def test_encoding_and_decoding_are_inverse(message: codec.Message) -> None:
    frame = encode(message)
    decoded = decode(frame)
    if isinstance(decoded, Grant | PassportCheck):
        passport = decoded.passport._replace(signed=UNSIGNED)
        decoded = decoded._replace(passport=passport)
    assert decoded._replace(header=message.header) == message
    assert decoded.header == message.header._replace(size=len(frame))


@unhurried
@given(anything.flatmap(lambda message: mutants(encode(message))), st.booleans())
def test_only_declared_refusals_escape_and_what_is_taken_has_one_encoding(frame: bytes, size: bool) -> None:
    frame = honest(frame) if size else frame
    with suppress(InputRefused):
        assert encode(decode(frame)) == frame


@unhurried
@given(anything, st.data())
def test_a_message_cut_short_or_with_bytes_left_over_is_refused(
    message: codec.Message, draw: st.DataObject
) -> None:
    frame = encode(message)
    cut = draw.draw(st.integers(1, len(frame) - 76)) if len(frame) > 76 else 0
    if cut:
        assert refusal_of(lambda: decode(honest(frame[:-cut]))) is Refusal.LENGTHS
    assert refusal_of(lambda: decode(honest(frame + b"x"))) is Refusal.LENGTHS
    assert refusal_of(lambda: decode(frame + b"x")) is Refusal.FRAMING


@pytest.mark.parametrize("number", [0, 15, 16, 17, 18, 255])
def test_message_ids_that_were_never_recorded_are_refused(number: int) -> None:
    frame = bytearray(RECORDED[0].frame)
    frame[70] = number
    assert refusal_of(lambda: decode(bytes(frame))) is Refusal.KIND


def test_data_without_encryption_and_signature_is_what_such_a_device_sends() -> None:
    header = Header(0, bytes(32), bytes(32), MessageId.DATA, 1, b"cam-1")
    data = Data(header, (Measurement(13, 1, 4),), b"", b"data", b"")
    assert decode(encode(data)) == data._replace(header=header._replace(size=len(encode(data))))


@pytest.mark.parametrize(
    "message",
    [
        AttestationRequest(Header(0, bytes(32), bytes(32), _K.ATTESTATION_REQUEST, 0, b""), 65_536, 0),
        Challenge(Header(0, bytes(32), bytes(32), _K.CHALLENGE, 0, b""), bytes(256), 0, 0, 0, b""),
        Grant(Header(0, bytes(32), bytes(32), _K.GRANT, 0, b""), Passport(b"", b"", -1, 0, bytes(256))),
        KeyChange(
            Header(0, bytes(32), bytes(32), _K.KEY_CHANGE, 0, b""),
            KeyBox(KeyPurpose.ENCRYPTION, KeyType.JEDI, bytes(65_536)),
            KeyBox(KeyPurpose.ENCRYPTION, KeyType.JEDI, b""),
            (),
        ),
        KeyChange(
            Header(0, bytes(32), bytes(32), _K.KEY_CHANGE, 0, b""),
            KeyBox(KeyPurpose.ENCRYPTION, KeyType.JEDI, b""),
            KeyBox(KeyPurpose.ENCRYPTION, KeyType.JEDI, b""),
            (Measurement(0, 0, 0),) * 256,
        ),
        Evidence(
            Header(0, bytes(32), bytes(32), _K.EVIDENCE, 0, b""),
            Measurement(0, 0, 0),
            0,
            (EvidenceItem(0, 0, b""),) * 256,
        ),
        ConfigMessage(Header(0, bytes(32), bytes(32), _K.CONFIG, 0, b""), bytes(32_000)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_a_field_cannot_hold_is_no_message(message: codec.Message) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode(message)


def outcome(judge: Callable[[], object]) -> tuple[Refusal, str] | None:
    """What was refused, if anything; what else may be raised is a bug."""
    try:
        judge()
    except InputRefused as refused:
        return refused.refusal, refused.detail
    return None


BODY_BYTES = st.binary(max_size=120) | st.builds(
    lambda parts: b"".join(parts),
    st.tuples(
        st.sampled_from((b"\0", b"\1" + bytes(9), b"\2" + bytes(18), b"\xff")),
        st.sampled_from((b"\0", b"\x10" + bytes(16), b"\x0f" + bytes(15))),
        st.sampled_from((b"\0\0", b"\0\3abc", b"\xff\xff")),
        st.sampled_from((b"\0", b"\x20" + bytes(32), b"\x1f" + bytes(31), b"")),
        st.sampled_from((b"", b"", b"x")),
    ),
)


@unhurried
@given(st.binary(max_size=20), BODY_BYTES)
def test_data_is_judged_as_it_would_be_decoded(device: bytes, body: bytes) -> None:
    header = Header(76 + len(device) + len(body), bytes(32), bytes(32), MessageId.DATA, 1, device)
    frame = encode_header(header) + body
    assert outcome(lambda: judge_data(frame, header)) == outcome(lambda: decode_data(frame, header))


def test_recorded_data_is_judged_good() -> None:
    frames = [message.frame for message in of_kind("DATA")]
    assert frames
    for frame in frames:
        judge_data(frame, decode_header(frame))
