"""The service beside a cluster: a device that fails brings its profile's documents there, and shows them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.app import baseline
from gateway.config import load
from gateway.sediment.wire import Reason
from tests.app.test_serve import SERVICE, collector, running
from tests.e2e.installed import Installed, written
from tests.fakes.kubernetes import FakeKubernetes
from tests.ports import free_place

__all__ = ["collector"]  # the fixture

PROFILES = Path(__file__).parents[2] / "policies" / "profiles"
KSP = "kubearmorpolicies"


def installed(folder: Path, fake: FakeKubernetes) -> Installed:
    gate = Installed(
        folder,
        devices={"cam-1": ("127.0.77.11",), "cam-2": ("127.0.77.12",)},
        services=[SERVICE],
        target={
            "path_gate": "relay",
            "relay": [{"service": "feed", "listen": written(free_place())}],
        },
        door=free_place(),
        console=free_place(),
    )
    book = yaml.safe_load((folder / "book.yaml").read_text())
    del book["suspect"]
    gate.write("book.yaml", {"profiles": str(PROFILES), **book, "node_default": {"distrusted": "quarantine"}})
    conf = folder / "edge.conf"
    user = {"token": "ours"}
    conf.write_text(
        yaml.safe_dump(
            {
                "current-context": "a",
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
                "clusters": [{"name": "a", "cluster": {"server": fake.url}}],
                "users": [{"name": "a", "user": user}],
            }
        )
    )
    conf.chmod(0o600)
    gate.settings["targets"].append(
        {"name": "edge", "kubernetes": {"kubeconfig": "edge.conf", "namespace": "sediment", "owner": "gw-7"}}
    )
    gate.write("ragate.yaml", gate.settings)
    return gate


@pytest.mark.long
async def test_documents_follow_the_devices_into_a_cluster(tmp_path: Path) -> None:
    fake = FakeKubernetes(tokens={"ours"})
    async with fake.running():
        gate = installed(tmp_path, fake)

        def feeds() -> list[dict[str, Any]]:
            found = [kept.thing for place, kept in fake.objects.items() if "quarantined-feeds" in place[2]]
            return [each["spec"]["file"]["matchDirectories"][0] for each in found]

        async def target() -> dict[str, Any]:
            answer = (await asyncio.to_thread(gate.get, "/v1/devices/cam-1")).json
            return next((each for each in answer["targets"] if each["target"] == "edge"), {})

        async with running(gate) as run, asyncio.timeout(180):
            await run.ready()
            while "objects stored; accepted" not in (await asyncio.to_thread(gate.get, "/readyz")).text:
                await asyncio.sleep(0.05)
            assert feeds() == []
            await asyncio.to_thread(gate.tell, "cam-1", Reason.FAILED_ATTEST)
            while not feeds():
                await asyncio.sleep(0.05)
            assert [each["dir"] for each in feeds()] == ["/srv/feeds/cam-1/"]
            while (shown := await target()).get("state") != "accepted":
                await asyncio.sleep(0.05)
            assert shown["backend"] == "kubernetes"
            assert shown["required"] is False
            assert shown["wanted"] == "quarantine"
            assert shown["verified_at"] is None
            (place,) = [place for place in fake.objects if "quarantined-feeds" in place[2]]
            fake.vanish(place[0], place[2], place[1])
            fake.forget()
            await fake.stop()
            await fake.start()
            while 'ragate_drift_repairs_total{backend="kubernetes"} 1.0' not in (
                metrics := (await asyncio.to_thread(gate.get, "/metrics")).text
            ):
                await asyncio.sleep(0.05)
            assert 'ragate_kubernetes_objects{state="accepted",target="edge"}' in metrics
            assert 'ragate_kubernetes_watching{target="edge"}' in metrics
        assert place in fake.objects, "a stop leaves what stands"
        lines = await asyncio.to_thread(baseline.uninstall, load(gate.config))
        assert any("target edge: everything of ours was deleted" in line for line in lines)
        assert not fake.objects
