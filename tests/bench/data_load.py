"""The two ends of DATA through the relying party's port, as programs of their own.

``python -m tests.bench.data_load devices KEYS COUNT`` connects that many devices, then takes one order a line and
answers each with one line of JSON::

    full SECONDS MOST    every device sends as fast as it is answered
    paced RATE SECONDS   messages are due on a fixed clock, device by device; latency counts from the due moment
    idle NUMBER          so many more connections, which send nothing

``… sink`` is the app server: it takes whatever comes and tells how many bytes whenever a line is written to it.
What must not live here: promises, other programs.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.sediment.compose import compose_prepared
from gateway.sediment.digest import digest, prepare
from gateway.sediment.messages import Acceptance
from gateway.sediment.wire import MessageId, encode_data_body
from tests.bench.site import CLIENT_CPU, DATA_PORT, LIVE_DEVICES, address, device_name

HERE = ("10.77.1.1", 8000)
PAYLOAD = 48
"""Bytes of a DATA's payload: what SEDIMENT's own configurations have; the message is about 190 bytes."""
PATIENCE = 60.0
RESULT = 76
"""Bytes of a RESULT before the device id."""


class Device:
    """One connection; ``waiting``: when the message was due that has no answer yet, and those behind it."""

    __slots__ = ("due", "key", "size", "sock", "tail", "waiting")

    def __init__(self, sock: socket.socket, name: str, key: bytes) -> None:
        self.sock = sock
        self.key = prepare(key)
        payload = bytes(PAYLOAD)
        body = encode_data_body((), bytes(16), payload, digest(self.key, payload))
        self.tail = bytes((len(name),)) + name.encode() + body
        self.size = RESULT + len(name) + 1
        self.due = 0.0
        self.waiting: deque[float] = deque()

    def send(self) -> None:
        """A message that was never sent before: its own nonce, this second, its HMAC."""
        self.sock.send(compose_prepared(MessageId.DATA, int(time.time()), os.urandom(32), self.tail, self.key))


class Load:
    """All devices, and what came of what they sent."""

    def __init__(self, keys: Path, count: int) -> None:
        lines = (line.split() for line in keys.read_text().splitlines())
        key = {name: bytes.fromhex(text) for name, text in lines}
        self._poll = select.epoll()
        self._idle: list[socket.socket] = []
        self._devices: dict[int, Device] = {}
        for number in range(count):
            sock = _connected(number)
            name = device_name(number)
            self._devices[sock.fileno()] = Device(sock, name, key[name])
            self._poll.register(sock.fileno(), select.EPOLLIN)

    def idle(self, number: int) -> dict[str, Any]:
        """Open connections that send nothing."""
        self._idle += [_connected(one) for one in range(number)]
        return {"idle": len(self._idle)}

    def full(self, seconds: float, most: int) -> dict[str, Any]:
        """As fast as answers come, for so long or so many messages."""
        self._begin()
        for device in self._devices.values():
            device.due = time.monotonic()
            device.send()
        under_way = sent = len(self._devices)
        end = self._began + seconds
        while under_way:
            for device in self._answered(PATIENCE):
                under_way -= 1
                if device.due < end and sent < most:
                    device.due = time.monotonic()
                    device.send()
                    under_way += 1
                    sent += 1
        return self._told()

    def paced(self, rate: float, seconds: float) -> dict[str, Any]:
        """Message ``n`` is due ``n / rate`` seconds after the beginning, whatever has become of those before it."""
        self._begin()
        devices = list(self._devices.values())
        free = dict.fromkeys(devices, True)
        number, total = 0, int(rate * seconds)
        while len(self._times) < total:
            now = time.monotonic()
            while number < total and self._began + number / rate <= now:
                device = devices[number % len(devices)]
                device.waiting.append(self._began + number / rate)
                if free[device]:
                    free[device] = False
                    device.due = device.waiting.popleft()
                    device.send()
                number += 1
            left = self._began + number / rate - now if number < total else PATIENCE
            for device in self._answered(max(left, 0.0)):
                free[device] = not device.waiting
                if device.waiting:
                    device.due = device.waiting.popleft()
                    device.send()
        return self._told()

    def _begin(self) -> None:
        self._counted = {True: 0, False: 0}
        self._times: list[float] = []
        self._cpu = time.process_time()
        self._began = time.monotonic()

    def _answered(self, patience: float) -> list[Device]:
        """The devices that have their answer. Raises ``OSError`` for one that is none."""
        found = []
        events = self._poll.poll(patience)
        if not events and patience >= PATIENCE:
            raise TimeoutError("no answer came")
        for fd, _ in events:
            device = self._devices[fd]
            answer = device.sock.recv(65_536)
            if len(answer) != device.size:
                raise ConnectionError(f"{len(answer)} bytes came instead of one answer")
            self._counted[answer[-1] == Acceptance.ACCEPT] += 1
            self._times.append((time.monotonic() - device.due) * 1_000)
            found.append(device)
        return found

    def _told(self) -> dict[str, Any]:
        seconds = time.monotonic() - self._began
        cpu = (time.process_time() - self._cpu) / max(len(self._times), 1) * 1e6
        worst = max(self._times, default=0.0)
        return {
            "accepted": self._counted[True],
            "other": self._counted[False],
            "seconds": seconds,
            "ms": self._times,
            "max_ms": worst,
            "client_us": cpu,
        }


def _connected(number: int) -> socket.socket:
    places = [one for n in range(LIVE_DEVICES) if ":" not in (one := address(n))]
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(PATIENCE)
    sock.bind((places[number % len(places)], 0))
    sock.connect(HERE)
    sock.setblocking(False)
    return sock


def devices(keys: Path, count: int) -> None:
    """Connect all, tell so, and do as each line says."""
    os.sched_setaffinity(0, CLIENT_CPU)
    load = Load(keys, count)
    print(json.dumps({"connected": count}), flush=True)
    for line in sys.stdin:
        order, *numbers = line.split()
        try:
            if order == "full":
                told = load.full(float(numbers[0]), int(numbers[1]))
            elif order == "paced":
                told = load.paced(float(numbers[0]), float(numbers[1]))
            else:
                told = load.idle(int(numbers[0]))
        except OSError as error:
            told = {"failed": str(error) or type(error).__name__}
        print(json.dumps(told), flush=True)


def sink() -> None:
    """The app server: takes whatever comes, and tells how many bytes when a line is written to it."""
    os.sched_setaffinity(0, CLIENT_CPU)
    listen = socket.create_server(("0.0.0.0", DATA_PORT), backlog=4_096)
    listen.setblocking(False)
    poll = select.epoll()
    poll.register(listen.fileno(), select.EPOLLIN)
    poll.register(0, select.EPOLLIN)
    open_now: dict[int, socket.socket] = {}
    room = bytearray(65_536)
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
                    count = open_now[fd].recv_into(room)
                except BlockingIOError:
                    continue
                except OSError:
                    count = 0
                got += count
                if not count:
                    poll.unregister(fd)
                    open_now.pop(fd).close()


def main(argv: Sequence[str]) -> None:
    """One of the two programs."""
    if argv[0] == "sink":
        sink()
    else:
        devices(Path(argv[1]), int(argv[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
