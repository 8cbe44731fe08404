"""The measured site: namespaces, files for any number of devices, and the real service as a process.

What lives here: making it, starting and ending it, and reading what it used. What must not: what is sent to it.

Gateway, devices, verifier and app server stand in network namespaces of their own, wired through the gateway. The
journal lies on a disk. Nothing outside a scratch folder is touched.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Self

from gateway.simulate.child import command
from gateway.simulate.keys import Keys
from gateway.simulate.namespaces import Network, Segment
from gateway.simulate.sockets import Peer
from gateway.simulate.verifier import VERIFIER_ID

DATA_PORT = 8001
DOOR = Peer("10.77.2.1", 8000)
APP4, APP6 = "10.77.3.2", "fd77:3::2"
VERIFIERS = tuple(f"10.77.2.{n}" for n in range(2, 18))
"""Addresses of the sender: each has 28,000 ports, and a port rests for a minute after use."""
MAX_AGE = 900
LEASE = 120
START_SECONDS = 60.0
TICKS = os.sysconf("SC_CLK_TCK")
FIRST4 = int(IPv4Address("10.128.0.0"))
FIRST6 = int(IPv6Address("fd88::"))
LIVE_DEVICES = 60
"""The first devices of every site stand on the devices' wire, so that real packets can come from them."""

_THREADS = ("loop", "log", "checkpoint", "journal", "guard", "sockets", "cut", "apply")
_CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU: tuple[int, ...] = (_CPUS[0],)
CLIENT_CPU: tuple[int, ...] = (_CPUS[-1],)
EVERY_CPU: tuple[int, ...] = tuple(_CPUS)


class BenchError(Exception):
    """A measurement cannot be made here; the text says why."""


def device_name(number: int) -> str:
    """The id of device ``number``."""
    return f"d{number:06d}"


def address(number: int) -> str:
    """Its one address: every fourth device has an IPv6 one."""
    if number < LIVE_DEVICES:
        return f"fd77:1::{number + 256:x}" if number % 4 == 3 else f"10.77.1.{number + 10}"
    if number % 4 == 3:
        return str(IPv6Address(FIRST6 + number))
    return str(IPv4Address(FIRST4 + number))


def disk_folder() -> Path:
    """A folder for scratch files on a disk, not in memory. Raises ``BenchError``."""
    for place in map(Path, (os.environ.get("TMPDIR", "/tmp"), "/var/tmp", ".")):
        if place.is_dir() and os.access(place, os.W_OK) and _filesystem(place) not in {"tmpfs", "ramfs", "?"}:
            return place.resolve()
    raise BenchError("no writable folder on a disk was found (TMPDIR, /var/tmp, the working directory)")


def _filesystem(path: Path) -> str:
    best, kind = "", "?"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, filesystem, *_ = line.split()
        if str(path.resolve()).startswith(point) and len(point) >= len(best):
            best, kind = point, filesystem
    return kind


@contextmanager
def network() -> Iterator[Network]:
    """Gateway, devices, verifier and app server on wires of their own."""
    live = [address(number) for number in range(LIVE_DEVICES)]
    segments = [
        Segment.of(
            "devices",
            ["10.77.1.1/24", "fd77:1::1/64"],
            [f"{one}/64" if ":" in one else f"{one}/24" for one in live],
        ),
        Segment.of("verifier", ["10.77.2.1/24"], [f"{one}/24" for one in VERIFIERS]),
        Segment.of("appserver", ["10.77.3.1/24", "fd77:3::1/64"], [f"{APP4}/24", f"{APP6}/64"]),
    ]
    with Network("gateway", segments) as made:
        yield made


@dataclass
class Site:
    """The files of one site of ``count`` devices. ``last`` is each device's newest issued-at so far."""

    folder: Path
    count: int
    keys: Keys
    last: dict[int, int] = field(default_factory=dict)
    phase: dict[int, int] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, count: int, *, lease: float = LEASE, max_age: int = MAX_AGE) -> Site:
        """Write keys, inventory, book and settings into ``folder``, which must not exist."""
        folder.mkdir(mode=0o700)
        keys = Keys.make(map(device_name, range(count)))
        keys.write(folder)
        (folder / "devices.yaml").write_text(_inventory(count))
        (folder / "book.yaml").write_text(_BOOK)
        peers = "10.77.2.0/24"
        (folder / "ragate.yaml").write_text(
            _SETTINGS.format(door=DOOR, verifier=VERIFIER_ID.decode(), peers=peers, lease=lease, max_age=max_age)
        )
        return cls(folder, count, keys)

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.folder / "var" / "journal.db"


def _inventory(count: int) -> str:
    lines = ["hmac_keys: devices.keys", "devices:"]
    for number in range(count):
        text = address(number)
        quoted = f'"{text}"' if ":" in text else text
        lines.append(
            f"  - id: {device_name(number)}\n    source: verifier\n    addresses: [{quoted}]\n    anchor: upstream"
        )
    return "\n".join(lines) + "\n"


_BOOK = "node_default: admitted\nservices:\n" + "".join(
    f'  - {{name: {name}, address: "{host}", port: {DATA_PORT}, protocol: {protocol}, path: routed}}\n'
    for name, host, protocol in (
        ("feed", APP4, "tcp"),
        ("feed-udp", APP4, "udp"),
        ("feed6", APP6, "tcp"),
        ("feed6-udp", APP6, "udp"),
    )
)

_SETTINGS = """\
journal: var/journal.db
console: {{listen: 127.0.0.1:8080, hosts: []}}
operator: {{socket: var/operator.sock, group: null}}
doors:
  sediment:
    listen: ["{door}"]
    peers: ["{peers}"]
sources:
  - name: verifier
    format: sediment
    public_key: verifier.pem
    verifier_id: {verifier}
    peers: ["{peers}"]
    max_age: {max_age}
targets:
  - {{name: gateway, path_gate: nft, lease: {lease}}}
inventory: devices.yaml
book: book.yaml
"""


class Gateway:
    """One running service. ``ready_seconds``: from starting the process to its first ready answer."""

    def __init__(
        self,
        site: Site,
        namespace: int,
        program: Sequence[str] = ("-m", "gateway"),
        cpus: Sequence[int] = SERVER_CPU,
    ) -> None:
        self.site = site
        self._console = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._console.getsockname()[1]
        fd = self._console.fileno()
        argv = [sys.executable, *program, "serve", "--config", str(site.folder / "ragate.yaml")]
        argv += ["--listen-fd", str(fd)]
        began = time.monotonic()
        with (site.folder / "ragate.log").open("ab") as log:
            self._process = subprocess.Popen(
                command(argv, namespace), stdout=log, stderr=log, pass_fds=(fd, namespace)
            )
        self.pid = self._process.pid
        os.sched_setaffinity(self.pid, cpus)
        # A descriptor of our own would keep the listener alive behind the service's back.
        self._console.close()
        try:
            self._wait_ready(began + START_SECONDS)
        except BaseException:
            self.kill()
            raise
        self.ready_seconds = time.monotonic() - began

    def _wait_ready(self, until: float) -> None:
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise BenchError(f"the service ended with {self._process.returncode}: {self.log_tail()}")
            try:
                if self.get("/readyz")["ready"]:
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.01)
        raise BenchError(f"the service was not ready within {START_SECONDS:.0f} s")

    def log_tail(self) -> str:
        """The end of what it has logged."""
        return (self.site.folder / "ragate.log").read_text(errors="replace")[-1_500:]

    def get(self, path: str) -> Any:
        """Ask the console."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2.0)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def cpu(self) -> float:
        """Seconds of CPU used so far, user and system, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def threads(self) -> dict[str, float]:
        """Seconds of CPU used so far by thread. Threads are named by the order in which the service starts them."""
        used: dict[str, float] = {}
        for number, tid in enumerate(sorted(map(int, os.listdir(f"/proc/{self.pid}/task")))):
            name = _THREADS[number] if number < len(_THREADS) else "others"
            try:
                seconds = int(Path(f"/proc/{self.pid}/task/{tid}/schedstat").read_text().split()[0]) / 1e9
            except FileNotFoundError:
                continue
            used[name] = used.get(name, 0.0) + seconds
        return used

    def rss(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """An orderly stop, or kill -9 after ten seconds."""
        self._process.terminate()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.stop()


@contextmanager
def running(
    site: Site, namespace: int, program: Sequence[str] = ("-m", "gateway"), cpus: Sequence[int] = SERVER_CPU
) -> Iterator[Gateway]:
    """A service on an empty path gate and an empty journal."""
    forget(site, namespace)
    with Gateway(site, namespace, program, cpus) as gateway:
        yield gateway
    forget(site, namespace)


def forget(site: Site, namespace: int) -> None:
    """Remove the journal and everything in nftables of this namespace."""
    shutil.rmtree(site.folder / "var", ignore_errors=True)
    site.last.clear()
    site.phase.clear()
    inside(namespace, "nft", "flush", "ruleset")


def inside(namespace: int, program: str, *arguments: str) -> str:
    """Run a system tool in a namespace. Raises ``BenchError``."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise BenchError(f"the program {program} is not installed")
    done = subprocess.run(
        command([path, *arguments], namespace), pass_fds=(namespace,), capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise BenchError(f"{program} {' '.join(arguments)}: {done.stderr.strip()[:500]}")
    return done.stdout
