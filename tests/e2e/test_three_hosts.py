"""Device, gateway and app server as three hosts: one verdict, both ends, each of them enough by itself.

Real processes with real certificates in network namespaces: ``ragate serve`` routes between the devices and the app
server, ``ragate agent`` runs on the app server, nftables on both.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.certs import Role
from gateway.sediment.wire import Reason
from tests.agentlink.pair import site_certificates
from tests.agentlink.process import AgentProcess
from tests.e2e.ground import Ground, on_the_ground
from tests.e2e.installed import DEVICES, Installed, Running, until
from tests.e2e.kernel import admitted, tombstones
from tests.netns import run

pytestmark = pytest.mark.netns

GATEWAY, LINK = "10.77.3.1", "10.77.3.1:8444"
CAM_1, CAM_2 = DEVICES["cam-1"], DEVICES["cam-2"]
LEASE = 30


class Site:
    """Files of both hosts. Nothing runs yet."""

    def __init__(self, folder: Path, **remote: Any) -> None:
        self.gateway = Installed(folder / "gateway")
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
        self.gateway.settings["targets"] += [{"name": "app-server", "agent": "app", "lease": LEASE, **remote}]
        self.gateway.write("ragate.yaml", self.gateway.settings)
        self.agent = AgentProcess(folder / "agent", certs, LINK, path_gate="nft")

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
        with ground.site.server.entered():
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


def is_cut(service: Running, name: str) -> bool:
    """Whether the gateway has taken the failure in and its own kernel has it."""
    return service.standing(name) == "distrusted" and tombstones() >= set(DEVICES[name])


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


def test_one_verdict_and_both_ends_each_enough_by_itself(tmp_path: Path) -> None:
    site = Site(tmp_path)

    def body(ground: Ground) -> None:
        with site.both_run(ground) as service:
            assert ground.shut("cam-1"), "nobody has attested"
            site.gateway.tell("cam-1", Reason.PASS)
            settled(service, "cam-1", "trusted")
            assert set(admitted()) == set(CAM_1)
            ends = on_server(ground, admitted)
            assert set(ends) == set(CAM_1)
            assert all(seconds is not None and seconds <= LEASE for seconds in ends.values())
            with ground.flows("cam-1") as flows:
                assert all(flow.echoes() for flow in flows)
                site.gateway.tell("cam-1", Reason.FAILED_ATTEST)
                settled(service, "cam-1", "distrusted")
                assert tombstones() >= set(CAM_1)
                assert on_server(ground, tombstones) >= set(CAM_1)
                assert not any(flow.echoes(0.15) for flow in flows)
            assert ground.shut("cam-1")
            verified = targets(service, "cam-1")
            assert all(target["verified_at"] for target in verified.values())
            service.kill()
            site.agent.kill()
        # Only the two kernels are left: each cuts without the other, and only without both a flow gets through.
        back = without_table(ground, "gateway")
        assert ground.shut("cam-1"), "the app server alone cuts"
        last = without_table(ground, "server")
        assert ground.passes(CAM_1[0]), "this is how it would be with neither"
        back()
        assert ground.shut("cam-1"), "the gateway alone cuts"
        last()

    on_the_ground(body)


def test_an_agent_that_is_down_stops_admissions_and_no_cut(tmp_path: Path) -> None:
    site = Site(tmp_path)

    def body(ground: Ground) -> None:
        with site.both_run(ground) as service:
            site.gateway.tell("cam-1", Reason.PASS)
            settled(service, "cam-1", "trusted")
            with ground.flows("cam-1") as flows:
                site.agent.kill()
                until(lambda: not attached(service))
                assert all(flow.echoes() for flow in flows), "nothing is withdrawn"
                site.gateway.tell("cam-1", Reason.FAILED_ATTEST)
                until(lambda: service.standing("cam-1") == "distrusted")
                until(lambda: tombstones() >= set(CAM_1))
                assert not any(flow.echoes(0.15) for flow in flows), "the gateway cuts by itself"
            seen = targets(service, "cam-1")
            until(lambda: targets(service, "cam-1")["gateway"]["state"] == "verified")
            assert seen["app-server"]["state"] == "pending"
            assert seen["app-server"]["latest_end"], "until when it may stand there at the most"
            assert set(on_server(ground, admitted)) == set(CAM_1), "the app server goes on until the lease ends"
            site.gateway.tell("cam-2", Reason.PASS)
            until(lambda: service.standing("cam-2") == "trusted")
            until(lambda: "waits for app-server" in targets(service, "cam-2")["gateway"]["detail"])
            assert targets(service, "cam-2")["gateway"]["state"] == "pending"
            assert ground.shut("cam-2")
            assert admitted() == {}
            site.start_agent(ground)
            settled(service, "cam-1", "distrusted")
            settled(service, "cam-2", "trusted")
            assert on_server(ground, tombstones) >= set(CAM_1)
            assert set(on_server(ground, admitted)) == set(admitted()) == set(CAM_2)
            assert all(ground.passes(address) for address in CAM_2)
            assert ground.shut("cam-1")

    on_the_ground(body)


def test_a_restarted_gateway_finds_its_agent_enforcing(tmp_path: Path) -> None:
    site = Site(tmp_path)

    def body(ground: Ground) -> None:
        with site.agent_runs(ground):
            with site.gateway_runs() as service:
                until(lambda: attached(service), lambda: f"{site.agent.log}\n{service.log}")
                site.gateway.tell("cam-1", Reason.PASS)
                site.gateway.tell("cam-2", Reason.FAILED_ATTEST)
                settled(service, "cam-1", "trusted")
                settled(service, "cam-2", "distrusted")
                service.kill()
            until(lambda: site.agent.status.get("attached") is False, lambda: site.agent.log)
            assert set(on_server(ground, admitted)) == set(CAM_1)
            assert on_server(ground, tombstones) >= set(CAM_2)
            assert ground.passes(CAM_1[0]), "what stands goes on"
            with site.gateway_runs() as service:
                until(lambda: attached(service), lambda: f"{site.agent.log}\n{service.log}")
                settled(service, "cam-1", "trusted")
                settled(service, "cam-2", "distrusted")
                assert service.metric("ragate_withheld_total") == 0
                assert ground.passes(CAM_1[0])
                assert ground.shut("cam-2")

    on_the_ground(body)


@pytest.mark.long
def test_killed_at_random_moments_a_failed_device_stays_out_and_both_converge(tmp_path: Path) -> None:
    site = Site(tmp_path)
    dice = random.Random(20261121)

    def body(ground: Ground) -> None:
        site.start_agent(ground)
        try:
            for turn in range(3):
                with site.gateway_runs() as service:
                    until(lambda: attached(service), lambda: f"{site.agent.log}\n{service.log}")
                    victim, other = ("cam-1", "cam-2") if dice.random() < 0.5 else ("cam-2", "cam-1")
                    site.gateway.tell(other, Reason.PASS)
                    site.gateway.tell(victim, Reason.PASS)
                    if dice.random() < 0.5:
                        site.agent.kill()
                    site.gateway.tell(victim, Reason.FAILED_ATTEST)
                    until(partial(is_cut, service, victim))
                    service.kill()
                    if dice.random() < 0.5 and site.agent.process is not None:
                        site.agent.kill()
                    assert ground.shut(victim), f"turn {turn}: {victim}"
                if site.agent.process is None:
                    site.start_agent(ground)
                with site.gateway_runs() as service:
                    until(lambda: attached(service), lambda: f"{site.agent.log}\n{service.log}")
                    for name in DEVICES:
                        standing = service.standing(name)
                        settled(service, name, standing)
                        both = [admitted(), on_server(ground, admitted)]
                        inside = standing == "trusted"
                        assert all((set(DEVICES[name]) <= set(each)) is inside for each in both), (name, both)
                    assert ground.shut(victim)
                    service.kill()
        finally:
            if site.agent.process is not None:
                site.agent.kill()

    on_the_ground(body)
