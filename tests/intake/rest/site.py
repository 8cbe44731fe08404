"""A gateway with posting sources of every format, and their senders; the gate is a relay on loopback addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e.installed import Installed, written
from tests.ports import OWN, free_place, free_port
from tests.posting import Authority, Client, client_context, key_for, public_pem

DEVICES = {
    "cam-1": ("127.7.1.1",),
    "cam-2": ("127.7.1.2",),
    "cam-3": ("127.7.1.3",),
    "both": ("127.7.1.4",),
    "cam-4": ("127.7.1.5",),
}

#: Which sources may speak of which device. ``both`` is spoken of by two of different formats.
SPEAKS = {"cam-1": "rp", "cam-2": ["rp", "ear", "cwt", "status"], "cam-3": "other", "cam-4": "rp"}

KEYS = {
    "rp": "Ed25519",
    "other": "Ed25519",
    "ear": "ES256",
    "cwt": "ES384",
    "keylime": "Keylime",
    "strict": "Ed25519",
}


def posting_site(folder: Path, *, rpc: bool = False, **limits: object) -> Installed:
    """The files of one gateway with ``doors.rest`` (and ``doors.rpc``)."""
    site = Installed(
        folder,
        devices=DEVICES,
        services=[
            {"name": "feed", "address": OWN, "port": free_port(OWN), "protocol": "tcp", "path": "routed"},
        ],
        target={"path_gate": "relay", "relay": [{"service": "feed", "listen": written(free_place())}]},
        door=free_place(),
        console=free_place(),
        source={"recovery_passes": 1},
    )
    authority = Authority.make(folder)
    authority.issue("gateway", server=OWN)
    for name in ("rp", "status", "nobody", "strict"):
        authority.issue(name)
    authority.issue("expired", until=-60.0)
    authority.revoke(authority.issue("revoked"))
    foreign = Authority.make(folder, "foreign")
    foreign.issue("stranger")
    for name, kind in KEYS.items():
        (folder / f"{name}-key.pem").write_bytes(public_pem(key_for(name, kind)))
    site.settings["doors"]["rest"] = door(limits)
    if rpc:
        site.settings["doors"]["rpc"] = door({})
    site.settings["sources"] += [
        source("rp", "ragate"),
        source("other", "ragate"),
        source("strict", "ragate", proof="both", certificates=["dns:strict.example"]),
        source("ear", "ear-jwt"),
        source("cwt", "ear-cwt"),
        source("keylime", "keylime", key_id="default"),
        {
            "name": "status",
            "format": "keylime-status",
            "certificates": ["dns:status.example"],
            "recovery_passes": 1,
        },
    ]
    site.write("ragate.yaml", site.settings)
    speaks: dict[str, Any] = {**SPEAKS, "both": ["rp", "ear"]}
    speaks["cam-3"] = ["other", "keylime", "strict"]
    site.write(
        "devices.yaml",
        {
            "devices": [
                {"id": name, "source": speaks[name], "addresses": list(addresses), "anchor": "upstream"}
                for name, addresses in DEVICES.items()
            ]
        },
    )
    return site


def door(limits: dict[str, object]) -> dict[str, Any]:
    """One posting door."""
    made: dict[str, Any] = {
        "listen": written(free_place()),
        "certificate": "gateway.pem",
        "key": "gateway.key",
        "client_ca": "site-ca.pem",
        "client_crl": "site.crl",
    }
    return {**made, "limits": limits} if limits else made


def source(name: str, form: str, key_id: str = "k1", **more: object) -> dict[str, Any]:
    """One source with one key."""
    key = {"id": key_id, "algorithm": KEYS[name], "file": f"{name}-key.pem"}
    return {"name": name, "format": form, "keys": [key], "recovery_passes": 1, **more}


def place_of(site: Installed, door: str = "rest") -> tuple[str, int]:
    """Where a door listens."""
    host, _, port = str(site.settings["doors"][door]["listen"]).rpartition(":")
    return host, int(port)


def client(site: Installed, name: str = "nobody", *, keep: bool = False) -> Client:
    """A sender with the certificate of that name; ``nobody`` is none of the sources."""
    return Client(place_of(site), client_context(site.folder, name), keep=keep)
