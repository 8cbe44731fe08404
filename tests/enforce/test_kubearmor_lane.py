"""The one lane to a daemon: one call at a time, whoever calls."""

from __future__ import annotations

import asyncio

import pytest

from gateway.enforce.kubearmor.client import Daemon, DaemonError, Trouble
from gateway.enforce.kubearmor.lane import MAX_UNANSWERED, Lane
from gateway.kubearmor.names import Kind
from gateway.kubearmor.pb import policy_pb2


class Counting(Daemon):
    """Answers after several turns of the loop; counts how many wait for it."""

    def __init__(self) -> None:
        self.now = self.most = self.calls = 0
        self.broken = False

    async def _answer(self) -> None:
        self.now += 1
        self.calls += 1
        self.most = max(self.most, self.now)
        for _ in range(5):
            await asyncio.sleep(0)
        self.now -= 1

    async def probe(self) -> policy_pb2.ProbeResponse:
        await self._answer()
        return policy_pb2.ProbeResponse()

    async def send(self, kind: Kind, event: bytes) -> int:
        await self._answer()
        if self.broken:
            raise DaemonError(Trouble.CRASHED, "gone")
        return 1


async def test_one_call_at_a_time_of_whatever_kind() -> None:
    daemon, lane = Counting(), Lane(600.0)
    async with asyncio.TaskGroup() as tasks:
        for number in range(8):
            tasks.create_task(lane.send(daemon, f"n{number}", Kind.NETWORK, b""))
            tasks.create_task(lane.delete(daemon, Kind.HOST, b""))
            tasks.create_task(lane.probe(daemon))
    assert (daemon.calls, daemon.most) == (24, 1)


async def test_what_ends_the_daemon_again_and_again_is_left_alone_and_nothing_else_is() -> None:
    daemon, lane = Counting(), Lane(600.0)
    daemon.broken = True
    for _ in range(MAX_UNANSWERED):
        with pytest.raises(DaemonError):
            await lane.send(daemon, "poison", Kind.NETWORK, b"")
    assert await lane.send(daemon, "poison", Kind.NETWORK, b"") is None
    daemon.broken = False
    assert await lane.send(daemon, "other", Kind.NETWORK, b"") == 1
    assert await lane.send(daemon, "poison", Kind.NETWORK, b"") is None
