"""The link's messages: whatever arrives, nothing else than the declared error escapes."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.agentlink import messages as wire
from gateway.agentlink import packing
from gateway.core.model import Address, Change, ChangeKind

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=20,
)


@given(
    st.one_of(
        st.binary(max_size=200),
        ANYTHING.map(msgspec.msgpack.encode),
        st.tuples(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 20, 21, 22, 23]), st.lists(ANYTHING, max_size=8)).map(
            lambda pair: msgspec.msgpack.encode([pair[0], *pair[1]])
        ),
    )
)
def test_whatever_arrives_only_the_declared_error_escapes(data: bytes) -> None:
    addresses = [Address(b"1234", 32)]
    for read in (wire.read_from_agent, wire.read_from_gateway, wire.read_plan):
        try:
            message = read(data)
        except wire.LinkProtocolError:
            continue
        try:
            if isinstance(message, wire.Work):
                packing.unpack_work(message, 1_000.0, 60.0)
            elif isinstance(message, wire.Look):
                packing.unpack_addresses(message.addresses)
            elif isinstance(message, wire.Done):
                packing.unpack_done(message, [Change(ChangeKind.CUT, addresses[0])], 0.0)
            elif isinstance(message, wire.Seen):
                packing.unpack_seen(message, addresses)
        except wire.LinkProtocolError:
            pass


@pytest.mark.parametrize(
    "data",
    [
        wire.encode(wire.Unable("xy")).replace(b"xy", b"\xff\xfe"),
        wire.encode(wire.Hello((1,), "0.1.0", "b", math.nan, "", b"n", "nft")),
        wire.encode(wire.Beat(math.inf, 1.0)),
    ],
)
def test_text_that_is_no_utf_8_and_a_clock_without_time_are_refused(data: bytes) -> None:
    with pytest.raises(wire.LinkProtocolError):
        wire.read_from_agent(data)


def test_a_question_of_an_older_gateway_asks_for_no_proof() -> None:
    look = wire.read_from_gateway(msgspec.msgpack.encode((22, 5, ((b"\n\x00\x00\x01", 32),))))
    assert isinstance(look, wire.Look)
    assert not look.proof
