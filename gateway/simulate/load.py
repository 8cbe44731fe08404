"""Alerts in bulk: prepared beforehand, sent open-loop by a process of its own, one connection for each.

What lives here: campaigns (what is sent, when, to whom), the sender, and its report. What must not: what the
receiver makes of it.

A campaign's bodies are signed once; the sender puts fresh nonce, timestamp and HMAC before them just before it
starts, so sending costs sockets alone. Open loop: an alert is due at a fixed time whatever became of those
before it, so a slow receiver shows as latency and never as a lower rate.

As a program: ``python -m gateway.simulate.load CAMPAIGN REPORT``.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import select
import socket
import struct
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.sediment.compose import compose_message, evidence_endpoint, sign_alert_body
from gateway.sediment.wire import MessageId, Reason
from gateway.simulate.child import NO_NAMESPACE, command
from gateway.simulate.keys import HMAC_KEY_BYTES
from gateway.simulate.sockets import Peer
from gateway.simulate.verifier import VERIFIER_ID

IN_FLIGHT_MAX = 1024
"""Connections that may be unfinished at once: below the usual 1,024 open files only by a little, far above what
a receiver that accepts at all ever leaves."""

DRAIN_SECONDS = 10.0
"""For so long after the last due time unfinished alerts are waited for, then given up."""

COMPOSE_SECONDS = 20e-6
"""Allowance for heading one alert (about 5 µs on an idle core): decides how far ahead the start is set."""

SEED_BYTES = 24
"""A nonce is a campaign's random seed and the alert's number (8 bytes, big endian): unique and recognisable."""

SIGN_CHUNK = 256
"""Bodies that a signing process takes at a time: 60 ms of work, so handing over costs nothing."""

_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; the socket module of Python 3.11 lacks it
_LENGTHS = struct.Struct(">HI")


class Body(NamedTuple):
    """One distinct alert but for its header: signed tail (from byte 75 on) and the device's HMAC key."""

    tail: bytes
    key: bytes


@dataclass(frozen=True)
class Campaign:
    """What to send: ``bodies[order[i]]`` is alert ``i``, due ``i / rate`` seconds after the start.

    ``rate`` in alerts a second; 0: each as soon as the one before it is on its way. ``offsets[i]`` seconds are
    added to alert ``i``'s timestamp, which otherwise is the second in which it is due (empty: none). ``sources``
    are local IPv4 addresses taken in turn (empty: the kernel chooses); each has its own 28,000 ports, and a
    port rests for a while after use.
    """

    target: Peer
    rate: float
    bodies: Sequence[Body]
    order: Sequence[int]
    offsets: Sequence[int] = ()
    sources: Sequence[str] = ()
    in_flight_max: int = IN_FLIGHT_MAX
    drain_seconds: float = DRAIN_SECONDS
    seed: bytes = field(default_factory=lambda: secrets.token_bytes(SEED_BYTES))

    def __post_init__(self) -> None:
        if self.offsets and len(self.offsets) != len(self.order):
            msg = f"{len(self.offsets)} offsets for {len(self.order)} alerts: give one for each, or none"
            raise ValueError(msg)

    def nonce(self, number: int) -> bytes:
        """The nonce of alert ``number``."""
        return self.seed + number.to_bytes(8, "big")

    def frames(self, start: float) -> list[bytes]:
        """Every alert, headed for a start at UNIX time ``start``."""
        step = 1 / self.rate if self.rate else 0.0
        offsets = self.offsets or [0] * len(self.order)
        return [
            compose_message(
                message_id=MessageId.ALERT,
                timestamp=int(start + number * step) + offset,
                nonce=self.nonce(number),
                tail=self.bodies[body].tail,
                hmac_key=self.bodies[body].key,
            )
            for (number, body), offset in zip(enumerate(self.order), offsets, strict=True)
        ]

    def write(self, path: Path) -> None:
        """Write for another process, readable by the owner alone: the HMAC keys are in it."""
        head = {
            "target": list(self.target),
            "rate": self.rate,
            "sources": list(self.sources),
            "in_flight_max": self.in_flight_max,
            "drain_seconds": self.drain_seconds,
            "seed": self.seed.hex(),
            "bodies": len(self.bodies),
            "alerts": len(self.order),
            "offsets": len(self.offsets),
        }
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            for tail, key in self.bodies:
                file.write(_LENGTHS.pack(len(tail), len(key)) + tail + key)
            array("q", self.order).tofile(file)
            array("q", self.offsets).tofile(file)

    @classmethod
    def read(cls, path: Path) -> Campaign:
        """Read what ``write`` wrote."""
        with path.open("rb") as file:
            head = json.loads(file.readline())
            bodies = [_read_body(file) for _ in range(head.pop("bodies"))]
            order, offsets = array("q"), array("q")
            order.fromfile(file, head.pop("alerts"))
            offsets.fromfile(file, head.pop("offsets"))
        target, seed = Peer(*head.pop("target")), bytes.fromhex(head.pop("seed"))
        return cls(target=target, seed=seed, bodies=bodies, order=order, offsets=offsets, **head)


def _read_body(file: BinaryIO) -> Body:
    tail, key = _LENGTHS.unpack(file.read(_LENGTHS.size))
    return Body(file.read(tail), file.read(key))


@dataclass(frozen=True)
class Report:
    """What became of a campaign. Times are ``CLOCK_BOOTTIME`` nanoseconds.

    ``due[i]`` when alert ``i`` should have gone; ``sent[i]`` when its last byte was handed to the kernel (0:
    never), read just before the call, since a receiver may act on it before the call returns. ``errors``
    counts alerts that were not sent, by error name. ``cpu_seconds`` is this process's CPU time from the first
    to the last alert, ``seconds`` the time that took; ``start`` UNIX seconds of the first due time.
    """

    start: float
    due: array[int]
    sent: array[int]
    errors: Mapping[str, int]
    cpu_seconds: float
    seconds: float

    @property
    def count(self) -> int:
        """Alerts sent."""
        return sum(1 for at in self.sent if at)

    @property
    def lateness(self) -> list[float]:
        """Seconds by which each sent alert left after it was due, ascending."""
        return sorted((at - due) / 1e9 for due, at in zip(self.due, self.sent, strict=True) if at)

    def write(self, path: Path) -> None:
        """Write for the process that asked for it."""
        head = {
            "start": self.start,
            "errors": dict(self.errors),
            "cpu_seconds": self.cpu_seconds,
            "seconds": self.seconds,
            "alerts": len(self.due),
        }
        with path.open("wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            self.due.tofile(file)
            self.sent.tofile(file)

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read what ``write`` wrote."""
        with path.open("rb") as file:
            head = json.loads(file.readline())
            due, sent = array("q"), array("q")
            alerts = head.pop("alerts")
            due.fromfile(file, alerts)
            sent.fromfile(file, alerts)
        return cls(due=due, sent=sent, **head)


class _Sender:
    """Sends one campaign. Non-blocking sockets; what cannot be sent at once waits in epoll."""

    def __init__(self, campaign: Campaign, frames: Sequence[bytes]) -> None:
        self._frames = frames
        self._target = tuple(campaign.target)
        self._family = campaign.target.family
        self._sources = campaign.sources
        self._limit = campaign.in_flight_max
        self._waiting: dict[int, tuple[socket.socket, int, int]] = {}
        self._epoll = select.epoll()
        self.sent = array("q", bytes(8 * len(frames)))
        self.errors: Counter[str] = Counter()

    def run(self, due: Sequence[int], until: int) -> None:
        """Send alert ``i`` at ``due[i]``, give up at ``until`` (both ``CLOCK_BOOTTIME`` nanoseconds)."""
        number, count = 0, len(due)
        while number < count or self._waiting:
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            if now > until:
                break
            if number < count and due[number] <= now and len(self._waiting) < self._limit:
                self._begin(number)
                number += 1
                if self._waiting and not number % 64:
                    self._finish_ready(0.0)
                continue
            at = due[number] if number < count and len(self._waiting) < self._limit else until
            if self._waiting:
                self._finish_ready(min((at - now) / 1e9, 0.001))
            else:
                time.sleep((at - now) / 1e9)
        self.errors["given-up"] += len(self._waiting) + count - number
        for connection, _, _ in self._waiting.values():
            connection.close()
        self._epoll.close()

    def _begin(self, number: int) -> None:
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
        connection = socket.socket(self._family, kind)
        try:
            if self._sources:
                connection.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                connection.bind((self._sources[number % len(self._sources)], 0))
            code = connection.connect_ex(self._target)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
        except OSError as error:
            self._failed(connection, error)
            return
        self._continue(connection, number, 0)

    def _continue(self, connection: socket.socket, number: int, done: int) -> None:
        frame = self._frames[number]
        at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        try:
            done += connection.send(frame[done:] if done else frame)
        except BlockingIOError:
            pass
        except OSError as error:
            self._failed(connection, error)
            return
        if done == len(frame):
            connection.close()
            self.sent[number] = at
            return
        descriptor = connection.fileno()
        if descriptor not in self._waiting:
            self._epoll.register(descriptor, select.EPOLLOUT)
        self._waiting[descriptor] = connection, number, done

    def _finish_ready(self, timeout: float) -> None:
        for descriptor, _ in self._epoll.poll(timeout):
            connection, number, done = self._waiting[descriptor]
            self._continue(connection, number, done)
            if connection.fileno() == -1:
                del self._waiting[descriptor]

    def _failed(self, connection: socket.socket, error: OSError) -> None:
        connection.close()
        self.errors[errno.errorcode.get(error.errno or 0, "unknown")] += 1


def send(campaign: Campaign) -> Report:
    """Send a campaign from this process; takes as long as the campaign does."""
    ahead = 0.1 + COMPOSE_SECONDS * len(campaign.order)
    start = time.time() + ahead
    first = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + round(ahead * 1e9)
    frames = campaign.frames(start)
    step = 1e9 / campaign.rate if campaign.rate else 0.0
    due = array("q", [first + round(number * step) for number in range(len(frames))])
    sender = _Sender(campaign, frames)
    time.sleep(max(0.0, (first - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9))
    cpu, began = time.process_time(), time.monotonic()
    sender.run(due, due[-1] + round(campaign.drain_seconds * 1e9) if due else first)
    cpu, seconds = time.process_time() - cpu, time.monotonic() - began
    errors = {name: times for name, times in sender.errors.items() if times}
    return Report(start, due, sender.sent, errors, cpu, seconds)


def sign_bodies(
    signing: RSAPrivateKey,
    wanted: Iterable[tuple[str, bytes, str, Reason]],
    *,
    processes: int = 1,
) -> list[Body]:
    """One body for each ``(device, HMAC key, address, reason)``, in order. One RSA signature each: about 0.3 ms.

    With several ``processes`` each makes its share.
    """
    todo = list(wanted)
    pem = signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    shares = [todo[at : at + SIGN_CHUNK] for at in range(0, len(todo), SIGN_CHUNK)]
    if processes <= 1 or len(shares) <= 1:
        return _sign_share(pem, todo)
    # A fresh interpreter each: forking a process that may have threads could inherit a held lock.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return [body for share in pool.map(_sign_share, repeat(pem), shares) for body in share]


def _sign_share(pem: bytes, todo: Sequence[tuple[str, bytes, str, Reason]]) -> list[Body]:
    signing = load_pem_private_key(pem, None)
    assert isinstance(signing, RSAPrivateKey)
    return [
        Body(
            sign_alert_body(
                device=device.encode(),
                verifier_id=VERIFIER_ID,
                reason=reason,
                endpoint=evidence_endpoint(address.encode(), 0),
                signing_key=signing,
            ),
            key,
        )
        for device, key, address, reason in todo
    ]


def device_keys(names: Iterable[str]) -> dict[str, bytes]:
    """A fresh HMAC key for each device."""
    return {name: secrets.token_bytes(HMAC_KEY_BYTES) for name in names}


def launch(
    campaign: Path, report: Path, *, namespace: int = NO_NAMESPACE, cpus: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start the sender as a process that dies with this one; the report is there when it ends with 0.

    ``namespace`` is a descriptor of the network namespace to send from; ``cpus`` the cores it may use.
    """
    program = [sys.executable, "-m", "gateway.simulate.load", str(campaign), str(report), *map(str, cpus)]
    handed = () if namespace == NO_NAMESPACE else (namespace,)
    return subprocess.Popen(command(program, namespace), pass_fds=handed)  # noqa: S603 - our own program


def main(argv: Sequence[str]) -> None:
    """``CAMPAIGN REPORT [CPU…]``: send the one, write the other."""
    if argv[2:]:
        os.sched_setaffinity(0, map(int, argv[2:]))
    report = Path(argv[1])
    whole = report.with_suffix(".part")
    send(Campaign.read(Path(argv[0]))).write(whole)
    whole.rename(report)


if __name__ == "__main__":
    main(sys.argv[1:])
