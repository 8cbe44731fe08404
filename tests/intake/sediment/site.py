"""A door on loopback, and the peers that talk to it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from gateway.control.ports import Notice
from gateway.core.model import SourceName
from gateway.intake.sediment import DoorSettings, SedimentDoor, open_listeners
from tests.fakes.admission import FakeAdmission
from tests.fakes.clock import ManualClock

VERIFIER = "127.0.0.2"  # the configured verifier
FRIEND = "127.0.0.3"  # allowed, but no configured verifier
STRANGER = "127.0.0.9"  # not allowed
SOURCE = SourceName("verifier")

#: Long deadlines: only tests about deadlines shorten them.
SETTINGS = DoorSettings(
    peers=(ipaddress.ip_network(f"{FRIEND}/32"),),
    verifiers={ipaddress.ip_network(f"{VERIFIER}/32"): SOURCE},
    frame_seconds=30.0,
)


def frame(number: int = 0, size: int = 369, kind: int = 7) -> bytes:
    """A message with good fixed fields; the rest is told apart by ``number``."""
    head = struct.pack(">HH32sH32sBI", size, 32, b"D" * 32, 32, b"N" * 32, kind, 1_795_283_400)
    return head + number.to_bytes(4, "big") * ((size - len(head)) // 4) + b"x" * ((size - len(head)) % 4)


class Peer:
    """One connection from a loopback address of one's choice."""

    def __init__(self, door: SedimentDoor, host: str = VERIFIER, listener: int = 0) -> None:
        to = door.addresses[listener]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.bind((host, 0))
        # The kernel completes connections by itself: this does not wait for the door.
        self.sock.connect((host if family == socket.AF_INET6 else "127.0.0.1", to[1]))
        self.sock.setblocking(False)

    def send(self, data: bytes) -> Peer:
        assert self.sock.send(data) == len(data)
        return self

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    async def closed(self) -> None:
        """Wait until the door has closed this connection; it never sends a byte."""
        try:
            async with asyncio.timeout(60):
                assert await asyncio.get_running_loop().sock_recv(self.sock, 1) == b""
        except ConnectionResetError:
            pass
        finally:
            self.sock.close()


async def until(what: Callable[[], bool]) -> None:
    """Let the loop run until ``what`` holds."""
    async with asyncio.timeout(60):
        while not what():
            await asyncio.sleep(0.001)


async def settle() -> None:
    """Let the loop see everything that has happened on sockets so far."""
    for _ in range(5):
        await asyncio.sleep(0.002)


@asynccontextmanager
async def serving(
    admission: FakeAdmission,
    settings: DoorSettings = SETTINGS,
    listen: Sequence[str] = ("127.0.0.1:0",),
    sockets: Sequence[socket.socket] = (),
    notices: Callable[[Notice], None] | None = None,
    **changes: object,
) -> AsyncIterator[SedimentDoor]:
    """A door that serves until the block is left."""
    chosen = replace(settings, **changes) if changes else settings  # type: ignore[arg-type]
    listening = list(sockets) or open_listeners(listen)
    door = SedimentDoor(listening, admission, ManualClock(), chosen, notices)
    task = asyncio.create_task(door.run())
    await asyncio.sleep(0)
    try:
        yield door
    finally:
        await stop(task)


async def stop(task: asyncio.Task[None]) -> None:
    """Cancel and wait; anything but the cancellation is a failure."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
