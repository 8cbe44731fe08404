from __future__ import annotations

from pathlib import Path

import yaml

from gateway.simulate.ground import loopback_ground
from gateway.simulate.site import Site
from gateway.simulate.sockets import Peer

CONSOLE = Peer("127.0.0.1", 8080)


def test_files_are_private_and_belong_together() -> None:
    with loopback_ground("a test") as ground:
        site = Site.build(ground, CONSOLE)
        files = {path.name: path for path in ground.folder.iterdir() if path.is_file()}
        assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o600}
        settings = yaml.safe_load(site.config.read_text())
        for named in (settings["inventory"], settings["book"], settings["sources"][0]["public_key"]):
            assert named in files
        inventory = yaml.safe_load(files["devices.yaml"].read_text())
        assert inventory["hmac_keys"] in files
        assert [device["id"] for device in inventory["devices"]] == list(site.devices)


def test_the_gateway_is_told_what_the_parties_do() -> None:
    with loopback_ground("a test") as ground:
        site = Site.build(ground, CONSOLE)
        settings = yaml.safe_load(site.config.read_text())
        assert settings["doors"]["sediment"]["listen"] == [str(site.verifier.consumer)]
        assert settings["doors"]["sediment"]["peers"] == [f"{site.verifier.source}/32"]
        (target,) = settings["targets"]
        dialled = {str(link.route.peer) for device in site.devices.values() for link in device.links}
        assert {route["listen"] for route in target["relay"]} == dialled
        book = yaml.safe_load(Path(ground.folder, "book.yaml").read_text())
        services = {Peer(service["address"], service["port"]) for service in book["services"]}
        assert services == {entrance.server for entrance in ground.entrances}


def test_every_device_has_a_stream_from_each_of_its_addresses() -> None:
    with loopback_ground("a test") as ground:
        site = Site.build(ground, CONSOLE)
        for device in site.devices.values():
            assert {link.route.source for link in device.links} == set(device.addresses)
