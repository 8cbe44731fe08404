"""Admission of envelopes: each goes to its source's pure authentication, and what comes out to the devices.

What lives here: the queue between doors and the single writer, and its limits. What must not: judging bytes
(the source's authenticator does) or deciding what a verdict means (the lifecycle does).
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.control.devices import Devices
from gateway.control.hints import HintLimits, HintRate
from gateway.control.ports import Authenticator, Clock, Entry, Journal, Observer, Opener, Receipt
from gateway.control.receipts import Bundles
from gateway.core.errors import Refusal
from gateway.core.model import Envelope, Hint, Instant, Outcome, Rejected, SourceName, Verdict

#: What comes of a hint that is taken: it made a device suspect (or cut it), changed nothing, or was no bad word.
HINT_RESULTS = ("lowered", "no-effect", "ignored")

# Read for every alert; a member read from its Enum costs fifteen times as much.
_PASSED = Outcome.PASSED


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """``queue``: envelopes waiting before doors are asked to stop accepting (4,096 alerts are 1.5 MB).

    ``journal``: entries waiting for a commit before the same (a slow disk must push back, not fill memory).
    ``slice``: envelopes judged in one turn of the loop (32 x 60 us keeps the loop responsive); ``statements``: of
    posted documents likewise, whose signature is checked once for all of them (64 x 30 us).
    """

    queue: int = 4_096
    journal: int = 16_384
    slice: int = 32
    statements: int = 64


class Admit:
    """Implements the ``Admission`` port, and ``Presenting`` for the sources that have an opener."""

    def __init__(
        self,
        authenticators: Mapping[SourceName, Authenticator],
        devices: Devices,
        journal: Journal,
        observers: Sequence[Observer],
        clock: Clock,
        limits: AdmissionLimits = AdmissionLimits(),
        hint_limits: HintLimits = HintLimits(),  # noqa: B008 - frozen value
        openers: Mapping[SourceName, Opener] | None = None,
    ) -> None:
        self._authenticators = authenticators
        self._devices = devices
        self._record_of = {source: devices.records_of(source) for source in authenticators}
        self._journal = journal
        self._observers = observers
        self._clock = clock
        self._limits = limits
        self._queue: deque[Envelope] = deque()
        self._bundles = Bundles(openers or {}, devices, self._rejected, _degraded)
        self._waiting: list[Callable[[], None]] = []
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._hint_rate = HintRate(hint_limits)
        #: Hints taken, by source and by what came of them: one of ``HINT_RESULTS``.
        self.hints: Counter[tuple[SourceName, str]] = Counter()

    @property
    def depth(self) -> int:
        """Envelopes and statements waiting to be judged."""
        return len(self._queue) + len(self._bundles)

    @property
    def full(self) -> bool:
        """Whether doors should stop accepting."""
        limits = self._limits  # asked for twice an alert: without a call of ``depth``
        return len(self._queue) + len(self._bundles) >= limits.queue or self._journal.pending >= limits.journal

    def submit(self, envelope: Envelope) -> None:
        """Take one complete message; it is judged in one of the next turns of the loop."""
        self._queue.append(envelope)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def present(self, envelope: Envelope, *, follow: bool = False) -> Receipt:
        """Take one document; its statements are judged, in order, in the next turns of the loop."""
        bundle = self._bundles.add(envelope, follow=follow)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)
        return bundle

    def refuse(self, source: SourceName, refusal: Refusal, detail: str, peer: str) -> None:
        """Count what a door refused by itself."""
        self._rejected(Rejected(source, refusal, detail, peer, self._clock.now().wall))

    def when_ready(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once as soon as ``full`` is false again."""
        self._waiting.append(wake)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def drain(self) -> None:
        """Judge everything that waits, now (orderly stop: nothing accepted is dropped)."""
        while self._queue:
            self._judge(self._queue.popleft())
        self._devices.commit(self._bundles.turn(sys.maxsize) if self._bundles else None)

    def _turn(self) -> None:
        self._scheduled = False
        queue = self._queue
        for _ in range(min(self._limits.slice, len(queue))):
            self._judge(queue.popleft())
        self._devices.commit(self._bundles.turn(self._limits.statements) if self._bundles else None)
        if self._waiting and not self.full:
            waiting, self._waiting = self._waiting, []
            for wake in waiting:
                wake()
        if queue or self._bundles:
            self._scheduled = True
            self._loop.call_soon(self._turn)
        elif self._waiting:
            # The journal is behind: look again soon; commits also free memory without any event of ours.
            self._scheduled = True
            self._loop.call_later(0.002, self._turn)

    def _judge(self, envelope: Envelope) -> None:
        source = envelope.source
        devices = self._devices
        result = self._authenticators[source].authenticate(envelope, self._record_of[source])
        if isinstance(result, Verdict):
            if result.outcome is _PASSED and not devices.may_raise:
                self._rejected(_degraded(result, envelope, devices.why_not))
                return
            devices.verdict(result, envelope.received)
        elif isinstance(result, Hint):
            self.hint(result, envelope.received, envelope.peer)
        else:
            self._rejected(result)

    def hint(self, hint: Hint, received: Instant, peer: str) -> bool:
        """Take a hint that was judged; says whether it lowered anything. The caller ends its turn with the
        devices' ``commit``. A hint may lower, within its rate; one that is not adverse is only counted."""
        if not hint.adverse:
            self.hints[hint.source, "ignored"] += 1
            return False
        objection = self._hint_rate.objection(hint, received.boot)
        if objection:
            self._rejected(Rejected(hint.source, Refusal.RATE, objection, peer, received.wall, hint.device))
            return False
        lowered = self._devices.hint(hint, received)
        self.hints[hint.source, "lowered" if lowered else "no-effect"] += 1
        return lowered

    def _rejected(self, fact: Rejected) -> int:
        (row,) = self._journal.record((Entry(fact),))
        for observer in self._observers:
            observer.observe(fact)
        return row


def _degraded(verdict: Verdict, envelope: Envelope, why: str) -> Rejected:
    return Rejected(
        source=verdict.source,
        refusal=Refusal.DEGRADED,
        detail=f"a pass cannot be taken now: {why}; the device must attest again once this is mended",
        peer=envelope.peer,
        at=envelope.received.wall,
        device=verdict.device,
        authentic=True,
    )
