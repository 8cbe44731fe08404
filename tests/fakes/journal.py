"""A journal in memory that keeps every promise of the port, and can be told to have a bad day."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.control.ports import Answered, Clock, Entry, Loaded, Running
from gateway.core.errors import JournalError
from gateway.core.model import Applied, DeviceId, Enforced, Instant, Record, Rejected, SourceName, Transition
from gateway.core.policy import Override

Done = Callable[[JournalError | None], None]


@dataclass
class Disk:
    """What outlives a journal: hand the same one to the next ``FakeJournal``."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    refusals: dict[tuple[int, str, str], dict[str, Any]] = field(default_factory=dict)
    records: dict[tuple[DeviceId, SourceName], Record] = field(default_factory=dict)
    remaining: dict[tuple[DeviceId, SourceName], float] = field(default_factory=dict)
    until_boot: dict[tuple[DeviceId, SourceName], float] = field(default_factory=dict)
    overrides: dict[DeviceId, Running] = field(default_factory=dict)
    highest_wall: float = 0.0
    clean: bool = True
    boot_id: str = ""
    next_seq: int = 1


class FakeJournal:
    """Implements ``Journal`` and ``History``.

    ``fail(text)`` makes it unwritable until ``mend()``; ``delay()`` holds commits back until ``release()``.
    Otherwise a commit takes one turn of the loop. ``committed`` are the entries in order.
    """

    def __init__(self, clock: Clock, disk: Disk | None = None, boot_id: str = "boot") -> None:
        self.disk = disk or Disk()
        self.committed: list[tuple[int, Entry]] = []
        self.outcomes: list[tuple[int, Enforced]] = []
        self._clock = clock
        self._boot_id = boot_id
        self._kept: list[tuple[int, Sequence[Entry], Done | None]] = []
        self._late: list[tuple[int, Enforced]] = []
        self._error = ""
        self._delayed = False
        self._scheduled = False
        self._open = False

    # --- the bad day ----------------------------------------------------------------------------------------

    def fail(self, text: str = "disk is full") -> None:
        self._error = text
        self._commit()

    def mend(self) -> None:
        self._error = ""
        self._commit()

    def delay(self) -> None:
        self._delayed = True

    def release(self) -> None:
        self._delayed = False
        self._commit()

    # --- Journal --------------------------------------------------------------------------------------------

    def load(self) -> Loaded:
        disk = self.disk
        if disk.boot_id != self._boot_id:
            disk.until_boot.clear()
            disk.overrides = {device: each._replace(until_boot=None) for device, each in disk.overrides.items()}
        loaded = Loaded(
            dict(disk.records),
            dict(disk.remaining),
            disk.highest_wall,
            disk.clean,
            disk.boot_id,
            dict(disk.overrides),
            dict(disk.until_boot),
        )
        disk.clean, disk.boot_id = False, self._boot_id
        self._open = True
        return loaded

    @property
    def writable(self) -> bool:
        return self._open and not self._error

    @property
    def pending(self) -> int:
        return sum(len(entries) for _, entries, _ in self._kept)

    def record(self, entries: Sequence[Entry], done: Done | None = None) -> Sequence[int]:
        self._must_be_open()
        first = self.disk.next_seq
        self.disk.next_seq += len(entries)
        self._kept.append((first, tuple(entries), done))
        self._schedule()
        return range(first, first + len(entries))

    def enforced(self, outcomes: Sequence[Answered]) -> None:
        self._must_be_open()
        for seq, fact in outcomes:
            if seq:
                self._late.append((seq, fact))
            elif fact.state is Applied.FAILED or (fact.received <= 0 and fact.detail):
                own = self.disk.next_seq
                self.disk.next_seq += 1
                self.disk.rows[own] = _row(own, self._clock.now().wall, "outcome", fact.device, "")
                self._late.append((own, fact))
        self._schedule()

    async def close(self) -> None:
        if not self._open:
            return
        self._delayed = False
        self._commit()
        self._open = False
        if self._error:
            raise JournalError(self._error)
        self.disk.clean = True

    # --- History --------------------------------------------------------------------------------------------

    @property
    def history(self) -> FakeJournal:
        return self

    async def verdicts(self, device: DeviceId, limit: int) -> Sequence[Mapping[str, Any]]:
        rows = [dict(row) for seq, row in sorted(self.disk.rows.items(), reverse=True) if row["device"] == device]
        return rows[:limit]

    async def refusals(self, limit: int) -> Sequence[Mapping[str, Any]]:
        return [dict(row) for _, row in sorted(self.disk.refusals.items(), reverse=True)][:limit]

    async def facts(self, after_seq: int, limit: int) -> Sequence[Mapping[str, Any]]:
        return [dict(row) for seq, row in sorted(self.disk.rows.items()) if seq > after_seq][:limit]

    # --- inside ---------------------------------------------------------------------------------------------

    def _must_be_open(self) -> None:
        if not self._open:
            raise JournalError("the journal is not open")

    def _schedule(self) -> None:
        if not self._scheduled and not self._delayed:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if not self._delayed:
            self._commit()

    def _commit(self) -> None:
        if self._error:
            error = JournalError(self._error)
            dones = [done for _, _, done in self._kept if done is not None]
            self._kept = [(first, entries, None) for first, entries, _ in self._kept]
            for done in dones:
                done(error)
            return
        if self._delayed:
            return
        kept, self._kept = self._kept, []
        late, self._late = self._late, []
        now = self._clock.now()
        wall = now.wall
        for first, entries, _ in kept:
            for seq, entry in enumerate(entries, first):
                self._write(seq, entry, now)
        for seq, fact in late:
            self.outcomes.append((seq, fact))
            if seq in self.disk.rows:
                self.disk.rows[seq]["outcome"] = _outcome(fact)
        self.disk.highest_wall = max(self.disk.highest_wall, wall)
        for _, _, waiting in kept:
            if waiting is not None:
                waiting(None)

    def _write(self, seq: int, entry: Entry, now: Instant) -> None:
        fact = entry.fact
        if isinstance(fact, Rejected) and not fact.authentic:
            self._add_up(fact)
            return
        self.committed.append((seq, entry))
        if isinstance(fact, Transition):
            row = _row(seq, fact.event.at, "transition", fact.device, fact.source)
            row |= {
                "event": fact.event.kind.value,
                "issued_at": fact.event.issued_at,
                "effect": fact.effect.value,
                "before": fact.before.standing.label,
                "after": fact.after.standing.label,
                "deadline": fact.after.deadline,
                "epoch": fact.after.epoch,
                "debt": fact.after.debt,
                "why": fact.why,
                "reason": fact.event.reason,
                "actor": fact.event.actor,
            }
        elif isinstance(fact, Rejected):
            row = _row(seq, fact.at, "refusal", fact.device, fact.source)
            row |= {"refusal": fact.refusal.value, "peer": fact.peer, "detail": fact.detail, "why": fact.detail}
        else:
            at = fact.get("at", now.wall)
            row = _row(seq, at, fact.get("kind", "note"), fact.get("device", ""), "") | dict(fact)
        self.disk.rows[seq] = row
        if isinstance(entry.record, Override):
            word = entry.record
            self.disk.overrides[word.device] = Running(word, *_times(word.until, entry.until_boot, now))
        elif entry.record is not None:
            key = (DeviceId(row["device"]), SourceName(row["source"]))
            self.disk.records[key] = entry.record
            self.disk.remaining.pop(key, None)
            self.disk.until_boot.pop(key, None)
            if entry.record.deadline is not None:
                left, end = _times(entry.record.deadline, entry.until_boot, now)
                self.disk.remaining[key], self.disk.until_boot[key] = left, end

    def _add_up(self, fact: Rejected) -> None:
        slot = int(fact.at) // 10 * 10
        prefix = fact.peer.rpartition(".")[0] + ".0/24" if "." in fact.peer else fact.peer
        row = self.disk.refusals.setdefault(
            (slot, prefix, fact.refusal.value),
            {
                "at": slot,
                "seconds": 10,
                "peer": prefix,
                "refusal": fact.refusal.value,
                "source": fact.source,
                "times": 0,
                "first": fact.at,
                "last": fact.at,
                "detail": fact.detail + (f" (claimed {fact.device})" if fact.device else ""),
            },
        )
        row["times"] += 1
        row["last"] = max(row["last"], fact.at)


def _times(deadline: float, until_boot: float | None, now: Instant) -> tuple[float, float]:
    left = deadline - now.wall
    if until_boot is None:
        until_boot = now.boot + left
    return max(min(left, until_boot - now.boot), 0.0), until_boot


def _row(seq: int, at: float, kind: str, device: str, source: str) -> dict[str, Any]:
    return {
        "seq": seq,
        "at": at,
        "kind": kind,
        "device": device,
        "source": source,
        "event": None,
        "issued_at": None,
        "effect": None,
        "before": None,
        "after": None,
        "deadline": None,
        "epoch": None,
        "debt": None,
        "why": "",
        "reason": "",
        "actor": "",
        "refusal": None,
        "peer": None,
        "detail": None,
        "outcome": None,
    }


def _outcome(fact: Enforced) -> dict[str, Any]:
    def since(moment: float) -> float | None:
        return round((moment - fact.received) * 1_000, 3) if fact.received > 0 and moment > 0 else None

    return {
        "target": fact.target,
        "backend": fact.backend,
        "profile": fact.profile,
        "state": fact.state.value,
        "detail": fact.detail,
        "accepted_ms": since(fact.accepted),
        "verified_ms": since(fact.verified),
        "durable_ms": since(fact.durable),
    }
