"""Real packets: a device's flows and the server that notes when they arrive. A program for each end.

``python -m tests.bench.flow send ADDRESS SERVER PORT PER_SECOND udp|tcp…`` sends small packets until killed.
``python -m tests.bench.flow receive PORT`` answers each line on its input with what has arrived since the last one:
``{"udp 10.77.1.10": [count, first, last], …}``, times in nanoseconds of ``CLOCK_BOOTTIME``.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from gateway.simulate.child import command
from tests.bench.site import APP4, APP6, CLIENT_CPU, DATA_PORT, BenchError

PAYLOAD = b"x" * 64
PER_SECOND = 4_000
"""Packets a second of each flow: a cut is seen to a quarter of a millisecond."""


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def send(source: str, server: str, port: int, per_second: float, protocols: Sequence[str]) -> None:
    """Send for ever."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    flows: list[socket.socket] = []
    for protocol in protocols:
        made = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
        made.bind((source, 0))
        made.connect((server, port))
        if protocol == "tcp":
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        flows.append(made)
    step = 1 / per_second
    due = time.monotonic()
    while True:
        for flow in flows:
            with suppress(BlockingIOError, ConnectionError):  # full while it is cut, or refused
                flow.send(PAYLOAD)
        due += step
        left = due - time.monotonic()
        if left > 0:
            time.sleep(left)


def receive(port: int) -> None:
    """Note arrivals until the input ends."""
    seen: dict[str, list[int]] = {}
    poll = select.epoll()
    udp: dict[int, socket.socket] = {}
    tcp: dict[int, socket.socket] = {}
    open_flows: dict[int, tuple[socket.socket, str]] = {}
    for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for kind, table in ((socket.SOCK_DGRAM, udp), (socket.SOCK_STREAM, tcp)):
            made = socket.socket(family, kind)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind((any_address, port))
            if kind == socket.SOCK_STREAM:
                made.listen()
            made.setblocking(False)
            table[made.fileno()] = made
            poll.register(made.fileno(), select.EPOLLIN)
    poll.register(0, select.EPOLLIN)

    def note(name: str) -> None:
        at = _now()
        stats = seen.get(name)
        if stats is None:
            seen[name] = [1, at, at]
        else:
            stats[0] += 1
            stats[2] = at

    print("ready", flush=True)
    while True:
        for fd, _ in poll.poll():
            if fd == 0:
                if not os.read(0, 4_096):
                    return
                print(json.dumps(seen), flush=True)
                seen.clear()
            elif fd in udp:
                with suppress(BlockingIOError):
                    _, peer = udp[fd].recvfrom(2_048)
                    note(f"udp {peer[0]}")
            elif fd in tcp:
                with suppress(BlockingIOError):
                    accepted, peer = tcp[fd].accept()
                    accepted.setblocking(False)
                    open_flows[accepted.fileno()] = accepted, f"tcp {peer[0]}"
                    poll.register(accepted.fileno(), select.EPOLLIN)
            else:
                accepted, name = open_flows[fd]
                try:
                    data = accepted.recv(65_536)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if data:
                    note(name)
                else:
                    poll.unregister(fd)
                    accepted.close()
                    del open_flows[fd]


class Sending:
    """A device's flows as a process."""

    def __init__(self, source: str, namespace: int, *protocols: str, per_second: float = PER_SECOND) -> None:
        server = APP6 if ":" in source else APP4
        argv = [sys.executable, "-m", "tests.bench.flow", "send", source, server, str(DATA_PORT), str(per_second)]
        self._process = subprocess.Popen(command([*argv, *protocols], namespace), pass_fds=(namespace,))
        os.sched_setaffinity(self._process.pid, CLIENT_CPU)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()


Seen = dict[str, list[int]]


class Receiving:
    """The app server as a process."""

    def __init__(self, namespace: int) -> None:
        argv = [sys.executable, "-m", "tests.bench.flow", "receive", str(DATA_PORT)]
        self._process = subprocess.Popen(
            command(argv, namespace), pass_fds=(namespace,), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        os.sched_setaffinity(self._process.pid, CLIENT_CPU)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._line()

    def _line(self) -> bytes:
        if not select.select([self._out], [], [], 10.0)[0]:
            raise BenchError("the app server does not answer")
        return self._out.readline()

    def seen(self) -> Seen:
        """What has arrived since the last call."""
        self._in.write(b"\n")
        self._in.flush()
        answer: Seen = json.loads(self._line())
        return answer

    def wait_for(self, *names: str, seconds: float = 10.0) -> None:
        """Wait until each of these flows is arriving. Raises ``BenchError``."""
        until = time.monotonic() + seconds
        missing = set(names)
        while missing:
            if time.monotonic() > until:
                raise BenchError(f"no packet of {', '.join(sorted(missing))} arrived within {seconds:g} s")
            time.sleep(0.05)
            missing -= self.seen().keys()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._in.close()
        self._out.close()


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]), sys.argv[6:])
    else:
        receive(int(sys.argv[2]))
