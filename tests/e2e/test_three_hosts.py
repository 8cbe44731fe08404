"""Device, gateway and app server as three hosts: one verdict, both ends, each of them enough by itself.

Real processes with real certificates in network namespaces: ``ragate serve`` routes between the devices and the app
server, ``ragate agent`` runs on the app server, nftables on both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.sediment.wire import Reason
from tests.e2e.ground import Ground, on_the_ground
from tests.e2e.hosts import LEASE, Hosts, attached, on_server, settled, targets, without_table
from tests.e2e.installed import DEVICES, PATIENCE, SERVERS, Running, until
from tests.e2e.kernel import admitted, tombstones
from tests.netns import run

pytestmark = pytest.mark.netns

CAM_1, CAM_2 = DEVICES["cam-1"], DEVICES["cam-2"]


def proof(site: Hosts, name: str) -> dict[str, Any]:
    """What every target shows of a device now."""
    found: dict[str, Any] = json.loads(site.gateway.ask("explain", name, "--proof", "--output", "json").stdout)
    return found


def test_one_verdict_and_both_ends_each_enough_by_itself(tmp_path: Path) -> None:
    site = Hosts(tmp_path)

    def body(ground: Ground) -> None:
        with site.both_run(ground) as service:
            assert ground.shut("cam-1"), "nobody has attested"
            site.gateway.tell("cam-1", Reason.PASS)
            settled(service, "cam-1", "trusted")
            assert set(admitted()) == set(CAM_1)
            ends = on_server(ground, admitted)
            assert set(ends) == set(CAM_1)
            assert all(seconds is not None and seconds <= LEASE for seconds in ends.values())
            shown = proof(site, "cam-1")
            assert shown["proven"]
            both = {(line["target"], line["address"]): line for line in shown["lines"]}
            assert set(both) == {(target, one) for target in ("gateway", "app-server") for one in CAM_1}
            for (_, address), line in both.items():
                assert line["result"] == "verified"
                assert "inet ragate admitted" in line["element"], "read from that host's kernel"
                assert f"{{ {address} expires " in line["element"]
                assert 0 <= shown["at"] - line["read_at"] < PATIENCE
            with ground.flows("cam-1") as flows:
                assert all(flow.echoes() for flow in flows)
                site.gateway.tell("cam-1", Reason.FAILED_ATTEST)
                settled(service, "cam-1", "distrusted")
                assert tombstones() >= set(CAM_1)
                assert on_server(ground, tombstones) >= set(CAM_1)
                assert not any(flow.echoes(0.15) for flow in flows)
            assert ground.shut("cam-1")
            assert {line["element"] for line in proof(site, "cam-1")["lines"]} == {
                f"inet ragate cut{6 if ':' in one else 4} {{ {one} }}" for one in CAM_1
            }
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
    site = Hosts(tmp_path)

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
            told = {(line["target"], line["result"]): line for line in proof(site, "cam-1")["lines"]}
            assert set(told) == {("gateway", "verified"), ("app-server", "cannot be read")}
            assert told["app-server", "cannot be read"]["read_at"] is None
            assert site.gateway.ask("explain", "cam-1", "--proof").exit_code == 1
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
    site = Hosts(tmp_path)

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


def test_what_was_changed_while_the_agent_was_down_is_put_right_and_told(tmp_path: Path) -> None:
    site = Hosts(tmp_path)

    def repairs(service: Running) -> float:
        return service.metric("ragate_drift_repairs_total", backend="link")

    def body(ground: Ground) -> None:
        with site.both_run(ground) as service:
            site.gateway.tell("cam-1", Reason.PASS)
            settled(service, "cam-1", "trusted")
            assert site.agent.stop() == 0
            until(lambda: not attached(service))
            assert repairs(service) == 0
            harm = f"delete element inet ragate admitted4 {{ {CAM_1[0]} }}\n"
            harm += f"add element inet ragate admitted4 {{ {CAM_2[0]} }}"
            on_server(ground, lambda: run("nft", "-f", "-", stdin=harm))
            assert ground.shut("cam-2"), "the gateway still keeps it out"
            assert ground.blocked(CAM_1[0])
            site.start_agent(ground)
            until(lambda: attached(service), lambda: f"{site.agent.log}\n{service.log}")
            until(lambda: repairs(service) == 2, lambda: service.log)
            settled(service, "cam-1", "trusted")
            until(lambda: set(on_server(ground, admitted)) == set(CAM_1), lambda: on_server(ground, admitted))
            service.says(f"{CAM_1[0]}: expected admitted, found nothing")
            service.says(f"{CAM_2[0]}: admitted as admitted though nothing admits it")
            assert ground.passes(CAM_1[0])
            assert ground.shut("cam-2")

    on_the_ground(body)


def test_a_bridge_that_an_agent_finds_fails_its_target_until_it_is_gone(tmp_path: Path) -> None:
    site = Hosts(tmp_path)
    device, service_address = CAM_1[1], SERVERS[1]
    # The app moves behind a bridge of this host, where a device is, too.
    opens = (
        "link add port type veth peer name cable\nlink add lan type bridge\n"
        "link set port master lan up\nlink set lan up\nlink set cable up\n"
        f"addr del {service_address}/64 dev eth0\n"
        f"route add {service_address}/128 dev lan\nroute add {device}/128 dev lan\n"
    )
    closes = f"link del port\nlink del lan\naddr add {service_address}/64 dev eth0 nodad\n"

    def body(ground: Ground) -> None:
        with site.both_run(ground) as service:
            site.gateway.tell("cam-1", Reason.PASS)
            settled(service, "cam-1", "trusted")
            ground.site.server.ip(opens)
            until(lambda: service.metric("ragate_bypasses", target="app-server") == 1, lambda: site.agent.log)
            seen = targets(service, "cam-1")["app-server"]
            assert seen["state"] == "failed"
            assert seen["detail"].startswith("bypass: ")
            assert "share the bridge lan" in seen["detail"]
            assert not service.ready()
            ground.site.server.ip(closes)
            until(lambda: service.metric("ragate_bypasses", target="app-server") == 0, lambda: site.agent.log)
            settled(service, "cam-1", "trusted")

    on_the_ground(body)
