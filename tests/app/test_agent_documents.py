"""Documents of profiles at an agent's host: the whole way from an alert to another host's KubeArmor, and back."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.app.agent import agent_uninstall
from gateway.certs import Role
from gateway.config import load_agent
from gateway.sediment.wire import Reason
from tests.agentlink.pair import site_certificates
from tests.agentlink.process import AgentProcess
from tests.app.test_reload import reloaded
from tests.app.test_serve import SERVICE, collector, running
from tests.e2e.installed import Installed, written
from tests.fakes.kubearmor import FakeKubeArmor
from tests.ports import free_place

__all__ = ["collector"]  # the fixture

PROFILES = Path(__file__).parents[2] / "policies" / "profiles"
PATIENCE = 120.0


@pytest.fixture
async def daemon() -> AsyncIterator[FakeKubeArmor]:
    fake = FakeKubeArmor()
    await fake.start()
    yield fake
    await fake.stop()


class Site:
    """A gateway without KubeArmor, and an agent whose host has it."""

    def __init__(self, folder: Path, daemon: FakeKubeArmor) -> None:
        self.daemon = daemon
        place = free_place()
        certs = site_certificates(folder / "certs", "app", host=place[0])
        link = written(place)
        self.gate = Installed(
            folder / "gateway",
            devices={"cam-1": ("127.0.77.11",), "cam-2": ("127.0.77.12",)},
            services=[SERVICE],
            target={"path_gate": "relay", "relay": [{"service": "feed", "listen": written(free_place())}]},
            door=free_place(),
            console=free_place(),
        )
        self.gate.settings |= {
            "agents": {"listen": link},
            "certificates": {
                "authority": str(certs.authority),
                "certificate": str(certs.certificate(Role.GATEWAY, "gw")),
                "key": str(certs.key(Role.GATEWAY, "gw")),
                "revoked": str(certs.revocations),
            },
        }
        self.gate.settings["targets"].append(
            {"name": "app-server", "agent": "app", "required": False, "relays": ["127.0.0.1"]}
        )
        self.gate.write("ragate.yaml", self.gate.settings)
        book = yaml.safe_load((self.gate.folder / "book.yaml").read_text())
        del book["suspect"]
        self.gate.write(
            "book.yaml",
            {
                "profiles": str(PROFILES),
                **book,
                "node_default": {"distrusted": "quarantine"},
                "targets": {
                    "gateway": {"kinds": ["path_gate"]},
                    "app-server": {"kinds": ["path_gate", "container", "host"]},
                },
            },
        )
        record = folder / "record"
        record.write_text('{"ActiveLSM": "BPFLSM"}')
        record.chmod(0o600)
        self.agent = AgentProcess(
            folder / "agent",
            certs,
            link,
            path_gate="relay",
            relay=[{"service": "feed", "listen": written(free_place())}],
            kubearmor={
                "address": daemon.address,
                "health": daemon.health,
                "tables": "none",
                "record": str(record),
                "streams": [],
            },
        )

    def feeds(self) -> list[str]:
        """What the application may not read at the agent's host."""
        return [
            rule["dir"]
            for name, spec in self.daemon.stored["container"].items()
            if "quarantined-feeds" in name
            for rule in spec["file"]["matchDirectories"]
        ]

    def asked(self, path: str) -> str:
        connection = http.client.HTTPConnection(*self.gate.console, timeout=60)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    async def shown(self) -> dict[str, Any]:
        """The line of the documents at the agent's host, for the first camera."""
        answer = json.loads(await asyncio.to_thread(self.asked, "/v1/devices/cam-1"))
        found = [each for each in answer["targets"] if each["backend"] == "kubearmor"]
        return found[0] if found else {}

    async def until(self, holds: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            state = await self.shown()
            raise AssertionError((state, list(self.daemon.stored["container"]), self.agent.log)) from None

    async def told(self, state: str, detail: str = "") -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while (seen := await self.shown()).get("state") != state or detail not in seen["detail"]:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError((await self.shown(), self.agent.log)) from None


@pytest.mark.long
async def test_documents_of_profiles_stand_at_the_agents_host(tmp_path: Path, daemon: FakeKubeArmor) -> None:
    site = Site(tmp_path, daemon)
    async with running(site.gate) as run:
        await run.ready()
        with site.agent.running():
            await asyncio.to_thread(site.gate.tell, "cam-1", Reason.FAILED_ATTEST)
            await site.until(lambda: site.feeds() == ["/srv/feeds/cam-1/"])
            await site.told("verified")
            line = await site.shown()
            assert (line["target"], line["required"], line["wanted"]) == ("app-server", False, "quarantine")
            metrics = await asyncio.to_thread(site.asked, "/metrics")
            labels = 'backend="kubearmor",part="documents",state="verified",target="app-server"'
            assert f"ragate_advisory_state{{{labels}}} 1.0" in metrics
            # another one fails: the same document grows; KubeArmor starts anew and forgets nothing of ours for long
            await asyncio.to_thread(site.gate.tell, "cam-2", Reason.FAILED_ATTEST)
            await site.until(lambda: site.feeds() == ["/srv/feeds/cam-1/", "/srv/feeds/cam-2/"])
            await daemon.restart()
            daemon.stored["container"].clear()
            await site.until(lambda: len(site.feeds()) == 2)
            await site.told("verified")
        # the agent is away: what it was told stands, and the gateway says so
        await site.told("pending", "is away")
        assert len(site.feeds()) == 2
        daemon.stored["container"].clear()
        with site.agent.running():
            await site.until(lambda: len(site.feeds()) == 2)
            await site.told("verified")
            book = yaml.safe_load((site.gate.folder / "book.yaml").read_text())
            site.gate.write("book.yaml", {**book, "node_default": "admitted"})
            answer = await reloaded(run)
            assert answer["result"] == "taken", answer
            await site.until(lambda: site.feeds() == [])
        lines = await asyncio.to_thread(agent_uninstall, load_agent(site.agent.config))
        assert any("kubearmor: asked to delete our policies" in line for line in lines), lines
        assert not any(daemon.stored.values())
