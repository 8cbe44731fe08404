"""Passing frames on: unchanged, in order, each on its own connection; a receiver that is away harms nobody."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.control.ports import Notice
from gateway.intake.sediment import Forwarder, forward
from tests.fakes.admission import FakeAdmission
from tests.fakes.clock import ManualClock
from tests.intake.sediment.site import Peer, frame, serving, stop, until
from tests.ports import free_port


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(forward, "LONGEST_PAUSE_SECONDS", 0.02)


class Receiver:
    """Takes connections like SEDIMENT's relying party; keeps what each of them brought."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = len(self.messages)
        self.messages.append(b"")
        self.messages[place] = await reader.read()
        writer.close()


@asynccontextmanager
async def receiving(port: int) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", port)
    try:
        yield receiver
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def forwarding(forwarder: Forwarder) -> AsyncIterator[Forwarder]:
    task = asyncio.create_task(forwarder.run())
    try:
        yield forwarder
    finally:
        await stop(task)


async def test_the_door_passes_on_what_it_accepted_unchanged_and_in_order() -> None:
    port = free_port()
    admission = FakeAdmission()
    async with receiving(port) as receiver, serving(admission, forward_to=("127.0.0.1", port)) as door:
        Peer(door).send(frame(1) + frame(2)).close()
        await until(lambda: len(admission.envelopes) == 2)
        await Peer(door).send(frame(3, kind=10)).closed()  # refused: not passed on
        Peer(door).send(frame(4)).close()
        await until(lambda: len(receiver.messages) == 3 and b"" not in receiver.messages)
        assert door.forwarder is not None
        assert (door.forwarder.forwarded, door.forwarder.failed, door.forwarder.dropped) == (3, 0, 0)
    assert receiver.messages == [frame(1), frame(2), frame(4)]


async def test_a_receiver_that_comes_back_gets_everything_in_order() -> None:
    port = free_port()
    async with forwarding(Forwarder("127.0.0.1", port, ManualClock())) as forwarder:
        for number in range(5):
            forwarder.offer(frame(number))
        await asyncio.sleep(0.03)
        assert (forwarder.forwarded, forwarder.failed) == (0, 0)
        async with receiving(port) as receiver:
            await until(lambda: forwarder.forwarded == 5)
            await until(lambda: len(receiver.messages) == 5 and b"" not in receiver.messages)
    assert receiver.messages == [frame(number) for number in range(5)]


async def test_a_receiver_by_name_is_looked_up() -> None:
    port = free_port()
    forwarder = Forwarder("localhost", port, ManualClock())
    async with receiving(port) as receiver, forwarding(forwarder):
        forwarder.offer(frame(1))
        await until(lambda: forwarder.forwarded + forwarder.failed == 1)
        await until(lambda: receiver.messages == [frame(1)])


async def test_trying_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "ATTEMPTS", 2)
    async with forwarding(Forwarder("127.0.0.1", free_port(), ManualClock())) as forwarder:
        forwarder.offer(frame(1))
        forwarder.offer(frame(2))
        await until(lambda: forwarder.failed == 2)
    assert (forwarder.forwarded, forwarder.dropped, forwarder.queued) == (0, 0, 0)


class Pauses:
    """Stands for ``asyncio`` in the module: sleeps without waiting, and keeps for how long it was asked to."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        if seconds:
            self.asked.append(seconds)
        await asyncio.sleep(0)


async def test_every_frame_begins_with_the_shortest_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pauses = Pauses()
    monkeypatch.setattr(forward, "asyncio", pauses)
    async with forwarding(Forwarder("127.0.0.1", free_port(), ManualClock())) as forwarder:
        forwarder.offer(frame(1))
        forwarder.offer(frame(2))
        await until(lambda: forwarder.failed == 2)
    assert pauses.asked == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0] * 2


async def test_what_is_given_up_is_told_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "ATTEMPTS", 2)
    told: list[Notice] = []
    clock = ManualClock()
    port = free_port()
    forwarder = Forwarder("127.0.0.1", port, clock, told.append)
    assert forwarder.state() == f"127.0.0.1:{port} nothing to pass on yet; 0 waiting"
    async with forwarding(forwarder):
        for number in range(2):
            forwarder.offer(frame(number))
        await until(lambda: forwarder.failed == 2)
        assert [(notice.kind, notice.subject, notice.times) for notice in told] == [("backlog", "forward", 1)]
        assert told[0].detail.endswith("which is not passed on: Connection refused")
        assert forwarder.state() == (
            f"127.0.0.1:{port} takes no alerts: Connection refused; 0 waiting, 2 given up, 0 dropped"
        )
        clock.advance(11)
        forwarder.offer(frame(3))
        await until(lambda: forwarder.failed == 3)
        assert [notice.times for notice in told] == [1, 2]
        async with receiving(port):
            forwarder.offer(frame(4))
            await until(lambda: forwarder.forwarded == 1)
        assert forwarder.state() == f"127.0.0.1:{port} takes alerts; 0 waiting, 3 given up, 0 dropped"
    assert forwarder.counts() == {"forwarded": 1, "failed": 3, "dropped": 0}


async def test_what_a_stop_leaves_behind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "FINISH_SECONDS", 0.01)
    told: list[Notice] = []
    forwarder = Forwarder("127.0.0.1", free_port(), ManualClock(), told.append)
    for number in range(3):
        forwarder.offer(frame(number))
    await forwarder.finish()
    assert forwarder.counts() == {"forwarded": 0, "failed": 0, "dropped": 3}
    assert [notice.kind for notice in told] == ["backlog"]
    assert "3 alerts are not passed on" in told[0].detail


async def test_a_full_queue_gives_up_its_oldest_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "QUEUE_FRAMES", 3)
    told: list[Notice] = []
    clock = ManualClock()
    port = free_port()
    forwarder = Forwarder("127.0.0.1", port, clock, told.append)
    for number in range(5):
        forwarder.offer(frame(number))
    assert (forwarder.dropped, forwarder.queued) == (2, 3)
    clock.advance(11)
    forwarder.offer(frame(5))
    assert [(notice.kind, notice.subject, notice.times) for notice in told] == [
        ("backlog", "forward", 1),
        ("backlog", "forward", 2),
    ]
    async with receiving(port) as receiver, forwarding(forwarder):
        await until(lambda: forwarder.forwarded == 3 and b"" not in receiver.messages)
        await until(lambda: len(receiver.messages) == 3)
    assert receiver.messages == [frame(3), frame(4), frame(5)]


async def test_a_receiver_that_never_answers_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "ATTEMPT_SECONDS", 0.05)
    monkeypatch.setattr(forward, "FINISH_SECONDS", 0.05)
    admission = FakeAdmission()
    # A listening socket whose queue is full drops every SYN: connect hangs.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        async with serving(admission, forward_to=deaf.getsockname()) as door:
            for number in range(20):
                Peer(door).send(frame(number)).close()
            await until(lambda: len(admission.envelopes) == 20)
            assert door.forwarder is not None
            assert door.forwarder.forwarded == 0
        forwarder = door.forwarder
        assert forwarder.forwarded + forwarder.failed + forwarder.dropped == 20
        for filler in fillers:
            filler.close()


async def test_what_is_queued_at_a_stop_is_still_passed_on() -> None:
    port = free_port()
    admission = FakeAdmission()
    async with receiving(port) as receiver:
        async with serving(admission, forward_to=("127.0.0.1", port)) as door:
            for number in range(30):
                Peer(door).send(frame(number)).close()
        await until(lambda: len(receiver.messages) == 30 and b"" not in receiver.messages)
    assert got_in_order(receiver.messages)
    assert door.forwarder is not None
    assert door.forwarder.forwarded == 30


def got_in_order(messages: list[bytes]) -> bool:
    return messages == [frame(number) for number in range(30)]
