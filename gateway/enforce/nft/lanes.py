"""The two lanes: a thread and a netlink socket each, so that a held kernel lock never blocks the loop.

A lane takes everything that waits for it, merges it into as few transactions as possible and reports to the loop
once a round. What must not live here: messages, sets, the static part.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gateway.core.errors import BackendError
from gateway.core.model import Address, Applied, Change, ChangeOutcome, Stands
from gateway.enforce.nft.commit import FULL, Committer
from gateway.enforce.nft.elements import DeviceSets
from gateway.enforce.nft.fence import SUPERSEDED, Dated, Fence

#: Seconds after which expired elements no longer count: the sets' gc-interval of 1 s and some scheduling.
COLLECTION_SECONDS = 1.3
#: Addresses read back before changes that wait are looked at again.
MAX_OBSERVED = 1_000

Result = list[ChangeOutcome] | list[Stands]


class Job(NamedTuple):
    """What a caller waits for: changes to carry out, addresses to read back, or sets to work on from here on."""

    changes: Sequence[Change]
    addresses: Sequence[Address]
    serial: int
    done: asyncio.Future[Result]
    sets: DeviceSets | None = None


Outcomes = list[ChangeOutcome | None]
"""Of each change its outcome, or None as long as there is none."""


class Lane:
    """A worker thread. ``submit`` is for the loop's thread, everything else for the worker."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, committer: Committer, fence: Fence) -> None:
        self._loop = loop
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"ragate-nft-{name}", daemon=True)
        self._committer = committer
        self._fence = fence
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hand in a job; ``job.done`` is settled on the loop."""
        self._queue.put(job)

    def stop(self, seconds: float) -> bool:
        """Finish what was handed in and end the worker; False if it has not ended within ``seconds``."""
        self._stopping.set()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            jobs, last = self._take(job)
            try:
                settled = self._round(jobs)
            except BaseException as error:  # a bug: whoever waits must learn of it before this thread dies
                self._report([(job, error) for job in jobs])
                raise
            self._report(settled)
            if last:
                return

    def _take(self, job: Job) -> tuple[list[Job], bool]:
        """Everything that waits; whether the end was among it."""
        jobs = [job]
        while True:
            try:
                more = self._queue.get_nowait()
            except queue.Empty:
                return jobs, False
            if more is None:
                return jobs, True
            jobs.append(more)

    def _report(self, settled: Sequence[tuple[Job, Result | BaseException]]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_settle, settled)

    def _round(self, jobs: Sequence[Job]) -> list[tuple[Job, Result | BaseException]]:
        """Carry out jobs in order; reading back stands between the changes it was asked for between."""
        settled: list[tuple[Job, Result | BaseException]] = []
        run: list[Job] = []
        for job in jobs:
            if job.changes:
                run.append(job)
                continue
            settled += self._change(run)
            run = []
            if job.sets is not None:
                self._committer.adopt(job.sets)
            settled.append((job, self._observe(job.addresses)))
        return settled + self._change(run)

    def _observe(self, addresses: Sequence[Address]) -> Result | BackendError:
        found: list[Stands] = []
        try:
            for start in range(0, len(addresses), MAX_OBSERVED):
                found += self._committer.observe(addresses[start : start + MAX_OBSERVED])
        except BackendError as error:
            return error
        return found

    def _change(self, jobs: Sequence[Job]) -> list[tuple[Job, Result | BaseException]]:
        if not jobs:
            return []
        changes = [change for job in jobs for change in job.changes]
        serials = [job.serial for job in jobs for _ in job.changes]
        outcomes: Outcomes = []
        failed: BackendError | None = None
        try:
            for start, end in _chunks(changes, self._committer.max_changes):
                part: Outcomes = [None] * (end - start)
                try:
                    self._carry_out(changes[start:end], serials[start:end], part)
                except BackendError as error:  # the chunks behind it still get their turn
                    failed = error
                outcomes += part
        finally:
            self._done_with(jobs)
        settled: list[tuple[Job, Result | BaseException]] = []
        start = 0
        for job in jobs:
            end = start + len(job.changes)
            known = [outcome for outcome in outcomes[start:end] if outcome is not None]
            settled.append((job, known if failed is None or len(known) == len(job.changes) else failed))
            start = end
        return settled

    def _carry_out(self, changes: Sequence[Change], serials: Sequence[int], outcomes: Outcomes) -> None:
        """Carry out changes of distinct addresses, fitting one transaction; fills in ``outcomes``."""
        raise NotImplementedError

    def _done_with(self, jobs: Sequence[Job]) -> None:
        raise NotImplementedError


class CutLane(Lane):
    """Lowers. Waits for the other lane only where that one has the very same address on its way."""

    def _carry_out(
        self,
        changes: Sequence[Change],
        serials: Sequence[int],  # noqa: ARG002 - no lowering is too old to be carried out
        outcomes: Outcomes,
    ) -> None:
        flying = self._fence.flying(changes)
        if not flying:
            outcomes[:] = self._committer.commit(changes)
            return
        self._commit([place for place, one in enumerate(changes) if one.address not in flying], changes, outcomes)
        self._fence.wait_landed(flying)
        self._commit([place for place, one in enumerate(changes) if one.address in flying], changes, outcomes)

    def _commit(self, places: Sequence[int], changes: Sequence[Change], outcomes: Outcomes) -> None:
        if places:
            _fill(outcomes, places, self._committer.commit([changes[place] for place in places]))

    def _done_with(self, jobs: Sequence[Job]) -> None:
        self._fence.landed([change for job in jobs for change in job.changes])


class OrdinaryLane(Lane):
    """Everything else. Carries nothing out that a later lowering has overtaken."""

    def _carry_out(self, changes: Sequence[Change], serials: Sequence[int], outcomes: Outcomes) -> None:
        dated = list(map(Dated, changes, serials))
        full = self._pass(dated, range(len(dated)), outcomes)
        if full and not self._stopping.wait(COLLECTION_SECONDS):
            self._pass([dated[place] for place in full], full, outcomes)

    def _pass(self, dated: Sequence[Dated], places: Sequence[int], outcomes: Outcomes) -> list[int]:
        """Carry out what the fence lets through, whose outcomes have these places; returns the places of what found
        its set full."""
        reasons = self._fence.enter(dated)
        if any(reasons):
            for one, place, reason in zip(dated, places, reasons, strict=True):
                if reason:
                    outcomes[place] = ChangeOutcome(one.change, Applied.FAILED, reason)
            places = [place for place, reason in zip(places, reasons, strict=True) if not reason]
            dated = [one for one, reason in zip(dated, reasons, strict=True) if not reason]
            if not dated:
                return []
        try:
            _fill(outcomes, places, self._committer.commit([one.change for one in dated]))
        finally:
            overtaken = self._fence.leave(dated)
            if overtaken:
                self._committer.commit(overtaken)
        if overtaken:
            addresses = {change.address for change in overtaken}
            for one, place in zip(dated, places, strict=True):
                if one.change.address in addresses:
                    outcomes[place] = ChangeOutcome(one.change, Applied.FAILED, SUPERSEDED)
        return [place for place in places if _is_full(outcomes[place])]

    def _done_with(self, jobs: Sequence[Job]) -> None:
        self._fence.close_jobs(len(jobs))


def _is_full(outcome: ChangeOutcome | None) -> bool:
    return outcome is not None and outcome.detail == FULL and outcome.state is Applied.FAILED


def _fill(outcomes: Outcomes, places: Sequence[int], found: Sequence[ChangeOutcome]) -> None:
    for place, outcome in zip(places, found, strict=True):
        outcomes[place] = outcome


def _chunks(changes: Sequence[Change], most: int) -> Iterator[tuple[int, int]]:
    """Split into transactions, each from one place to before another: at most ``most`` changes, and no address
    twice, so that order is kept."""
    if len(changes) <= most and len({change.address for change in changes}) == len(changes):
        yield 0, len(changes)
        return
    start = 0
    seen: set[Address] = set()
    for place, change in enumerate(changes):
        if len(seen) == most or change.address in seen:
            yield start, place
            start = place
            seen = set()
        seen.add(change.address)
    yield start, len(changes)


def _settle(settled: Sequence[tuple[Job, Result | BaseException]]) -> None:
    for job, result in settled:
        if job.done.done():  # whoever waited has given up
            continue
        if isinstance(result, BaseException):
            job.done.set_exception(result)
        else:
            job.done.set_result(result)
