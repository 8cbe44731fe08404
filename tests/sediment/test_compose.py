from __future__ import annotations

import hmac

import pytest

from gateway.core.model import Verdict
from gateway.sediment.compose import (
    REQUESTED_ENDPOINT,
    compose_alert,
    compose_data,
    compose_message,
    evidence_endpoint,
    sign_alert_body,
)
from gateway.sediment.wire import (
    Endpoint,
    Measurement,
    MessageId,
    Protocol,
    Reason,
    decode_alert,
    decode_data,
)
from tests.sediment.recorded import (
    HMAC_KEY,
    NOW,
    VERIFIER_ID,
    Message,
    make_alert,
    of_kind,
    own_bench,
    private_key,
    published_hmac_keys,
)


@pytest.mark.parametrize("message", of_kind("ALERT")[::7], ids=lambda m: m.name)
def test_heading_a_recorded_body_gives_the_recorded_bytes(message: Message) -> None:
    alert = decode_alert(message.frame)
    key = published_hmac_keys().get(message.about["device_id"])
    again = compose_message(
        message_id=MessageId.ALERT,
        timestamp=alert.header.timestamp,
        nonce=alert.header.nonce,
        tail=message.frame[75:],
        hmac_key=key,
    )
    assert again == message.frame


@pytest.mark.parametrize("message", of_kind("DATA")[::16], ids=lambda m: m.name)
def test_composing_recorded_data_gives_the_recorded_bytes(message: Message) -> None:
    data = decode_data(message.frame)
    again = compose_data(
        device=data.header.device,
        timestamp=data.header.timestamp,
        nonce=data.header.nonce,
        payload=data.payload,
        iv=data.iv,
        hmac_key=published_hmac_keys()[message.about["device_id"]],
        measurements=data.measurements,
    )
    assert again == message.frame


def test_one_signature_serves_many_headers() -> None:
    endpoint = evidence_endpoint(b"192.0.2.7", 35940)
    tail = sign_alert_body(
        device=b"cam-1",
        verifier_id=VERIFIER_ID,
        reason=Reason.PASS,
        endpoint=endpoint,
        signing_key=private_key(),
    )
    bench = own_bench()
    for issued_at in (NOW, NOW + 1):
        for nonce in (b"n" * 32, b"m" * 32):
            frame = compose_message(
                message_id=MessageId.ALERT, timestamp=issued_at, nonce=nonce, tail=tail, hmac_key=HMAC_KEY
            )
            assert frame == make_alert(issued_at=issued_at, nonce=nonce, endpoint=endpoint)
            assert isinstance(bench.judge(frame, NOW), Verdict)


def test_the_digest_is_zero_without_a_key() -> None:
    frame = make_alert(hmac_key=None)
    assert decode_alert(frame).header.digest == bytes(32)


def test_the_ports_bytes_are_swapped_as_the_verifier_does() -> None:
    assert evidence_endpoint(b"127.0.0.1", 35940) == (Protocol.TCP, b"127.0.0.1", 25740)


def test_the_default_endpoint_is_the_recorded_one() -> None:
    requested = [decode_alert(m.frame) for m in of_kind("ALERT") if m.fields["reason"] == "REQUESTED"]
    assert {alert.endpoint for alert in requested} == {REQUESTED_ENDPOINT}


def test_data_carries_the_checksum_of_its_payload() -> None:
    frame = compose_data(
        device=b"cam-1",
        timestamp=NOW,
        nonce=b"n" * 32,
        payload=b"frame 1",
        iv=bytes(16),
        hmac_key=HMAC_KEY,
        measurements=[Measurement(0, 20, 48)],
    )
    data = decode_data(frame)
    assert data.checksum == hmac.digest(HMAC_KEY, b"frame 1", "sha256")
    assert data.header.digest == hmac.digest(HMAC_KEY, frame[36:], "sha256")
    assert data.measurements == ((0, 20, 48),)


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonce": bytes(31)},
        {"timestamp": -1},
        {"timestamp": 2**32},
        {"device": bytes(256)},
        {"verifier_id": bytes(256)},
        {"endpoint": Endpoint(Protocol.TCP, bytes(256), 1)},
        {"endpoint": Endpoint(Protocol.TCP, b"", 65536)},
    ],
    ids=str,
)
def test_values_that_no_alert_can_hold(wrong: dict[str, object]) -> None:
    right: dict[str, object] = {
        "device": b"cam-1",
        "verifier_id": VERIFIER_ID,
        "reason": Reason.PASS,
        "endpoint": REQUESTED_ENDPOINT,
        "timestamp": NOW,
        "nonce": bytes(32),
        "signing_key": private_key(),
        "hmac_key": HMAC_KEY,
    }
    with pytest.raises(ValueError):
        compose_alert(**{**right, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [{"device": bytes(256)}, {"payload": bytes(32_000)}, {"payload": bytes(65_536)}, {"iv": bytes(15)}],
    ids=len,
)
def test_values_that_no_data_can_hold(wrong: dict[str, bytes]) -> None:
    parts = {"device": b"cam-1", "payload": b"", "iv": bytes(16), **wrong}
    with pytest.raises(ValueError):
        compose_data(
            device=parts["device"],
            timestamp=NOW,
            nonce=bytes(32),
            payload=parts["payload"],
            iv=parts["iv"],
            hmac_key=HMAC_KEY,
        )
