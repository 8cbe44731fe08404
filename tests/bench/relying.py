"""DATA through the relying party's port: devices that send, the app server, and the service in between.

What must not live here: promises, the two programs at the ends.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.core.acceptance import WINDOW_FUTURE
from gateway.sediment.compose import compose_message
from gateway.sediment.wire import MessageId, Reason
from gateway.simulate.child import command
from gateway.simulate.load import sign_bodies
from gateway.simulate.namespaces import Network
from tests.bench.alerts import percentile
from tests.bench.data_load import HERE, PATIENCE
from tests.bench.site import (
    APP4,
    DATA_PORT,
    DOOR,
    VERIFIERS,
    BenchError,
    Gateway,
    Site,
    address,
    device_name,
    running,
)

_SETTINGS = """\
  relying:
    listen: {here}
    app_server: feed
    verifier: {verifier}:8100
    connections: {connections}
"""


@dataclass(frozen=True)
class Carried:
    """What came of one run: DATA accepted a second, what became of the others, milliseconds (as fast as answers
    come: from sending; paced: from the due moment), microseconds of CPU for each, bytes at the app server."""

    rate: float
    accepted: int
    other: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    server_us: float
    server_share: float
    client_us: float
    arrived: int


def site_of(folder: Path, count: int, connections: str) -> Site:
    """A site whose DATA is carried by us."""
    site = Site.make(folder, count)
    book, settings = folder / "book.yaml", folder / "ragate.yaml"
    first = f'name: feed, address: "{APP4}", port: {DATA_PORT}, protocol: tcp, path: '
    book.write_text(book.read_text().replace(f"{first}routed", f"{first}relayed", 1))
    section = _SETTINGS.format(here=f"{HERE[0]}:{HERE[1]}", verifier=VERIFIERS[0], connections=connections)
    settings.write_text(settings.read_text().replace("sources:\n", f"{section}sources:\n", 1))
    return site


class Carrying:
    """A service that carries the DATA of connected devices, both ends running."""

    def __init__(self, gateway: Gateway, devices: subprocess.Popen[bytes], sink: subprocess.Popen[bytes]) -> None:
        self.gateway = gateway
        self._devices = devices
        self._sink = sink

    def full(self, seconds: float, most: int) -> Carried:
        """Every device sends as fast as it is answered. Raises ``BenchError``."""
        return self._run(f"full {seconds} {most}")

    def paced(self, rate: float, seconds: float) -> Carried:
        """So many messages a second on a fixed clock. Raises ``BenchError``."""
        return self._run(f"paced {rate} {seconds}")

    def idle(self, number: int) -> float:
        """Open connections that send nothing; bytes of memory more when all are held. Raises ``BenchError``."""
        before, had = self.gateway.rss(), self._open()
        self._ask(f"idle {number}")
        until = time.monotonic() + PATIENCE
        while (found := self._open() - had) < number:
            if time.monotonic() > until:
                raise BenchError(f"{found} of {number} idle connections are held: {self.gateway.log_tail()}")
            time.sleep(0.1)
        return self.gateway.rss() - before

    def _open(self) -> int:
        return _metric(self.gateway, 'ragate_queue_depth{queue="relying_connections"} ')

    def _run(self, order: str) -> Carried:
        cpu, arrived = self.gateway.cpu(), self._arrived()
        told = self._ask(order)
        cpu = self.gateway.cpu() - cpu
        time.sleep(0.5)  # what is on its way to the app server
        done = told["accepted"] + told["other"]
        times = sorted(told["ms"])
        return Carried(
            told["accepted"] / told["seconds"],
            told["accepted"],
            told["other"],
            percentile(times, 50),
            percentile(times, 99),
            told["max_ms"],
            cpu / max(done, 1) * 1e6,
            cpu / told["seconds"],
            told["client_us"],
            self._arrived() - arrived,
        )

    def _arrived(self) -> int:
        assert self._sink.stdin is not None
        assert self._sink.stdout is not None
        self._sink.stdin.write(b"?\n")
        self._sink.stdin.flush()
        return int(self._sink.stdout.readline())

    def _ask(self, order: str) -> dict[str, Any]:
        assert self._devices.stdin is not None
        self._devices.stdin.write(f"{order}\n".encode())
        self._devices.stdin.flush()
        return heard(self._devices, order)


def heard(devices: subprocess.Popen[bytes], order: str) -> dict[str, Any]:
    """The devices' next line. Raises ``BenchError`` when they failed."""
    assert devices.stdout is not None
    told: dict[str, Any] = json.loads(devices.stdout.readline() or b'{"failed": "they ended"}')
    if "failed" in told:
        raise BenchError(f"the devices, asked for {order}: {told['failed']}")
    return told


@contextmanager
def carrying(net: Network, site: Site, count: int) -> Iterator[Carrying]:
    """A service, its app server and ``count`` devices that are trusted and connected. Raises ``BenchError``."""
    with (
        running(site, net.router.descriptor) as gateway,
        _program(net, "appserver", "sink") as sink,
    ):
        assert sink.stdout is not None
        sink.stdout.readline()
        started = time.time()
        _admit(net, site, gateway, count)
        # What an earlier process could have taken, and that is what was stamped up to here, is refused as repeated.
        time.sleep(max(started + WINDOW_FUTURE + 1.0 - time.time(), 0.0))
        with _program(net, "devices", "devices", str(site.folder / "devices.keys"), str(count)) as devices:
            heard(devices, "connections")
            yield Carrying(gateway, devices, sink)


@contextmanager
def _program(net: Network, host: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    namespace = net.hosts[host].descriptor
    argv = [sys.executable, "-m", "tests.bench.data_load", *arguments]
    with subprocess.Popen(
        command(argv, namespace), stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(namespace,)
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def _admit(net: Network, site: Site, gateway: Gateway, count: int) -> None:
    """One pass for each device, on one connection; returns when all are trusted."""
    keys = site.keys.hmac
    wanted = [(device_name(n), keys[device_name(n)], address(n), Reason.PASS) for n in range(count)]
    now = int(time.time())
    for body in sign_bodies(site.keys.signing, wanted, processes=1):
        frame = compose_message(
            message_id=MessageId.ALERT,
            timestamp=now,
            nonce=secrets.token_bytes(32),
            tail=body.tail,
            hmac_key=body.key,
        )
        with net.hosts["verifier"].socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.setblocking(True)
            connection.settimeout(PATIENCE)
            connection.bind((VERIFIERS[0], 0))
            connection.connect(DOOR)
            connection.sendall(frame)
    until = time.monotonic() + PATIENCE
    while (found := _trusted(gateway)) < count:
        if time.monotonic() > until:
            raise BenchError(f"{found} of {count} devices became trusted: {gateway.log_tail()}")
        time.sleep(0.1)


def _trusted(gateway: Gateway) -> int:
    return _metric(gateway, 'ragate_devices{standing="trusted"} ')


def _metric(gateway: Gateway, name: str) -> int:
    """The value of the metric whose line begins with ``name``; 0 when there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5.0)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    return next((int(float(line[len(name) :])) for line in text.splitlines() if line.startswith(name)), 0)
