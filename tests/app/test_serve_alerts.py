"""The service and an agent beside KubeArmor daemons: what they say makes a device suspect, and is shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from gateway.kubearmor.alerts import RuntimeAlert
from gateway.sediment.wire import Reason
from gateway.watch.kubearmor import LOSSES, STREAMS
from tests.agentlink.pair import Pair, plan, site_certificates
from tests.agentlink.pair import until as attached
from tests.agentlink.process import AgentProcess
from tests.app.test_serve import SERVICE, collector, running
from tests.e2e.installed import Installed, written
from tests.enforce.test_kubearmor import until
from tests.fakes.kubearmor import FakeKubeArmor
from tests.ports import free_place

__all__ = ["collector"]  # the fixture

HONEY = {"severity": 8, "ingress": [{"action": "Block"}]}


def installed(folder: Path, daemon: FakeKubeArmor) -> Installed:
    gate = Installed(
        folder,
        devices={"cam-1": ("127.0.77.11",), "cam-2": ("127.0.77.12",)},
        services=[SERVICE],
        target={
            "path_gate": "relay",
            "relay": [{"service": "feed", "listen": written(free_place())}],
            "kubearmor": {"address": daemon.address, "health": daemon.health},
        },
        door=free_place(),
        console=free_place(),
    )
    book = yaml.safe_load((folder / "book.yaml").read_text())
    threshold = {"severity": 8, "count": 3, "within": "60s"}
    gate.write("book.yaml", {**book, "thresholds": {"alerts": {"suspect": threshold, "alarm": threshold}}})
    return gate


async def shows(gate: Installed, path: str, *texts: str) -> str:
    """What a window shows, once it shows all of these."""
    seen = ""
    try:
        async with asyncio.timeout(60):
            while not all(text in seen for text in texts):
                seen = (await asyncio.to_thread(gate.get, path)).text
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(seen) from None
    return seen


@pytest.fixture
async def daemon() -> AsyncIterator[FakeKubeArmor]:
    fake = FakeKubeArmor()
    await fake.start()
    yield fake
    await fake.stop()


async def test_alerts_make_a_device_suspect_and_everything_is_shown(tmp_path: Path, daemon: FakeKubeArmor) -> None:
    gate = installed(tmp_path, daemon)
    async with running(gate) as run:
        await run.ready()
        await asyncio.to_thread(gate.tell, "cam-1", Reason.PASS)
        await shows(gate, "/v1/devices/cam-1", '"standing":"trusted"')
        await until(lambda: all(daemon.feed.subscribers.values()))
        daemon.feed.matching = "network"
        for port in (1, 2, 3):
            daemon.feed.packet("60-honey", HONEY, "127.0.77.11", port=port)
        daemon.feed.say("WatchAlerts", b"\xff")
        await shows(gate, "/v1/devices/cam-1", '"standing":"suspect"')
        await shows(gate, "/v1/devices/cam-2", '"standing":"unknown"')
        await shows(
            gate,
            "/metrics",
            'ragate_alerts_total{act="blocked",target="gateway",what="network"} 3.0',
            'ragate_alerts_lost_total{reason="malformed",target="gateway"} 1.0',
            'ragate_alert_stream_up{stream="logs",target="gateway"} 1.0',
            'ragate_alert_alarm{target="gateway"} 1.0',
            'ragate_hints_total{result="lowered",source="gateway.alerts"} 1.0',
        )
        await shows(gate, "/readyz", "alerts", "listening to alerts, logs, messages", "alarm gateway")
        await daemon.restart()
        metrics = await shows(
            gate,
            "/metrics",
            'ragate_alert_stream_breaks_total{stream="alerts",target="gateway"} 1.0',
            'ragate_notices_total{kind="kubearmor"} 1.0',
        )
        assert "127.0.77.11" not in metrics
        assert "cam-1" not in metrics
        await until(lambda: all(daemon.feed.subscribers.values()))


@pytest.mark.long
async def test_an_agent_tells_what_its_kubearmor_says(tmp_path: Path, daemon: FakeKubeArmor) -> None:
    pair = Pair(site_certificates(tmp_path / "certs", "app"))
    pair.plan = plan("10.0.0.1")
    heard: list[RuntimeAlert] = []
    pair.inbox = type(pair.inbox)(lambda alert, _at: heard.append(alert), tuple(STREAMS), LOSSES)
    entry = {"service": "feed", "listen": written(free_place())}
    agent = AgentProcess(
        tmp_path / "agent",
        pair.folder,
        f"{pair.host}:{pair.port}",
        path_gate="relay",
        relay=[entry],
        kubearmor={"address": daemon.address, "health": daemon.health},
    )
    async with pair.listening() as hub:
        with agent.running():
            await attached(lambda: not pair.gate.why, lambda: agent.log)
            await until(lambda: all(daemon.feed.subscribers.values()))
            daemon.feed.packet("60-honey", HONEY, "10.0.0.1", port=1)
            daemon.feed.say("WatchAlerts", b"\xff")
            await until(lambda: len(heard) == 1 and pair.inbox.lost["malformed"] == 1)
            assert (heard[0].policy, str(heard[0].source)) == ("60-honey", "10.0.0.1")
            assert pair.inbox.up == set(STREAMS)
            await until(lambda: "alerts: listening to" in hub.states()["app"].detail)
            await daemon.die()
            await until(lambda: pair.inbox.breaks["alerts"] == 1)
    assert pair.inbox.up == frozenset()
    assert pair.inbox.lost["link"] == 0
