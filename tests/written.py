"""A configuration without mistakes: its texts, the folder they stand in, and how a test changes them."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.core.errors import ConfigError

RAGATE = """\
journal: var/journal.db
console: {listen: "127.0.0.1:8080", hosts: [gateway.example]}
operator: {socket: var/operator.sock, group: ops}
doors:
  sediment:
    listen: ["0.0.0.0:8000", "[::]:8000"]
    peers: [10.77.2.0/24]
    forward_to: relying.example:8000
    limits: {connections: 100, connections_per_peer: 8, frame_seconds: 2.5, queue: 50}
sources:
  - name: verifier
    format: sediment
    public_key: verifier.pem
    verifier_id: RAP_Server
    peers: [10.77.2.2]
    max_age: 15m
    grace: 300
    recovery_passes: 3
targets:
  - name: gateway
    required: true
    path_gate: nft
    lease: 2m
    kubearmor: {address: "127.0.0.1:32767", health: "127.0.0.1:32766", tables: read, record: /run/record.json}
inventory: devices.yaml
book: policies/book.yaml
"""

DEVICES = """\
hmac_keys: devices.keys
devices:
  - id: cam-1
    source: verifier
    addresses: [10.77.1.11, "fd77:1::11"]
    anchor: upstream
    labels: {class: camera}
  - id: cam-2
    source: verifier
    addresses: ["fd77:1:0:2::/64"]
    hmac_key_file: cam-2.key
"""

BOOK = """\
services:
  - {name: feed, address: 10.77.3.2, port: 8001, protocol: tcp, path: routed, profiles: [admitted]}
corridor:
  - {name: verifier, address: 10.77.2.2, port: 8100, protocol: tcp}
always_allowed: [10.77.9.0/24]
node_default: admitted
suspect: probation
devices: {cam-1: probation}
"""


def key(name: str) -> bytes:
    return sha256(name.encode()).digest()


@pytest.fixture(scope="session")
def public_pem() -> bytes:
    public = rsa.generate_private_key(public_exponent=65_537, key_size=2_048).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def put(path: Path, data: bytes | str, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    path.chmod(mode)


@pytest.fixture
def site(tmp_path: Path, public_pem: bytes) -> Path:
    """A folder with a configuration that has no mistake and no finding but cam-2's missing anchor."""
    put(tmp_path / "ragate.yaml", RAGATE)
    put(tmp_path / "devices.yaml", DEVICES)
    put(tmp_path / "devices.keys", f"# keys\n\ncam-1 {key('cam-1').hex()}\n")
    put(tmp_path / "cam-2.key", key("cam-2"))
    put(tmp_path / "policies/book.yaml", BOOK)
    put(tmp_path / "verifier.pem", public_pem)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} must stand once in {path.name}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def error_of(read: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        read()
    return str(caught.value)
