"""The service beside a KubeArmor daemon: a device that fails brings its profile's documents with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import yaml

from gateway.app import baseline
from gateway.config import load
from gateway.sediment.wire import Reason
from tests.app.test_serve import SERVICE, collector, running
from tests.e2e.installed import Installed, written
from tests.enforce.test_kubearmor import until
from tests.fakes.kubearmor import FakeKubeArmor
from tests.ports import free_place

__all__ = ["collector"]  # the fixture

PROFILES = Path(__file__).parents[2] / "policies" / "profiles"


def installed(folder: Path, daemon: FakeKubeArmor) -> Installed:
    record = folder / "record"
    record.write_text('{"ActiveLSM": "BPFLSM"}')
    record.chmod(0o600)
    gate = Installed(
        folder,
        devices={"cam-1": ("127.0.77.11",), "cam-2": ("127.0.77.12",)},
        services=[SERVICE],
        target={
            "path_gate": "relay",
            "relay": [{"service": "feed", "listen": written(free_place())}],
            "kubearmor": {
                "address": daemon.address,
                "health": daemon.health,
                "tables": "none",
                "record": str(folder / "record"),
            },
        },
        door=free_place(),
        console=free_place(),
    )
    book = yaml.safe_load((folder / "book.yaml").read_text())
    del book["suspect"]
    gate.write("book.yaml", {"profiles": str(PROFILES), **book, "node_default": {"distrusted": "quarantine"}})
    return gate


async def test_documents_follow_the_devices(tmp_path: Path) -> None:
    daemon = FakeKubeArmor()
    await daemon.start()
    gate = installed(tmp_path, daemon)

    def names() -> list[str]:
        return [name[13:-9] for name in daemon.stored["container"]]

    async with running(gate) as run:
        await run.ready()
        await until(lambda: len(names()) == 9, names)
        assert "quarantined-feeds" not in names()
        await asyncio.to_thread(gate.tell, "cam-1", Reason.FAILED_ATTEST)
        await until(lambda: "quarantined-feeds" in names(), names)
        (feeds,) = (spec for name, spec in daemon.stored["container"].items() if "quarantined-feeds" in name)
        assert [rule["dir"] for rule in feeds["file"]["matchDirectories"]] == ["/srv/feeds/cam-1/"]
        async with asyncio.timeout(60):
            while (
                "documents of profiles verified: 10 documents"
                not in (await asyncio.to_thread(gate.get, "/readyz")).text
            ):
                await asyncio.sleep(0.05)
        targets = (await asyncio.to_thread(gate.get, "/v1/devices/cam-1")).json["targets"]
        assert [(each["backend"], each["required"]) for each in targets] == [("relay", True), ("kubearmor", False)]
        assert "host policy verified" in targets[1]["detail"]
    assert daemon.lost == 0
    assert len(names()) == 10
    lines = await asyncio.to_thread(baseline.uninstall, load(gate.config))
    assert any("deleted on request" in line for line in lines)
    assert daemon.stored["container"] == {}
    await daemon.stop()
