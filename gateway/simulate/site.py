"""One surrogate site: the parties on their ground, and the files that the gateway is started with.

What lives here: putting keys, devices, verifier, app server and configuration together. What must not: the
story told with them, and running the gateway.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gateway.simulate.appserver import SurrogateAppServer
from gateway.simulate.device import FIRMWARE_BYTES, Route, SurrogateDevice
from gateway.simulate.ground import Ground
from gateway.simulate.keys import Keys, write_private
from gateway.simulate.sockets import Peer, family_of
from gateway.simulate.verifier import VERIFIER_ID, SurrogateVerifier

MAX_AGE = 6
"""Seconds for which a pass counts. Short, so that a silent device lapses while a person watches."""

RECOVERY_PASSES = 2
"""Passes that a failed device owes, the second issued later than the first (default for SEDIMENT)."""

LEASE = 120
"""Seconds for which an admission may stand without a living gateway (the product's default)."""

_ATTESTATION_PORT = 8100
"""Where SEDIMENT's verifier listens for devices."""


@dataclass(frozen=True)
class Site:
    """The parties, ready to act. ``config`` is the path of ``ragate.yaml``, ``console`` where it will answer."""

    ground: Ground
    keys: Keys
    devices: Mapping[str, SurrogateDevice]
    verifier: SurrogateVerifier
    appserver: SurrogateAppServer
    config: Path
    console: Peer

    @classmethod
    def build(cls, ground: Ground, console: Peer) -> Site:
        """Make keys and parties and write the gateway's files into the ground's folder. Raises ``OSError``."""
        keys = Keys.make(plan.id for plan in ground.devices)
        devices = {plan.id: _device(ground, plan.id, keys) for plan in ground.devices}
        verifier = SurrogateVerifier(
            signing=keys.signing,
            keys=keys.hmac,
            references={device.id: device.firmware for device in devices.values()},
            consumer=ground.door,
            sockets=ground.sockets["verifier"],
            source=ground.verifier,
        )
        config = _write_files(ground, keys, console)
        return cls(ground, keys, devices, verifier, SurrogateAppServer(keys.hmac), config, console)

    async def open_appserver(self) -> None:
        """Let the app server listen on every entrance. Raises ``OSError``."""
        peers = [entrance.server for entrance in self.ground.entrances]
        udp = any(plan.udp for plan in self.ground.devices)
        await self.appserver.open(peers, self.ground.sockets["appserver"], udp=udp)


def _device(ground: Ground, name: str, keys: Keys) -> SurrogateDevice:
    plan = next(plan for plan in ground.devices if plan.id == name)
    device = SurrogateDevice(
        id=name,
        addresses=plan.addresses,
        key=keys.hmac[name],
        firmware=secrets.token_bytes(FIRMWARE_BYTES),
        sockets=ground.sockets["devices"],
    )
    for address in plan.addresses:
        for entrance in ground.entrances:
            if entrance.dial.family == family_of(address):
                device.add_stream(Route(address, entrance.dial))
                if plan.udp:
                    device.add_stream(Route(address, entrance.dial, udp=True))
    return device


def _write_files(ground: Ground, keys: Keys, console: Peer) -> Path:
    folder = ground.folder
    (folder / "var").mkdir(mode=0o700)
    keys.write(folder)
    _write_yaml(folder / "devices.yaml", _inventory(ground))
    _write_yaml(folder / "book.yaml", _book(ground))
    _write_yaml(folder / "ragate.yaml", _settings(ground, console))
    return folder / "ragate.yaml"


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    write_private(path, yaml.safe_dump(dict(content), sort_keys=False).encode())


def _inventory(ground: Ground) -> Mapping[str, Any]:
    # In the namespaces a wire of their own vouches for the devices' addresses; on loopback nothing does.
    anchor = "upstream" if ground.gate == "nft" else "none"
    return {
        "hmac_keys": "devices.keys",
        "devices": [
            {
                "id": plan.id,
                "source": "verifier",
                "addresses": list(plan.addresses),
                "anchor": anchor,
                "labels": {"class": plan.kind},
            }
            for plan in ground.devices
        ],
    }


#: The shipped profiles, where the project's own folder is at hand; the built-in ones do without.
_PROFILES = Path(__file__).parents[2] / "policies" / "profiles"


def _book(ground: Ground) -> Mapping[str, Any]:
    udp = any(plan.udp for plan in ground.devices)
    services = [
        {
            "name": entrance.name if protocol == "tcp" else f"{entrance.name}-udp",
            "address": entrance.server.host,
            "port": entrance.server.port,
            "protocol": protocol,
            "path": "routed" if ground.gate == "nft" else "relayed",
            "profiles": ["admitted"],
        }
        for entrance in ground.entrances
        for protocol in (("tcp", "udp") if udp else ("tcp",))
    ]
    verifier = {
        "name": "verifier",
        "address": ground.verifier,
        "port": _ATTESTATION_PORT,
        "protocol": "tcp",
    }
    profiles: dict[str, Any] = {"node_default": {"trusted": "admitted", "suspect": "probation"}}
    if _PROFILES.is_dir():
        profiles = {
            "profiles": str(_PROFILES),
            "node_default": profiles["node_default"] | {"distrusted": "quarantine"},
        }
    return {
        "services": services,
        "corridor": [verifier],
        "always_allowed": [],
        "devices": {},
        **profiles,
    }


def _settings(ground: Ground, console: Peer) -> Mapping[str, Any]:
    target: dict[str, Any] = {"name": "gateway", "required": True, "path_gate": ground.gate, "lease": LEASE}
    if ground.gate == "relay":
        target["relay"] = [
            {"service": entrance.name, "listen": str(entrance.dial)} for entrance in ground.entrances
        ]
    return {
        "journal": "var/journal.db",
        "console": {"listen": str(console), "hosts": []},
        "operator": {"socket": "var/operator.sock", "group": None},
        "doors": {
            "sediment": {
                "listen": [str(ground.door)],
                "peers": [f"{ground.verifier}/32"],
                "forward_to": None,
            }
        },
        "sources": [
            {
                "name": "verifier",
                "format": "sediment",
                "public_key": "verifier.pem",
                "verifier_id": VERIFIER_ID.decode(),
                "peers": [ground.verifier],
                "max_age": MAX_AGE,
                "grace": MAX_AGE,
                "recovery_passes": RECOVERY_PASSES,
            }
        ],
        "targets": [target],
        "inventory": "devices.yaml",
        "book": "book.yaml",
    }
