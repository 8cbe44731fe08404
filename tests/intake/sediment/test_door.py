"""The door: what gets in, whole and in order; what is refused, and by which name."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import Refusal
from gateway.core.model import Envelope, SourceName
from tests.fakes.admission import FakeAdmission
from tests.fakes.clock import ManualClock
from tests.intake.sediment.site import (
    FRIEND,
    SOURCE,
    STRANGER,
    VERIFIER,
    Peer,
    frame,
    serving,
    settle,
    until,
)


def got(admission: FakeAdmission) -> list[bytes]:
    return [envelope.data for envelope in admission.envelopes]


async def test_an_alert_sent_as_the_verifier_sends_it_becomes_one_envelope() -> None:
    admission = FakeAdmission()
    async with serving(admission) as door:
        Peer(door).send(frame(1)).close()
        await until(lambda: bool(admission.envelopes))
        await settle()
    (envelope,) = admission.envelopes
    assert envelope == Envelope(frame(1), SOURCE, VERIFIER, ManualClock().now())
    assert admission.refusals == []
    assert door.open_connections == 0
    assert (door.accepted, door.frames) == (1, 1)


async def test_bytes_one_by_one_make_the_same_frame() -> None:
    admission = FakeAdmission()
    async with serving(admission) as door:
        peer = Peer(door)
        for byte in frame(7):
            peer.send(bytes([byte]))
            await asyncio.sleep(0)
        await until(lambda: bool(admission.envelopes))
        peer.close()
        await until(lambda: door.open_connections == 0)
    assert got(admission) == [frame(7)]
    assert admission.refusals == []


async def test_several_frames_in_one_segment_arrive_in_order() -> None:
    admission = FakeAdmission()
    async with serving(admission) as door:
        Peer(door).send(frame(1) + frame(2) + frame(3, size=80) + frame(4)[:100]).send(frame(4)[100:]).close()
        await until(lambda: len(admission.envelopes) == 4)
    assert got(admission) == [frame(1), frame(2), frame(3, size=80), frame(4)]


async def test_a_frame_of_the_largest_size_is_taken() -> None:
    admission = FakeAdmission()
    async with serving(admission) as door:
        Peer(door).send(frame(1, size=32_000)).close()
        await until(lambda: bool(admission.envelopes))
    assert got(admission) == [frame(1, size=32_000)]


async def test_a_connection_may_bring_frame_after_frame() -> None:
    admission = FakeAdmission()
    async with serving(admission) as door:
        peer = Peer(door)
        for number in range(5):
            peer.send(frame(number))
            await until(lambda: len(admission.envelopes) == number + 1)  # noqa: B023
        assert door.open_connections == 1
        peer.close()
        await until(lambda: door.open_connections == 0)
    assert admission.refusals == []


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(76, 600), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 3000), max_size=8),
)
async def test_chunking_changes_nothing(sizes: list[int], cuts: list[int]) -> None:
    sent = [frame(number, size) for number, size in enumerate(sizes)]
    stream = b"".join(sent)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    admission = FakeAdmission()
    async with serving(admission) as door:
        peer = Peer(door)
        for start, end in pairwise(edges):
            peer.send(stream[start:end])
            await asyncio.sleep(0)
        await until(lambda: len(admission.envelopes) == len(sent))
        peer.close()
    assert got(admission) == sent
    assert admission.refusals == []


@pytest.mark.parametrize(
    ("sent", "refusal"),
    [
        (b"GET ", Refusal.FRAMING),  # no size says so, but the digest length does
        (b"\x00\x4b", Refusal.FRAMING),
        (b"\x7d\x01", Refusal.FRAMING),  # 32,001
        (frame()[:2] + b"\x00\x21", Refusal.FRAMING),
        (frame()[:36] + b"\x00\x1f", Refusal.FRAMING),
        (frame(kind=10)[:71], Refusal.KIND),
        (frame(kind=15), Refusal.KIND),
    ],
)
async def test_wrong_fixed_fields_close_the_connection_as_soon_as_they_are_in(
    sent: bytes, refusal: Refusal
) -> None:
    admission = FakeAdmission()
    async with serving(admission) as door:
        await Peer(door).send(sent).closed()
        Peer(door).send(frame(1)).close()  # and the next peer is served
        await until(lambda: bool(admission.envelopes))
    assert admission.reasons == [refusal]
    assert admission.refusals[0][0] == SOURCE
    assert admission.refusals[0][3] == VERIFIER
    assert door.refused == {refusal: 1}
    assert got(admission) == [frame(1)]


async def test_a_whole_frame_counts_even_when_rubbish_follows_in_the_same_segment() -> None:
    admission = FakeAdmission()
    async with serving(admission) as door:
        await Peer(door).send(frame(1) + b"\xff\xff\xff\xff").closed()
        Peer(door).send(frame(2)).close()
        await until(lambda: len(admission.envelopes) == 2)
    assert got(admission) == [frame(1), frame(2)]
    assert admission.reasons == [Refusal.FRAMING]


async def test_a_close_without_bytes_is_silent() -> None:
    admission = FakeAdmission()
    async with serving(admission) as door:
        Peer(door).close()
        await until(lambda: door.accepted == 1)
        await until(lambda: door.open_connections == 0)
    assert admission.refusals == []


@pytest.mark.parametrize("end", [Peer.close, Peer.reset])
async def test_a_frame_cut_short_is_refused(end: Callable[[Peer], None]) -> None:
    admission = FakeAdmission()
    async with serving(admission) as door:
        peer = Peer(door).send(frame(1)[:50])
        await until(lambda: door.open_connections == 1)
        end(peer)
        await until(lambda: bool(admission.refusals))
        assert door.open_connections == 0
        Peer(door).send(frame(2)).close()
        await until(lambda: bool(admission.envelopes))
    assert admission.reasons == [Refusal.FRAMING]
    assert "cut short" in admission.refusals[0].detail
    assert got(admission) == [frame(2)]


async def test_an_address_that_may_not_connect_is_closed_at_once() -> None:
    admission = FakeAdmission()
    async with serving(admission) as door:
        await Peer(door, STRANGER).send(frame(1)).closed()
        Peer(door, FRIEND).send(frame(2)).close()
        await until(lambda: bool(admission.envelopes))
    assert admission.reasons == [Refusal.PEER]
    assert admission.refusals[0].peer == STRANGER
    assert got(admission) == [frame(2)]


async def test_each_verifier_speaks_for_its_own_source() -> None:
    admission = FakeAdmission()
    verifiers = {
        ipaddress.ip_network("127.0.0.0/24"): SourceName("wide"),
        ipaddress.ip_network("127.0.0.2/32"): SourceName("narrow"),
    }
    async with serving(admission, verifiers=verifiers) as door:
        Peer(door, "127.0.0.2").send(frame(1)).close()
        await until(lambda: len(admission.envelopes) == 1)
        Peer(door, "127.0.0.4").send(frame(2)).close()
        await until(lambda: len(admission.envelopes) == 2)
    assert [envelope.source for envelope in admission.envelopes] == ["narrow", "wide"]


async def test_an_ipv4_mapped_peer_is_known_by_its_ipv4_address() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    admission = FakeAdmission()
    async with serving(admission, sockets=[both]) as door:
        Peer(door).send(frame(1)).close()
        await until(lambda: bool(admission.envelopes))
    assert admission.envelopes[0].peer == VERIFIER


async def test_both_families_side_by_side() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    admission = FakeAdmission()
    verifiers = {ipaddress.ip_network("::1/128"): SOURCE, ipaddress.ip_network("127.0.0.2/32"): SOURCE}
    async with serving(admission, listen=["127.0.0.1:0", "[::1]:0"], verifiers=verifiers) as door:
        Peer(door).send(frame(1)).close()
        Peer(door, "::1", listener=1).send(frame(2)).close()
        await until(lambda: len(admission.envelopes) == 2)
    assert {envelope.peer for envelope in admission.envelopes} == {VERIFIER, "::1"}
