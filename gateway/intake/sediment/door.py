"""The door: accept, read, frame, submit; pause when the admission is full; close whoever is slow.

The verifier's connect has no deadline and runs in its attestation thread, so a connection is taken from the
kernel at once and nothing is ever answered. One alert is one connection, and its bytes are nearly always there
when it is accepted: it is then read and closed on the spot, on the bare descriptor, without an object of its
own. Only a connection whose bytes are still to come is held, counted against limits and given a deadline.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile

from gateway.control.ports import Admission, Clock, Notice
from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import Envelope, Instant
from gateway.intake.sediment.forward import Forwarder
from gateway.intake.sediment.listeners import (
    LOST_BEFORE_ACCEPT,
    SHORT_OF_DESCRIPTORS,
    Listener,
    adopt,
    reserve_descriptor,
)
from gateway.intake.sediment.notices import Backlog
from gateway.intake.sediment.peers import Peer, PeerBook
from gateway.intake.sediment.settings import UNASSIGNED, DoorSettings
from gateway.sediment.framing import Framer
from gateway.sediment.wire import MessageId

ACCEPTS_PER_WAKE = 32  #: connections taken before others on the loop get their turn: about one millisecond
READ_BYTES = 16_384  #: per read; holds forty alerts, and a frame of the largest size takes two
READS_AT_THE_END = 512  #: of one connection at a stop: 8 MiB, more than the kernel keeps of one
READS_PER_WAKE = 8  #: so that one peer that never stops sending cannot keep the loop
SHORTAGE_SECONDS = 0.05  #: without accepting, once the process has run out of descriptors

_ACCEPTED_KINDS = frozenset({MessageId.ALERT})


class _Connection:
    """A connection whose bytes are still to come. ``deadline`` is in seconds of the door's reading time."""

    __slots__ = ("deadline", "delivered", "fd", "framer", "peer")

    def __init__(self, fd: int, peer: Peer, framer: Framer, deadline: float) -> None:
        self.fd = fd
        self.peer = peer
        self.framer = framer
        self.deadline = deadline
        self.delivered = False


class SedimentDoor:
    """Takes ALERT frames from allowed peers and submits each as an ``Envelope``.

    Counts, for metrics: ``accepted`` connections, ``frames`` submitted, ``refused`` by ``Refusal``, ``pauses``
    (times the admission was full), ``shortages`` (times descriptors ran out).
    """

    def __init__(
        self,
        listen: Sequence[socket.socket],
        admission: Admission,
        clock: Clock,
        settings: DoorSettings,
        notices: Callable[[Notice], None] | None = None,
    ) -> None:
        """Adopt the listening sockets: they are the door's from here on, and closed by it.

        ``notices`` takes facts about the door itself: the admission being full, frames not passed on.
        """
        self._listeners: list[Listener] = [adopt(sock) for sock in listen]
        self._admission = admission
        self._clock = clock
        self._settings = settings
        self._queue_full = Backlog("sediment", clock, notices)
        self._peers = PeerBook(settings)
        self._framer = self._new_framer()
        # In order of their deadlines: all have the same time, so the next to expire is always the first.
        self._held: dict[int, _Connection] = {}
        self._parked: list[_Connection] = []
        self._listening = False
        self._paused_at: float | None = None
        self._unread_seconds = 0.0
        self._sweep: asyncio.TimerHandle | None = None
        self._shortage: asyncio.TimerHandle | None = None
        self._reserve: int | None = None
        self._closed = False
        self.forwarder: Forwarder | None = None
        if settings.forward_to is not None:
            self.forwarder = Forwarder(*settings.forward_to, clock, notices)
        self.accepted = 0
        self.frames = 0
        self.refused: Counter[Refusal] = Counter()
        self.pauses = 0
        self.shortages = 0

    @property
    def open_connections(self) -> int:
        """Connections held because their bytes are still to come."""
        return len(self._held)

    @property
    def paused(self) -> bool:
        """Whether accepting and reading stand still because the admission is full."""
        return self._paused_at is not None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each listening socket."""
        return [listener.getsockname()[:2] for listener in self._listeners]

    def backlog(self) -> int:
        """Connections that the kernel keeps for us, over all listening sockets."""
        return sum(listener.backlog for listener in self._listeners)

    def close(self) -> None:
        """Close the listening sockets of a door that was never run; after ``run`` there are none."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def run(self) -> None:
        """Serve until cancelled; then submit every frame that is complete, close, and finish forwarding."""
        self._loop = asyncio.get_running_loop()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._reserve = reserve_descriptor()
        async with asyncio.TaskGroup() as tasks:
            if self.forwarder is not None:
                tasks.create_task(self.forwarder.run(), name="sediment-forward")
            try:
                self._listen()
                await self._failure
            finally:
                self._shut()
                if self.forwarder is not None:
                    await self.forwarder.finish()

    # Accepting

    def _listen(self) -> None:
        """Watch the listening sockets exactly while nothing speaks against accepting."""
        wanted = self._paused_at is None and self._shortage is None and not self._closed
        if wanted == self._listening:
            return
        self._listening = wanted
        for listener in self._listeners:
            if wanted:
                self._loop.add_reader(listener.fileno(), self._on_waiting, listener)
            else:
                self._loop.remove_reader(listener.fileno())

    def _on_waiting(self, listener: Listener) -> None:
        if not self._listening:  # another callback of the same wake-up has just stopped accepting
            return
        self._accept(listener, ACCEPTS_PER_WAKE)
        if self._admission.full:
            self._pause()

    def _accept(self, listener: Listener, most: int) -> None:
        received = self._clock.now()
        for _ in range(most):
            try:
                fd, host = listener.take()
            except BlockingIOError:
                break
            except OSError as error:
                if not self._accept_failed(error):
                    break
                continue
            self.accepted += 1
            peer = self._peers.of(host)
            if peer.allowed:
                self._greet(fd, peer, received)
            else:
                self._refuse(peer, Refusal.PEER, "this address may not connect")
                os.close(fd)
            if self._admission.full and not self._closed:
                break
        if self._shortage is not None and self._reserve is None:
            self._reserve = reserve_descriptor()

    def _accept_failed(self, error: OSError) -> bool:
        """Whether to go on accepting after ``error``."""
        if error.errno in LOST_BEFORE_ACCEPT:
            return True
        if error.errno in SHORT_OF_DESCRIPTORS:
            return self._on_shortage(error)
        if not self._failure.done():
            self._failure.set_exception(error)
        return False

    def _on_shortage(self, error: OSError) -> bool:
        """Stop accepting for a moment; until then the reserve serves those whose frames are already here."""
        if self._shortage is None and not self._closed:
            self.shortages += 1
            self.refused[Refusal.LIMIT] += 1
            what = f"accepting stands still: {error.strerror}"
            self._admission.refuse(self._settings.other_source or UNASSIGNED, Refusal.LIMIT, what, "")
            self._shortage = self._loop.call_later(SHORTAGE_SECONDS, self._after_shortage)
            self._listen()
        if self._reserve is None:
            return False
        os.close(self._reserve)
        self._reserve = None
        return True

    def _after_shortage(self) -> None:
        self._shortage = None
        if self._reserve is None:
            self._reserve = reserve_descriptor()
        self._listen()

    # Reading

    def _greet(self, fd: int, peer: Peer, received: Instant) -> None:
        """Read a new connection at once; hold it only when bytes are still to come."""
        os.set_blocking(fd, False)
        framer, before = self._framer, self.frames
        open_still = self._read(fd, peer, framer, received)
        if open_still or framer.pending:
            self._framer = self._new_framer()  # this one belongs to the connection from here on
        if not open_still or self._closed:
            os.close(fd)
        elif peer.take():
            connection = _Connection(fd, peer, framer, self._reading_time() + self._settings.frame_seconds)
            connection.delivered = self.frames != before
            self._held[fd] = connection
            self._loop.add_reader(fd, self._on_readable, connection)
            self._schedule_sweep()
        else:
            what = f"{peer.open} connections of this address and {peer.budget.open} of its budget are open"
            self._refuse(peer, Refusal.LIMIT, what)
            os.close(fd)

    def _new_framer(self) -> Framer:
        return Framer(_ACCEPTED_KINDS, self._settings.frame_limit)

    def _on_readable(self, connection: _Connection) -> None:
        if self._paused_at is not None:
            self._loop.remove_reader(connection.fd)
            self._parked.append(connection)
            return
        self._read_on(connection)
        if self._admission.full:
            self._pause()

    def _read_on(self, connection: _Connection) -> None:
        """Read a held connection; close it or, after a complete frame, give it time for the next."""
        before = self.frames
        fd = connection.fd
        if not self._read(fd, connection.peer, connection.framer, self._clock.now()):
            self._close(connection)
        elif self.frames != before:
            connection.delivered = True
            connection.deadline = self._reading_time() + self._settings.frame_seconds
            self._held[fd] = self._held.pop(fd)

    def _read(self, fd: int, peer: Peer, framer: Framer, received: Instant, reads: int = READS_PER_WAKE) -> bool:
        """Submit every frame that has arrived. False: nothing more will come, close the connection."""
        for _ in range(reads):
            how: str | None = "closed"
            try:
                data = os.read(fd, READ_BYTES)
            except BlockingIOError:
                return True
            except OSError as error:  # reset, timed out, unreachable: the connection is gone
                data, how = b"", error.strerror
            if not data:
                if framer.pending:  # a close between frames is silent: health probes do that
                    what = f"cut short: {how} after {framer.pending} bytes of a frame"
                    self._refuse(peer, Refusal.FRAMING, what)
                return False
            try:
                frames = framer.feed(data)
            except InputRefused:
                frames = []  # told below: the fault may also come behind whole frames
            for frame in frames:
                self._submit(frame, peer, received)
            if framer.fault is not None:
                self._refuse(peer, framer.fault.refusal, framer.fault.detail)
                return False
            if frames and self._admission.full and not self._closed:
                return True
        return True

    def _submit(self, frame: bytes, peer: Peer, received: Instant) -> None:
        self.frames += 1
        self._admission.submit(Envelope(frame, peer.source, peer.text, received))
        if self.forwarder is not None:
            self.forwarder.offer(frame)

    def _close(self, connection: _Connection) -> None:
        del self._held[connection.fd]
        self._loop.remove_reader(connection.fd)
        os.close(connection.fd)
        connection.peer.give_back()

    # Deadlines, in reading time: it stands still while we are the ones who do not read

    def _reading_time(self) -> float:
        return self._loop.time() - self._unread_seconds

    def _schedule_sweep(self) -> None:
        if self._sweep is None and self._held and self._paused_at is None:
            first = next(iter(self._held.values()))
            self._sweep = self._loop.call_at(first.deadline + self._unread_seconds, self._on_deadline)

    def _on_deadline(self) -> None:
        self._sweep = None
        now = self._reading_time()
        for connection in list(takewhile(lambda each: each.deadline <= now, self._held.values())):
            self._read_on(connection)  # what has arrived by now still counts
            if self._admission.full:
                self._pause()
                return
            if self._held.get(connection.fd) is connection and connection.deadline <= now:
                self._expire(connection)
        self._schedule_sweep()

    def _expire(self, connection: _Connection) -> None:
        """Close a slow or silent peer. Staying open after whole frames is no offence, only of no use."""
        pending, seconds = connection.framer.pending, self._settings.frame_seconds
        if pending or not connection.delivered:
            what = f"{pending} bytes of a frame" if pending else "not a byte"
            self._refuse(connection.peer, Refusal.TIMEOUT, f"{what} in {seconds:g} s")
        self._close(connection)

    # Pausing

    def _pause(self) -> None:
        """Stop accepting and reading: the kernel keeps the bytes, and no deadline runs."""
        if self._paused_at is not None:
            return
        self.pauses += 1
        self._paused_at = self._loop.time()
        self._listen()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._queue_full.tell(f"the admission is full: not accepting, {self.backlog()} connections wait")
        self._admission.when_ready(self._resume)

    def _resume(self) -> None:
        if self._paused_at is None or self._closed:
            return
        if self._admission.full:  # another door was faster
            self._admission.when_ready(self._resume)
            return
        self._unread_seconds += self._loop.time() - self._paused_at
        self._paused_at = None
        self._listen()
        for connection in self._parked:
            self._loop.add_reader(connection.fd, self._on_readable, connection)
        self._parked.clear()
        self._schedule_sweep()

    # Ending

    def _shut(self) -> None:
        """Take what the kernel has completed for us, submit every whole frame, close everything."""
        self._closed = True
        for timer in (self._sweep, self._shortage):
            if timer is not None:
                timer.cancel()
        self._listen()
        for listener in self._listeners:
            self._accept(listener, listener.backlog)
            listener.close()
        self._listeners.clear()
        for connection in list(self._held.values()):
            self._read(connection.fd, connection.peer, connection.framer, self._clock.now(), READS_AT_THE_END)
            self._close(connection)
        self._parked.clear()
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    # Refusing

    def _refuse(self, peer: Peer, refusal: Refusal, detail: str) -> None:
        self.refused[refusal] += 1
        self._admission.refuse(peer.source, refusal, detail, peer.text)
