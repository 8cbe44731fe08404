"""Both ends of a link on loopback, in this process: a hub, and an agent with a path gate in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from gateway.agentlink import messages as wire
from gateway.agentlink import packing
from gateway.agentlink.agent import Agent, AgentSettings, LinkState
from gateway.agentlink.alerts import Inbox
from gateway.agentlink.documents import RemoteDocuments
from gateway.agentlink.hub import AgentHub, AgentTarget
from gateway.agentlink.remote import RemoteGate
from gateway.certs import Folder, MaterialFiles, Role, TlsMaterial
from gateway.control.ports import Backend, Clock, Notice
from gateway.core.model import Address
from tests.fakes.backend import FakeBackend
from tests.netns import KernelClock
from tests.ports import free_place

PATIENCE = 90.0
HOST = "127.0.0.1"


@cache
def wall() -> float:
    return time.time()


def site_certificates(path: Path, *agents: str, host: str = HOST) -> Folder:
    """An authority, a gateway's certificate for one address, and one for each agent."""
    folder = Folder(path)
    folder.init("site", time.time())
    folder.issue(Role.GATEWAY, "gw", [host], time.time())
    for agent in agents:
        folder.issue(Role.AGENT, agent, [], time.time())
    return folder


def files(folder: Folder, role: Role, name: str) -> MaterialFiles:
    return MaterialFiles(
        folder.authority, folder.certificate(role, name), folder.key(role, name), folder.revocations
    )


def plan(*known: str) -> wire.Plan:
    """One service, two profiles."""
    return wire.Plan(
        (("feed", "10.77.3.2", 8001, "tcp", ("admitted", "probation")),),
        (),
        (),
        ("admitted", "probation"),
        {},
        packing.pack_addresses([Address.parse(address) for address in known]),
    )


class MemoryStore:
    """Keeps a plan in memory."""

    def __init__(self) -> None:
        self.kept = b""

    def load(self) -> bytes:
        return self.kept

    def save(self, plan: bytes) -> None:
        self.kept = plan


async def until(holds: Callable[[], object], says: Callable[[], object] = lambda: "") -> None:
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {says()}"
        await asyncio.sleep(0.01)


class Pair:
    """A hub for one agent ``app``. Agents are started by ``agent``; the hub can be ended and started again."""

    def __init__(self, folder: Folder, clock: Clock | None = None, lease: float = 60.0) -> None:
        self.folder = folder
        self.clock = clock or KernelClock()
        self.notices: list[Notice] = []
        self.host, self.port = free_place(HOST)
        self.lease = lease
        self.plan = plan("10.0.0.1")
        self.gate = RemoteGate("app")
        self.backend = FakeBackend(self.clock)
        self.store = MemoryStore()
        self.hub: AgentHub | None = None
        self.make_gate: Callable[[wire.Plan], Backend] = lambda _plan: self.backend
        self.states: list[LinkState] = []
        self.agents: list[Agent] = []
        self.inbox = Inbox()
        self.documents = RemoteDocuments("app")
        self.declared: Callable[[int, wire.Declared], None] = lambda _serial, _declared: None
        self.advised: Callable[[], wire.Advised | None] = lambda: None
        self.report: Callable[[float], wire.Heard | None] = lambda _boot: None

    @asynccontextmanager
    async def listening(self, gate: RemoteGate | None = None) -> AsyncIterator[AgentHub]:
        """The gateway's end, for as long as this lasts."""
        gate = gate or self.gate
        material = TlsMaterial(files(self.folder, Role.GATEWAY, "gw"), Role.GATEWAY)
        digest = wire.digest_of(wire.encode(self.plan))
        target = AgentTarget(gate, self.plan, digest, self.lease, self.inbox, self.documents)
        hub = AgentHub(f"{self.host}:{self.port}", material, {"app": target}, self.clock, self.notices.append)
        await gate.start()
        await hub.start()
        runs = (material.run, hub.run, self.documents.run)
        tasks = [asyncio.create_task(run()) for run in runs]
        self.hub = hub
        try:
            yield hub
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await hub.stop()
            await gate.stop()

    @asynccontextmanager
    async def agent(
        self,
        name: str = "app",
        *,
        role: Role = Role.AGENT,
        folder: Folder | None = None,
        clock: Clock | None = None,
        lease: float = 3_600.0,
    ) -> AsyncIterator[Agent]:
        """An agent, for as long as this lasts."""
        material = TlsMaterial(files(folder or self.folder, role, name))
        agent = Agent(
            AgentSettings(f"{self.host}:{self.port}", "memory", lease),
            material,
            clock or self.clock,
            self.make_gate,
            self.store,
            boot_id="boot",
            changed=self.states.append,
            report=lambda boot: self.report(boot),
            declared=lambda serial, declared: self.declared(serial, declared),
            advised=lambda: self.advised(),
        )
        tasks = [asyncio.create_task(agent.run()), asyncio.create_task(material.run())]
        self.agents.append(agent)
        try:
            yield agent
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await agent.stop()
            for task in tasks:
                if not task.cancelled():
                    task.result()

    async def attached(self) -> None:
        await until(lambda: not self.gate.why, lambda: (self.gate.why, self.states))
