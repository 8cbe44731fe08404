"""The compose file's own commands, run: data flows, a device that is tampered with is cut on both hosts and let in
again, what Prometheus is told to scrape answers, and everything ends in order.

No container engine is involved; ``tests/composed/site.py`` says what stands in for it.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.simulate import plan
from tests.composed.document import ROOT
from tests.composed.site import Composed
from tests.e2e.kernel import admitted, tombstones
from tests.netns import in_namespaces

pytestmark = [pytest.mark.netns, pytest.mark.long]

#: Seconds. A stream that was heard so recently flows, one that was not for so long does not: ten messages a second.
FLOWS, STILL = 2.0, 5.0

#: Seconds for fourteen programs that start on a machine that many share, and for what then happens with them.
CHILD_SECONDS = 540.0

CAM_1 = set(plan.DEVICES[0].addresses)


def heard(site: Composed) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = site.ask("appserver", "show")["heard"]
    return found


def flows(site: Composed, device: str, streams: int) -> bool:
    """Whether all of a device's streams arrive."""
    seen = heard(site)[device]
    return len(seen) == streams and all(stream["seconds_ago"] < FLOWS for stream in seen.values())


def still(site: Composed, device: str) -> bool:
    """Whether none of a device's streams arrives."""
    return all(stream["seconds_ago"] > STILL for stream in heard(site)[device].values())


def on(site: Composed, host: str, ask: Callable[[], Any]) -> Any:
    """What the kernel of one of the hosts says."""
    with site.spaces[host].entered():
        return ask()


def scrape(site: Composed) -> str:
    """What the target of the Prometheus configuration answers where Prometheus lives."""
    config = yaml.safe_load((ROOT / "compose" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    ((target,),) = [each["targets"] for each in job["static_configs"]]

    def get() -> str:
        connection = http.client.HTTPConnection(target, timeout=60)
        try:
            connection.request("GET", job.get("metrics_path", "/metrics"))
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    assert space_of_prometheus(site) == "gateway-host"
    return str(on(site, "gateway-host", get))


def space_of_prometheus(site: Composed) -> str:
    return str(site.document["services"]["prometheus"]["network_mode"]).removeprefix("service:")


def streams_of(device: str) -> int:
    each = next(each for each in plan.DEVICES if each.id == device)
    return len(each.addresses) * (1 + each.udp)


@pytest.mark.timeout(600)
def test_the_site_comes_up_flows_and_is_cut_on_both_hosts(tmp_path: Path) -> None:
    def body() -> None:
        with Composed(tmp_path) as site:
            site.up()
            for name, service in site.services.items():
                if "healthcheck" in service:
                    site.until(lambda name=name: site.healthy(name), lambda name=name: f"{name} is healthy")
            for each in plan.DEVICES:
                count = streams_of(each.id)
                site.until(lambda each=each, count=count: flows(site, each.id, count), lambda: heard(site))
            assert all(set(on(site, host, admitted)) >= CAM_1 for host in ("gateway-host", "appserver-host"))
            metrics = scrape(site)
            assert 'ragate_agent_attached{agent="app-server"} 1.0' in metrics
            assert f'ragate_devices{{standing="trusted"}} {len(plan.DEVICES)}.0' in metrics

            site.ask("devices", "tell", "cam-1", "tampered")
            for host in ("gateway-host", "appserver-host"):
                site.until(lambda host=host: on(site, host, tombstones) >= CAM_1, lambda: heard(site))
                assert not CAM_1 & set(on(site, host, admitted))
            site.until(lambda: still(site, "cam-1"), lambda: heard(site))
            assert site.ask("verifier", "show")["judged"]["cam-1"]["FAILED_ATTEST"]
            assert flows(site, "cam-2", 1), "the others go on"
            dead = site.ask("devices", "show")["cam-1"]
            assert dead["state"] == "tampered"
            assert dead["trouble"] == "", "what failed still reaches its verifier"
            assert not any(each["connected"] for each in dead["streams"] if each["way"].startswith("tcp"))

            site.ask("devices", "tell", "cam-1", "genuine")
            site.until(lambda: flows(site, "cam-1", streams_of("cam-1")), lambda: heard(site))
            ended = {name: site.stop(name) for name in ("agent", "gateway", "devices", "verifier", "appserver")}
            assert ended == dict.fromkeys(ended, 0), site.logs()

    in_namespaces(body, CHILD_SECONDS)
