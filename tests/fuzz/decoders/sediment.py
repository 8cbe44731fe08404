"""SEDIMENT's bytes: messages, streams, the conversation, authentication, hints, the verifier's feed and answers."""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence
from contextlib import suppress

from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import (
    Address,
    AnchorKind,
    Binding,
    DeviceId,
    Envelope,
    Hint,
    Instant,
    Outcome,
    Record,
    Rejected,
    SourceName,
    Verdict,
)
from gateway.sediment.api import claimed_address, read_answer
from gateway.sediment.bodies import decode, encode
from gateway.sediment.compose import compose_message
from gateway.sediment.feed import HEAD, PAYLOAD_MOST, FeedFramer
from gateway.sediment.framing import Framer
from gateway.sediment.hints import REASONS, FeedHints, HookHints
from gateway.sediment.inventory import Value, read_sediment_devices
from gateway.sediment.keys import load_public_key, parse_hmac_key
from gateway.sediment.relying import Word, case_of, step_of
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
from tests.fakes.verifier import frame as feed_frame
from tests.fuzz.decoders.shape import Attempt, Target, joined, pieces
from tests.fuzz.mutants import honest
from tests.sediment.recorded import (
    DEVICE,
    FIXTURES,
    HMAC_KEY,
    NOW,
    VALID,
    make_alert,
    messages,
    own_bench,
    published_hmac_keys,
)
from tests.sediment.test_relying import recorded_party

SIGNED_FROM = 75
KINDS = frozenset({MessageId.ALERT, MessageId.DATA})
CAM = DeviceId("cam-1")
BINDINGS = {CAM: Binding(CAM, (Address.parse("10.77.1.11"),), AnchorKind.L2)}
HOOK, FEED, VERIFIER = SourceName("hook"), SourceName("verifier.feed"), SourceName("verifier")
AT = Instant(float(NOW), 1_000.0)
ENVELOPE_WORDS = (
    b"cam-1",
    b"RAP_Server",
    b"\x00\x20",
    b"\x01\x00",
    b"tcp",
    *(bytes((kind,)) for kind in MessageId),
)


def recorded_frames() -> Sequence[bytes]:
    """One recorded message of each kind, and DATA and ALERT of our own."""
    found = {message.kind: message.frame for file in VALID for message in messages(file)}
    body = encode_data_body([Measurement(1, 2, 3)], bytes(16), b"payload", bytes(32))
    own = compose_message(
        message_id=MessageId.DATA, timestamp=NOW, nonce=bytes(32), tail=b"\x05cam-1" + body, hmac_key=HMAC_KEY
    )
    return [*found.values(), make_alert(), own]


def _wire() -> Attempt:
    def attempt(data: bytes) -> None:
        for frame in (data, honest(data)):
            with suppress(InputRefused):
                assert encode_alert(decode_alert(frame)) == frame
            with suppress(InputRefused):
                assert encode_data(decode_data(frame)) == frame
            with suppress(InputRefused):
                assert encode(decode(frame)) == frame

    return attempt


def _framing() -> Attempt:
    def run(parts: Sequence[bytes]) -> tuple[list[bytes], Refusal | None]:
        framer = Framer(KINDS)
        found: list[bytes] = []
        for part in parts:
            with suppress(InputRefused):
                found += framer.feed(part)
            if framer.fault is not None:
                return found, framer.fault.refusal
        return found, None

    def attempt(data: bytes) -> None:
        parts = pieces(data)
        stream = b"".join(parts)
        whole = run([stream])
        assert run(parts) == whole
        assert stream.startswith(b"".join(whole[0]))

    return attempt


def _conversation() -> Attempt:
    keys = sorted(published_hmac_keys().items())

    def attempt(data: bytes) -> None:
        if not data:
            return
        how, frame = data[0], honest(data[1:])
        if how & 1 and len(frame) > HMAC_START:
            key = keys[how >> 5 & 1][1]
            frame = frame[:4] + hmac.digest(key, frame[HMAC_START:], "sha256") + frame[HMAC_START:]
        party = recorded_party()
        try:
            heard = party.hear(frame, float(NOW))
        except InputRefused:
            return
        for beside in (False, True):
            case = case_of(heard, Word(bool(how & 2), bool(how & 4), bool(how & 8), bool(how & 16)), beside=beside)
            step = step_of(heard.kind, case, beside=beside)
            if step.answer is not None:
                answer = decode(party.answer(heard, step.answer, bytes(32), NOW))
                assert answer.header.device == heard.header.device

    return attempt


def _authenticate() -> Attempt:
    bench = own_bench()
    signed = {make_alert(reason)[SIGNED_FROM:] for reason in Reason}

    def attempt(data: bytes) -> None:
        """The first byte: whether the device's key is held, and whether the size is true."""
        if not data:
            return
        how, frame = data[0], data[1:]
        if how & 1:
            frame = honest(frame)
        if how & 2 and len(frame) > HMAC_START:
            frame = frame[:4] + hmac.digest(HMAC_KEY, frame[HMAC_START:], "sha256") + frame[HMAC_START:]
        bench.records[DEVICE] = Record()
        result = bench.judge(frame, float(NOW))
        if isinstance(result, Rejected):
            assert len(result.detail) < 400
            return
        assert isinstance(result, Verdict)
        assert frame[SIGNED_FROM:] in signed, "nobody has the verifier's key"
        if result.outcome is Outcome.PASSED:
            assert NOW - 120 <= result.issued_at <= NOW + 2

    return attempt


def _hints() -> Attempt:
    hook, feed = HookHints(HOOK, BINDINGS), FeedHints(FEED, VERIFIER, BINDINGS)

    def check(result: Hint | Rejected, data: bytes) -> None:
        if isinstance(result, Rejected):
            assert result.refusal in {Refusal.LENGTHS, Refusal.DEVICE, Refusal.BINDING}
            assert result.detail.isprintable()
            assert len(result.detail) < 300
            assert len(result.device) <= 64
        else:
            assert result.device == CAM
            assert data.startswith(b"cam-1")

    def attempt(data: bytes) -> None:
        said = hook.authenticate(Envelope(data, HOOK, "unix:0", AT), lambda _device: None)
        check(said, data)
        if isinstance(said, Hint):
            assert data.split(b"\0")[1] == b"10.77.1.11"
        check(feed.authenticate(Envelope(data, FEED, "verifier", AT), lambda _device: None), data)

    return attempt


def _feed() -> Attempt:
    def run(parts: Sequence[bytes]) -> list[bytes] | None:
        framer, found = FeedFramer(), []
        for part in parts:
            fault = None
            try:
                found += framer.feed(part)
            except InputRefused as refused:
                fault = refused.refusal
            if fault is not None:
                assert fault is Refusal.FRAMING
                return None
            assert framer.pending < HEAD + PAYLOAD_MOST
        return found

    def attempt(data: bytes) -> None:
        parts = pieces(data)
        found = run(parts)
        whole = run([b"".join(parts)])
        assert found == whole
        assert found is None or all(len(each) <= PAYLOAD_MOST for each in found)

    return attempt


def _api() -> Attempt:
    def attempt(data: bytes) -> None:
        found = read_answer(data)
        assert found is None or 0 <= found.at < 10**10
        address = claimed_address(data.decode("utf-8", "replace"))
        assert address is None or address.family == 4

    return attempt


def _keys() -> Attempt:
    def attempt(data: bytes) -> None:
        with suppress(ValueError):
            assert load_public_key(data).key_size >= 2_048
        with suppress(ValueError):
            assert len(parse_hmac_key(data)) == 32

    return attempt


def _table() -> Attempt:
    def value(kind: int, raw: bytes) -> Value:
        if kind % 5 == 0:
            return raw
        if kind % 5 == 1:
            return int.from_bytes(raw[:8], "big", signed=True)
        if kind % 5 == 2:
            return None
        if kind % 5 == 3 and len(raw) >= 8:
            return float(struct.unpack(">d", raw[:8])[0])
        return raw.decode("utf-8", "replace")

    def attempt(data: bytes) -> None:
        values = [value(piece[0], piece[1:]) for piece in pieces(data) if piece]
        rows = [values[at : at + 4] for at in range(0, len(values) - 3, 4)]
        found = read_sediment_devices(rows)
        assert len(found) == len(rows)
        assert all(each.device is not None or each.findings for each in found)

    return attempt


def _table_seeds() -> Sequence[bytes]:
    row = (b"\4cam-1", b"\4tcp:10.77.1.11:7000", b"\0" + HMAC_KEY, b"\1\0\0\0\0\0\0\0\1")
    return [joined(*row), joined(*row, *row)]


def _key_seeds() -> Sequence[bytes]:
    return [(FIXTURES / "verifier-public-key.pem").read_bytes(), HMAC_KEY, HMAC_KEY.hex().encode() + b"\n"]


TARGETS = (
    Target(
        "sediment.messages",
        ("gateway.sediment.wire", "gateway.sediment.bodies"),
        _wire,
        recorded_frames,
        ENVELOPE_WORDS,
    ),
    Target(
        "sediment.framing",
        ("gateway.sediment.framing",),
        _framing,
        lambda: [joined(make_alert()), joined(make_alert()[:9], make_alert()[9:], recorded_frames()[-1])],
        ENVELOPE_WORDS,
    ),
    Target(
        "sediment.relying",
        ("gateway.sediment.relying", "gateway.sediment.bodies"),
        _conversation,
        lambda: [bytes((how,)) + frame for frame in recorded_frames() for how in (0, 31)],
        ENVELOPE_WORDS,
    ),
    Target(
        "sediment.authenticate",
        ("gateway.sediment.authenticate",),
        _authenticate,
        lambda: [bytes((how,)) + make_alert(reason) for reason in Reason for how in (0, 3)],
        ENVELOPE_WORDS,
    ),
    Target(
        "sediment.hints",
        ("gateway.sediment.hints", "gateway.sediment.text"),
        _hints,
        lambda: [b"cam-1\x0010.77.1.11\x00FAILED_ATTEST", b"cam-1,incorrect,0.123456"],
        (b"cam-1", b"10.77.1.11", b"\0", b",incorrect,", b",correct,", b"0.000000", *REASONS),
    ),
    Target(
        "sediment.feed",
        ("gateway.sediment.feed",),
        _feed,
        lambda: [joined(feed_frame("cam-1", "incorrect")), joined(b"000", b"18,cam-1,correct,0.123456")],
        (b"00024,", b"00300,", b"cam-1", b",incorrect,0.000000"),
    ),
    Target(
        "sediment.api",
        ("gateway.sediment.api",),
        _api,
        lambda: [b"1795283400 1\n", b"0 -1", b"tcp:192.0.2.7:35940", b"tcp:[fd77::1]:1"],
        (b"tcp:", b" -1", b"192.0.2.7"),
    ),
    Target("sediment.keys", ("gateway.sediment.keys",), _keys, _key_seeds, (b"-----BEGIN PUBLIC KEY-----\n",)),
    Target("sediment.table", ("gateway.sediment.inventory",), _table, _table_seeds, (b"cam-1", b"tcp:")),
)
