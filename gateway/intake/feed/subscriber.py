"""Subscribing to a verifier's GUI feed: connect, read, cut into frames, submit; on any trouble, later again.

The verifier sends to each client from the thread that attests, and waits for it (SEDIMENT v1.0.0,
``servers/verifier/Verifier.cpp``, ``Verifier::publish``): so whatever arrives is read at once, also when the
admission is full, and hints are then refused instead of waiting. The feed has no history: what was said while
nobody was connected is gone, and nothing follows from silence.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass

from gateway.control.ports import Admission, Clock
from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import Envelope, SourceName
from gateway.intake.feed.trouble import what
from gateway.sediment.feed import FeedFramer

READ_BYTES = 4_096  #: per read: some seventy frames, a second of the fastest verifier
CONNECT_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 1.0  #: before the second attempt; doubled after each that failed
LONGEST_PAUSE_SECONDS = 60.0
STEADY_SECONDS = 60.0  #: a connection that stood for so long begins the pauses anew

#: tcp(7). A feed is silent while nobody attests: only the kernel can tell that its verifier has gone.
KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """``source`` the hint source's name; ``host`` and ``port`` of the verifier's feed (8101 unless it says
    else)."""

    source: SourceName
    host: str
    port: int


class FeedSubscriber:
    """One subscription. Counts ``frames`` submitted and ``connects`` that succeeded."""

    def __init__(self, admission: Admission, clock: Clock, settings: FeedSettings) -> None:
        self._admission = admission
        self._clock = clock
        self._settings = settings
        self._peer = f"{settings.host}:{settings.port}"
        self._trouble = "not connected yet"
        self.connected = False
        self.frames = 0
        self.connects = 0

    @property
    def source(self) -> SourceName:
        """The hint source's name."""
        return self._settings.source

    def state(self) -> str:
        """One sentence for people."""
        if self.connected:
            return f"connected to {self._peer}, {self.frames} frames"
        return f"not connected to {self._peer}: {self._trouble}"

    async def run(self) -> None:
        """Keep the subscription until cancelled."""
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = loop.time()
            try:
                await self._once()
                self._trouble = "the verifier closed the feed"
            except OSError as error:  # includes time limits and failed look-ups
                self._trouble = what(error, CONNECT_SECONDS)
            except InputRefused as refused:
                self._trouble = f"what it sends is no feed: {refused.detail}"
                self._admission.refuse(self.source, refused.refusal, refused.detail, self._peer)
            finally:
                self.connected = False
            if loop.time() - began >= STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _once(self) -> None:
        """One connection, to its end. Raises ``OSError`` or ``InputRefused``."""
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                self._settings.host, self._settings.port, limit=READ_BYTES
            )
        try:
            _keep_alive(writer.get_extra_info("socket"))
            self.connected = True
            self.connects += 1
            await self._read(reader)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        framer = FeedFramer()
        while True:
            data = await reader.read(READ_BYTES)
            if not data:
                if framer.pending:
                    detail = f"closed after {framer.pending} bytes of a frame"
                    raise InputRefused(Refusal.FRAMING, detail)
                return
            received = self._clock.now()
            for payload in framer.feed(data):
                if self._admission.full:
                    behind = "the gateway is behind with verdicts, which go before hints"
                    self._admission.refuse(self.source, Refusal.LIMIT, behind, self._peer)
                    continue
                self.frames += 1
                self._admission.submit(Envelope(payload, self.source, self._peer, received))


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
