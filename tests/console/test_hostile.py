"""What clients can do to the windows must never reach the loop's exception handler: it ends the service."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.console.api import Console
from gateway.console.operator import OperatorWindow
from gateway.console.server import HttpLimits
from gateway.core.model import DeviceId
from tests.console.conftest import windows
from tests.fakes.directory import FakeSite, make_view

HOST = b"Host: localhost\r\n"
HOLD = b"POST /v1/devices/d1/hold HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
GOOD = b"GET /healthz HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"

ATTACKS = (
    b"",
    b"\r\n\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /v1/devices?limit=5000 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /v1/devices HTTP/1.0\r\n" + HOST + b"\r\n",
    (b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n") * 500,
    b"POST /v1/devices/d1/hold HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999\r\n\r\n{",
    HOLD + b"Content-Length: 50\r\n\r\n{",
    HOLD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    HOLD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Expect: the-unexpected\r\nContent-Length: 5\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n",
    b"GET /%00%ff%fe/../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET //evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET http://[::1 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET http://evil.example:99999/ HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /v1/devices/d1 HTTP/1.1\r\nHost: [::1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
    b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
)


def noise() -> list[bytes]:
    chance = random.Random(20)
    mixed = [bytes(chance.randrange(256) for _ in range(chance.randrange(1, 300))) for _ in range(20)]
    for attack in ATTACKS[4:16]:
        broken = bytearray(attack[:400])
        for _ in range(3):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        mixed.append(bytes(broken))
    return mixed


def connect(where: tuple[str, int] | str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
    sock.settimeout(10)
    try:
        sock.connect(where)
    except OSError:
        sock.close()
        raise
    return sock


def attack(where: tuple[str, int] | str, data: bytes, *, wait: bool) -> None:
    """Send, perhaps read a little, and leave with a reset."""
    with contextlib.suppress(OSError), connect(where) as sock:
        sock.sendall(data)
        if wait:
            sock.recv(64)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def alive(where: tuple[str, int] | str) -> bytes:
    with connect(where) as sock:
        sock.sendall(GOOD)
        return sock.recv(64)


async def survive(folder: Path, site: FakeSite) -> list[dict[str, Any]]:
    """Attack both windows in every way; return what reached the loop's exception handler."""
    reached: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reached.append(context))
    limits = HttpLimits(connections=8, request_seconds=0.3, idle_seconds=0.2)
    console = Console(windows(site), ("127.0.0.1", 0), limits=limits)
    path = folder / "op.sock"
    operator = OperatorWindow(windows(site), site, site, path, limits=limits)
    await console.start()
    await operator.start()
    try:
        for where in (console.address, str(path)):
            for data in (*ATTACKS, *noise()):
                for wait in (False, True):
                    await asyncio.to_thread(attack, where, data, wait=wait)
            many = [asyncio.to_thread(attack, where, ATTACKS[4], wait=False) for _ in range(32)]
            await asyncio.gather(*many)
            async with asyncio.timeout(60):
                while not (await asyncio.to_thread(answer, where)).startswith(b"HTTP/1.1 200 OK"):
                    await asyncio.sleep(0.05)
    finally:
        await console.stop()
        await operator.stop()
    return reached


def answer(where: tuple[str, int] | str) -> bytes:
    try:
        return alive(where)
    except OSError:
        return b""


Runner = Callable[[Coroutine[Any, Any, list[dict[str, Any]]]], list[dict[str, Any]]]


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_nothing_that_clients_do_reaches_the_loops_handler(
    runner: Runner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = FakeSite(make_view(f"d{number}") for number in range(3_000))
    assert DeviceId("d1") in site.all
    assert runner(survive(tmp_path, site)) == []
    assert [record.getMessage() for record in caplog.records] == []
    assert site.acts == []
