"""Posted verdicts: the site whose relying party posts over REST and gRPC, and one load on it.

What must not live here: sending (a process of its own does, in the verifier's namespace).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.simulate.child import command
from gateway.simulate.keys import Keys
from gateway.simulate.namespaces import Network
from tests.bench import site as sites
from tests.bench.site import _BOOK, CLIENT_CPU, TICKS, VERIFIERS, BenchError, Gateway, Site, address, device_name
from tests.posting import Authority, key_for, public_pem

HOST = "10.77.2.1"
PLACES = {"rest": f"{HOST}:8443", "rpc": f"{HOST}:8444"}
LOAD_SECONDS = 240.0

_SETTINGS = """\
journal: var/journal.db
console: {listen: 127.0.0.1:8080, hosts: []}
operator: {socket: var/operator.sock, group: null}
doors:
  sediment: {listen: ["10.77.2.1:8000"], peers: [10.77.2.2]}
  rest:
    listen: "10.77.2.1:8443"
    certificate: gateway.pem
    key: gateway.key
    client_ca: site-ca.pem
    limits: {connections: 2048, connections_per_peer: 4096, idle_seconds: 600s}
  rpc: {listen: "10.77.2.1:8444", certificate: gateway.pem, key: gateway.key, client_ca: site-ca.pem}
sources:
  - {name: verifier, format: sediment, public_key: verifier.pem, verifier_id: RAP_Server, peers: [10.77.2.2]}
  - name: rp
    format: ragate
    proof: both
    keys: [{id: k1, algorithm: Ed25519, file: rp-key.pem}]
    certificates: ["dns:rp.example"]
    recovery_passes: 1
    rate: 1000000
targets:
  - {name: gateway, path_gate: nft, lease: 120}
inventory: devices.yaml
book: book.yaml
"""


def make_site(folder: Path, count: int) -> Site:
    """Write a site of so many devices of the posting source."""
    folder.mkdir(mode=0o700)
    keys = Keys.make([])
    keys.write(folder)
    authority = Authority.make(folder)
    authority.issue("gateway", server=HOST)
    authority.issue("rp")
    signing = key_for("bench-rp")
    (folder / "rp-key.pem").write_bytes(public_pem(signing))
    (folder / "rp-signing.key").write_bytes(
        signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    lines = ["devices:"]
    for number in range(count):
        text = address(number)
        quoted = f'"{text}"' if ":" in text else text
        lines.append(
            f"  - id: {device_name(number)}\n    source: rp\n    addresses: [{quoted}]\n    anchor: upstream"
        )
    (folder / "devices.yaml").write_text("\n".join(lines) + "\n")
    (folder / "book.yaml").write_text(_BOOK)
    (folder / "ragate.yaml").write_text(_SETTINGS)
    return Site(folder, count, keys)


def running(
    site: Site, namespace: int, program: Sequence[str] = ("-m", "gateway")
) -> AbstractContextManager[Gateway]:
    """The service on every CPU, as where it is deployed; the sender shares one of them with it."""
    return sites.running(site, namespace, program, sites.EVERY_CPU)


def load(net: Network, gateway: Gateway, door: str, **more: Any) -> dict[str, Any]:
    """Run one load from the verifier's namespace. Raises ``BenchError`` when verdicts were refused."""
    site = gateway.site
    spec = {"folder": str(site.folder), "door": door, "place": PLACES[door], "devices": site.count, **more}
    namespace = net.hosts["verifier"].descriptor
    argv = [sys.executable, "-m", "tests.bench.post_load", json.dumps(spec)]
    before, stolen = gateway.cpu(), _stolen()
    done = subprocess.run(
        command(argv, namespace),
        pass_fds=(namespace,),
        capture_output=True,
        text=True,
        timeout=LOAD_SECONDS,
        preexec_fn=lambda: os.sched_setaffinity(0, CLIENT_CPU),
        check=False,
    )
    if done.returncode:
        raise BenchError(f"the sender ended with {done.returncode}: {done.stderr[-800:]}; {gateway.log_tail()}")
    found: dict[str, Any] = json.loads(done.stdout)
    if sum(found["refused"].values()) > more["verdicts"] * 0.02:
        raise BenchError(f"verdicts were refused: {found['refused']}; the service says: {gateway.log_tail()}")
    found["server_us"] = (gateway.cpu() - before) / more["verdicts"] * 1e6
    found["stolen_seconds"] = _stolen() - stolen
    return found


def _stolen() -> float:
    """Seconds of CPU that the hypervisor gave to others although they were wanted here, since the start."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / TICKS


@contextmanager
def holding(net: Network, gateway: Gateway, door: str, count: int, *, tls: bool) -> Iterator[Held]:
    """So many idle connections while this lasts; at its end ``alive`` says how many were not ended meanwhile."""
    host, _, port = PLACES[door].rpartition(":")
    folder = str(gateway.site.folder) if tls else None
    spec = {"place": [host, int(port)], "sources": VERIFIERS, "count": count, "folder": folder}
    namespace = net.hosts["verifier"].descriptor
    argv = [sys.executable, "-m", "tests.bench.holding", json.dumps(spec)]
    before = gateway.rss()
    with subprocess.Popen(
        command(argv, namespace),
        pass_fds=(namespace,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, CLIENT_CPU),
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            if holder.stdout.readline() != "held\n":
                raise BenchError(f"{count} connections could not be opened; {gateway.log_tail()}")
            held = Held(gateway.rss() - before)
            yield held
            holder.stdin.close()
            held.alive = int(json.loads(holder.stdout.readline())["alive"])
        finally:
            holder.kill()


@dataclass
class Held:
    """Idle connections: bytes that the service took for all of them, and how many it has not ended."""

    took: int
    alive: int = 0


__all__ = ["Held", "holding", "load", "make_site", "running"]
