"""The hook's door: who connects, one message, one word back.

The socket is of the sequenced-packet kind (``unix(7)``): one message is one hint, whole or not at all, so there is
nothing to frame and nobody can send half of one. Who is at the other end is told by the kernel (SO_PEERCRED) and
settled when the connection is taken, before a byte is read.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

from gateway.control.ports import Admission, Clock
from gateway.core.errors import Refusal
from gateway.core.model import Envelope, SourceName
from gateway.intake.hook.send import TAKEN

MESSAGE_MOST = 768  #: bytes: three arguments of at most 255 and what stands between them
KIND = socket.SOCK_SEQPACKET  #: of the socket that the door takes
ACCEPTS_PER_WAKE = 16  #: connections taken before others on the loop get their turn
WAITING = 128  #: connections that the kernel keeps for us
SHORTAGE_SECONDS = 0.05  #: without accepting, once the process has run out of descriptors

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class HookSettings:
    """``source`` the hint source's name; ``uids`` who may hand in hints, as the kernel names them.

    ``connections`` open at once: the script of one relying party is run once a connection of it. ``seconds`` to
    send the message, from accept.
    """

    source: SourceName
    uids: frozenset[int]
    connections: int = 64
    seconds: float = 2.0


class HookDoor:
    """Takes hints from allowed users and submits each as an ``Envelope``; answers whether it took it.

    Counts ``frames`` submitted. What it refuses goes to the admission's ``refuse``, under ``HookSettings.source``.
    """

    def __init__(self, listen: socket.socket, admission: Admission, clock: Clock, settings: HookSettings) -> None:
        """Adopt a bound socket of the sequenced-packet kind: it is the door's from here on, and closed by it."""
        self._listener = listen
        self._admission = admission
        self._clock = clock
        self._settings = settings
        self._held: dict[int, tuple[socket.socket, str, asyncio.TimerHandle]] = {}
        self._shortage: asyncio.TimerHandle | None = None
        self.frames = 0

    @property
    def open_connections(self) -> int:
        """Connections whose message is still to come."""
        return len(self._held)

    def close(self) -> None:
        """Close the listening socket; nothing happens when it is closed already."""
        self._listener.close()

    async def run(self) -> None:
        """Serve until cancelled."""
        self._loop = asyncio.get_running_loop()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._listener.setblocking(False)
        self._listener.listen(WAITING)
        self._watch()
        try:
            await self._failure
        finally:
            self._shut()

    def _watch(self) -> None:
        self._shortage = None
        self._loop.add_reader(self._listener.fileno(), self._on_waiting)

    def _shut(self) -> None:
        if self._shortage is not None:
            self._shortage.cancel()
        else:
            self._loop.remove_reader(self._listener.fileno())
        for fd in list(self._held):
            self._on_message(fd)  # what has arrived by now still counts
            self._drop(fd)
        self._listener.close()

    def _on_waiting(self) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors or memory: the same connection would wake us again at once.
                self._refuse(Refusal.LIMIT, f"accepting stands still: {error.strerror}", "")
                self._loop.remove_reader(self._listener.fileno())
                self._shortage = self._loop.call_later(SHORTAGE_SECONDS, self._watch)
                return
            self._greet(connection)

    def _greet(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        uid, peer = _who(connection)
        if uid not in self._settings.uids:
            what = f"user {uid} may not hand in hints"
            self._turn_away(connection, Refusal.PEER, what, peer, f"{what}; doors.hook.users lists who may")
        elif len(self._held) >= self._settings.connections:
            what = f"{len(self._held)} connections are open"
            self._turn_away(connection, Refusal.LIMIT, what, peer, f"busy: {what}")
        else:
            fd = connection.fileno()
            timer = self._loop.call_later(self._settings.seconds, self._expire, fd)
            self._held[fd] = (connection, peer, timer)
            self._loop.add_reader(fd, self._on_message, fd)

    def _on_message(self, fd: int) -> None:
        connection, peer, _ = self._held[fd]
        try:
            data, _, flags, _ = connection.recvmsg(MESSAGE_MOST)
        except BlockingIOError:
            return
        except OSError as error:
            self._refuse(Refusal.FRAMING, f"cut short: {error.strerror}", peer)
            self._drop(fd)
            return
        if flags & socket.MSG_TRUNC or not data:
            what = f"more than {MESSAGE_MOST} bytes" if data else "closed without a hint"
            self._refuse(Refusal.FRAMING, what, peer)
            self._drop(fd, b"this is no hint")
        elif self._admission.full:
            self._refuse(Refusal.LIMIT, "the gateway is behind with verdicts, which go before hints", peer)
            self._drop(fd, b"busy")
        else:
            self.frames += 1
            self._admission.submit(Envelope(data, self._settings.source, peer, self._clock.now()))
            self._drop(fd, TAKEN)

    def _expire(self, fd: int) -> None:
        self._refuse(Refusal.TIMEOUT, f"no hint in {self._settings.seconds:g} s", self._held[fd][1])
        self._drop(fd)

    def _turn_away(self, connection: socket.socket, refusal: Refusal, what: str, peer: str, answer: str) -> None:
        self._refuse(refusal, what, peer)
        with suppress(OSError):
            connection.recv(1)  # what lies unread at a close would reset the connection before our answer
        _say(connection, answer.encode("ascii"))
        connection.close()

    def _drop(self, fd: int, answer: bytes = b"") -> None:
        found = self._held.pop(fd, None)
        if found is None:
            return
        connection, _, timer = found
        timer.cancel()
        self._loop.remove_reader(fd)
        _say(connection, answer)
        connection.close()

    def _refuse(self, refusal: Refusal, what: str, peer: str) -> None:
        self._admission.refuse(self._settings.source, refusal, what, peer)


def _who(connection: socket.socket) -> tuple[int, str]:
    """The user at the other end when it connected, and that as text."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, _gid = _CREDENTIALS.unpack(credentials)
    return uid, f"unix:{uid}"


def _say(connection: socket.socket, answer: bytes) -> None:
    """One message of a few bytes fits into any buffer; whoever has gone does not hear it."""
    if answer:
        with suppress(OSError):
            connection.send(answer)
