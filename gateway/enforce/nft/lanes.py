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


class _Slot(NamedTuple):
    """One change and where its outcome goes."""

    dated: Dated
    outcomes: list[ChangeOutcome | None]
    place: int


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
        sinks: list[list[ChangeOutcome | None]] = [[None] * len(job.changes) for job in jobs]
        slots = [
            _Slot(Dated(change, job.serial), sink, place)
            for job, sink in zip(jobs, sinks, strict=True)
            for place, change in enumerate(job.changes)
        ]
        failed: BackendError | None = None
        try:
            for chunk in _chunks(slots, self._committer.max_changes):
                try:
                    self._carry_out(chunk)
                except BackendError as error:  # the chunks behind it still get their turn
                    failed = error
        finally:
            self._done_with(jobs)
        settled: list[tuple[Job, Result | BaseException]] = []
        for job, sink in zip(jobs, sinks, strict=True):
            outcomes = [outcome for outcome in sink if outcome is not None]
            if failed is not None and len(outcomes) < len(sink):
                settled.append((job, failed))
            else:
                settled.append((job, outcomes))
        return settled

    def _carry_out(self, slots: Sequence[_Slot]) -> None:
        raise NotImplementedError

    def _done_with(self, jobs: Sequence[Job]) -> None:
        raise NotImplementedError


class CutLane(Lane):
    """Lowers. Waits for the other lane only where that one has the very same address on its way."""

    def _carry_out(self, slots: Sequence[_Slot]) -> None:
        flying = self._fence.flying([slot.dated.change for slot in slots])
        self._commit([slot for slot in slots if slot.dated.change.address not in flying])
        if flying:
            self._fence.wait_landed(flying)
            self._commit([slot for slot in slots if slot.dated.change.address in flying])

    def _commit(self, slots: Sequence[_Slot]) -> None:
        if slots:
            _fill(slots, self._committer.commit([slot.dated.change for slot in slots]))

    def _done_with(self, jobs: Sequence[Job]) -> None:
        self._fence.landed([change for job in jobs for change in job.changes])


class OrdinaryLane(Lane):
    """Everything else. Carries nothing out that a later lowering has overtaken."""

    def _carry_out(self, slots: Sequence[_Slot]) -> None:
        full = self._pass(slots)
        if full and not self._stopping.wait(COLLECTION_SECONDS):
            self._pass(full)

    def _pass(self, slots: Sequence[_Slot]) -> list[_Slot]:
        """Carry out what the fence lets through; returns what found its set full."""
        reasons = self._fence.enter([slot.dated for slot in slots])
        for slot, reason in zip(slots, reasons, strict=True):
            if reason:
                slot.outcomes[slot.place] = ChangeOutcome(slot.dated.change, Applied.FAILED, reason)
        let = [slot for slot, reason in zip(slots, reasons, strict=True) if not reason]
        if not let:
            return []
        try:
            _fill(let, self._committer.commit([slot.dated.change for slot in let]))
        finally:
            overtaken = self._fence.leave([slot.dated for slot in let])
            if overtaken:
                self._committer.commit(overtaken)
        addresses = {change.address for change in overtaken}
        for slot in let:
            if slot.dated.change.address in addresses:
                slot.outcomes[slot.place] = ChangeOutcome(slot.dated.change, Applied.FAILED, SUPERSEDED)
        return [slot for slot in let if _is_full(slot.outcomes[slot.place])]

    def _done_with(self, jobs: Sequence[Job]) -> None:
        self._fence.close_jobs(len(jobs))


def _is_full(outcome: ChangeOutcome | None) -> bool:
    return outcome is not None and outcome.state is Applied.FAILED and outcome.detail == FULL


def _fill(slots: Sequence[_Slot], outcomes: Sequence[ChangeOutcome]) -> None:
    for slot, outcome in zip(slots, outcomes, strict=True):
        slot.outcomes[slot.place] = outcome


def _chunks(slots: Sequence[_Slot], most: int) -> Iterator[Sequence[_Slot]]:
    """Split into transactions: at most ``most`` changes, and no address twice, so that order is kept."""
    start = 0
    seen: set[Address] = set()
    for place, slot in enumerate(slots):
        if len(seen) == most or slot.dated.change.address in seen:
            yield slots[start:place]
            start = place
            seen = set()
        seen.add(slot.dated.change.address)
    if start < len(slots):
        yield slots[start:]


def _settle(settled: Sequence[tuple[Job, Result | BaseException]]) -> None:
    for job, result in settled:
        if job.done.done():  # whoever waited has given up
            continue
        if isinstance(result, BaseException):
            job.done.set_exception(result)
        else:
            job.done.set_result(result)
