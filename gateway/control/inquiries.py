"""What verifiers are asked: to have a device attest again, and the one question after each accepted pass.

What lives here: who is asked what, when, how often, and which of our requests an answer belongs to. What must not:
sockets, the verifier's language (behind the ``Verifier`` port), standings.

A request (``attest``) is asked within the verifier's budget, for an operator or for a device that has become
suspect. The question after a pass (``confirm``) discards what the verifier keeps of that attestation, and with it
the replay of old evidence. Asked late it would fall into the device's next attestation and spoil it: so it is asked
at once or not at all, one after the other, and never by the clock.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from gateway.control.ports import Answered, Clock, Fact, Step, Verifier
from gateway.core.errors import SourceError
from gateway.core.model import (
    DeviceId,
    Effect,
    EventKind,
    Instant,
    Outcome,
    SourceName,
    Standing,
    Transition,
    Verdict,
)

ANSWERED_WITHIN = 5.0
"""Seconds in which a REQUESTED counts as the answer to our own request (design: the last 5 s)."""

ATTEMPTS = 3
"""Times that a request is tried while the verifier does not answer; each costs budget."""

SAME_SECONDS = 5
"""By how much the verifier's database may date an attestation otherwise than its alert, and still mean the same
one."""

TOLD_WITHIN = 8.0
"""Seconds after which an operator hears that the request waits: longer than a verifier that answers needs."""

RESULTS: Mapping[str, tuple[str, ...]] = {
    "attest": ("asked", "failed"),
    "confirm": ("agrees", "contradicts", "unknown", "failed", "late", "no-address"),
}
"""The closed list of what becomes of each kind of inquiry; see ``docs/operations.md``."""


@dataclass(frozen=True, slots=True)
class InquiryLimits:
    """``requests`` within ``per`` seconds: the verifier's budget. SEDIMENT's loses one genuine attestation in six
    when five devices attest at once, and attests some ninety a second one after the other.

    ``settle`` seconds from a suspicion to the request: a pass must be issued after it, by more than the clocks may
    differ, and an attestation asked for at once would be over before.
    ``again`` seconds before a device that asked for it by itself is asked for again. ``late`` seconds after a pass
    was received from which on it is not asked about any more.
    """

    requests: int = 30
    per: float = 60.0
    again: float = 10.0
    settle: float = 3.0
    late: float = 5.0


class Asked(NamedTuple):
    """What became of a request: ``asked``, ``waiting`` (for its turn), ``failed`` or ``passed`` (it attested)."""

    source: SourceName
    state: str
    detail: str


class _Request:
    __slots__ = ("attempts", "due", "waiting")

    def __init__(self, due: float) -> None:
        self.attempts = 0
        self.due = due  # boot seconds
        self.waiting: list[asyncio.Future[Asked]] = []

    def settle(self, asked: Asked) -> None:
        for each in self.waiting:
            if not each.done():
                each.set_result(asked)


class _Passed(NamedTuple):
    """An accepted pass that a question is owed for. ``received`` boot seconds, ``issued_at`` UNIX seconds."""

    device: DeviceId
    issued_at: int
    received: float


class Inquirer:
    """What one source's verifier is asked. ``counts`` by (kind, result) of ``RESULTS``."""

    def __init__(
        self, source: SourceName, verifier: Verifier, clock: Clock, limits: InquiryLimits = InquiryLimits()
    ) -> None:
        self.source = source
        self.counts: Counter[tuple[str, str]] = Counter()
        self._limits = limits
        self._verifier = verifier
        self._clock = clock
        self._requests: dict[DeviceId, _Request] = {}
        self._passes: dict[str, dict[DeviceId, _Passed]] = {}
        self._newest: dict[DeviceId, _Passed] = {}  # of each device, until its question has been answered
        self._sent: deque[float] = deque(maxlen=limits.requests)
        self._asked_at: dict[DeviceId, float] = {}
        self._open: dict[DeviceId, float] = {}
        self._confirmed: set[DeviceId] = set()
        self._trouble = ""
        self._wake_requests = asyncio.Event()
        self._wake_passes = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Requests and questions that have not been asked yet."""
        return len(self._requests) + len(self._passes)

    @property
    def confirmed(self) -> int:
        """Devices whose newest accepted pass was followed by an answered question."""
        return len(self._confirmed)

    def is_confirmed(self, device: DeviceId) -> bool:
        """Whether this one is among them: its old evidence can then not be replayed at the verifier."""
        return device in self._confirmed

    def state(self) -> str:
        """One sentence for people."""
        if self._trouble:
            return f"the verifier's API does not answer: {self._trouble}"
        return f"{self.waiting} inquiries waiting" if self.waiting else "answers"

    # --- what is asked ----------------------------------------------------------------------------------

    def suspected(self, device: DeviceId, now: Instant) -> None:
        """A device has become suspect: ask for it, unless that was done just now or cannot be."""
        asked = self._asked_at.get(device)
        if asked is not None and now.boot - asked < self._limits.again:
            return
        try:
            self._verifier.check(device)
        except SourceError:
            self.counts["attest", "failed"] += 1
        else:
            self._request(device, now.boot + self._limits.settle)

    def request(self, device: DeviceId) -> asyncio.Future[Asked]:
        """Ask for a device in its turn; the future tells what became of it. Raises ``SourceError`` when it cannot
        be."""
        self._verifier.check(device)
        future: asyncio.Future[Asked] = asyncio.get_running_loop().create_future()
        self._request(device, self._clock.now().boot).waiting.append(future)
        return future

    def place(self, device: DeviceId) -> int:
        """How many requests come before a device's own; 0: it is next, or not waiting."""
        return next((place for place, each in enumerate(self._requests) if each == device), 0)

    def _request(self, device: DeviceId, due: float) -> _Request:
        request = self._requests.setdefault(device, _Request(due))
        request.due = min(request.due, due)
        self._wake_requests.set()
        return request

    def passed(self, verdict: Verdict, received: Instant) -> None:
        """An accepted pass: one question is owed for it, and nothing need be asked for any more."""
        device = verdict.device
        self._confirmed.discard(device)
        self._newest.pop(device, None)
        request = self._requests.pop(device, None)
        if request is not None:
            request.settle(Asked(self.source, "passed", "it passed before it was asked for"))
        address = self._verifier.address_of(verdict.claim)
        if not address:
            self.counts["confirm", "no-address"] += 1
            return
        newest = self._newest[device] = _Passed(device, verdict.issued_at, received.boot)
        self._passes.setdefault(address, {})[device] = newest
        self._wake_passes.set()

    def answered(self, device: DeviceId, now: Instant) -> bool:
        """Whether a REQUESTED answers our own request of the last 5 s; a request is answered once."""
        asked = self._open.pop(device, None)
        return asked is not None and now.boot - asked <= ANSWERED_WITHIN

    # --- asking -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ask_requests(), name=f"requests {self.source}")
            tasks.create_task(self._ask_about_passes(), name=f"confirmations {self.source}")

    async def _ask_requests(self) -> None:
        while True:
            await self._until_due()
            await self._within_budget()
            device = self._due()
            if device is not None:  # it may have passed meanwhile
                await self._ask_for(device)

    def _due(self) -> DeviceId | None:
        """The first device whose request may be asked now."""
        now = self._clock.now().boot
        return next((device for device, request in self._requests.items() if request.due <= now), None)

    async def _until_due(self) -> None:
        while self._due() is None:
            self._wake_requests.clear()
            left: float | None = None
            if self._requests:
                left = min(request.due for request in self._requests.values()) - self._clock.now().boot
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake_requests.wait()

    async def _within_budget(self) -> None:
        """Wait until the verifier's budget has room for one more."""
        while len(self._sent) == self._limits.requests:
            left = self._sent[0] + self._limits.per - self._clock.now().boot
            if left <= 0:
                return
            await asyncio.sleep(left)

    async def _ask_for(self, device: DeviceId) -> None:
        request = self._requests.pop(device)
        request.attempts += 1
        now = self._clock.now().boot
        self._sent.append(now)
        self._asked_at[device] = self._open[device] = now
        try:
            await self._verifier.attest(device)
        except SourceError as error:
            self._open.pop(device, None)
            self._trouble = error.what
            if request.attempts < ATTEMPTS:
                self._requests.setdefault(device, request)
            else:
                self.counts["attest", "failed"] += 1
                request.settle(Asked(self.source, "failed", error.what))
        else:
            self._trouble = ""
            self.counts["attest", "asked"] += 1
            request.settle(Asked(self.source, "asked", "the verifier was asked to have it attest"))

    async def _ask_about_passes(self) -> None:
        while True:
            while not self._passes:
                self._wake_passes.clear()
                await self._wake_passes.wait()
            address = next(iter(self._passes))
            owed = self._passes.pop(address)
            now = self._clock.now().boot
            timely = [each for each in owed.values() if now - each.received <= self._limits.late]
            late = [each for each in owed.values() if each not in timely]
            self.counts["confirm", "late"] += len(late)
            self._forget(late)
            if timely:
                await self._ask_about(address, timely)

    async def _ask_about(self, address: str, owed: Sequence[_Passed]) -> None:
        try:
            answer = await self._verifier.confirm(address)
        except SourceError as error:
            self._trouble = error.what
            self.counts["confirm", "failed"] += len(owed)
            self._forget(owed)
            return
        self._trouble = ""
        for each in owed:
            if answer is None:
                result = "unknown"
            elif answer.good and abs(answer.at - each.issued_at) <= SAME_SECONDS:
                result = "agrees"
                if self._newest.get(each.device) is each:
                    self._confirmed.add(each.device)
            else:
                # Another device's row, or an update that the verifier's database lost: no word about standing.
                result = "contradicts"
            self.counts["confirm", result] += 1
        self._forget(owed)

    def _forget(self, passes: Sequence[_Passed]) -> None:
        for each in passes:
            if self._newest.get(each.device) is each:
                del self._newest[each.device]


class Inquiries:
    """All verifiers that can be asked, by source. Watches what the devices' writer tells, and is its observer."""

    def __init__(self, inquirers: Iterable[Inquirer], clock: Clock) -> None:
        self._by_source = {each.source: each for each in inquirers}
        self._clock = clock

    def get(self, source: SourceName) -> Inquirer | None:
        """The inquirer of a source; None: its verifier cannot be asked."""
        return self._by_source.get(source)

    def all(self) -> Iterable[Inquirer]:
        """Every one."""
        return self._by_source.values()

    def solicited(self, device: DeviceId, source: SourceName, now: Instant) -> bool:
        """Whether a REQUESTED answers a request of ours."""
        inquirer = self._by_source.get(source)
        return inquirer is not None and inquirer.answered(device, now)

    def judged(self, verdict: Verdict, transition: Transition, received: Instant) -> None:
        """An authenticated verdict has been stepped."""
        inquirer = self._by_source.get(verdict.source)
        if inquirer is None or verdict.outcome is not Outcome.PASSED or transition.effect is Effect.REFUSED:
            return
        if transition.event.kind is EventKind.PASSED:
            inquirer.passed(verdict, received)

    def stepped(self, steps: Sequence[Step]) -> None:
        """Ask for a device that has just become suspect, and about one that has passed."""
        if not self._by_source:
            return
        for transition, verdict, received in steps:
            after, before = transition.after.standing, transition.before.standing
            if after is Standing.SUSPECT and before is not Standing.SUSPECT:
                inquirer = self._by_source.get(transition.source)
                if inquirer is not None:
                    inquirer.suspected(transition.device, self._clock.now())
            if verdict is not None:
                self.judged(verdict, transition, received)

    def enforced(self, outcomes: Sequence[Answered]) -> None:
        """Nothing is asked because of them."""

    def observe(self, fact: Fact) -> None:
        """Nor because of these."""

    async def attest(self, device: DeviceId, sources: Iterable[SourceName]) -> Sequence[Asked]:
        """Have a device attest again, at each of its sources, as an operator wishes. Never waits longer than
        ``TOLD_WITHIN``. Raises ``SourceError`` when none of them can be asked."""
        futures: list[tuple[Inquirer, asyncio.Future[Asked]]] = []
        refused: SourceError | None = None
        for source in sources:
            inquirer = self._by_source.get(source)
            try:
                if inquirer is None:
                    raise SourceError(source, "its verifier cannot be asked: no api is configured")
                futures.append((inquirer, inquirer.request(device)))
            except SourceError as error:
                refused = error
        if not futures:
            raise refused or SourceError("", "the device has no source")
        await asyncio.wait([future for _, future in futures], timeout=TOLD_WITHIN)
        return [
            future.result() if future.done() else _still_waiting(inquirer, device) for inquirer, future in futures
        ]


def _still_waiting(inquirer: Inquirer, device: DeviceId) -> Asked:
    before = inquirer.place(device)
    return Asked(inquirer.source, "waiting", f"{before} requests before it; {inquirer.state()}")
