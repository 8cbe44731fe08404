"""What every journal promises the clockwork, whatever it is made of."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from gateway.control.ports import Entry, History, Journal
from gateway.core.errors import JournalError
from gateway.core.model import Applied, DeviceId, Record
from gateway.journal import SqliteJournal
from tests.fakes.clock import ManualClock
from tests.fakes.journal import Disk, FakeJournal
from tests.journal import samples


class Bench(Protocol):
    """One kind of journal: opened again and again on the same memory."""

    clock: ManualClock

    def make(self, boot_id: str = "boot") -> tuple[Journal, History]: ...

    def spoil(self) -> None: ...

    def mend(self) -> None: ...


class FakeBench:
    def __init__(self, _: Path) -> None:
        self.clock = ManualClock()
        self.disk = Disk()
        self.journal: FakeJournal | None = None

    def make(self, boot_id: str = "boot") -> tuple[Journal, History]:
        self.journal = FakeJournal(self.clock, self.disk, boot_id)
        return self.journal, self.journal.history

    def spoil(self) -> None:
        assert self.journal is not None
        self.journal.fail()

    def mend(self) -> None:
        assert self.journal is not None
        self.journal.mend()


class SqliteBench:
    """Unwritable here means: another program holds SQLite's write lock."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.path = folder / "var" / "journal.db"
        self.other: sqlite3.Connection | None = None

    def make(self, boot_id: str = "boot") -> tuple[Journal, History]:
        journal = SqliteJournal(self.path, loop=asyncio.get_running_loop(), clock=self.clock, boot_id=boot_id)
        return journal, journal.history

    def spoil(self) -> None:
        self.other = sqlite3.connect(self.path, isolation_level=None, timeout=10)
        self.other.execute("BEGIN IMMEDIATE")

    def mend(self) -> None:
        assert self.other is not None
        self.other.close()


@pytest.fixture(params=[FakeBench, SqliteBench])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    make: Callable[[Path], Bench] = request.param
    return make(tmp_path)


async def durable(journal: Journal, *entries: Entry) -> list[int]:
    """Record and wait; raises what ``done`` was given."""
    future: asyncio.Future[JournalError | None] = asyncio.get_running_loop().create_future()
    seqs = journal.record(entries, future.set_result)
    async with asyncio.timeout(60):
        error = await future
    if error is not None:
        raise error
    return list(seqs)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


async def rows(history: History, name: str = "cam-1", limit: int = 100) -> list[dict[str, Any]]:
    return [dict(row) for row in await history.verdicts(DeviceId(name), limit)]


async def test_a_new_journal_remembers_nothing(bench: Bench) -> None:
    journal, history = bench.make()
    loaded = journal.load()
    assert (dict(loaded.records), dict(loaded.remaining)) == ({}, {})
    assert (loaded.highest_wall, loaded.clean, loaded.boot_id) == (0.0, True, "")
    assert journal.writable
    assert journal.pending == 0
    assert await rows(history) == []
    await journal.close()


async def test_what_was_recorded_is_remembered(bench: Bench) -> None:
    journal, _ = bench.make("first")
    journal.load()
    await durable(journal, samples.passed(1), samples.passed(1, samples.device(2)))
    bench.clock.advance(10)
    await durable(journal, samples.failed(2, samples.device(2)))
    await journal.close()

    journal, history = bench.make("second")
    loaded = journal.load()
    assert dict(loaded.records) == {
        (samples.device(1), samples.SOURCE): samples.passed(1).record,
        (samples.device(2), samples.SOURCE): samples.failed(2).record,
    }
    assert loaded.remaining[samples.device(1), samples.SOURCE] == 900.0
    assert loaded.remaining[samples.device(2), samples.SOURCE] == 890.0
    assert (loaded.highest_wall, loaded.clean, loaded.boot_id) == (samples.WALL + 10, True, "first")
    assert [row["event"] for row in await rows(history, "cam-2")] == ["failed", "passed"]
    await journal.close()


async def test_the_newest_override_of_a_device_is_remembered(bench: Bench) -> None:
    journal, _ = bench.make("first")
    journal.load()
    await durable(journal, samples.passed(1), samples.overridden(1), samples.overridden(2, profile="deny"))
    bench.clock.advance(10)
    await durable(journal, samples.overridden(2, 0.0, bench.clock.now().wall), samples.passed(3))
    await journal.close()
    for _ in range(2):  # from rows, and from what they were folded into
        journal, history = bench.make("second")
        loaded = journal.load()
        assert dict(loaded.records) == {(samples.device(1), samples.SOURCE): samples.passed(3).record}
        first, second = loaded.overrides[samples.device(1)], loaded.overrides[samples.device(2)]
        assert (first.override, first.left) == (samples.overridden(1).record, 600.0)
        assert second.left == 0.0
        newest = next(row for row in await rows(history) if row["kind"] == "override")
        assert (newest["event"], newest["actor"], newest["reason"], newest["why"]) == (
            "overridden",
            "unix:ann",
            "lens replaced",
            "overridden to probation",
        )
        await journal.close()


async def test_in_the_same_boot_it_is_known_when_everything_ends_and_in_another_what_was_left(bench: Bench) -> None:
    boot = bench.clock.boot
    journal, _ = bench.make("first")
    journal.load()
    await durable(journal, samples.passed(1)._replace(until_boot=boot + 300), samples.passed(1, samples.device(2)))
    await durable(journal, samples.overridden(1)._replace(until_boot=boot + 100), samples.overridden(2))
    bench.clock.advance(10)
    bench.clock.jump(-60)  # the clock that can be set says now that more is left
    taken_back = {"kind": "taken-back", "device": "cam-3", "source": "verifier"}
    await durable(journal, Entry(taken_back, samples.trusted(), boot + 300))
    await journal.close()
    first, second, third = ((samples.device(number), samples.SOURCE) for number in (1, 2, 3))
    for boot_id, known in (("first", True), ("second", False), ("second", False)):
        journal, _ = bench.make(boot_id)
        loaded = journal.load()
        assert dict(loaded.remaining) == {first: 300.0, second: 900.0, third: 290.0}
        ends = {first: boot + 300, second: boot + 900, third: boot + 300}
        assert dict(loaded.until_boot) == (ends if known else {})
        one, two = loaded.overrides[samples.device(1)], loaded.overrides[samples.device(2)]
        assert (one.left, two.left) == (100.0, 600.0)
        assert (one.until_boot, two.until_boot) == ((boot + 100, boot + 600) if known else (None, None))
        await journal.close()


async def test_a_later_record_ends_when_it_says(bench: Bench) -> None:
    journal, _ = bench.make()
    journal.load()
    await durable(journal, samples.passed(1)._replace(until_boot=5_000.0))
    await durable(journal, samples.passed(2)._replace(until_boot=1_200.0))
    await durable(journal, samples.passed(1, samples.device(2)))
    await durable(journal, Entry({"device": "cam-2", "source": "verifier"}, Record()))
    await journal.close()
    journal, _ = bench.make()
    assert dict(journal.load().until_boot) == {(samples.device(1), samples.SOURCE): 1_200.0}
    await journal.close()


async def test_an_override_is_found_again_after_a_crash(bench: Bench) -> None:
    journal, _ = bench.make("first")
    journal.load()
    await durable(journal, samples.overridden(1), samples.passed(1))
    await durable(journal, samples.overridden(1, 60.0, profile="deny"))
    reborn = type(bench).make(bench, "second")[0] if isinstance(bench, FakeBench) else None
    if reborn is None:  # the file as a killed process leaves it
        assert isinstance(bench, SqliteBench)
        other = SqliteBench(bench.path.parent.parent / "copy")
        other.path.parent.mkdir(parents=True)
        for suffix in ("", "-wal"):
            kept = bench.path.with_name(bench.path.name + suffix)
            other.path.with_name(other.path.name + suffix).write_bytes(kept.read_bytes())
        reborn = other.make("second")[0]
    found = reborn.load().overrides[samples.device(1)]
    assert (found.override.profile, found.left) == ("deny", 60.0)
    await reborn.close()
    await journal.close()


async def test_numbers_rise_by_one_and_go_on_after_a_restart(bench: Bench) -> None:
    journal, _ = bench.make()
    journal.load()
    first = await durable(journal, samples.passed(1), samples.refused(), samples.passed(2))
    second = await durable(journal, samples.passed(3))
    await journal.close()
    journal, _ = bench.make()
    journal.load()
    third = await durable(journal, samples.passed(4))
    assert first[0] > 0
    assert first + second + third == list(range(first[0], first[0] + 5))
    await journal.close()


async def test_done_comes_once_on_the_loop_after_record_returned(bench: Bench) -> None:
    journal, _ = bench.make()
    journal.load()
    calls: list[tuple[JournalError | None, int]] = []
    journal.record([samples.passed(1)], lambda error: calls.append((error, threading.get_ident())))
    assert calls == []
    assert journal.pending == 1
    await until(lambda: bool(calls))
    await durable(journal, samples.passed(2))
    assert calls == [(None, threading.get_ident())]
    assert journal.pending == 0
    await journal.close()


async def test_nothing_to_record_is_done_all_the_same(bench: Bench) -> None:
    journal, _ = bench.make()
    journal.load()
    assert await durable(journal) == []
    assert journal.pending == 0
    await journal.close()


async def test_a_row_says_what_happened_and_what_came_of_it(bench: Bench) -> None:
    journal, history = bench.make()
    journal.load()
    (seq,) = await durable(journal, samples.failed(3, at=samples.WALL + 0.25))
    (row,) = await rows(history)
    expected = {
        "seq": seq,
        "at": samples.WALL + 0.25,
        "kind": "transition",
        "device": "cam-1",
        "source": "verifier",
        "event": "failed",
        "issued_at": int(samples.WALL) + 3,
        "effect": "lowered",
        "before": "trusted",
        "after": "distrusted",
        "debt": 2,
        "why": "a signed failure",
        "reason": "FAILED_ATTEST",
        "refusal": None,
        "outcome": None,
    }
    assert {key: row[key] for key in expected} == expected
    journal.enforced([(seq, samples.enforced(Applied.ACCEPTED))])
    await durable(journal, samples.passed(1, samples.device(2)))
    journal.enforced([(seq, samples.enforced(Applied.VERIFIED))])
    await durable(journal, samples.passed(2, samples.device(2)))
    (row,) = await rows(history)
    assert row["outcome"] == {
        "target": "gateway",
        "backend": "nft",
        "profile": "admitted",
        "state": "verified",
        "detail": "",
        "accepted_ms": 1.0,
        "verified_ms": 2.5,
        "durable_ms": None,
    }
    await journal.close()


async def test_an_outcome_without_a_row_gets_one_only_when_it_tells_something(bench: Bench) -> None:
    journal, history = bench.make()
    journal.load()
    journal.enforced([(0, samples.enforced(Applied.VERIFIED, received=0.0))])  # a renewal
    journal.enforced([(0, samples.enforced(Applied.VERIFIED, "drift repaired", received=0.0))])
    journal.enforced([(0, samples.enforced(Applied.FAILED, "no such table"))])
    await durable(journal, samples.passed(1, samples.device(2)))
    shown = [(row["kind"], row["outcome"]["state"], row["outcome"]["detail"]) for row in await rows(history)]
    assert shown == [("outcome", "failed", "no such table"), ("outcome", "verified", "drift repaired")]
    await journal.close()


async def test_unauthenticated_refusals_are_added_up_and_authentic_ones_are_rows(bench: Bench) -> None:
    journal, history = bench.make()
    journal.load()
    journal.record([samples.refused("192.0.2.9")])
    await durable(journal, samples.refused("192.0.2.200", at=samples.WALL + 3), samples.replayed())
    await durable(journal, samples.refused("192.0.2.9", at=samples.WALL + 10))
    later, earlier = await history.refusals(10)
    assert (earlier["peer"], earlier["refusal"], earlier["times"]) == ("192.0.2.0/24", "hmac", 2)
    assert (earlier["first"], earlier["last"]) == (samples.WALL, samples.WALL + 3)
    assert earlier["detail"] == "the code does not match (claimed cam-1)"
    assert (later["at"], later["times"]) == (samples.WALL + 10, 1)
    assert len(await history.refusals(1)) == 1
    (row,) = await rows(history)
    assert (row["kind"], row["refusal"], row["why"], row["peer"]) == (
        "refusal",
        "replay",
        "seen before",
        "192.0.2.9",
    )
    await journal.close()


async def test_a_note_keeps_its_fields_and_may_leave_a_record(bench: Bench) -> None:
    journal, history = bench.make()
    journal.load()
    note = {"kind": "taken-back", "device": "cam-1", "source": "verifier", "at": 5.0, "why": "not durable", "n": 3}
    await durable(journal, Entry(note, samples.trusted()))
    (row,) = await rows(history)
    assert {key: row[key] for key in note} == note
    await journal.close()
    journal, _ = bench.make()
    assert journal.load().records == {(samples.device(1), samples.SOURCE): samples.trusted()}
    await journal.close()


async def test_newest_first_and_no_more_than_asked(bench: Bench) -> None:
    journal, history = bench.make()
    journal.load()
    seqs = [(await durable(journal, samples.passed(n), samples.passed(n, samples.device(2))))[0] for n in range(5)]
    assert [row["seq"] for row in await rows(history, limit=3)] == seqs[::-1][:3]
    assert await rows(history, "cam-9") == []
    assert await rows(history, limit=0) == []
    await journal.close()


async def test_unwritable_says_so_once_keeps_everything_and_recovers(bench: Bench) -> None:
    journal, history = bench.make()
    journal.load()
    await durable(journal, samples.passed(1))
    bench.spoil()
    answers: list[JournalError | None] = []
    journal.record([samples.failed(2)], answers.append)
    await until(lambda: bool(answers))
    assert isinstance(answers[0], JournalError)
    assert not journal.writable
    with pytest.raises(JournalError):
        await durable(journal, samples.failed(3))
    assert journal.pending == 2
    bench.mend()
    await until(lambda: journal.writable and journal.pending == 0)
    assert len(answers) == 1
    assert [row["event"] for row in await rows(history)] == ["failed", "failed", "passed"]
    await durable(journal, samples.failed(4))
    await journal.close()
    journal, _ = bench.make()
    assert journal.load().records[samples.device(1), samples.SOURCE] == samples.failed(4).record
    await journal.close()


async def test_closing_commits_what_is_queued(bench: Bench) -> None:
    journal, _ = bench.make()
    journal.load()
    journal.record([samples.passed(1)])
    await journal.close()
    await journal.close()
    assert not journal.writable
    with pytest.raises(JournalError):
        journal.record([samples.passed(2)])
    journal, history = bench.make()
    loaded = journal.load()
    assert loaded.clean
    assert len(loaded.records) == 1
    assert len(await rows(history)) == 1
    await journal.close()


async def test_closing_while_unwritable_is_no_clean_stop(bench: Bench) -> None:
    journal, _ = bench.make()
    journal.load()
    bench.spoil()
    with pytest.raises(JournalError):
        await durable(journal, samples.passed(1))
    with pytest.raises(JournalError):
        await journal.close()
    bench.mend()
    journal, _ = bench.make()
    assert not journal.load().clean
    await journal.close()


async def test_a_record_without_a_deadline_has_nothing_remaining(bench: Bench) -> None:
    journal, _ = bench.make()
    journal.load()
    await durable(journal, samples.passed(1))
    entry = samples.failed(2)
    assert entry.record is not None
    bench.clock.advance(2_000)
    await durable(journal, entry)
    await journal.close()
    journal, _ = bench.make()
    loaded = journal.load()
    assert loaded.remaining[samples.device(1), samples.SOURCE] == 0.0
    await durable(journal, Entry({"device": "cam-1", "source": "verifier"}, Record()))
    await journal.close()
    journal, _ = bench.make()
    assert dict(journal.load().remaining) == {}
    await journal.close()


async def test_the_highest_wall_time_never_goes_back(bench: Bench) -> None:
    journal, _ = bench.make()
    journal.load()
    await durable(journal, samples.passed(1))
    bench.clock.jump(-5_000)
    await durable(journal, samples.passed(2))
    await journal.close()
    journal, _ = bench.make()
    assert journal.load().highest_wall == samples.WALL
    await journal.close()
