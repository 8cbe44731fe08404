"""What KubeArmor's log service does, held against the fake; and against a daemon, where one is given.

``RAGATE_TEST_KUBEARMOR`` names the address of a daemon with ``debug: true`` and host policies enabled, which runs
outside of this project in the network namespace of this process; ``RAGATE_TEST_KUBEARMOR_PEER`` the process id in
another namespace that reaches ``10.99.0.1`` there from ``10.99.0.2``.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import grpc.aio
import pytest

from gateway.core.model import Address
from gateway.kubearmor.alerts import RuntimeAlert, read_alert, read_message
from gateway.kubearmor.pb import events_pb2, policy_pb2
from tests.fakes.kubearmor import FakeKubeArmor

DAEMON, PEER = os.environ.get("RAGATE_TEST_KUBEARMOR", ""), os.environ.get("RAGATE_TEST_KUBEARMOR_PEER", "")
SOURCE = "10.99.0.2"
NODE = {"matchLabels": {"kubearmor.io/hostname": "*"}}
BOTH = [{"ipBlock": {"cidr": "10.99.0.0/24"}}, {"ipBlock": {"cidr": "100::/128"}}]
NAME = "60-network-honey"
HONEY = {
    "nodeSelector": NODE,
    "ingress": [{"from": BOTH, "ports": [{"port": "5353", "protocol": "UDP"}], "action": "Block", "severity": 8}],
    "action": "Block",
    "severity": 9,
    "tags": ["T1"],
    "message": "hello",
}
HOST = {
    "nodeSelector": NODE,
    "file": {"matchPaths": [{"path": "/etc/none-such", "readOnly": True}]},
    "action": "Block",
}
SILENCE = 1.0


class Rig(Protocol):
    """A daemon, and a way to send it a packet from ``SOURCE``."""

    address: str

    async def knock(self, sport: int) -> None: ...


class FakeRig:
    def __init__(self, daemon: FakeKubeArmor) -> None:
        self.address = daemon.address
        self._daemon = daemon

    async def knock(self, sport: int) -> None:
        spec = self._daemon.stored["network"][NAME]
        self._daemon.feed.packet(NAME, spec, SOURCE, port=5353, sport=sport, protocol="UDP")


class RealRig:
    address = DAEMON

    async def knock(self, sport: int) -> None:
        send = (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
            f" s.bind(('', {sport})); s.sendto(b'x', ('10.99.0.1', 5353))"
        )
        done = await asyncio.create_subprocess_exec("nsenter", "-t", PEER, "-n", "python3", "-c", send)
        assert await done.wait() == 0


@pytest.fixture(
    params=["fake", pytest.param("real", marks=pytest.mark.skipif(not DAEMON, reason="no daemon given"))]
)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    if request.param == "real":
        yield RealRig()
        return
    daemon = FakeKubeArmor()
    await daemon.start()
    yield FakeRig(daemon)
    await daemon.stop()


class Talk:
    """One client of the daemon."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def watch(self, method: str, word: str) -> grpc.aio.UnaryStreamCall[bytes, bytes]:
        open_: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(
            f"/feeder.LogService/{method}"
        )
        return open_(events_pb2.RequestMessage(Filter=word).SerializeToString())

    async def add(self, kind: str, name: str, spec: Any) -> None:
        event = json.dumps({"type": "ADDED", "object": {"metadata": {"name": name}, "spec": spec}})
        method = f"/policy.PolicyService/{kind}Policy"
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)
        reply = policy_pb2.response.FromString(
            await call(policy_pb2.policy(policy=event.encode()).SerializeToString())
        )
        assert reply.status in {policy_pb2.Applied, policy_pb2.Modified}


@asynccontextmanager
async def talking(rig: Rig) -> AsyncIterator[Talk]:
    async with grpc.aio.insecure_channel(rig.address) as channel:
        yield Talk(channel)


async def said(call: Any) -> bytes:
    async with asyncio.timeout(60):
        data = await call.read()
    assert isinstance(data, bytes)
    return data


async def alert_of(call: Any) -> RuntimeAlert:
    return read_alert(await said(call))


@pytest.mark.parametrize(
    ("method", "word"), [("WatchAlerts", ""), ("WatchAlerts", "system"), ("WatchLogs", "policy")]
)
async def test_another_word_than_a_filter_ends_the_stream_with_ok(rig: Rig, method: str, word: str) -> None:
    async with talking(rig) as talk, asyncio.timeout(60):
        call = talk.watch(method, word)
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_a_quiet_stream_answers_nothing_at_all(rig: Rig) -> None:
    async with talking(rig) as talk:
        call = talk.watch("WatchLogs", "system")
        done, _ = await asyncio.wait({asyncio.ensure_future(call.initial_metadata())}, timeout=SILENCE)
        assert not done
        assert not call.done()


async def test_a_blocked_packet_is_told_once_in_a_while_with_the_severity_of_its_entry(rig: Rig) -> None:
    async with talking(rig) as talk:
        alerts, messages = talk.watch("WatchAlerts", "all"), talk.watch("WatchMessages", "")
        await asyncio.sleep(SILENCE)  # nothing tells when a stream was taken
        await talk.add("host", "40-host", HOST)
        await talk.add("network", NAME, {**HONEY, "tags": [f"gen={os.getpid()}-{id(talk)}"]})
        for sport in (41_001, 41_001, 41_002):
            await rig.knock(sport)
        first, second = await alert_of(alerts), await alert_of(alerts)
        assert first == RuntimeAlert(
            "network",
            "blocked",
            NAME,
            8,
            Address.parse(SOURCE),
            "edge",
            f"ingress UDP from {SOURCE}:41001 to 10.99.0.1:5353",
        )
        assert "41002" in second.detail
        # With debug on each packet brings a message too; none of them is worth a notice.
        texts = ""
        while "Pushing Telemetry" not in texts:
            data = await said(messages)
            assert read_message(data) is None
            texts += events_pb2.Message.FromString(data).Message


async def test_a_host_policy_takes_the_severity_from_the_networks_alerts(rig: Rig) -> None:
    async with talking(rig) as talk:
        alerts = talk.watch("WatchAlerts", "policy")
        await asyncio.sleep(SILENCE)
        unique = f"gen={os.getpid()}-{id(talk)}"
        await talk.add("network", NAME, {**HONEY, "tags": [unique]})
        await talk.add("host", "40-host", {**HOST, "tags": [unique]})
        await rig.knock(42_001)
        alert = await alert_of(alerts)
        assert (alert.policy, alert.severity, str(alert.source)) == (NAME, 0, SOURCE)
        await talk.add("network", NAME, {**HONEY, "tags": [unique, "again"]})
        await rig.knock(42_002)
        assert (await alert_of(alerts)).severity == 8
