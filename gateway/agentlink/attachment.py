"""One attached stream at the agent's end: reads, works, writes, beats; ends with the first of them.

What lives here: what waits for what on one stream. What must not: attaching, the path gate, plans.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import grpc
import grpc.aio

from gateway.agentlink import messages as wire
from gateway.agentlink.alerts import TELL_SECONDS
from gateway.agentlink.documents import Pieces
from gateway.core.errors import RagateError
from gateway.core.model import Change

#: Seconds between beats, and between beats that carry the host's resources.
BEAT_SECONDS = 1.0
RESOURCES_EVERY = 5


class NotAttached(RagateError):
    """An attempt to attach failed, or an attachment ended; the text says why."""


class Attached(Protocol):
    """The agent, as far as one stream needs it."""

    async def do(self, message: wire.Work | wire.Look, changes: list[Change]) -> wire.Message:
        """Do what one message asks; returns the answer."""
        ...

    @property
    def declared(self) -> Callable[[int, wire.Declared], None]:
        """Takes the documents that should stand, and their serial."""
        ...

    @property
    def advised(self) -> Callable[[], wire.Advised | None]:
        """Says how far the newest documents got; None: nobody has told any."""
        ...

    def read(self, data: bytes, lease: float) -> tuple[wire.Work | wire.Look | wire.Piece, list[Change]]:
        """Return what a message asks, ends on this host's clock. Raises ``LinkProtocolError``."""
        ...

    def beat(self, *, full: bool) -> wire.Beat:
        """The next beat."""
        ...

    def report(self) -> wire.Heard | None:
        """The next message about runtime alerts."""
        ...

    def send_damages(self, send: Callable[[wire.Message], None] | None) -> None:
        """Where damages are told from now on."""
        ...


class Attachment:
    """One attached stream: reads, works, writes, beats; ends with the first of them."""

    def __init__(
        self, agent: Attached, call: grpc.aio.StreamStreamCall[bytes, bytes], lease: float, protocol: int
    ) -> None:
        self._protocol = protocol
        self._pieces = Pieces()
        self._agent = agent
        self._call = call
        self._lease = lease
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._work: set[asyncio.Task[None]] = set()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work(self) -> None:
        """Work until the link ends. Raises ``NotAttached``, ``LinkProtocolError`` or the library's error."""
        self._agent.send_damages(self._send)
        works = [self._read, self._write, self._beat]
        works += [self._tell] if self._protocol >= wire.ALERTS_PROTOCOL else []
        works += [self._advise] if self._protocol >= wire.DOCUMENTS_PROTOCOL else []
        tasks = [asyncio.create_task(each()) for each in works]
        try:
            await asyncio.wait((*tasks, self._broken), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._agent.send_damages(None)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            if self._work:
                # What was begun is brought to its end: it is half done otherwise, and nobody would know.
                await asyncio.wait(self._work)
        found = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
        if self._broken.done():
            self._broken.result()
        if found:
            raise found[0]

    def _send(self, message: wire.Message) -> None:
        self._outgoing.put_nowait(wire.encode(message))

    async def _read(self) -> None:
        while True:
            message, changes = self._agent.read(await received(self._call), self._lease)
            if isinstance(message, wire.Piece):
                if (whole := self._pieces.take(message)) is not None:
                    self._agent.declared(*whole)
                continue
            # Begun in the order of arrival; a cut does not wait for what was begun before it.
            task = asyncio.create_task(self._do(message, changes))
            self._work.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._broken.done():
            self._broken.set_exception(error)  # a bug of the path gate: it must not go on half

    async def _do(self, message: wire.Work | wire.Look, changes: list[Change]) -> None:
        self._send(await self._agent.do(message, changes))

    async def _write(self) -> None:
        while True:
            await self._call.write(await self._outgoing.get())

    async def _beat(self) -> None:
        turn = 0
        while True:
            self._send(self._agent.beat(full=turn % RESOURCES_EVERY == 0))
            turn += 1
            await asyncio.sleep(BEAT_SECONDS)

    async def _advise(self) -> None:
        """Tell how far documents got, whenever that changes."""
        before: wire.Advised | None = None
        while True:
            told = self._agent.advised()
            if told is not None and told != before:
                before = told
                self._send(told)
            await asyncio.sleep(TELL_SECONDS)

    async def _tell(self) -> None:
        """Tell of runtime alerts, behind everything else: they wait in their own bounded queue while the link is
        slow."""
        while True:
            await asyncio.sleep(TELL_SECONDS)
            if self._outgoing.empty() and (message := self._agent.report()) is not None:
                self._send(message)


async def received(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> bytes:
    """The next message's bytes. Raises ``NotAttached`` with the gateway's reason when it has ended the call."""
    data = await call.read()
    if isinstance(data, bytes):
        return data
    # The other end has ended the call: its status says why.
    code, details = await call.code(), await call.details()
    msg = f"the gateway ended the link: {details or code.name}"
    raise NotAttached(msg[: wire.SENTENCE])
