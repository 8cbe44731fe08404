"""Everything that the containers of compose/ find in their volumes: keys, certificates, inventory, book, settings.

What lives here: making what is missing and handing each party its own. What must not: running any of them. May be
repeated: keys are made once and kept with the authority, everything else is written anew, certificates are renewed
when they are due.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gateway.certs import Folder, Role
from gateway.simulate import plan
from gateway.simulate.device import FIRMWARE_BYTES
from gateway.simulate.ground import DATA_PORT
from gateway.simulate.keys import Keys, read_device_keys, read_signing_key
from gateway.simulate.verifier import VERIFIER_ID

GATEWAY, AGENT, AUTHORITY = "gateway", "agent", "authority"
PARTIES = ("verifier", "devices", "appserver")
"""Folders, each of them a volume: of the gateway, the agent, the authority, and of the simulated parties."""

STATE = "/srv/state"
"""Where gateway and agent keep what they must remember, each in a volume of its own."""

SOCKET = "/run/ragate/operator.sock"
"""The gateway's operator socket."""

GATEWAY_NAME = "edge-1"


def prepare(into: Path, readers: int | None = None) -> None:
    """Fill the folders below ``into``; they must exist or be possible to make.

    ``readers``: the group that the simulated parties run as; it may read their folders. None: nobody else may.
    Raises ``OSError``, ``ValueError`` or the authority's declared errors.
    """
    for name in (GATEWAY, AGENT, AUTHORITY, *PARTIES):
        (into / name).mkdir(exist_ok=True)
    keys = _keys(into / AUTHORITY)
    firmware = _firmware(into / AUTHORITY)
    made = keys.files()
    secret, own = made["devices.keys"], {name: ["devices.keys"] for name in PARTIES}
    own["verifier"].append("verifier.key")
    for party, names in own.items():
        for name in names:
            _write(into / party / name, made[name], readers)
    for party in ("verifier", "devices"):
        for device, image in firmware.items():
            _write(into / party / f"{device}.firmware", image, readers)
    for party in PARTIES:
        _give(into / party, readers, 0o750)
    for name in (GATEWAY, AGENT):
        _certificates(into / AUTHORITY, into / name)
        _give(into / name, None, 0o700)
    gateway = into / GATEWAY
    _write(gateway / "devices.keys", secret)
    _write(gateway / "verifier.pem", made["verifier.pem"])
    _yaml(gateway / "devices.yaml", inventory())
    _yaml(gateway / "book.yaml", book())
    _yaml(gateway / "ragate.yaml", settings())
    _yaml(into / AGENT / "agent.yaml", agent())


def _keys(folder: Path) -> Keys:
    """Those that were made before, or new ones, which are kept whole or not at all."""
    _give(folder, None, 0o700)
    signing, devices = folder / "verifier.key", folder / "devices.keys"
    if not (signing.exists() and devices.exists()):
        made = Keys.make(each.id for each in plan.DEVICES).files()
        _write(devices, made["devices.keys"])
        _write(signing, made["verifier.key"])
    return Keys(read_signing_key(signing), read_device_keys(devices))


def _firmware(folder: Path) -> Mapping[str, bytes]:
    images = {}
    for each in plan.DEVICES:
        file = folder / f"{each.id}.firmware"
        if not file.exists():
            _write(file, secrets.token_bytes(FIRMWARE_BYTES))
        images[each.id] = file.read_bytes()
    return images


def _certificates(authority: Path, into: Path) -> None:
    """A certificate for the party of this folder, renewed when due, with its key, the authority and the list."""
    now = time.time()
    folder = Folder(authority / "certs")
    if not (folder.authority.exists() and folder.revocations.exists()):
        folder.path.mkdir(mode=0o700, exist_ok=True)
        for left in folder.path.iterdir():  # of an authority that was not finished: nothing was issued by it
            left.unlink()
        folder.init("compose", now)
    holders = {GATEWAY: (Role.GATEWAY, GATEWAY_NAME, [plan.LINK.host]), AGENT: (Role.AGENT, plan.AGENT, [])}
    role, name, hosts = holders[into.name]
    if not folder.certificate(role, name).exists():
        for one in folder.register():
            if (one.role, one.name, one.revoked) == (role, name, 0.0):
                folder.revoke(role, name, now)  # registered, and then never written
                break
        folder.issue(role, name, hosts, now)
    folder.renew(now)
    for file in (folder.authority, folder.revocations, folder.certificate(role, name), folder.key(role, name)):
        _write(into / file.name, file.read_bytes())


def inventory() -> Mapping[str, Any]:
    """The gateway's devices. Nothing but the devices' container stands on their network and it may not forge."""
    return {
        "hmac_keys": "devices.keys",
        "devices": [
            {
                "id": each.id,
                "source": "verifier",
                "addresses": list(each.addresses),
                "anchor": "upstream",
                "labels": {"class": each.kind},
            }
            for each in plan.DEVICES
        ],
    }


def book() -> Mapping[str, Any]:
    """Feeds for admitted devices, attestation for every device."""
    feeds = [
        {"name": name, "address": address, "port": DATA_PORT, "protocol": protocol, "path": "routed"}
        for name, address, protocol in _feeds()
    ]
    attestation = [
        {"name": name, "address": address, "port": plan.ATTESTATION_PORT, "protocol": "tcp"}
        for name, address in zip(("verifier", "verifier6"), plan.VERIFIER, strict=True)
    ]
    return {"services": feeds, "corridor": attestation, "node_default": "admitted", "suspect": "deny"}


def _feeds() -> list[tuple[str, str, str]]:
    four, six = plan.APPSERVER
    return [("feed", four, "tcp"), ("feed6", six, "tcp"), ("feed-udp", four, "udp"), ("feed6-udp", six, "udp")]


def settings() -> Mapping[str, Any]:
    """``ragate.yaml`` of the gateway."""
    return {
        "journal": f"{STATE}/journal.db",
        "console": {"listen": str(plan.CONSOLE)},
        "operator": {"socket": SOCKET},
        "doors": {"sediment": {"listen": [str(plan.DOOR)]}},
        "sources": [
            {
                "name": "verifier",
                "format": "sediment",
                "public_key": "verifier.pem",
                "verifier_id": VERIFIER_ID.decode(),
                "peers": [plan.VERIFIER[0]],
                "max_age": plan.MAX_AGE,
                "grace": plan.MAX_AGE,
            }
        ],
        "certificates": _material(Role.GATEWAY, GATEWAY_NAME),
        "agents": {"listen": str(plan.LINK)},
        "targets": [
            {"name": "gateway", "path_gate": "nft"},
            {"name": "app-server", "agent": plan.AGENT, "services": [name for name, _, _ in _feeds()]},
        ],
        "inventory": "devices.yaml",
        "book": "book.yaml",
    }


def agent() -> Mapping[str, Any]:
    """``agent.yaml`` of the app server's host."""
    return {
        "gateway": str(plan.LINK),
        "certificates": _material(Role.AGENT, plan.AGENT),
        "path_gate": "nft",
        "state": STATE,
    }


def _material(role: Role, name: str) -> Mapping[str, str]:
    stem = f"{role.value}-{name}"
    return {"authority": "ca.pem", "certificate": f"{stem}.pem", "key": f"{stem}.key", "revoked": "ca.crl"}


def _yaml(path: Path, content: Mapping[str, Any]) -> None:
    _write(path, yaml.safe_dump(dict(content), sort_keys=False).encode())


def _write(path: Path, data: bytes, readers: int | None = None) -> None:
    """Write whole or not at all, never readable by others before its rights are set."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    _give(fresh, readers, 0o600 if readers is None else 0o640)
    fresh.replace(path)


def _give(path: Path, readers: int | None, mode: int) -> None:
    if readers is not None:
        os.chown(path, -1, readers)
    path.chmod(mode)
