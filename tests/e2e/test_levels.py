"""Every level of the book in a real process: an operator's override through a kill, the site's profile, explain.

The path gate is the relay on loopback, but for what the kernel alone can show.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from gateway.sediment.wire import Reason
from tests.e2e.ground import Ground, on_the_ground
from tests.e2e.installed import DEVICES, SERVICES, Installed, until
from tests.e2e.kernel import admitted
from tests.e2e.test_command_line import EchoServer, Live, echoes, newest, reaches, relayed
from tests.ports import free_place


def test_an_override_cuts_survives_a_kill_and_is_ended(tmp_path: Path) -> None:
    server, relay = EchoServer(), free_place()
    gate = relayed(tmp_path, server.port, relay)
    with gate.running() as service:
        live = Live(gate, service, relay)
        gate.admit(service, "cam-1", "cam-2")
        with live.dial("cam-1") as connection:
            assert echoes(connection)
            done = gate.run("devices", "override", "cam-1", "deny", "--for", "2h", "--reason", "firmware")
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith("cam-1: admitted → deny: overridden by unix:")
            until(lambda: not echoes(connection))
        assert service.standing("cam-1") == "trusted", "an override changes no standing"
        assert service.metric("ragate_overrides") == 1
        assert reaches(live, "cam-2")
        until_first = service.device("cam-1")["override"]["until"]
        service.kill()
    with gate.running() as service:
        live = Live(gate, service, relay)
        # A relay starts empty, so that everybody attests again; what the operator said still holds.
        gate.tell("cam-1", Reason.PASS, issued_at=newest(service, "cam-1") + 1)
        service.wait("cam-1", "trusted")
        word = service.device("cam-1")["override"]
        assert (word["profile"], word["reason"], word["until"] <= until_first) == ("deny", "firmware", True)
        assert not reaches(live, "cam-1")
        told = gate.run("explain", "cam-1")
        assert told.returncode == 0, told.stderr
        assert "  *  override" in told.stdout
        assert "operator override by unix:" in told.stdout
        plain = json.loads(gate.ask("explain", "cam-1", "-o", "json").stdout)
        assert [(line["level"], line["used"]) for line in plain["levels"]] == [
            ("built-in", False),
            ("node default", False),
            ("override", True),
        ]
        assert [(rule["wanted"], rule["stands"], rule["trouble"]) for rule in plain["rules"]] == [("deny", "", "")]
        ended = gate.ask("devices", "override", "cam-1", "--end", "--reason", "done")
        assert ended.exit_code == 0, ended.stderr
        assert ended.stdout.startswith("cam-1: deny → admitted: the override to deny was ended by unix:")
        until(lambda: reaches(live, "cam-1"))
        rows = [row for row in service.device("cam-1")["verdicts"] if row["kind"] == "override"]
        assert [(row["event"], row["reason"]) for row in rows] == [
            ("override-ended", "done"),
            ("overridden", "firmware"),
        ]
        short = gate.ask("devices", "override", "cam-1", "deny", "--for", "2s", "-r", "a moment")
        assert short.exit_code == 0, short.stderr
        until(lambda: service.device("cam-1")["override"] is None)
        until(lambda: reaches(live, "cam-1"))
        assert service.stop() == 0, service.log
        assert "Traceback" not in service.log
    server.close()


def test_the_site_profile_and_the_thresholds_run(tmp_path: Path) -> None:
    server, relay = EchoServer(), free_place()
    gate = relayed(tmp_path, server.port, relay)
    book = yaml.safe_load((tmp_path / "book.yaml").read_text())
    book["site"] = [{"name": "lockdown", "when": {"distrusted": ">= 1"}}, {"name": "normal"}]
    book["thresholds"] = {"resources": {"memory": {"above": "0.1%", "for": "1s"}}}
    gate.write("book.yaml", book)
    with gate.running() as service:
        assert service.get("/v1/site").json["profile"] == "normal"
        assert service.metric("ragate_site_profile", profile="normal") == 1
        gate.admit(service, "cam-1", "cam-2")
        gate.tell("cam-1", Reason.FAILED_ATTEST, issued_at=newest(service, "cam-1"))
        until(lambda: service.metric("ragate_site_profile", profile="lockdown") == 1)
        assert service.metric("ragate_site_profile", profile="normal") == 0
        site = service.get("/v1/site").json
        assert (site["profile"], site["chain"]) == ("lockdown", ["site lockdown: distrusted >= 1"])
        assert service.standing("cam-2") == "trusted", "a site profile changes no standing"
        until(lambda: service.metric("ragate_resource_alarm", resource="memory") == 1)
        assert service.metric("ragate_resource_alarm", resource="cpu") == 0
        checked = gate.run("check")
        assert "site" in checked.stdout
        assert "lockdown: site lockdown: distrusted >= 1" in checked.stdout
        assert "warning: thresholds" not in checked.stdout
        assert service.metric("ragate_notices_total", kind="site") >= 2
    server.close()


@pytest.mark.long
@pytest.mark.netns
def test_in_the_kernel_an_admission_by_an_override_ends_with_it_without_the_gateway(tmp_path: Path) -> None:
    gate = Installed(tmp_path, target={"lease": 120}, source={"max_age": 600})
    gate.write("book.yaml", {"services": list(SERVICES), "node_default": "deny", "suspect": "deny"})
    lasting = 40

    def body(ground: Ground) -> None:
        with gate.running() as service:
            gate.tell("cam-1", Reason.PASS)
            service.wait("cam-1", "trusted")
            assert admitted() == {}, "the book denies it"
            done = gate.ask("devices", "override", "cam-1", "admitted", "--for", f"{lasting}s", "-r", "a look")
            assert done.exit_code == 0, done.stderr
            until(lambda: set(admitted()) == set(DEVICES["cam-1"]), admitted)
            service.kill()
            for address, seconds in admitted().items():
                assert seconds is not None, f"{address} has no end"
                assert seconds <= lasting
            until(lambda: not admitted(), admitted)
        assert ground.shut("cam-1")
        with gate.running() as service:
            assert service.device("cam-1")["override"] is None
            assert ground.shut("cam-1")

    on_the_ground(body)
