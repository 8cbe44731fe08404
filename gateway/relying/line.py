"""The device's side of one connection: its socket watched by hand, whole messages in, bytes out.

While something is waited for, or while the device has not read its answer, nothing more is read: the kernel keeps
the bytes, and only this device waits. What must not live here: what a message means.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from typing import Never

from gateway.core.errors import InputRefused, Refusal
from gateway.relying.settings import READ_BYTES, WRITE_SECONDS
from gateway.relying.terms import End, Site, Wait
from gateway.sediment.framing import Framer
from gateway.sediment.relying import HEARD_KINDS

_NOTHING = Wait.NOTHING


class Line(ABC):
    """Reads and writes. ``peer`` is the other end's address; ``deadline`` and ``filed`` belong to the wheel."""

    __slots__ = (
        "_begun",
        "_fault",
        "_framer",
        "_last",
        "_loop",
        "_out",
        "_over",
        "_pending",
        "_reading",
        "_site",
        "_sock",
        "_wait",
        "_writing",
        "deadline",
        "filed",
        "peer",
    )

    def __init__(self, site: Site[Never], loop: asyncio.AbstractEventLoop, sock: socket.socket, peer: str) -> None:
        self._site = site
        self._loop = loop
        self._sock = sock
        self.peer = peer
        self.deadline = 0.0
        self.filed = 0
        self._framer = Framer(HEARD_KINDS)
        self._pending: list[bytes] = []  # messages that are whole and wait for their turn
        self._fault: InputRefused | None = None
        self._begun = False  # whether the deadline of a message that is not whole yet runs
        self._out = b""
        self._last = False  # whether it ends once the device has read what is left
        self._wait = _NOTHING
        self._reading = False
        self._writing = False
        self._over = False

    @abstractmethod
    def _take(self, frame: bytes) -> None:
        """Do what one whole message asks for."""

    @abstractmethod
    def _drained(self) -> None:
        """The device has read everything that was written."""

    @abstractmethod
    def due(self) -> None:
        """Its deadline has passed."""

    @abstractmethod
    def _end(self, why: End) -> None:
        """End the connection in order."""

    # Reading

    def open(self) -> None:
        """Read what is there already, and go on when more comes."""
        self._on_readable()

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            self._settle()
            return
        except OSError:  # reset, timed out, unreachable
            self._end(End.BROKEN)
            return
        framer = self._framer
        if not data:
            if framer.pending:
                self._refuse(Refusal.FRAMING, f"cut short: closed after {framer.pending} bytes of a message")
            self._end(End.CLOSED)
            return
        try:
            self._pending += framer.feed(data)
        except InputRefused as fault:
            self._fault = fault
        else:
            self._fault = framer.fault
        self._go_on()

    def _go_on(self) -> None:
        """Take what waits, one after the other, until something has to be waited for."""
        pending = self._pending
        while pending and self._wait is _NOTHING and not self._out and not self._over:
            self._take(pending.pop(0))
        if self._over:
            return
        if self._fault is not None and self._wait is _NOTHING and not self._out:
            self._refuse(self._fault.refusal, self._fault.detail)
            self._end(End.REFUSED)
            return
        self._settle()

    def _settle(self) -> None:
        """Watch for the device's bytes exactly while nothing is waited for, under the deadline that then runs."""
        wanted = self._wait is _NOTHING and not self._out
        if wanted is not self._reading:
            self._reading = wanted
            if wanted:
                self._loop.add_reader(self._sock.fileno(), self._on_readable)
            else:
                self._loop.remove_reader(self._sock.fileno())
        if not wanted:
            return
        if not self._framer.pending:
            self._begun = False
            self._site.wheel.set(self, self._site.settings.idle_seconds)
        elif not self._begun:
            self._begun = True
            self._site.wheel.set(self, self._site.settings.frame_seconds)

    # Writing

    def _write(self, data: bytes) -> None:
        if self._out:
            self._out += data
            return
        try:
            count = self._sock.send(data)
        except BlockingIOError:
            count = 0
        except OSError:
            self._end(End.BROKEN)
            return
        if count == len(data):
            return
        self._out = data[count:]
        self._begun = False
        self._writing = True
        self._loop.add_writer(self._sock.fileno(), self._on_writable)
        self._site.wheel.set(self, WRITE_SECONDS)

    def _on_writable(self) -> None:
        try:
            self._out = self._out[self._sock.send(self._out) :]
        except BlockingIOError:
            return
        except OSError:
            self._end(End.BROKEN)
            return
        if self._out:
            return
        self._writing = False
        self._loop.remove_writer(self._sock.fileno())
        if self._last:
            self._end(End.CLOSED)
            return
        self._drained()

    # Ending

    def _unwatch(self) -> None:
        """Watch this socket no longer."""
        if self._reading:
            self._loop.remove_reader(self._sock.fileno())
        if self._writing:
            self._loop.remove_writer(self._sock.fileno())

    def _refuse(self, refusal: Refusal, detail: str) -> None:
        self._site.refuse(refusal, detail, self.peer)
