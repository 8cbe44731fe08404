"""DATA through the relying party's port: devices that send as fast as they are answered, and the server behind.

``python -m tests.bench.relying devices KEYS COUNT SECONDS MOST`` is the devices, ``… sink`` the app server. What
must not live here: promises.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.sediment.compose import compose_data, compose_message
from gateway.sediment.messages import Acceptance
from gateway.sediment.wire import MessageId, Reason
from gateway.simulate.child import command
from gateway.simulate.load import sign_bodies
from gateway.simulate.namespaces import Network
from tests.bench.alerts import percentile
from tests.bench.site import (
    APP4,
    CLIENT_CPU,
    DATA_PORT,
    DOOR,
    LIVE_DEVICES,
    VERIFIERS,
    BenchError,
    Gateway,
    Site,
    address,
    device_name,
    running,
)

HERE = ("10.77.1.1", 8000)
PAYLOAD = 48
"""Bytes of a DATA's payload: what SEDIMENT's own configurations have; the message is about 190 bytes."""
PATIENCE = 60.0
RESULT = 76
"""Bytes of a RESULT before the device id."""

_SETTINGS = """\
  relying:
    listen: {here}
    app_server: feed
    verifier: {verifier}:8100
    connections: {connections}
"""


@dataclass(frozen=True)
class Carried:
    """What came of one run: DATA accepted a second, what became of the others, milliseconds, microseconds of
    CPU."""

    rate: float
    accepted: int
    other: int
    p50_ms: float
    p99_ms: float
    server_us: float
    server_share: float
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


def carry(net: Network, site: Site, count: int, seconds: float, most: int) -> Carried:
    """Let ``count`` connected devices send for ``seconds``, or ``most`` messages. Raises ``BenchError``."""
    sink = net.hosts["appserver"].descriptor
    with (
        running(site, net.router.descriptor) as gateway,
        subprocess.Popen(
            command([sys.executable, "-m", "tests.bench.relying", "sink"], sink),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(sink,),
        ) as server,
    ):
        try:
            assert server.stdout is not None
            server.stdout.readline()
            _admit(net, site, gateway, count)
            return _run(net, site, gateway, count, (seconds, most), server)
        finally:
            server.kill()


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
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5.0)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    wanted = 'ragate_devices{standing="trusted"} '
    return next((int(float(line[len(wanted) :])) for line in text.splitlines() if line.startswith(wanted)), 0)


def _run(
    net: Network,
    site: Site,
    gateway: Gateway,
    count: int,
    bounds: tuple[float, int],
    server: subprocess.Popen[bytes],
) -> Carried:
    senders = net.hosts["devices"].descriptor
    keys = site.folder / "devices.keys"
    argv = [sys.executable, "-m", "tests.bench.relying", "devices", str(keys), str(count), *map(str, bounds)]
    with subprocess.Popen(
        command(argv, senders), stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(senders,)
    ) as devices:
        try:
            assert devices.stdin is not None
            assert devices.stdout is not None
            if devices.stdout.readline().strip() != b"connected":
                raise BenchError("the devices could not connect")
            cpu = gateway.cpu()
            devices.stdin.write(b"go\n")
            devices.stdin.flush()
            told = json.loads(devices.stdout.readline() or b"{}")
            cpu = gateway.cpu() - cpu
        finally:
            devices.kill()
    if not told:
        raise BenchError("the devices ended without a report")
    assert server.stdin is not None
    assert server.stdout is not None
    time.sleep(0.5)
    server.stdin.write(b"?\n")
    server.stdin.flush()
    arrived = int(server.stdout.readline())
    done = told["accepted"] + told["other"]
    times = sorted(told["ms"])
    return Carried(
        told["accepted"] / told["seconds"],
        told["accepted"],
        told["other"],
        percentile(times, 50),
        percentile(times, 99),
        cpu / max(done, 1) * 1e6,
        cpu / told["seconds"],
        arrived,
    )


# --- the programs -------------------------------------------------------------------------------------------------


def devices(keys: Path, count: int, seconds: float, most: int) -> None:
    """Connect all, tell so, wait for a line, send; one message of each device is on its way at any time."""
    os.sched_setaffinity(0, CLIENT_CPU)
    lines = (line.split() for line in keys.read_text().splitlines())
    key = {name: bytes.fromhex(text) for name, text in lines}
    places = [one for n in range(LIVE_DEVICES) if ":" not in (one := address(n))]
    poll = select.epoll()
    open_now: dict[int, tuple[socket.socket, str]] = {}
    for number in range(count):
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(PATIENCE)
        sock.bind((places[number % len(places)], 0))
        sock.connect(HERE)
        sock.setblocking(False)
        open_now[sock.fileno()] = sock, device_name(number)
        poll.register(sock.fileno(), select.EPOLLIN)
    print("connected", flush=True)
    sys.stdin.readline()
    counted = {True: 0, False: 0}
    sent_at: dict[int, float] = {}
    times: list[float] = []
    size = RESULT + len(device_name(0)) + 1
    began = time.monotonic()

    def send(fd: int) -> None:
        sock, name = open_now[fd]
        frame = compose_data(
            device=name.encode(),
            timestamp=int(time.time()),
            nonce=os.urandom(32),
            payload=bytes(PAYLOAD),
            iv=bytes(16),
            hmac_key=key[name],
        )
        sent_at[fd] = time.monotonic()
        sock.send(frame)

    for fd in open_now:
        send(fd)
    end = began + seconds
    while sent_at:
        for fd, _ in poll.poll(PATIENCE):
            answer = open_now[fd][0].recv(65_536)
            now = time.monotonic()
            if len(answer) != size:
                print("{}", flush=True)
                return
            counted[answer[-1] == Acceptance.ACCEPT] += 1
            times.append((now - sent_at.pop(fd)) * 1_000)
            if now < end and len(times) + len(sent_at) < most:
                send(fd)
    seconds = time.monotonic() - began
    told = {"accepted": counted[True], "other": counted[False], "seconds": seconds, "ms": times}
    print(json.dumps(told), flush=True)
    sys.stdin.readline()


def sink() -> None:
    """The app server: takes whatever comes, and tells how many bytes when a line is written to it."""
    os.sched_setaffinity(0, CLIENT_CPU)
    listen = socket.create_server(("0.0.0.0", DATA_PORT), backlog=4_096)
    listen.setblocking(False)
    poll = select.epoll()
    poll.register(listen.fileno(), select.EPOLLIN)
    poll.register(0, select.EPOLLIN)
    open_now: dict[int, socket.socket] = {}
    got = 0
    print("ready", flush=True)
    while True:
        for fd, _ in poll.poll():
            if fd == 0:
                if not os.read(0, 64):
                    return
                print(got, flush=True)
            elif fd == listen.fileno():
                try:
                    sock, _ = listen.accept()
                except OSError:
                    continue
                sock.setblocking(False)
                open_now[sock.fileno()] = sock
                poll.register(sock.fileno(), select.EPOLLIN)
            else:
                try:
                    data = open_now[fd].recv(65_536)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                got += len(data)
                if not data:
                    poll.unregister(fd)
                    open_now.pop(fd).close()


def main(argv: Sequence[str]) -> Any:
    """One of the two programs."""
    if argv[0] == "sink":
        return sink()
    return devices(Path(argv[1]), int(argv[2]), float(argv[3]), int(argv[4]))


if __name__ == "__main__":
    main(sys.argv[1:])
