"""Gateway and app server as two hosts with a link between them, as an operator installs both.

Everything is in network namespaces: the calling thread's is the gateway's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.certs import Role
from tests.agentlink.pair import site_certificates
from tests.agentlink.process import AgentProcess
from tests.e2e.ground import Ground
from tests.e2e.installed import Installed, Running, until
from tests.netns import Space, run

GATEWAY, LINK = "10.77.3.1", "10.77.3.1:8444"
LEASE = 30


class Hosts:
    """Files of both hosts. Nothing runs yet. ``remote`` is more of the app server's target, ``agent`` of the
    agent's file, ``installed`` of the gateway's."""

    def __init__(
        self,
        folder: Path,
        *,
        lease: int = LEASE,
        remote: Mapping[str, Any] | None = None,
        agent: Mapping[str, Any] | None = None,
        **installed: Any,
    ) -> None:
        self.gateway = Installed(folder / "gateway", **installed)
        self.certificates = site_certificates(folder / "certs", "app", host=GATEWAY)
        certs = self.certificates
        self.gateway.settings |= {
            "agents": {"listen": LINK},
            "certificates": {
                "authority": str(certs.authority),
                "certificate": str(certs.certificate(Role.GATEWAY, "gw")),
                "key": str(certs.key(Role.GATEWAY, "gw")),
                "revoked": str(certs.revocations),
            },
        }
        self.gateway.settings["targets"] += [
            {"name": "app-server", "agent": "app", "lease": lease, **(remote or {})}
        ]
        self.gateway.write("ragate.yaml", self.gateway.settings)
        self.agent = AgentProcess(folder / "agent", certs, LINK, path_gate="nft", **(agent or {}))

    @contextmanager
    def gateway_runs(self) -> Iterator[Running]:
        with self.gateway.running(ready=False) as service:
            until(lambda: service.process.poll() is None and service.answers("cam-1"), lambda: service.log)
            yield service

    @contextmanager
    def agent_runs(self, ground: Ground) -> Iterator[AgentProcess]:
        self.start_agent(ground)
        try:
            yield self.agent
        finally:
            if self.agent.process is not None:
                self.agent.kill()

    def start_agent(self, ground: Ground) -> None:
        self.start_agent_in(ground.site.server)

    def start_agent_in(self, space: Space) -> None:
        """Start it in the app server's namespace."""
        with space.entered():
            self.agent.start()

    @contextmanager
    def both_run(self, ground: Ground) -> Iterator[Running]:
        with self.gateway_runs() as service, self.agent_runs(ground):
            until(lambda: attached(service), lambda: f"{self.agent.log}\n{service.log}")
            yield service


def attached(service: Running) -> bool:
    return service.metric("ragate_agent_attached", agent="app") == 1


def targets(service: Running, name: str) -> dict[str, dict[str, Any]]:
    return {target["target"]: target for target in service.device(name)["targets"]}


def settled(service: Running, name: str, standing: str) -> None:
    """Wait until a device stands so, verified at both ends."""

    def there() -> bool:
        seen = service.device(name)
        states = {(each["wanted"], each["state"]) for each in seen["targets"]}
        return seen["standing"] == standing and states == {(seen["profile"], "verified")}

    until(there, lambda: f"{service.device(name)}\n{service.log}")


def on_server(ground: Ground, ask: Callable[[], Any]) -> Any:
    """What the app server's own kernel says."""
    with ground.site.server.entered():
        return ask()


def without_table(ground: Ground, where: str) -> Callable[[], None]:
    """Take one host's path gate away; returns how to put it back."""

    def take() -> str:
        text = run("nft", "list", "table", "inet", "ragate")
        run("nft", "delete", "table", "inet", "ragate")
        return text

    text = take() if where == "gateway" else on_server(ground, take)

    def put_back() -> None:
        def put() -> None:
            run("nft", "-f", "-", stdin=text)

        put() if where == "gateway" else on_server(ground, put)

    return put_back
