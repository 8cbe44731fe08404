"""The subscription to a feed: what is taken, and what happens when the verifier is away, hangs up or babbles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.core.errors import Refusal
from gateway.core.model import SourceName
from gateway.intake.feed import FeedSettings, FeedSubscriber, subscriber
from tests.fakes.admission import FakeAdmission
from tests.fakes.clock import ManualClock
from tests.fakes.verifier import FeedServer, frame, listening
from tests.ports import free_place

FEED = SourceName("verifier.feed")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(subscriber, "LONGEST_PAUSE_SECONDS", 0.1)


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not what():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def subscribed(place: tuple[str, int], admission: FakeAdmission) -> AsyncIterator[FeedSubscriber]:
    feed = FeedSubscriber(admission, ManualClock(), FeedSettings(FEED, *place))
    task = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert not feed.connected


async def test_every_attestation_becomes_an_envelope() -> None:
    server, admission = FeedServer(), FakeAdmission()
    async with listening(server) as place, subscribed(place, admission) as feed:
        await until(lambda: feed.connected and server.clients)
        server.publish("cam-1", "correct")
        server.publish("cam-2", "incorrect")
        await until(lambda: feed.frames == 2)
        assert feed.state() == f"connected to {place[0]}:{place[1]}, 2 frames"
    assert [each.data for each in admission.envelopes] == [
        b"cam-1,correct,0.013000",
        b"cam-2,incorrect,0.013000",
    ]
    assert {each.source for each in admission.envelopes} == {FEED}
    assert admission.refusals == []


async def test_frames_in_pieces() -> None:
    server, admission = FeedServer(), FakeAdmission()
    async with listening(server) as place, subscribed(place, admission) as feed:
        await until(lambda: server.clients)
        for byte in frame("cam-1", "incorrect"):
            server.send(bytes([byte]))
            await asyncio.sleep(0)
        await until(lambda: feed.frames == 1)


async def test_it_comes_back_after_the_verifier_was_away() -> None:
    server, admission = FeedServer(), FakeAdmission()
    place = free_place()
    async with subscribed(place, admission) as feed:
        await until(lambda: "Connection refused" in feed.state())
        running = await asyncio.start_server(server.serve, *place)
        await until(lambda: feed.connected and server.clients)
        server.hang_up()
        await until(lambda: server.connects >= 2 and feed.connected)
        server.publish("cam-1", "incorrect")
        await until(lambda: feed.frames == 1)
        running.close()
        server.hang_up()
        await running.wait_closed()
    assert admission.refusals == []  # nothing follows from silence


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.0\r\n\r\n", b"99999," + b"a" * 1_000, b"00000,", b"\x00" * 6])
async def test_what_is_no_feed_is_refused_and_left(garbage: bytes) -> None:
    server, admission = FeedServer(), FakeAdmission()
    async with listening(server) as place, subscribed(place, admission) as feed:
        await until(lambda: server.clients)
        server.send(garbage)
        await until(lambda: admission.refusals)
        assert "is no feed" in feed.state() or feed.connected
        await until(lambda: server.connects >= 2)  # and asked again
    assert admission.reasons[0] is Refusal.FRAMING
    assert admission.refusals[0].source == FEED
    assert admission.envelopes == []


async def test_a_frame_cut_short_is_counted() -> None:
    server, admission = FeedServer(), FakeAdmission()
    async with listening(server) as place, subscribed(place, admission):
        await until(lambda: server.clients)
        server.send(frame("cam-1", "incorrect")[:-3])
        await asyncio.sleep(0)
        server.hang_up()
        await until(lambda: admission.refusals)
    assert admission.reasons[0] is Refusal.FRAMING


async def test_a_full_admission_does_not_stop_the_reading() -> None:
    server, admission = FeedServer(), FakeAdmission(room=1)
    async with listening(server) as place, subscribed(place, admission) as feed:
        await until(lambda: server.clients)
        for _ in range(500):
            server.publish("cam-1", "incorrect")
        await until(lambda: len(admission.envelopes) + len(admission.refusals) == 500)
        assert feed.frames == 1
    assert set(admission.reasons) == {Refusal.LIMIT}


async def test_a_pause_grows_while_attempts_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    feed = FeedSubscriber(FakeAdmission(), ManualClock(), FeedSettings(FEED, *free_place()))
    monkeypatch.setattr("gateway.intake.feed.subscriber.asyncio.sleep", noted)
    task = asyncio.create_task(feed.run())
    while len(pauses) < 6:
        await sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert pauses[:6] == [0.02, 0.04, 0.08, 0.1, 0.1, 0.1]
