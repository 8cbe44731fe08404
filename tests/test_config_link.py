"""Targets on other hosts, the link to them, and the agent's own file: every mistake with its place and its mend."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gateway.certs import Role
from gateway.cli.commands import app
from gateway.config import KubeArmor, find_findings, is_agent_file, load, load_agent
from gateway.core.errors import ConfigError
from tests.agentlink.pair import site_certificates
from tests.agentlink.process import AgentProcess
from tests.e2e.installed import Installed

SERVICES = [
    {"name": "feed", "address": "10.77.3.2", "port": 8001, "protocol": "tcp", "path": "routed"},
    {"name": "data", "address": "10.77.4.2", "port": 8001, "protocol": "tcp", "path": "relayed"},
]


class Written:
    """A gateway's files with an agent's target, changed by each test."""

    def __init__(self, folder: Path) -> None:
        self.site = Installed(folder, services=SERVICES)
        self.certificates = site_certificates(folder / "certs", "app")
        self.settings = self.site.settings
        self.settings["agents"] = {"listen": "127.0.0.1:8444"}
        self.settings["certificates"] = {
            "authority": "certs/ca.pem",
            "certificate": "certs/gateway-gw.pem",
            "key": "certs/gateway-gw.key",
            "revoked": "certs/ca.crl",
        }
        self.remote: dict[str, Any] = {"name": "app-server", "agent": "app", "services": ["feed"]}
        self.settings["targets"].append(self.remote)

    def load(self) -> Any:
        self.site.write("ragate.yaml", self.settings)
        return load(self.site.config)

    def error(self) -> str:
        with pytest.raises(ConfigError) as caught:
            self.load()
        return str(caught.value)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def test_a_target_with_an_agent_is_read(written: Written) -> None:
    config = written.load()
    (remote,) = config.remotes
    assert (remote.name, remote.agent, remote.required, remote.lease) == ("app-server", "app", True, 60.0)
    assert remote.services == ("feed",)
    assert str(config.agents) == "127.0.0.1:8444"
    assert config.certificates.revoked == written.site.folder / "certs/ca.crl"
    assert config.target.name == "gateway"


def test_a_relayed_service_names_its_relays(written: Written) -> None:
    written.remote["services"] = ["feed", "data"]
    assert "data is relayed, and target app-server names no relay" in written.error()
    written.remote["relays"] = ["10.77.3.1"]
    (remote,) = written.load().remotes
    assert [str(network) for network in remote.relays] == ["10.77.3.1/32"]
    written.remote["services"] = ["feed"]
    assert "no service there is relayed" in written.error()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda one: one.settings.pop("agents"), "nowhere agents could attach; write agents:"),
        (lambda one: one.settings.pop("certificates"), "agents attach by certificates, and none are named"),
        (lambda one: one.settings["targets"].remove(one.remote), "no target names one"),
        (lambda one: one.settings["targets"].append({"name": "x", "agent": "app"}), "agent app is named twice"),
        (lambda one: one.remote.update(name="gateway"), "two targets are called gateway"),
        (lambda one: one.remote.update(services=["fed"]), "the book has no service 'fed'; did you mean 'feed'?"),
        (lambda one: one.remote.update(services=[]), "services is empty"),
        (lambda one: one.remote.update(lease="1s"), "lease of 1 seconds is out of range"),
        (lambda one: one.remote.update(path_gate="nft"), "'path_gate' is not known in a target"),
        (lambda one: one.settings["targets"].pop(0), "no target of this host is listed"),
        (lambda one: one.settings["agents"].update(listen="gw:8444"), "must be an IPv4 address"),
        (lambda one: one.settings["certificates"].pop("key"), "needs 'key'"),
    ],
)
def test_what_does_not_go_together_is_named(written: Written, change: Any, expected: str) -> None:
    change(written)
    message = written.error()
    assert expected in message
    assert message.startswith(f"{written.site.folder}/ragate.yaml:")


def test_findings_about_the_link(written: Written) -> None:
    written.remote.update(lease="10m", required=False)
    told = {(finding.severity, finding.subject): finding.what for finding in find_findings(written.load())}
    assert ("warning", "target app-server") in told
    written.certificates.revoke(Role.GATEWAY, "gw", time.time())
    findings = find_findings(written.load())
    assert any(one.severity == "error" and "is revoked" in one.what for one in findings)
    (written.certificates.path / "gateway-gw.key").unlink()
    assert any(one.severity == "error" and "cannot be read" in one.what for one in find_findings(written.load()))


# --- the agent's own file ---------------------------------------------------------------------------------


@pytest.fixture
def agent(tmp_path: Path) -> AgentProcess:
    certificates = site_certificates(tmp_path / "certs", "app")
    return AgentProcess(tmp_path / "agent", certificates, "10.77.3.1:8444", lease="30s")


def test_an_agents_file_is_read(agent: AgentProcess) -> None:
    assert is_agent_file(agent.config)
    config = load_agent(agent.config)
    assert (str(config.gateway), config.path_gate, config.lease) == ("10.77.3.1:8444", "nft", 30.0)
    assert config.state == agent.folder / "state"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"gateway": None}, "the file needs 'gateway'"),
        ({"certificates": None}, "the file needs 'certificates'"),
        ({"gateway": "10.77.3.1"}, "needs a port"),
        ({"path_gate": "relay"}, "without relay entries would carry nothing"),
        ({"relay": [{"service": "feed", "listen": "127.0.0.1:1"}]}, "relay entries need path_gate: relay"),
        ({"kubearmor": {"address": "10.0.0.1:32767"}}, "is not on this host"),
        ({"kubearmor": {"logs": "[fd00::1]:32767"}}, "is not on this host"),
        ({"kubearmor": {"address": "unix:relative.sock"}}, "is no Unix socket"),
        ({"kubearmor": {"address": f"unix:/{'x' * 107}"}}, "is no Unix socket"),
        ({"kubearmor": {"health": "maybe"}}, "needs a port"),
        ({"kubearmor": {"streams": ["alerts", "gossip"]}}, "'gossip'"),
        ({"kubearmor": {"tls": {"authority": "a", "certificate": "b"}}}, "needs 'key'"),
        ({"kubearmor": {"tls": {"authority": "a", "certificate": "b", "key": "c"}}}, "a: cannot be read"),
        ({"kubearmor": {"certificates": {}}}, "'certificates' is not known"),
        ({"doors": {}}, "'doors' is not known"),
    ],
)
def test_mistakes_in_an_agents_file(agent: AgentProcess, change: dict[str, Any], expected: str) -> None:
    document = {**yaml.safe_load(agent.config.read_text()), **change}
    agent.config.write_text(yaml.safe_dump({key: value for key, value in document.items() if value is not None}))
    with pytest.raises(ConfigError) as caught:
        load_agent(agent.config)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"{agent.config}:")


def kubearmor(agent: AgentProcess, **changes: Any) -> KubeArmor:
    document = {**yaml.safe_load(agent.config.read_text()), "kubearmor": changes}
    agent.config.write_text(yaml.safe_dump(document))
    found = load_agent(agent.config).kubearmor
    assert found is not None
    return found


def test_how_an_agent_reaches_its_kubearmor(agent: AgentProcess, tmp_path: Path) -> None:
    assert kubearmor(agent) == KubeArmor()
    apart = kubearmor(
        agent, address="unix:/run/kubearmor/management.sock", logs="[::1]:32767", health="none", streams=["alerts"]
    )
    assert apart == KubeArmor("unix:/run/kubearmor/management.sock", "[::1]:32767", None, streams=("alerts",))
    given = {
        "authority": str(tmp_path / "certs" / "ca.pem"),
        "certificate": str(tmp_path / "certs" / "agent-app.pem"),
        "key": str(tmp_path / "certs" / "agent-app.key"),
        "name": "10.77.3.2",
    }
    tls = kubearmor(agent, tls=given).tls
    assert tls is not None
    assert (tls.name, tls.key) == ("10.77.3.2", Path(given["key"]))
    with pytest.raises(ConfigError, match="only Unix sockets are dialled"):
        kubearmor(agent, address="unix:/run/ka.sock", tls=given)
    with pytest.raises(ConfigError, match="is not the key of"):
        kubearmor(agent, tls={**given, "key": str(tmp_path / "certs" / "gateway-gw.key")})


def ask(agent: AgentProcess, *words: str) -> Any:
    return CliRunner().invoke(app, [*words, "--config", str(agent.config)], env={"NO_COLOR": "1"})


def test_check_tells_what_an_agent_lacks(agent: AgentProcess) -> None:
    answer = ask(agent, "check")
    assert answer.exit_code == 0, answer.output
    assert "it has never been attached" in answer.output
    assert "service: no agent has written" in answer.output
    assert ask(agent, "baseline").exit_code == 2
    (agent.folder / "state").mkdir()
    (agent.folder / "state" / "plan").write_bytes(b"junk")
    damaged = ask(agent, "baseline")
    assert damaged.exit_code == 2
    assert "delete it: the gateway sends it again" in damaged.stderr


def test_check_refuses_a_certificate_of_another_role(agent: AgentProcess, tmp_path: Path) -> None:
    document = yaml.safe_load(agent.config.read_text())
    document["certificates"]["certificate"] = str(tmp_path / "certs" / "gateway-gw.pem")
    document["certificates"]["key"] = str(tmp_path / "certs" / "gateway-gw.key")
    agent.config.write_text(yaml.safe_dump(document))
    answer = ask(agent, "check")
    assert answer.exit_code == 1
    assert "is the certificate of gateway gw; one with role agent is needed" in answer.output
