"""The gateway's view of one agent: a path gate whose hands are on another host.

``RemoteGate`` implements the ``Backend`` port and the ``Contact`` port; a ``Session`` is one attachment. What must
not live here: the stream, certificates, deciding anything.

Order on the wire is order of asking, except that cuts pass what was not sent yet: an opening that was asked before
a cut of the same address and not sent when the cut was asked is not sent any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import cast

from gateway.agentlink import messages as wire
from gateway.agentlink import packing
from gateway.agentlink.clocks import ClockBound
from gateway.control.ports import Clock, Proof, Resync, Strayed
from gateway.core.errors import BackendError, Unreached
from gateway.core.model import Address, Applied, Change, ChangeKind, ChangeOutcome, Stands

NAME = "link"

#: Seconds in which an agent must answer: longer than its own path gate may take (15 s).
ANSWER_SECONDS = 20.0
#: Reports kept for a listener that is slow: each asks for the same, a complete look.
MAX_REPORTS = 16

_LOWERING = frozenset({ChangeKind.CUT, ChangeKind.WITHDRAW, ChangeKind.FORGET})


class _Asked:
    """One question to the agent, and its answer to be."""

    __slots__ = ("addresses", "answer", "changes", "cut", "number", "proof", "refused", "serial")

    def __init__(
        self, number: int, changes: Sequence[Change], addresses: Sequence[Address], serial: int, *, cut: bool
    ) -> None:
        self.number = number
        self.changes = changes
        self.addresses = addresses
        self.serial = serial
        self.cut = cut
        self.proof = False
        self.refused: dict[int, str] = {}  # places of changes that were not sent, and why
        self.answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()


class Session:
    """One attachment of an agent: what is to be sent, what is waited for, and how its clock stands."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.bound = ClockBound()
        self.beaten = clock.now().boot
        self.not_after = 0.0
        self.resources: Mapping[str, float] = {}
        self.notes: Mapping[str, str] = {}
        #: Told of the ways around the host's path gate, with each beat that says something of them.
        self.on_bypasses: Callable[[tuple[str, ...]], None] | None = None
        self.ready: asyncio.Future[wire.Ready | wire.Unable] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._numbers = 0
        self._cuts: deque[_Asked] = deque()
        self._others: deque[_Asked] = deque()
        self._pieces: deque[wire.Piece] = deque()
        self._waiting: dict[int, _Asked] = {}
        self._wake = asyncio.Event()
        self._serial = 0
        self._lowered: dict[Address, tuple[int, ChangeKind]] = {}

    def end(self, why: str) -> None:
        """End the attachment; whoever waits for an answer learns that it was lost."""
        if not self.ended.done():
            self.ended.set_result(why)
        for asked in (*self._waiting.values(), *self._cuts, *self._others):
            if not asked.answer.done():
                asked.answer.set_exception(Unreached(NAME, why))
        self._waiting.clear()
        self._cuts.clear()
        self._others.clear()

    async def work(self, changes: Sequence[Change], *, cut: bool) -> list[ChangeOutcome]:
        """Have changes made; one outcome each, in order. Raises ``BackendError``."""
        return cast("list[ChangeOutcome]", await self._ask(changes, (), cut=cut))

    async def look(self, addresses: Sequence[Address]) -> dict[Address, Stands]:
        """Have addresses read back. Raises ``BackendError``."""
        return cast("dict[Address, Stands]", await self._ask((), addresses, cut=False))

    async def prove(self, addresses: Sequence[Address]) -> Proof:
        """Have addresses read back, and what is found named. Raises ``BackendError``."""
        return cast("Proof", await self._ask((), addresses, cut=False, proof=True))

    async def _ask(
        self, changes: Sequence[Change], addresses: Sequence[Address], *, cut: bool, proof: bool = False
    ) -> object:
        self._numbers += 1
        if cut:
            self._serial += 1
            if self._others:
                self._lowered.update({change.address: (self._serial, change.kind) for change in changes})
        asked = _Asked(self._numbers, changes, addresses, self._serial, cut=cut)
        asked.proof = proof
        (self._cuts if cut else self._others).append(asked)
        self._wake.set()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asked.answer
        except TimeoutError as error:
            raise BackendError(NAME, f"no answer within {ANSWER_SECONDS:g} s", transient=True) from error
        finally:
            self._waiting.pop(asked.number, None)

    def tell(self, pieces: Sequence[wire.Piece]) -> None:
        """Send what needs no answer, behind everything else; what was not sent of an earlier telling is not any
        more."""
        self._pieces = deque(pieces)
        self._wake.set()

    async def pump(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send what is asked, cuts first, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._cuts or self._others or self._pieces:
                if not (self._cuts or self._others):
                    await send(wire.encode(self._pieces.popleft()))
                    continue
                asked = (self._cuts or self._others).popleft()
                if not self._others and asked.cut:
                    self._lowered.clear()
                message = self._message(asked)
                if message is not None:
                    self._waiting[asked.number] = asked
                    await send(wire.encode(message))

    def _message(self, asked: _Asked) -> wire.Message | None:
        if asked.addresses:
            return wire.Look(asked.number, packing.pack_addresses(asked.addresses), asked.proof)
        changes = asked.changes
        if not asked.cut and self._lowered:
            asked.refused = {
                place: "overtaken by a cut"
                for place, change in enumerate(changes)
                if self._overtaken(change, asked.serial)
            }
            changes = [change for place, change in enumerate(changes) if place not in asked.refused]
            if not self._others:
                self._lowered.clear()
            if not changes:
                self._settle(asked, [])
                return None
        now = self.clock.now().boot
        return packing.pack_work(asked.number, changes, now, self.bound.theirs_at_least(now), cut=asked.cut)

    def _overtaken(self, change: Change, serial: int) -> bool:
        later, kind = self._lowered.get(change.address, (0, ChangeKind.WITHDRAW))
        if later <= serial or change.kind is ChangeKind.WITHDRAW:
            return False
        return change.kind is not ChangeKind.CUT or kind is ChangeKind.FORGET

    def take(self, message: wire.FromAgent) -> None:
        """Take an answer or a beat. Raises ``LinkProtocolError``."""
        if isinstance(message, wire.Beat):
            self._beat(message)
            return
        if not isinstance(message, wire.Done | wire.Seen | wire.Failed):
            raise wire.LinkProtocolError(f"the agent sent {type(message).__name__} out of turn")
        asked = self._waiting.pop(message.number, None)
        if asked is None or asked.answer.done():
            return  # answered too late: nobody waits any more
        if isinstance(message, wire.Failed):
            error = BackendError(NAME, message.why[: wire.SENTENCE], transient=message.transient)
            asked.answer.set_exception(error)
        elif isinstance(message, wire.Seen) and asked.proof:
            read = self._ours(message.read) or self.clock.now().boot
            asked.answer.set_result(packing.unpack_proof(message, asked.addresses, read))
        elif isinstance(message, wire.Seen):
            asked.answer.set_result(packing.unpack_seen(message, asked.addresses))
        else:
            sent = [change for place, change in enumerate(asked.changes) if place not in asked.refused]
            self._settle(asked, packing.unpack_done(message, sent, self._ours(message.accepted)))

    def _settle(self, asked: _Asked, outcomes: list[ChangeOutcome]) -> None:
        if asked.refused:
            told = iter(outcomes)
            outcomes = [
                ChangeOutcome(change, Applied.FAILED, asked.refused[place])
                if place in asked.refused
                else next(told)
                for place, change in enumerate(asked.changes)
            ]
        if not asked.answer.done():
            asked.answer.set_result(outcomes)

    def _ours(self, accepted: float) -> float:
        return 0.0 if accepted <= 0 else min(self.bound.ours_at_most(accepted), self.clock.now().boot)

    def _beat(self, beat: wire.Beat) -> None:
        now = self.clock.now().boot
        self.bound.learn(beat.boot, now)
        self.beaten = now
        self.not_after = beat.not_after
        if beat.resources:
            self.resources = beat.resources
        if beat.notes:
            self.notes = beat.notes
        if beat.bypasses is not None and self.on_bypasses is not None:
            self.on_bypasses(tuple(each[: wire.SENTENCE] for each in beat.bypasses[: wire.MOST_BYPASSES]))


class RemoteGate:
    """Implements ``Backend`` and ``Contact`` for one agent, attached or not."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self._session: Session | None = None
        self._why = f"no agent {agent} has attached yet"
        self._attached = asyncio.Event()
        self._running = False
        self._reports: asyncio.Queue[str] = asyncio.Queue(MAX_REPORTS)
        self._missed = False  # a report found the queue full
        #: Ways around the host's path gate, as its agent last told; they stay while the agent is away.
        self.bypasses: tuple[str, ...] = ()
        #: Told of each that opened and each that closed, after ``bypasses`` was changed.
        self.on_bypass: Callable[[str], None] = lambda _sentence: None

    @property
    def name(self) -> str:
        """The ``backend`` label of metrics."""
        return NAME

    # Contact

    @property
    def why(self) -> str:
        """Why the agent cannot be reached; "" when it can."""
        return self._why

    async def reached(self) -> None:
        """Return as soon as the agent is attached."""
        await self._attached.wait()

    @property
    def session(self) -> Session | None:
        """The attachment, where there is one."""
        return self._session

    def attach(self, session: Session, sentence: str) -> None:
        """The agent has the plan in force and takes work from here on. A second attachment ends the first."""
        if self._session is not None:
            self.detach(self._session, "attached anew")
        self._session, self._why = session, ""
        self._attached.set()
        self._report(Resync(sentence))

    def detach(self, session: Session, why: str) -> None:
        """The attachment has ended; nothing happens when another one has taken its place already."""
        if self._session is session:
            self._session, self._why = None, why
            self._attached.clear()
        session.end(why)

    def explain(self, why: str) -> None:
        """Say why nobody is attached."""
        if self._session is None:
            self._why = why

    def damaged(self, sentence: str) -> None:
        """The agent's path gate was found damaged and laid again, or (``Strayed``) somebody changed elements."""
        self._report(sentence)

    def around(self, bypasses: tuple[str, ...]) -> None:
        """The agent says which ways around its host's path gate there are."""
        before, self.bypasses = self.bypasses, bypasses
        for each in bypasses:
            if each not in before:
                self.on_bypass(each)
        for each in before:
            if each not in bypasses:
                self.on_bypass(f"closed again: {each}")

    # Backend

    async def start(self) -> bool:
        """Take questions from now on. Always True: what stands on the other host is read when it attaches."""
        self._running = True
        return True

    async def cut(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        """Take CUT, WITHDRAW and FORGET changes now. Raises ``BackendError``; ``ValueError`` for other kinds."""
        session = self._live()
        if any(change.kind not in _LOWERING for change in changes):
            msg = "the cut lane takes CUT, WITHDRAW and FORGET only"
            raise ValueError(msg)
        return await self._work(session, changes, cut=True)

    async def apply(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        """Take any changes, in order. Raises ``BackendError``."""
        return await self._work(self._live(), changes, cut=False)

    async def observe(self, addresses: Sequence[Address]) -> Mapping[Address, Stands]:
        """Have these addresses read back. Raises ``BackendError``."""
        session = self._live()
        found: dict[Address, Stands] = {}
        for start in range(0, len(addresses), wire.MOST_CHANGES):
            found |= await session.look(tuple(addresses[start : start + wire.MOST_CHANGES]))
        return found

    async def prove(self, addresses: Sequence[Address]) -> Proof:
        """Have the agent show what stands on its host. At most ``MOST_CHANGES``. Raises ``BackendError``."""
        return await self._live().prove(tuple(addresses[: wire.MOST_CHANGES]))

    async def damages(self) -> AsyncIterator[str]:
        """Yield a sentence for each damage that the agent reports, a ``Strayed`` for what others changed, and a
        ``Resync`` for each attachment."""
        while True:
            yield await self._reports.get()
            if self._missed and self._reports.empty():
                self._missed = False
                yield Strayed(f"agent {self.agent} told more than could be heard", everything=True)

    async def stop(self) -> None:
        """Ask nothing any more; the agent goes on enforcing, with its ends."""
        self._running = False
        if self._session is not None:
            self.detach(self._session, "the gateway stops")

    async def _work(self, session: Session, changes: Sequence[Change], *, cut: bool) -> Sequence[ChangeOutcome]:
        outcomes: list[ChangeOutcome] = []
        for start in range(0, len(changes), wire.MOST_CHANGES):
            outcomes += await session.work(tuple(changes[start : start + wire.MOST_CHANGES]), cut=cut)
        return outcomes

    def _live(self) -> Session:
        if not self._running:
            raise BackendError(NAME, "not started, or stopped", transient=False)
        if self._session is None:
            raise Unreached(NAME, self._why)
        return self._session

    def _report(self, sentence: str) -> None:
        if self._reports.full():
            self._missed = True
        else:
            self._reports.put_nowait(sentence)
