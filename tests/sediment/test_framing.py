from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InputRefused, Refusal
from gateway.sediment.compose import compose_message
from gateway.sediment.framing import Framer
from gateway.sediment.wire import FRAME_LIMIT, MessageId
from tests.sediment.recorded import messages, of_kind, refusal_of, unhurried

EVERY = frozenset(MessageId)
ALERT_ONLY = frozenset({MessageId.ALERT})
FRAME = of_kind("ALERT")[0].frame
OTHER = of_kind("ALERT")[1].frame


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    tail = draw(st.binary(min_size=1, max_size=400))
    return compose_message(
        message_id=draw(st.sampled_from(MessageId)), timestamp=1, nonce=bytes(32), tail=tail, hmac_key=None
    )


@st.composite
def cut_anywhere(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def feed_all(framer: Framer, segments: list[bytes]) -> list[bytes]:
    """What a shell gets out of these segments until the first refusal."""
    out: list[bytes] = []
    for segment in segments:
        try:
            out += framer.feed(segment)
        except InputRefused:
            break
        if framer.fault is not None:
            break
    return out


@unhurried
@given(st.data(), st.lists(frames(), max_size=6))
def test_any_segmentation_gives_the_same_frames(data: st.DataObject, sent: list[bytes]) -> None:
    framer = Framer(EVERY)
    assert feed_all(framer, data.draw(cut_anywhere(b"".join(sent)))) == sent
    assert framer.pending == 0
    assert framer.fault is None


@unhurried
@given(st.data(), st.lists(frames(), max_size=4), st.sampled_from([b"GET / HTTP/1.1\r\n", bytes(4), FRAME]))
def test_frames_before_bad_bytes_are_never_lost(data: st.DataObject, sent: list[bytes], bad: bytes) -> None:
    framer = Framer(EVERY - {MessageId.ALERT})
    sent = [frame for frame in sent if frame[70] != MessageId.ALERT]
    assert feed_all(framer, data.draw(cut_anywhere(b"".join([*sent, bad])))) == sent
    assert framer.fault is not None
    assert framer.pending > 0


@unhurried
@given(st.lists(st.binary(max_size=200), max_size=8))
def test_arbitrary_bytes_raise_only_the_declared_error(segments: list[bytes]) -> None:
    framer = Framer(EVERY)
    for segment in segments:
        before = framer.fault
        refusal = refusal_of(lambda data=segment: framer.feed(data))  # type: ignore[misc]
        if refusal is None:
            assert before is None
        else:
            assert refusal in {Refusal.FRAMING, Refusal.KIND}
            assert framer.fault is not None


def test_one_byte_at_a_time() -> None:
    framer = Framer(ALERT_ONLY)
    for count, byte in enumerate(FRAME[:-1], 1):
        assert framer.feed(bytes((byte,))) == []
        assert framer.pending == count
    assert framer.feed(FRAME[-1:]) == [FRAME]
    assert framer.pending == 0


def test_a_whole_recorded_session_in_one_segment() -> None:
    sent = [message.frame for message in messages("full-session")]
    assert Framer(EVERY).feed(b"".join(sent)) == sent


def test_exactly_one_frame_is_handed_on_without_a_copy() -> None:
    (frame,) = Framer(ALERT_ONLY).feed(FRAME)
    assert frame is FRAME


def test_frames_are_bytes_even_when_they_were_buffered() -> None:
    framer = Framer(ALERT_ONLY)
    framer.feed(FRAME[:100])
    for frame in framer.feed(FRAME[100:] + OTHER):
        assert type(frame) is bytes


@pytest.mark.parametrize(
    ("offset", "value", "judged_after", "refusal"),
    [
        (0, b"\x00\x4b", 2, Refusal.FRAMING),
        (0, (FRAME_LIMIT + 1).to_bytes(2, "big"), 2, Refusal.FRAMING),
        (2, b"\x00\x00", 4, Refusal.FRAMING),
        (36, b"\xff\xff", 38, Refusal.FRAMING),
        (70, b"\x0a", 71, Refusal.KIND),
        (70, b"\x63", 71, Refusal.KIND),
    ],
)
def test_fixed_fields_are_judged_as_soon_as_they_are_in(
    offset: int, value: bytes, judged_after: int, refusal: Refusal
) -> None:
    bad = FRAME[:offset] + value + FRAME[offset + len(value) :]
    framer = Framer(ALERT_ONLY)
    assert framer.feed(bad[: judged_after - 1]) == []
    with pytest.raises(InputRefused) as caught:
        framer.feed(bad[judged_after - 1 : judged_after])
    assert caught.value.refusal is refusal
    with pytest.raises(InputRefused) as whole:
        Framer(ALERT_ONLY).feed(bad)
    assert whole.value.refusal is refusal


def test_dead_after_an_error() -> None:
    framer = Framer(ALERT_ONLY)
    with pytest.raises(InputRefused):
        framer.feed(b"GET / HTTP/1.1")
    for data in (FRAME, b""):
        with pytest.raises(InputRefused, match="digest length"):
            framer.feed(data)
    assert framer.pending == len(b"GET / HTTP/1.1")  # what comes after is not kept


def test_a_fault_behind_whole_frames_is_told_beside_them_and_raised_next() -> None:
    framer = Framer(ALERT_ONLY)
    assert framer.feed(FRAME + OTHER + b"\x00\x00") == [FRAME, OTHER]
    assert framer.fault is not None
    assert framer.fault.refusal is Refusal.FRAMING
    with pytest.raises(InputRefused):
        framer.feed(FRAME)


def test_a_smaller_limit_holds() -> None:
    assert Framer(ALERT_ONLY, limit=len(FRAME)).feed(FRAME) == [FRAME]
    with pytest.raises(InputRefused, match="total size"):
        Framer(ALERT_ONLY, limit=len(FRAME) - 1).feed(FRAME)
