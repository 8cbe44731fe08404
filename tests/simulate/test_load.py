from __future__ import annotations

import asyncio
import errno
import hmac
import os
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from threading import Thread

import pytest

from gateway.sediment.framing import Framer
from gateway.sediment.wire import Alert, MessageId, Reason, decode_alert
from gateway.simulate.keys import Keys
from gateway.simulate.load import Body, Campaign, Report, launch, send, sign_bodies
from gateway.simulate.sockets import Peer, listener, own_namespace

PAIR = (Reason.PASS, Reason.FAILED_ATTEST)


@pytest.fixture(scope="module")
def bodies() -> list[Body]:
    keys = Keys.make(["cam-1", "cam-2"])
    wanted = [(name, key, "127.0.0.1", reason) for name, key in keys.hmac.items() for reason in PAIR]
    return sign_bodies(keys.signing, wanted)


@contextmanager
def sink(backlog: int = 1024) -> Iterator[tuple[Peer, list[bytes]]]:
    """Takes whatever comes, one connection after the other, on a thread of its own."""
    taken: list[bytes] = []

    def take(at: socket) -> None:
        while True:
            connection, _ = at.accept()
            with connection:
                data = b""
                while chunk := connection.recv(65536):
                    data += chunk
            if data == b"end":
                return
            taken.append(data)

    with listener(own_namespace, Peer("127.0.0.1", 0), backlog) as at:
        at.setblocking(True)
        thread = Thread(target=take, args=(at,))
        thread.start()
        here = Peer(*at.getsockname())
        try:
            yield here, taken
        finally:
            with own_namespace(here.family, 1) as end:
                end.setblocking(True)
                end.connect(here)
                end.sendall(b"end")
            thread.join(10)
        assert not thread.is_alive()


def alerts(frames: list[bytes]) -> list[Alert]:
    return [decode_alert(frame) for frame in frames]


def test_every_alert_arrives_once_whole_and_in_order(bodies: list[Body]) -> None:
    order = [number % 4 for number in range(200)]
    with sink() as (target, taken):
        campaign = Campaign(target, 0, bodies, order)
        report = send(campaign)
    assert report.count == len(taken) == 200
    assert report.errors == {}
    got = alerts(taken)
    assert [alert.header.nonce for alert in got] == [campaign.nonce(number) for number in range(200)]
    assert [(alert.header.device, alert.reason) for alert in got[:4]] == [
        (device, reason) for device in (b"cam-1", b"cam-2") for reason in PAIR
    ]
    assert list(report.sent) == sorted(report.sent)


def test_headers_are_fresh_and_authentic(bodies: list[Body]) -> None:
    campaign = Campaign(Peer("127.0.0.1", 1), 2.0, bodies, [0, 1, 2, 3], offsets=[0, 0, -100, 5])
    frames = campaign.frames(1_000_000.9)
    assert [alert.header.timestamp for alert in alerts(frames)] == [1_000_000, 1_000_001, 999_901, 1_000_007]
    for frame, body in zip(frames, bodies, strict=True):
        assert decode_alert(frame).header.digest == hmac.digest(body.key, frame[36:], "sha256")
        assert Framer(frozenset({MessageId.ALERT})).feed(frame) == [frame]


def test_open_loop_sends_when_due_and_never_before(bodies: list[Body]) -> None:
    with sink() as (target, _):
        report = send(Campaign(target, 500.0, bodies, [0] * 50))
    steps = {later - earlier for earlier, later in zip(report.due, report.due[1:], strict=False)}
    assert steps == {2_000_000}
    assert all(at >= due for due, at in zip(report.due, report.sent, strict=True))
    assert report.lateness == sorted(report.lateness)


def test_sources_are_taken_in_turn(bodies: list[Body]) -> None:
    sources = ["127.0.77.21", "127.0.77.22", "127.0.77.23"]
    peers = []
    with listener(own_namespace, Peer("127.0.0.1", 0), 16) as at:
        report = send(Campaign(Peer(*at.getsockname()), 0, bodies, [0] * 6, sources=sources))
        for _ in range(6):
            connection, peer = at.accept()
            connection.close()
            peers.append(peer[0])
    assert report.count == 6
    assert peers == sources * 2


def test_what_cannot_be_sent_is_counted_by_name(bodies: list[Body]) -> None:
    with listener(own_namespace, Peer("127.0.0.1", 0), 1) as closed:
        nobody = Peer(*closed.getsockname())
    report = send(Campaign(nobody, 0, bodies, [0] * 5))
    assert report.count == 0
    assert report.errors == {errno.errorcode[errno.ECONNREFUSED]: 5}


def test_a_receiver_that_does_not_accept_bounds_flight_and_time(bodies: list[Body]) -> None:
    with listener(own_namespace, Peer("127.0.0.1", 0), 0) as stuck:
        campaign = Campaign(Peer(*stuck.getsockname()), 0, bodies, [0] * 20, in_flight_max=3, drain_seconds=0.2)
        report = send(campaign)
        # What the kernel completed for the backlog was sent; all that waits for room is given up in time.
        assert report.count + report.errors["given-up"] == 20
        assert report.errors["given-up"] >= 10


def test_campaign_and_report_survive_their_files(bodies: list[Body], tmp_path: Path) -> None:
    campaign = Campaign(Peer("127.0.0.1", 1), 12.5, bodies, [3, 1, 2], offsets=[-1, 0, 1], sources=["127.0.0.1"])
    campaign.write(tmp_path / "campaign")
    assert (tmp_path / "campaign").stat().st_mode & 0o777 == 0o600
    read = Campaign.read(tmp_path / "campaign")
    assert read.frames(5000.0) == campaign.frames(5000.0)
    assert (read.target, read.rate, list(read.sources)) == (campaign.target, 12.5, ["127.0.0.1"])
    report = Report(1.0, array("q", [1, 2]), array("q", [2, 0]), {"given-up": 1}, 0.5, 1.5)
    report.write(tmp_path / "report")
    assert Report.read(tmp_path / "report") == report


async def test_the_sender_is_a_process_of_its_own(bodies: list[Body], tmp_path: Path) -> None:
    with sink() as (target, taken):
        Campaign(target, 0, bodies, [0, 1, 2]).write(tmp_path / "campaign")
        sender = launch(tmp_path / "campaign", tmp_path / "report", cpus=[min(os.sched_getaffinity(0))])
        assert await asyncio.to_thread(sender.wait, 30) == 0
    report = Report.read(tmp_path / "report")
    assert report.count == len(taken) == 3
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert all(0 < at < now for at in report.sent)
    assert not (tmp_path / "report.part").exists()


def test_signing_in_processes_makes_the_same_bodies() -> None:
    keys = Keys.make(["cam-1"])
    wanted = [(f"cam-{number}", keys.hmac["cam-1"], "127.0.0.1", Reason.PASS) for number in range(300)]
    assert sign_bodies(keys.signing, wanted, processes=2) == sign_bodies(keys.signing, wanted)


def test_offsets_are_for_every_alert_or_none(bodies: list[Body]) -> None:
    with pytest.raises(ValueError, match="1 offsets for 2 alerts"):
        Campaign(Peer("127.0.0.1", 1), 0, bodies, [0, 1], offsets=[0])
