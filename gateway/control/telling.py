"""What has happened is told: to windows, to the journal, to senders that wait. Last, because telling delays no cut.

Many at once: a document's verdicts are stepped in one turn and enforced in one batch, and one call for all of them
costs a fraction of a call for each. What must not live here: deciding anything.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from gateway.control.followed import Cause
from gateway.control.ports import Answered, Journal, Notice, Observer, Step
from gateway.control.reconcile import Reconciler
from gateway.control.slots import Slot
from gateway.core.model import Applied, DeviceId, Enforced, Instant, Transition, Verdict

_VERIFIED = Applied.VERIFIED  # read for every alert; a member read from its Enum costs fifteen times as much

TOLD_AT_ONCE = 32
"""Outcomes told between two other things that the loop does (some 0.3 ms); more, where many wait."""


class Telling:
    """Tells of the steps of a turn at its end, and of what came of them at the gates by and by.

    ``slots`` is where a device's newest latency is shown.
    """

    def __init__(self, journal: Journal, observers: Sequence[Observer], slots: Mapping[DeviceId, Slot]) -> None:
        self._journal = journal
        self._observers = observers
        self._slots = slots
        self._steps: list[Step] = []
        self._outcomes: deque[tuple[Reconciler, Cause, Applied, float]] = deque()
        self._scheduled = False
        #: Told of the steps of each turn, behind the observers.
        self.on_stepped: Callable[[Sequence[Step]], None] = lambda _steps: None
        #: Told of outcomes, behind the journal and the observers.
        self.on_enforced: Callable[[Sequence[Answered]], None] = lambda _outcomes: None

    @property
    def at_rest(self) -> bool:
        """Whether no outcome waits to be told."""
        return not self._outcomes

    def notice(self, fact: Notice) -> None:
        """Tell of the service itself, at once."""
        for observer in self._observers:
            observer.observe(fact)

    # --- steps ------------------------------------------------------------------------------------------

    def stepped(self, transition: Transition, verdict: Verdict | None, came: Instant) -> None:
        """A device was stepped in this turn."""
        self._steps.append((transition, verdict, came))

    def show(self) -> None:
        """Tell of the steps of this turn, in order."""
        steps, self._steps = self._steps, []
        if steps:
            for observer in self._observers:
                observer.stepped(steps)
            self.on_stepped(steps)

    # --- outcomes ---------------------------------------------------------------------------------------

    def enforced(self, gate: Reconciler, cause: Cause, state: Applied, now: float) -> None:
        """A gate reports what came of a cause: a fact for journal and windows, by and by.

        It has happened already; what still waits to be judged, answered or enforced goes before telling of it.
        """
        self._outcomes.append((gate, cause, state, now))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._tell_next)

    def tell_all(self) -> None:
        """Tell of everything that waits, now (orderly stop)."""
        self._tell(len(self._outcomes))

    def _tell_next(self) -> None:
        waiting = len(self._outcomes)
        self._tell(min(waiting, max(TOLD_AT_ONCE, waiting // 8)))
        self._scheduled = bool(self._outcomes)
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._tell_next)

    def _tell(self, count: int) -> None:
        if not count:
            return
        take = self._outcomes.popleft
        outcomes = [self._answered(*take()) for _ in range(count)]
        self._journal.enforced(outcomes)
        for observer in self._observers:
            observer.enforced(outcomes)
        self.on_enforced(outcomes)

    def _answered(self, gate: Reconciler, cause: Cause, state: Applied, now: float) -> Answered:
        device, received, verified = cause.device, cause.received, cause.verified or now
        if received and state is _VERIFIED:
            slot = self._slots.get(device)
            if slot is not None:
                slot.last_ms = (verified - received) * 1_000
        fact = Enforced(  # by place: twice as fast as by name, and made for every alert
            device,
            gate.target,
            gate.backend.name,
            cause.profile,
            state,
            cause.detail,
            received,
            cause.accepted or verified,
            verified,
            cause.durable,
        )
        return cause.seq, fact
