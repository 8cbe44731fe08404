"""SEDIMENT's bytes, with a large budget: codec, framer, authentication."""

from __future__ import annotations

import hmac
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from gateway.core.errors import InputRefused
from gateway.core.model import Outcome, Record, Rejected, Standing, Timeliness, Verdict
from gateway.sediment.compose import compose_message
from gateway.sediment.framing import Framer
from gateway.sediment.wire import (
    HMAC_START,
    Measurement,
    MessageId,
    Reason,
    decode_alert,
    decode_data,
    encode_alert,
    encode_data,
    encode_data_body,
)
from tests.fuzz.mutants import honest, mutants
from tests.sediment.recorded import HMAC_KEY, NOW, make_alert, own_bench

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(900)]

KINDS = frozenset({MessageId.ALERT, MessageId.DATA})
SIGNED_FROM = 75


@cache
def alert(reason: Reason) -> bytes:
    return make_alert(reason)


@cache
def data() -> bytes:
    body = encode_data_body([Measurement(1, 2, 3)], bytes(16), b"payload", bytes(32))
    return compose_message(
        message_id=MessageId.DATA, timestamp=NOW, nonce=bytes(32), tail=b"\x05cam-1" + body, hmac_key=HMAC_KEY
    )


reasons = st.sampled_from(Reason)
alerts = reasons.flatmap(lambda reason: mutants(alert(reason)))
frames = alerts | st.deferred(lambda: mutants(data()))


@given(frames, st.booleans())
def test_what_is_accepted_is_the_only_encoding_of_itself(frame: bytes, tell_the_size: bool) -> None:
    frame = honest(frame) if tell_the_size else frame
    with suppress(InputRefused):
        assert encode_alert(decode_alert(frame)) == frame
        event("accepted as an ALERT")
    with suppress(InputRefused):
        assert encode_data(decode_data(frame)) == frame
        event("accepted as DATA")


def fed(parts: list[bytes]) -> tuple[list[bytes], str | None]:
    """Every frame that comes out, and the refusal that ended it."""
    framer = Framer(KINDS)
    found: list[bytes] = []
    for part in parts:
        with suppress(InputRefused):
            found += framer.feed(part)
        if framer.fault is not None:
            return found, framer.fault.refusal.value
    return found, None


@given(st.lists(frames | frames.map(honest) | st.just(alert(Reason.PASS)), max_size=5), st.data())
def test_however_a_stream_is_cut_the_same_frames_and_the_same_fault_come_out(
    sent: list[bytes], draw: st.DataObject
) -> None:
    stream = b"".join(sent)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole, fault = fed([stream])
    assert fed(parts) == (whole, fault)
    assert fed([bytes((byte,)) for byte in stream]) == (whole, fault)
    assert stream.startswith(b"".join(whole))
    for frame in whole:
        assert int.from_bytes(frame[:2], "big") == len(frame)


@st.composite
def records(draw: st.DrawFn) -> Record:
    near = st.integers(NOW - 300, NOW + 300)
    standing = draw(st.sampled_from(Standing))
    return Record(
        standing,
        draw(near.map(float)) if standing in (Standing.TRUSTED, Standing.SUSPECT) else None,
        draw(st.just(0) | near),
        draw(st.lists(st.sampled_from([b"n" * 32, b"o" * 32]), max_size=2).map(tuple)),
        draw(st.just(0) | near),
    )


@cache
def genuinely_signed() -> frozenset[bytes]:
    return frozenset(alert(reason)[SIGNED_FROM:] for reason in Reason)


@given(alerts, records(), st.floats(NOW - 400, NOW + 400), st.booleans(), st.booleans())
def test_only_genuine_signatures_and_hmacs_make_verdicts(
    frame: bytes, record: Record, at: float, tell_the_size: bool, with_the_devices_key: bool
) -> None:
    if tell_the_size:
        frame = honest(frame)
    if with_the_devices_key and len(frame) > HMAC_START:
        # A device that lies about everything but cannot sign.
        frame = frame[:4] + hmac.digest(HMAC_KEY, frame[HMAC_START:], "sha256") + frame[HMAC_START:]
    result = own_bench(record).judge(frame, at)
    if isinstance(result, Rejected):
        event(f"refused: {result.refusal.value}")
        return
    assert isinstance(result, Verdict)
    event(f"verdict: {result.outcome.value}, {result.timeliness.value}")
    assert frame[SIGNED_FROM:] in genuinely_signed()
    assert frame[4:HMAC_START] == hmac.digest(HMAC_KEY, frame[HMAC_START:], "sha256")
    if result.outcome is Outcome.PASSED:
        assert result.timeliness is Timeliness.FRESH
        assert at - 120 <= result.issued_at <= at + 2
        assert result.issued_at > max(record.newest, record.epoch)
        assert record.standing is not Standing.RETIRED
    elif result.outcome in (Outcome.FAILED, Outcome.REJECTED):
        assert not 0 < record.epoch >= result.issued_at
