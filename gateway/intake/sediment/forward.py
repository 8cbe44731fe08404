"""Passing accepted frames on to SEDIMENT's own relying party, as its verifier would have sent them.

SEDIMENT's verifier opens a connection per alert, sends the whole message at once, reads nothing and closes. The
same is done here, one frame after the other, by a task of its own that nobody waits for.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping

from gateway.control.ports import Clock, Notice
from gateway.intake.sediment.notices import Backlog

QUEUE_FRAMES = 8192  #: frames kept while the receiver is away; about 3 MiB, twenty seconds at 400 alerts/s
ATTEMPT_SECONDS = 2.0  #: for look-up, connect and send together; the receiver is a neighbour
ATTEMPTS = 8  #: per frame; the pauses between them are eleven seconds together, longer than a restart takes
FIRST_PAUSE_SECONDS = 0.1  #: after a frame's first failed attempt; doubles with each further one
LONGEST_PAUSE_SECONDS = 5.0
FINISH_SECONDS = 1.0  #: at a stop, for what is still queued

_Address = tuple[int, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


class Forwarder:
    """Sends frames to one address, in order, each on a connection of its own.

    ``forwarded``, ``failed`` (given up after ``ATTEMPTS``) and ``dropped`` (the oldest, when the queue was
    full or the service stopped) count frames; ``queued`` tells how many wait. What is given up or dropped is
    told to ``notices`` at a bearable pace.
    """

    def __init__(self, host: str, port: int, clock: Clock, notices: Callable[[Notice], None] | None = None) -> None:
        self._host = host
        self._port = port
        self._full = Backlog("forward", clock, notices)
        self._given_up = Backlog("forward", clock, notices)
        self._queue: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        literal = _literal(host, port)
        self._looked_up = literal is None
        self._addresses: list[_Address] = [] if literal is None else [literal]
        self._sending = 0
        self._trouble = ""
        self.forwarded = 0
        self.failed = 0
        self.dropped = 0

    @property
    def queued(self) -> int:
        """Frames that wait to be sent."""
        return len(self._queue)

    def counts(self) -> Mapping[str, int]:
        """Frames by what became of them: ``forwarded``, ``failed``, ``dropped``."""
        return {"forwarded": self.forwarded, "failed": self.failed, "dropped": self.dropped}

    def state(self) -> str:
        """For people: whether the receiver took what was sent last, and what it did not get so far."""
        last = f"takes no alerts: {self._trouble}" if self._trouble else "takes alerts"
        if not (self._trouble or self.forwarded):
            last = "nothing to pass on yet"
        lost = f", {self.failed} given up, {self.dropped} dropped" if self.failed or self.dropped else ""
        return f"{self._host}:{self._port} {last}; {self.queued + self._sending} waiting{lost}"

    def offer(self, frame: bytes) -> None:
        """Queue one frame; returns at once. A full queue gives up its oldest frame."""
        if len(self._queue) >= QUEUE_FRAMES:
            self._queue.popleft()
            self.dropped += 1
            self._full.tell(f"{self._host}:{self._port} does not take alerts: the oldest are not passed on")
        self._queue.append(frame)
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            while not self._queue:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            self._idle.clear()
            self._sending = 1
            if await self._deliver(self._queue.popleft()):
                self.forwarded += 1
            else:
                self.failed += 1
                self._given_up.tell(
                    f"{self._host}:{self._port} took an alert in none of {ATTEMPTS} attempts, "
                    f"which is not passed on: {self._trouble}"
                )
            self._sending = 0
            # On loopback connect and send may both complete without waiting: others must get their turn.
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """Wait at most ``FINISH_SECONDS`` until the queue is empty; what is left is counted as dropped."""
        self._idle.clear()
        self._wake.set()
        # Not asyncio.timeout: the caller is being cancelled, and up to Python 3.11.2 that hides the limit.
        idle = asyncio.ensure_future(self._idle.wait())
        done, _ = await asyncio.wait((idle,), timeout=FINISH_SECONDS)
        if not done:
            idle.cancel()
            left = len(self._queue) + self._sending
            self.dropped += left
            self._queue.clear()
            self._full.tell(f"the service stops: {left} alerts are not passed on to {self._host}:{self._port}")

    async def _deliver(self, frame: bytes) -> bool:
        pause = FIRST_PAUSE_SECONDS
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    await self._send(frame)
            except OSError as error:  # includes TimeoutError and failed look-ups
                self._trouble = _what(error)
                if self._looked_up:  # the next address of this name, or another look-up
                    del self._addresses[:1]
            else:
                self._trouble = ""
                return True
        return False

    async def _send(self, frame: bytes) -> None:
        loop = asyncio.get_running_loop()
        if not self._addresses:
            self._addresses = await self._look_up()
        family, where = self._addresses[0]
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            await loop.sock_connect(sock, where)
            await loop.sock_sendall(sock, frame)

    async def _look_up(self) -> list[_Address]:
        found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return [(family, where) for family, _, _, _, where in found]


def _what(error: OSError) -> str:
    """What went wrong, in the system's words: those of an event loop name the address once more."""
    if error.errno is None:
        return f"no answer within {ATTEMPT_SECONDS:g} s"
    if isinstance(error, socket.gaierror):  # its numbers are not those of the system
        return error.strerror or "the name cannot be looked up"
    return os.strerror(error.errno)


def _literal(host: str, port: int) -> _Address | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (socket.AF_INET if ip.version == 4 else socket.AF_INET6), (str(ip), port)
