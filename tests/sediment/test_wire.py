from __future__ import annotations

import hmac
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import InputRefused, Refusal
from gateway.sediment.wire import (
    FRAME_LIMIT,
    HEADER_SIZE,
    Alert,
    Data,
    Endpoint,
    Header,
    Measurement,
    MessageId,
    Protocol,
    Reason,
    decode_alert,
    decode_data,
    decode_header,
    encode_alert,
    encode_data,
    encode_header,
)
from tests.sediment.recorded import (
    Message,
    make_alert,
    messages,
    of_kind,
    published_hmac_keys,
    refusal_of,
    unhurried,
)

ALERTS = of_kind("ALERT")
DATA = of_kind("DATA")

shorts = st.binary(max_size=255)
headers = st.builds(
    Header,
    size=st.just(0),
    digest=st.binary(min_size=32, max_size=32),
    nonce=st.binary(min_size=32, max_size=32),
    message_id=st.just(MessageId.ALERT),
    timestamp=st.integers(0, 2**32 - 1),
    device=shorts,
)
endpoints = st.builds(Endpoint, st.sampled_from(Protocol), shorts, st.integers(0, 0xFFFF))
alerts = st.builds(
    Alert, headers, shorts, st.sampled_from(Reason), endpoints, st.binary(min_size=256, max_size=600)
)
measurements = st.builds(Measurement, st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
datas = st.builds(
    Data,
    headers.map(lambda header: header._replace(message_id=MessageId.DATA)),
    st.lists(measurements, max_size=255).map(tuple),
    st.binary(min_size=16, max_size=16),
    st.binary(max_size=2000),
    st.binary(min_size=32, max_size=32),
)


def refused(decode: Callable[[bytes], object], frame: bytes) -> Refusal:
    with pytest.raises(InputRefused) as caught:
        decode(frame)
    assert len(caught.value.detail) < 120
    return caught.value.refusal


def test_recordings_are_there() -> None:
    assert len(ALERTS) == 41 + 8 + 5 + 10 + 7
    assert len(DATA) == 55 + 9


@pytest.mark.parametrize("message", ALERTS, ids=lambda m: m.name)
def test_every_recorded_alert(message: Message) -> None:
    alert = decode_alert(message.frame)
    fields = message.fields
    assert alert.header.timestamp == message.about["decoded"]["timestamp"]
    assert alert.header.nonce.hex() == message.about["decoded"]["nonce"]
    assert alert.header.digest.hex() == message.about["decoded"]["digest"]
    assert alert.reason.name == fields["reason"]
    assert alert.verifier_id.decode() == fields["verifier_id"]
    assert alert.signature.hex() == fields["signature"]
    assert alert.endpoint == (
        fields["endpoint"]["protocol_n"],
        fields["endpoint"]["address"].encode(),
        fields["endpoint"]["port"],
    )
    assert alert.signed == (75, len(message.frame) - 2 - 256)
    assert encode_alert(alert) == message.frame


@pytest.mark.parametrize("message", DATA, ids=lambda m: m.name)
def test_every_recorded_data(message: Message) -> None:
    data = decode_data(message.frame)
    fields = message.fields
    assert data.iv.hex() == fields["iv"]
    assert data.payload.hex() == fields["payload"]
    assert data.checksum.hex() == fields["checksum"]
    found = [{"type": m.type, "elapsed_us": m.elapsed, "optional": m.optional} for m in data.measurements]
    assert found == fields["measurements"]
    assert encode_data(data) == message.frame
    key = next(key for device, key in published_hmac_keys().items() if device.encode() == data.header.device)
    assert hmac.digest(key, data.payload, "sha256") == data.checksum


@pytest.mark.parametrize("file", ["pass", "full-session", "failed-record-altered-on-demand"])
def test_every_recorded_header(file: str) -> None:
    for message in messages(file):
        header = decode_header(message.frame)
        assert header.message_id.name == message.kind
        assert message.frame.startswith(encode_header(header))
        assert message.about["decoded"]["body_offset"] == HEADER_SIZE + len(header.device)


@unhurried
@given(alerts)
def test_alerts_survive_the_round_trip(alert: Alert) -> None:
    frame = encode_alert(alert)
    again = decode_alert(frame)
    header = alert.header._replace(size=len(frame))
    assert again == alert._replace(header=header, signed=again.signed)
    assert frame[: again.signed.end].endswith(alert.endpoint.port.to_bytes(2, "big"))


@unhurried
@given(datas)
def test_data_survives_the_round_trip(data: Data) -> None:
    frame = encode_data(data)
    assert decode_data(frame) == data._replace(header=data.header._replace(size=len(frame)))


@pytest.mark.parametrize("decode", [decode_header, decode_alert, decode_data])
@unhurried
@given(raw=st.binary(max_size=600))
@example(raw=b"")
@example(raw=b"\x00\x4c\x00\x20" + bytes(72))
def test_arbitrary_bytes_raise_only_the_declared_error(decode: Callable[[bytes], object], raw: bytes) -> None:
    assert refusal_of(lambda: decode(raw)) in {Refusal.FRAMING, Refusal.KIND, Refusal.LENGTHS, None}


@pytest.mark.parametrize("kind", [MessageId.ALERT, MessageId.DATA])
@unhurried
@given(body=st.binary(max_size=700), length=st.integers(0, 255))
def test_any_body_behind_a_good_header_raises_only_the_declared_error(
    kind: MessageId, body: bytes, length: int
) -> None:
    header = Header(HEADER_SIZE + len(body), bytes(32), bytes(32), kind, 0, b"")
    frame = encode_header(header)[:-1] + bytes((length,)) + body
    expected, other = (decode_alert, decode_data) if kind is MessageId.ALERT else (decode_data, decode_alert)
    assert refusal_of(lambda: expected(frame)) in {Refusal.LENGTHS, None}
    assert refusal_of(lambda: other(frame)) in {Refusal.KIND, Refusal.LENGTHS}


@pytest.mark.parametrize(
    ("frame", "decode"), [(ALERTS[0].frame, decode_alert), (DATA[0].frame, decode_data)], ids=["alert", "data"]
)
def test_every_truncation_and_every_extension_is_refused(frame: bytes, decode: Callable[[bytes], object]) -> None:
    for length in range(len(frame)):
        assert refused(decode, frame[:length]) is Refusal.FRAMING
        if length >= HEADER_SIZE:
            honest = length.to_bytes(2, "big") + frame[2:length]
            assert refused(decode, honest) is Refusal.LENGTHS
    longer = (len(frame) + 1).to_bytes(2, "big") + frame[2:] + b"\x00"
    assert refused(decode, longer) is Refusal.LENGTHS
    assert refused(decode, frame + b"\x00") is Refusal.FRAMING


def patched(offset: int, value: bytes, frame: bytes = ALERTS[0].frame) -> bytes:
    return frame[:offset] + value + frame[offset + len(value) :]


BODY = HEADER_SIZE + 10  # the recorded ids have ten characters
VERIFIER = BODY + 1 + 10


@pytest.mark.parametrize(
    ("frame", "refusal"),
    [
        (patched(0, b"\x00\x00"), Refusal.FRAMING),
        (patched(0, b"\xff\xff"), Refusal.FRAMING),
        (patched(2, b"\x00\x00"), Refusal.FRAMING),
        (patched(2, b"\x00\x21"), Refusal.FRAMING),
        (patched(36, b"\xff\xff"), Refusal.FRAMING),
        (patched(70, b"\x00"), Refusal.KIND),
        (patched(70, b"\x0a"), Refusal.KIND),
        *[(patched(70, bytes((number,))), Refusal.KIND) for number in (15, 16, 17, 99, 255)],
        (patched(75, b"\xff"), Refusal.LENGTHS),
        (patched(BODY, b"\xff"), Refusal.LENGTHS),
        (patched(VERIFIER, b"\x00"), Refusal.LENGTHS),
        (patched(VERIFIER, b"\x0a"), Refusal.LENGTHS),
        (patched(VERIFIER + 1, b"\x04"), Refusal.LENGTHS),
        (patched(VERIFIER + 2, b"\xff"), Refusal.LENGTHS),
        (patched(VERIFIER + 14, b"\x00\x00"), Refusal.LENGTHS),
        (patched(VERIFIER + 14, b"\x00\xff"), Refusal.LENGTHS),
        (patched(VERIFIER + 14, b"\x01\x01"), Refusal.LENGTHS),
    ],
)
def test_each_wrong_field_of_an_alert_has_its_refusal(frame: bytes, refusal: Refusal) -> None:
    assert refused(decode_alert, frame) is refusal


def test_a_device_id_longer_than_its_message_is_refused_with_the_header() -> None:
    for message in messages("full-session"):
        longest = len(message.frame) - HEADER_SIZE
        if longest < 255:
            header = patched(75, bytes((longest + 1,)), message.frame)
            assert refused(decode_header, header) is Refusal.LENGTHS


def test_a_signature_of_a_size_that_no_accepted_key_makes() -> None:
    alert = decode_alert(ALERTS[0].frame)
    assert refused(decode_alert, encode_alert(alert._replace(signature=bytes(255)))) is Refusal.LENGTHS
    assert refused(decode_alert, encode_alert(alert._replace(signature=bytes(1025)))) is Refusal.LENGTHS
    assert len(decode_alert(encode_alert(alert._replace(signature=bytes(384)))).signature) == 384


@pytest.mark.parametrize(
    ("offset", "value"), [(BODY + 1 + 18, b"\x0f"), (BODY + 1 + 18 + 1 + 16 + 2 + 48, b"\x1f"), (BODY, b"\x03")]
)
def test_each_wrong_length_of_data_is_refused(offset: int, value: bytes) -> None:
    frame = DATA[0].frame
    assert frame[offset] in {16, 32, 2}
    assert refused(decode_data, patched(offset, value, frame)) is Refusal.LENGTHS


def test_a_frame_over_the_limit_is_refused_whole() -> None:
    frame = (FRAME_LIMIT + 1).to_bytes(2, "big") + make_alert()[2:]
    assert refused(decode_header, frame + bytes(FRAME_LIMIT + 1 - len(frame))) is Refusal.FRAMING


ALERT = decode_alert(ALERTS[0].frame)
DATUM = decode_data(DATA[0].frame)


@pytest.mark.parametrize(
    "encode",
    [
        lambda: encode_header(ALERT.header._replace(digest=b"")),
        lambda: encode_header(ALERT.header._replace(nonce=bytes(31))),
        lambda: encode_header(ALERT.header._replace(timestamp=2**32)),
        lambda: encode_header(ALERT.header._replace(timestamp=-1)),
        lambda: encode_alert(ALERT._replace(header=ALERT.header._replace(device=bytes(256)))),
        lambda: encode_alert(ALERT._replace(verifier_id=bytes(256))),
        lambda: encode_alert(ALERT._replace(endpoint=ALERT.endpoint._replace(address=bytes(256)))),
        lambda: encode_alert(ALERT._replace(endpoint=ALERT.endpoint._replace(port=65536))),
        lambda: encode_alert(ALERT._replace(signature=bytes(65536))),
        lambda: encode_alert(ALERT._replace(signature=bytes(FRAME_LIMIT))),
        lambda: encode_data(DATUM._replace(iv=bytes(15))),
        lambda: encode_data(DATUM._replace(checksum=bytes(31))),
        lambda: encode_data(DATUM._replace(measurements=(Measurement(256, 0, 0),))),
        lambda: encode_data(DATUM._replace(measurements=(Measurement(0, 0, 0),) * 256)),
        lambda: encode_data(DATUM._replace(payload=bytes(65536))),
    ],
)
def test_values_that_no_field_can_hold_are_refused(encode: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError):
        encode()
