"""The feed's frames: cut right however they arrive, and nothing but frames is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InputRefused, Refusal
from gateway.sediment.feed import HEAD, PAYLOAD_MOST, FeedFramer
from tests.fakes.verifier import frame

PAYLOADS = st.binary(min_size=18, max_size=PAYLOAD_MOST)


def framed(payload: bytes) -> bytes:
    return b"%05d," % len(payload) + payload


def test_a_frame_as_the_verifier_sends_it() -> None:
    assert frame("Ubuntu-001", "correct", 0.013206) == b"00027,Ubuntu-001,correct,0.013206"
    assert FeedFramer().feed(frame("Ubuntu-001", "correct", 0.013206)) == [b"Ubuntu-001,correct,0.013206"]


@given(st.lists(PAYLOADS, max_size=6), st.data())
def test_frames_arrive_in_any_pieces(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(framed, payloads))
    framer = FeedFramer()
    found: list[bytes] = []
    at = 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        found += framer.feed(stream[at : at + size])
        assert framer.pending < HEAD + PAYLOAD_MOST
        at += size
    assert found == payloads
    assert framer.pending == 0


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"1234x,",
        b"12345",  # no comma follows
        b"00000,",
        b"00017," + b"a" * 17,
        b"00301," + b"a" * 301,
        b"99999,",
        b"+0020,a,correct,0.000000",
        "\uff10\uff10\uff10\uff12\uff10,a,correct,0.000000".encode(),
    ],
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(InputRefused) as caught:
        FeedFramer().feed(data + b"x")
    assert caught.value.refusal is Refusal.FRAMING
