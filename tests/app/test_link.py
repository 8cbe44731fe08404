"""What an agent is told of its host: its own services alone, and what its path gate makes of that."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.agentlink import messages as wire
from gateway.agentlink import packing
from gateway.app.agent import path_gate, plan_baseline
from gateway.app.clock import SystemClock
from gateway.app.link import needs_restart, plan_of
from gateway.app.parts import gates
from gateway.certs import MaterialFiles
from gateway.config import AgentConfig, Endpoint, RelayEntry, load
from gateway.core.errors import ConfigError
from gateway.core.model import Change, ChangeKind
from gateway.enforce.relay import RelayBackend
from tests.e2e.ground import Ground, on_the_ground
from tests.e2e.installed import DEVICES, PORT, SERVERS, Installed
from tests.netns import KernelClock, passes

GATEWAY = "10.77.3.1"
SERVICES: list[dict[str, Any]] = [
    {"name": "feed", "address": SERVERS[0], "port": PORT, "protocol": "tcp", "path": "routed"},
    {"name": "data", "address": SERVERS[0], "port": PORT + 1, "protocol": "tcp", "path": "relayed"},
    {"name": "other", "address": "10.77.9.9", "port": 1, "protocol": "udp", "path": "routed"},
]


def plan(folder: Path, book: list[dict[str, Any]], **target: Any) -> tuple[Any, wire.Plan]:
    site = Installed(folder, services=book)
    files = dict.fromkeys(("authority", "certificate", "key"), "none.pem")
    site.settings |= {"agents": {"listen": "127.0.0.1:8444"}, "certificates": files}
    site.settings["targets"].append({"name": "app-server", "agent": "app", **target})
    site.write("ragate.yaml", site.settings)
    config = load(site.config)
    return config, plan_of(config, config.book, config.remotes[0])


def agent_config(**more: Any) -> AgentConfig:
    files = MaterialFiles(Path("a"), Path("b"), Path("c"))
    return AgentConfig(Path("agent.yaml"), Endpoint("127.0.0.1", 1), files, state=Path("var"), **more)


def test_a_host_is_told_of_its_own_services_alone(tmp_path: Path) -> None:
    _, told = plan(tmp_path, SERVICES, services=["feed", "data"], relays=[GATEWAY])
    assert [(name, profiles) for name, _, _, _, profiles in told.services] == [
        ("feed", ("admitted",)),
        ("data", ()),
    ]
    assert told.always_allowed == (f"{GATEWAY}/32",)
    assert b"10.77.9.9" not in wire.encode(told)
    assert len(told.known) == sum(len(addresses) for addresses in DEVICES.values())


def test_where_everything_is_on_one_host_both_gates_are_made_from_the_same(tmp_path: Path) -> None:
    config, told = plan(tmp_path, [one for one in SERVICES if one["path"] == "routed"])
    assert plan_baseline(wire.read_plan(wire.encode(told))) == gates.baseline(config)


def test_a_plan_of_another_version_is_refused_as_such(tmp_path: Path) -> None:
    _, told = plan(tmp_path, SERVICES[:1])
    for bad in (
        wire.Plan((("feed", "no address", 1, "tcp", ()),), (), (), ("admitted",), {}, ()),
        wire.Plan(told.services, (), ("10.0.0.0/99",), told.profiles, {}, ()),
        wire.Plan(told.services, (), (), ("Not A Set",), {}, ()),
    ):
        with pytest.raises(ConfigError):
            path_gate(agent_config(path_gate="nft"), bad, SystemClock())
    known = wire.Plan(told.services, (), (), told.profiles, {}, ((b"123", 32),))
    with pytest.raises(ConfigError):
        path_gate(agent_config(path_gate="nft"), known, SystemClock())


def test_a_relay_on_the_agents_host_needs_services_of_that_host(tmp_path: Path) -> None:
    _, told = plan(tmp_path, SERVICES[:1])
    entry = RelayEntry("feed", Endpoint("127.0.0.1", 9))
    made = path_gate(agent_config(path_gate="relay", relay=(entry,)), told, SystemClock())
    assert isinstance(made, RelayBackend)
    strange = RelayEntry("data", Endpoint("127.0.0.1", 9))
    with pytest.raises(ConfigError, match="relay for data, which the gateway does not gate on this host"):
        path_gate(agent_config(path_gate="relay", relay=(strange,)), told, SystemClock())


def test_a_book_that_changes_an_agents_host_needs_a_start(tmp_path: Path) -> None:
    routed = SERVICES[:1]
    config, _ = plan(tmp_path / "one", routed)
    same, _ = plan(tmp_path / "two", routed)
    moved, _ = plan(tmp_path / "three", [{**SERVICES[0], "port": 9}])
    assert needs_restart(config, config.book, same.book) == []
    (why,) = needs_restart(config, config.book, moved.book)
    assert "target app-server" in why


@pytest.mark.netns
def test_a_relayed_service_lets_the_relay_pass_and_no_device(tmp_path: Path) -> None:
    services = [{**SERVICES[1], "port": PORT}, {**SERVICES[0], "port": PORT + 1}]
    _, told = plan(tmp_path, services, relays=[GATEWAY])

    async def body_of(ground: Ground) -> None:
        clock = KernelClock()
        assert ground.passes(DEVICES["cam-1"][0])
        with ground.site.server.entered():
            gate = path_gate(agent_config(path_gate="nft"), told, SystemClock())
            await gate.start()
        try:
            (address, *_) = packing.unpack_addresses(told.known)
            assert str(address) == DEVICES["cam-1"][0]
            end = clock.now().boot + 60.0
            await gate.apply([Change(ChangeKind.ADMIT, address, "admitted", end)])
            assert ground.blocked(DEVICES["cam-1"][0]), "admitted, and still no way to a relayed service"
            assert passes("tcp", None, GATEWAY, (SERVERS[0], PORT)), "the relay gets through"
        finally:
            await gate.stop()

    def body(ground: Ground) -> None:
        asyncio.run(body_of(ground))

    on_the_ground(body)
