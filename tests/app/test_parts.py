"""Which parts are made for a device of which several sources of different kinds speak."""

from __future__ import annotations

from pathlib import Path

from gateway.app.parts import doors, sources
from gateway.config import load
from gateway.core.model import DeviceId, SourceName
from tests.fakes.admission import FakeAdmission
from tests.fakes.clock import ManualClock
from tests.intake.rest.site import posting_site


def test_sediment_verifies_a_device_wherever_the_inventory_lists_it(tmp_path: Path) -> None:
    site = posting_site(tmp_path)
    site.write(
        "devices.yaml",
        {
            "hmac_keys": "keys.txt",
            "devices": [
                {"id": "cam-1", "source": ["rp", "verifier"], "addresses": ["127.7.1.1"]},
                {"id": "cam-2", "source": "rp", "addresses": ["127.7.1.2"]},
            ],
        },
    )
    (site.folder / "keys.txt").write_text(f"cam-1 {site.keys.hmac['cam-1'].hex()}\n")
    (site.folder / "keys.txt").chmod(0o600)
    config = load(site.config)
    assert {device: source.name for device, source in sources.speaking(config).items()} == {
        DeviceId("cam-1"): SourceName("verifier")
    }
    assert set(sources.authenticators(config)) == {"verifier"}
    assert set(sources.openers(config)) == {"rp", "other", "strict", "ear", "cwt", "keylime", "status"}


def test_without_a_door_for_alerts_nobody_can_come_to_it(tmp_path: Path) -> None:
    site = posting_site(tmp_path)
    del site.settings["doors"]["sediment"]
    site.settings["sources"] = [each for each in site.settings["sources"] if each["format"] != "sediment"]
    site.write("ragate.yaml", site.settings)
    config = load(site.config)
    made = doors.door(config, FakeAdmission(), ManualClock(), lambda _: None)
    assert made.addresses == []
    assert made.backlog() == 0
