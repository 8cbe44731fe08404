"""Documents whose senders wait: what is known of each, from the queue to the last target's answer.

What lives here: judging a document statement by statement in slices, and telling its receipt when it is durable and
when it is enforced. What must not: bytes, standings, how anything is enforced.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from gateway.control.devices import Committed, Devices
from gateway.control.ports import Answered, Opener
from gateway.core.errors import JournalError
from gateway.core.model import (
    Applied,
    Envelope,
    Outcome,
    Rejected,
    SourceName,
    Statement,
    Transition,
    Verdict,
)

# Read for every statement; a member read from its Enum costs fifteen times as much.
_PASSED = Outcome.PASSED
_VERIFIED = Applied.VERIFIED


class Said:
    """What became of one statement; implements the ``Item`` port."""

    __slots__ = ("device", "failed", "milliseconds", "pending", "result", "seq")

    def __init__(self, device: str) -> None:
        self.device = device
        self.result: Transition | Rejected | None = None
        self.seq = 0
        self.milliseconds: float | None = None
        self.failed = ""
        self.pending: tuple[str, ...] = ()


class Bundle:
    """One document on its way; implements the ``Receipt`` port."""

    __slots__ = (
        "durable",
        "enforced",
        "envelope",
        "error",
        "follow",
        "items",
        "judged",
        "left",
        "refused",
        "said",
        "waiting",
    )

    def __init__(self, envelope: Envelope, loop: asyncio.AbstractEventLoop, *, follow: bool) -> None:
        self.envelope = envelope
        self.follow = follow
        self.refused: Rejected | None = None
        self.said: Sequence[Statement] | None = None  # None: not opened yet
        self.items: list[Said] = []
        self.judged = 0
        self.waiting = 0  # commits that have not come back
        self.left = 0  # statements whose enforcement is awaited
        self.error: JournalError | None = None
        self.durable: asyncio.Future[JournalError | None] = loop.create_future()
        self.enforced: asyncio.Future[None] = loop.create_future()

    @property
    def whole(self) -> bool:
        """Whether every statement was judged."""
        return self.refused is not None or (self.said is not None and self.judged == len(self.said))

    def release(self) -> None:
        """Whole: the bytes and what was read from them are of no use any more, and receipts are kept for a
        while."""
        self.envelope = self.envelope._replace(data=b"")
        self.judged, self.said = 0, ()

    def settle(self) -> None:
        """Tell who waits, as far as everything about it has come back."""
        if not self.whole or self.waiting:
            return
        if not self.durable.done():
            self.durable.set_result(self.error)
        if not self.left and not self.enforced.done():
            self.enforced.set_result(None)


class Bundles:
    """The queue of documents. All methods run on the loop's thread, within the admission's turns."""

    def __init__(
        self,
        openers: Mapping[SourceName, Opener],
        devices: Devices,
        rejected: Callable[[Rejected], int],
        degraded: Callable[[Verdict, Envelope, str], Rejected],
    ) -> None:
        self._openers = openers
        self._record_of = {source: devices.records_of(source) for source in openers}
        self._devices = devices
        self._rejected = rejected
        self._degraded = degraded
        self._queue: deque[Bundle] = deque()
        self._loop = asyncio.get_running_loop()
        self._statements = 0  # that wait in documents opened already
        #: By journal row: who waits for what comes of it at each target.
        self._followed: dict[int, tuple[Bundle, Said]] = {}
        devices.telling.on_enforced = self._enforced

    def __len__(self) -> int:
        return len(self._queue) + self._statements

    def add(self, envelope: Envelope, *, follow: bool) -> Bundle:
        """Queue one document."""
        bundle = Bundle(envelope, self._loop, follow=follow)
        self._queue.append(bundle)
        return bundle

    def turn(self, most: int) -> Committed | None:
        """Judge up to ``most`` statements; what it returns is for the commit that ends this turn."""
        taken: list[tuple[Bundle, Said, int]] = []
        touched: list[Bundle] = []
        while self._queue and most > 0:
            bundle = self._queue[0]
            bundle.waiting += 1
            touched.append(bundle)
            if bundle.said is None:
                self._open(bundle)
            if bundle.refused is not None:
                most -= 1
            else:
                most -= self._judge(bundle, taken, most)
            if not bundle.whole:
                break
            self._queue.popleft()
            bundle.release()
        if not touched:
            return None

        def durable(error: JournalError | None) -> None:
            for bundle in touched:
                bundle.waiting -= 1
                bundle.error = bundle.error or error
                bundle.settle()

        def committed(rows: Sequence[int]) -> Callable[[JournalError | None], None]:
            for bundle, item, place in taken:
                item.seq = rows[place]
                if bundle.follow:
                    self._follow(bundle, item)
            return durable

        return committed

    def _open(self, bundle: Bundle) -> None:
        opened = self._openers[bundle.envelope.source].open(bundle.envelope)
        if isinstance(opened, Rejected):
            bundle.refused = opened
            self._rejected(opened)
            return
        bundle.said = opened
        bundle.items = [Said(statement.device) for statement in opened]
        self._statements += len(opened)

    def _judge(self, bundle: Bundle, taken: list[tuple[Bundle, Said, int]], most: int) -> int:
        """Judge the next statements of a document, ``most`` of them; returns how many they were."""
        assert bundle.said is not None
        envelope, devices = bundle.envelope, self._devices
        source = envelope.source
        appraise = self._openers[source].appraise
        record_of, received = self._record_of[source], envelope.received
        first = bundle.judged
        said = bundle.said[first : first + most]
        may_raise = devices.may_raise
        for item, statement in zip(bundle.items[first:], said, strict=False):
            result = appraise(statement, envelope, record_of)
            if isinstance(result, Verdict):
                if may_raise or result.outcome is not _PASSED:
                    taken.append((bundle, item, devices.waiting))
                    item.result = devices.verdict(result, received)
                    continue
                result = self._degraded(result, envelope, devices.why_not)
            item.result = result
            item.seq = self._rejected(result)
        bundle.judged += len(said)
        self._statements -= len(said)
        return len(said)

    def _follow(self, bundle: Bundle, item: Said) -> None:
        item.pending = self._devices.targets
        if item.pending:
            bundle.left += 1
            self._followed[item.seq] = (bundle, item)

    def _enforced(self, outcomes: Sequence[Answered]) -> None:
        followed = self._followed
        if not followed:
            return
        for seq, fact in outcomes:
            if seq not in followed:
                continue
            bundle, item = followed[seq]
            pending = item.pending
            item.pending = () if len(pending) == 1 else tuple([each for each in pending if each != fact.target])
            if fact.state is not _VERIFIED:
                item.failed = f"{fact.target}: {fact.detail or 'not verified'}"
            if item.pending:
                continue
            del followed[seq]
            if not item.failed:
                item.milliseconds = (fact.verified - fact.received) * 1_000
            bundle.left -= 1
            if not bundle.left:
                bundle.settle()
