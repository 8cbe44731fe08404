"""The writer under trouble: bounded keeping, one answer each, retries, upkeep, and a fault of our own."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.control.ports import Entry
from gateway.core.errors import JournalError
from gateway.core.model import DeviceId, Instant
from gateway.journal import SqliteJournal, fold, store, writer
from tests.fakes.clock import ManualClock
from tests.journal import samples
from tests.journal.conftest import Make, durable, until


class Locked:
    """Another program that holds SQLite's write lock."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        self._db.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._db.close()


def groups(path: Path) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(path)
    rows = db.execute("SELECT facts, first, last, outcomes FROM groups ORDER BY id").fetchall()
    db.close()
    return rows


async def test_one_call_is_one_group_and_what_queues_up_shares_the_next(make: Make, path: Path) -> None:
    journal = make()
    journal.load()
    lock = Locked(path)  # the first group waits a moment for the lock: the others queue up behind it
    answers: list[JournalError | None] = []
    for number in range(50):
        journal.record([samples.passed(number), samples.passed(number, samples.device(2))], answers.append)
    lock.release()
    await until(lambda: len(answers) == 50 and journal.pending == 0)
    written = groups(path)
    assert sum(row[0] for row in written) == 100
    assert len(written) < 10
    assert all(row[0] % 2 == 0 for row in written)
    await journal.close()


async def test_a_whole_groups_callbacks_come_in_one_visit_to_the_loop(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = make()
    journal.load()
    loop = asyncio.get_running_loop()
    visits: list[int] = []
    plain = loop.call_soon_threadsafe

    def counted(callback: Callable[..., object], *args: object, **kwargs: Any) -> asyncio.Handle:
        visits.append(threading.get_ident())
        return plain(callback, *args, **kwargs)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    answers: list[JournalError | None] = []
    lock = Locked(journal._path)
    for number in range(200):
        journal.record([samples.passed(number)], answers.append)
    lock.release()
    await until(lambda: len(answers) == 200)
    assert len(visits) <= len(groups(journal._path)) + 2
    assert threading.get_ident() not in visits
    await journal.close()


async def test_what_nobody_waits_for_is_written_all_the_same(make: Make) -> None:
    journal = make()
    journal.load()
    (seq,) = await durable(journal, samples.passed(1))
    journal.enforced([(seq, samples.enforced())])
    journal.record([samples.refused()])
    assert journal.pending == 1
    await until(lambda: journal.pending == 0)
    assert len(await journal.history.refusals(5)) == 1
    (row,) = await journal.history.verdicts(DeviceId("cam-1"), 5)
    assert row["outcome"]["state"] == "verified"
    await journal.close()


async def test_many_that_linger_wake_the_writer(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "TICK", 3_600.0)
    monkeypatch.setattr("gateway.journal.sqlite.MOST_LINGERING", 100)
    journal = make()
    journal.load()
    for _ in range(100):
        journal.record([samples.refused()])
    await until(lambda: journal.pending == 0)
    (row,) = await journal.history.refusals(5)
    assert row["times"] == 100
    (seq,) = await durable(journal, samples.passed(1))
    for _ in range(4):  # the hundredth comes in the midst of one telling
        journal.enforced([(seq, samples.enforced())] * 30)
    await until(lambda: bool(_outcomes(journal._path)))
    await journal.close()


def _outcomes(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM outcomes").fetchone()[0])


async def test_an_outage_keeps_rows_up_to_a_bound_and_every_devices_newest_record(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MOST_KEPT", 5)
    monkeypatch.setattr(writer, "MOST_IN_A_GROUP", 2)
    journal = make()
    journal.load()
    lock = Locked(path)
    for number in range(20):
        with pytest.raises(JournalError):
            await durable(journal, samples.failed(number, samples.device(number % 4)))
    assert journal.pending == 5
    lock.release()
    await until(lambda: journal.writable)
    assert journal.pending == 0
    rows = await journal.history.facts(0, 100)
    assert [row["kind"] for row in rows] == ["transition"] * 5 + ["lost"]
    assert [rows[-1][key] for key in ("seq", "times", "first", "last")] == [20, 15, 6, 20]
    after = await durable(journal, samples.passed(40, samples.device(9)))
    assert after == [21]
    assert await journal.history.verify_chain() == []
    await journal.close()
    journal = make()
    records = journal.load().records
    for number in range(16, 20):
        key = (samples.device(number % 4), samples.SOURCE)
        assert records[key] == samples.failed(number).record
    await journal.close()


async def test_attempts_are_spaced_out_and_answers_do_not_wait_for_them(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FIRST_RETRY", 3_600.0)
    attempts: list[int] = []
    plain = store.Store.commit

    def counted(self: store.Store, group: store.Group, now: Instant, *, fold: bool = True) -> None:
        attempts.append(len(group.facts))
        plain(self, group, now, fold=fold)

    monkeypatch.setattr(store.Store, "commit", counted)
    journal = make()
    journal.load()
    lock = Locked(path)
    for number in range(10):
        with pytest.raises(JournalError, match="locked"):
            await durable(journal, samples.passed(number))
    assert attempts == [1]
    lock.release()
    await journal.close()  # the last attempt does not wait either
    assert attempts == [1, 10]


async def test_the_delay_doubles_up_to_its_end(make: Make, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FIRST_RETRY", 0.001)
    monkeypatch.setattr(writer, "LAST_RETRY", 0.004)
    journal = make()
    journal.load()
    delays: set[float] = set()
    owner = journal._writer
    assert owner is not None
    owner._delay = 0.001
    lock = Locked(path)
    with pytest.raises(JournalError):
        await durable(journal, samples.passed(1))
    await until(lambda: owner._delay == 0.004)
    for _ in range(10):
        await asyncio.sleep(0.002)
        delays.add(owner._delay)
    assert delays == {0.004}
    lock.release()
    await until(lambda: journal.writable)
    assert owner._delay == 0.001
    await journal.close()


async def test_a_heartbeat_moves_the_highest_wall_time_on(
    make: Make, path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "HEARTBEAT", 0.0)
    monkeypatch.setattr(writer, "TICK", 0.01)
    journal = make()
    journal.load()
    clock.advance(1_000)

    def highest() -> float:
        db = sqlite3.connect(path)
        value = db.execute("SELECT coalesce(max(highest), 0) FROM groups").fetchone()[0]
        db.close()
        return float(value)

    await until(lambda: highest() == samples.WALL + 1_000)
    await journal.close()


async def test_idle_time_is_used_to_fold_and_to_prune(
    make: Make, path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "IDLE", 0.0)
    monkeypatch.setattr(writer, "TICK", 0.01)
    monkeypatch.setattr(writer, "PRUNE_EVERY", 0.0)
    journal = make(max_age_days=1.0)
    journal.load()
    await durable(journal, *(samples.passed(1, samples.device(n)) for n in range(20)))
    clock.advance(2 * writer.DAY)
    await durable(journal, samples.passed(2))
    await until(lambda: len(groups(path)) == 1)
    assert [row["seq"] for row in await journal.history.facts(0, 100)] == [21]
    assert await journal.history.verify_chain() == []
    await journal.close()
    journal = make()
    assert len(journal.load().records) == 20
    await journal.close()


async def test_size_is_kept_even_while_rows_keep_coming(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PRUNE_EVERY", 0.0)
    monkeypatch.setattr(fold, "FOLD_AFTER", 1)
    journal = make(max_bytes=150_000)
    journal.load()
    for number in range(100):
        await durable(journal, *(samples.passed(number, samples.device(n)) for n in range(20)))
    await until(lambda: path.stat().st_size < 600_000)
    facts = await journal.history.facts(0, 10_000)
    assert len(facts) < 1_000
    assert facts[-1]["seq"] == 2_000
    assert await journal.history.verify_chain() == []
    await journal.close()


async def test_the_log_is_moved_into_the_file(make: Make, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_BUSY", 50_000)
    journal = make()
    journal.load()
    for number in range(50):
        await durable(journal, *(samples.passed(number, samples.device(n)) for n in range(50)))
    assert path.stat().st_size > 200_000
    assert path.with_name("journal.db-wal").stat().st_size < 600_000
    await journal.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_fault_of_the_program_ends_writing_loudly(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = make()
    journal.load()
    endless = samples.trusted(deadline=float("inf"))
    with pytest.raises(JournalError, match="fault"):
        await durable(journal, Entry({"device": "cam-1", "source": "verifier"}, endless))
    assert not journal.writable
    with pytest.raises(JournalError, match="fault"):
        await durable(journal, samples.passed(1))
    with pytest.raises(JournalError, match="fault"):
        await journal.close()
    again: SqliteJournal = make()
    assert not again.load().clean
    await again.close()


async def test_a_note_that_json_cannot_carry_is_refused_and_nothing_is_queued(make: Make) -> None:
    journal = make()
    journal.load()
    with pytest.raises(TypeError):
        journal.record([samples.passed(1), Entry({"odd": object()})])
    assert journal.pending == 0
    assert await durable(journal, samples.passed(1)) == [1]
    await journal.close()
