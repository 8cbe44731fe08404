"""The door under pressure: deadlines, connection limits, a full admission, no descriptors, the end."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from gateway.control.ports import Notice
from gateway.core.errors import Refusal
from gateway.intake.sediment import SedimentDoor, open_listeners
from gateway.intake.sediment.door import SHORTAGE_SECONDS
from tests.fakes.admission import FakeAdmission
from tests.fakes.clock import ManualClock
from tests.intake.sediment.site import (
    FRIEND,
    SETTINGS,
    VERIFIER,
    Peer,
    frame,
    serving,
    settle,
    until,
)


def got(admission: FakeAdmission) -> list[bytes]:
    return [envelope.data for envelope in admission.envelopes]


# Deadlines


async def test_a_silent_peer_is_closed() -> None:
    admission = FakeAdmission()
    async with serving(admission, frame_seconds=0.05) as door:
        await Peer(door).closed()
        assert door.open_connections == 0
    assert admission.reasons == [Refusal.TIMEOUT]
    assert "not a byte" in admission.refusals[0].detail


async def test_dripping_bytes_buys_no_time() -> None:
    admission = FakeAdmission()
    async with serving(admission, frame_seconds=0.1) as door:
        peer = Peer(door)
        with pytest.raises(OSError):  # noqa: PT012
            for byte in frame(1):
                peer.send(bytes([byte]))
                await asyncio.sleep(0.01)
        peer.close()
    assert admission.reasons == [Refusal.TIMEOUT]
    assert admission.envelopes == []


async def test_staying_open_after_a_frame_ends_without_a_refusal() -> None:
    admission = FakeAdmission()
    async with serving(admission, frame_seconds=0.05) as door:
        await Peer(door).send(frame(1)).closed()
        assert door.open_connections == 0
    assert got(admission) == [frame(1)]
    assert admission.refusals == []


async def test_each_frame_gives_time_for_the_next() -> None:
    admission = FakeAdmission()
    async with serving(admission, frame_seconds=1.0) as door:
        peer = Peer(door)
        for number in range(4):  # 1.2 s in all
            peer.send(frame(number))
            await asyncio.sleep(0.3)
        assert len(admission.envelopes) == 4
        await peer.closed()
    assert admission.refusals == []


async def test_one_slow_peer_after_the_other_keeps_its_own_deadline() -> None:
    admission = FakeAdmission()
    async with serving(admission, frame_seconds=0.1) as door:
        peers = []
        for _ in range(4):
            peers.append(Peer(door).send(b"\x01"))
            await asyncio.sleep(0.03)
        for peer in peers:
            await peer.closed()
        assert door.open_connections == 0
    assert admission.reasons == [Refusal.TIMEOUT] * 4


# Limits


async def test_one_address_holds_no_more_than_its_share() -> None:
    admission = FakeAdmission()
    async with serving(admission, connections_per_peer=3) as door:
        idle = [Peer(door, FRIEND) for _ in range(3)]
        await until(lambda: door.open_connections == 3)
        await Peer(door, FRIEND).closed()
        assert admission.reasons == [Refusal.LIMIT]
        Peer(door, FRIEND).send(frame(1)).close()  # whole frames need nothing to be held open
        await until(lambda: bool(admission.envelopes))
        idle.pop().close()
        await until(lambda: door.open_connections == 2)
        late = Peer(door, FRIEND).send(frame(2)[:10])
        await until(lambda: door.open_connections == 3)
        late.send(frame(2)[10:]).close()
        await until(lambda: len(admission.envelopes) == 2)
        for peer in idle:
            peer.close()
    assert admission.reasons == [Refusal.LIMIT]


async def test_the_others_cannot_spend_the_verifiers_connections() -> None:
    admission = FakeAdmission()
    async with serving(admission, connections=8, connections_per_peer=64) as door:
        crowd = [Peer(door, FRIEND).send(b"\x01") for _ in range(12)]
        await until(lambda: len(admission.refusals) == 8)
        assert door.open_connections == 4
        slow = [Peer(door, VERIFIER).send(frame(number)[:9]) for number in range(4)]
        await until(lambda: door.open_connections == 8)
        for number, peer in enumerate(slow):
            peer.send(frame(number)[9:]).close()
        await until(lambda: len(admission.envelopes) == 4)
        for peer in crowd:
            peer.close()
    assert set(admission.reasons[:8]) == {Refusal.LIMIT}
    assert {refused.peer for refused in admission.refusals} == {FRIEND}
    assert {envelope.peer for envelope in admission.envelopes} == {VERIFIER}


# A full admission


async def test_a_full_admission_stops_the_door_and_loses_nothing() -> None:
    admission = FakeAdmission(room=3)
    told: list[Notice] = []
    async with serving(admission, notices=told.append) as door:
        for number in range(20):
            Peer(door).send(frame(number)).close()
        await until(lambda: door.paused)
        await settle()
        assert got(admission) == [frame(number) for number in range(3)]
        assert door.backlog() == 17
        admission.make_room(5)
        await until(lambda: len(admission.envelopes) == 8)
        await settle()
        assert door.backlog() == 12
        admission.make_room()
        await until(lambda: len(admission.envelopes) == 20)
        assert not door.paused
        assert door.backlog() == 0
    assert got(admission) == [frame(number) for number in range(20)]
    assert admission.refusals == []
    assert door.pauses == 2
    assert [(notice.kind, notice.subject) for notice in told] == [("backlog", "sediment")]


async def test_held_connections_are_not_read_and_not_timed_while_the_admission_is_full() -> None:
    admission = FakeAdmission(room=1)
    async with serving(admission, frame_seconds=0.5) as door:
        slow = Peer(door).send(frame(1)[:200])
        await until(lambda: door.open_connections == 1)
        Peer(door).send(frame(0)).close()
        await until(lambda: door.paused)
        slow.send(frame(1)[200:])
        unfinished = Peer(door).send(frame(2)[:5])
        await asyncio.sleep(0.7)
        assert got(admission) == [frame(0)]
        assert admission.refusals == []
        admission.make_room()
        await until(lambda: len(admission.envelopes) == 2)
        unfinished.send(frame(2)[5:])
        await until(lambda: len(admission.envelopes) == 3)
        slow.close()
        unfinished.close()
    assert got(admission) == [frame(0), frame(1), frame(2)]
    assert admission.refusals == []


async def test_a_wake_that_comes_too_late_waits_for_the_next() -> None:
    admission = FakeAdmission(room=1)
    async with serving(admission) as door:
        Peer(door).send(frame(0)).close()
        await until(lambda: door.paused)
        Peer(door).send(frame(1)).close()
        admission.make_room(1)
        await until(lambda: len(admission.envelopes) == 2)
        await until(lambda: admission.waiting == 1)
        assert door.paused
        admission.make_room()
        assert not door.paused


# No descriptors


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Only what is open already: every further open fails with EMFILE."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open(os.devnull, os.O_RDONLY)
    taken = [probe]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(probe + 64, before[0]), before[1]))
        with suppress(OSError):
            while True:
                taken.append(os.dup(probe))
        assert taken[-1] != probe
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_without_descriptors_whole_frames_still_arrive() -> None:
    admission = FakeAdmission()
    async with serving(admission) as door:
        peers = [Peer(door).send(frame(number)) for number in range(5)]  # the kernel has them, the door not yet
        with no_descriptors_left():
            for peer in peers:
                peer.sock.shutdown(socket.SHUT_WR)
            await until(lambda: len(admission.envelopes) == 5)
            assert door.shortages >= 1
            assert set(admission.reasons) == {Refusal.LIMIT}
        for peer in peers:
            await peer.closed()
    assert got(admission) == [frame(number) for number in range(5)]


async def test_without_descriptors_the_door_waits_and_does_not_spin() -> None:
    admission = FakeAdmission()
    loop = asyncio.get_running_loop()
    async with serving(admission) as door:
        silent = [Peer(door), Peer(door)]
        behind = Peer(door).send(frame(1))
        with no_descriptors_left():
            await until(lambda: door.open_connections == 1)  # the reserve was spent on the first
            since, before = loop.time(), door.shortages
            await asyncio.sleep(0.2)
            assert door.shortages - before <= (loop.time() - since) / SHORTAGE_SECONDS + 1
            assert door.open_connections == 1
        await until(lambda: len(admission.envelopes) == 1)  # room again: nobody was lost
        for peer in [*silent, behind]:
            peer.close()
        await until(lambda: door.open_connections == 0)
    assert got(admission) == [frame(1)]


# The end


async def test_at_the_end_whole_frames_are_submitted_even_those_not_yet_accepted() -> None:
    admission = FakeAdmission(room=1)
    async with serving(admission) as door:
        held = Peer(door).send(frame(0)[:9])
        unfinished = Peer(door).send(frame(9)[:9])
        await until(lambda: door.open_connections == 2)
        Peer(door).send(frame(1)).close()
        await until(lambda: door.paused)
        held.send(frame(0)[9:])
        for number in range(2, 6):
            Peer(door).send(frame(number)).close()
    assert sorted(got(admission)) == [frame(number) for number in range(6)]
    assert (door.open_connections, door.backlog()) == (0, 0)
    for peer in (held, unfinished):
        await peer.closed()
    admission.make_room()  # a wake after the end is harmless


async def test_a_listening_socket_that_breaks_ends_the_door() -> None:
    admission = FakeAdmission()
    (listening,) = open_listeners(["127.0.0.1:0"])
    clone = listening.dup()
    door = SedimentDoor([listening], admission, ManualClock(), SETTINGS)
    task = asyncio.create_task(door.run())
    await asyncio.sleep(0)
    clone.shutdown(socket.SHUT_RDWR)  # no longer listening: accept says EINVAL for ever
    clone.close()
    with pytest.raises(ExceptionGroup) as caught:
        await task
    assert caught.group_contains(OSError)
