"""Questions: snapshots beside the writer, lines of rows per device, verification, and closing in the middle."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from gateway.control.ports import Entry
from gateway.core.errors import JournalError
from gateway.core.model import DeviceId, SourceName, Transition
from gateway.journal import SqliteHistory, fold, history
from tests.journal import samples
from tests.journal.conftest import Make, durable, until


def from_source(number: int, source: str) -> Entry:
    entry = samples.passed(number)
    assert isinstance(entry.fact, Transition)
    return Entry(entry.fact._replace(source=SourceName(source)), entry.record)


async def test_a_devices_sources_are_told_as_one_story(make: Make) -> None:
    journal = make()
    journal.load()
    seqs = []
    for number in range(12):
        seqs += await durable(journal, from_source(number, ("verifier", "hook")[number % 2]))
    rows = await journal.history.verdicts(DeviceId("cam-1"), 100)
    assert [row["seq"] for row in rows] == seqs[::-1]
    assert [row["source"] for row in rows[:2]] == ["hook", "verifier"]
    await journal.close()


async def test_rows_are_found_before_during_and_after_folding(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "FOLD_AFTER", 3)
    monkeypatch.setattr(fold, "FOLD_SLICE", 1)
    journal = make()
    journal.load()
    seqs: dict[int, list[int]] = {n: [] for n in range(5)}
    for number in range(30):
        name = number % 5
        seqs[name] += await durable(journal, samples.passed(number, samples.device(name)))
        rows = await journal.history.verdicts(samples.device(name), 100)
        assert [row["seq"] for row in rows] == seqs[name][::-1]
    await journal.close()
    journal = make()
    journal.load()
    for name, wanted in seqs.items():
        rows = await journal.history.verdicts(samples.device(name), 100)
        assert [row["seq"] for row in rows] == wanted[::-1]
    await journal.close()


async def test_facts_come_in_order_behind_a_number(make: Make) -> None:
    journal = make()
    journal.load()
    seqs = await durable(journal, samples.passed(1), samples.failed(2), samples.passed(3, samples.device(2)))
    rows = await journal.history.facts(seqs[0], 10)
    assert [row["seq"] for row in rows] == seqs[1:]
    assert [row["seq"] for row in await journal.history.facts(0, 1)] == seqs[:1]
    await journal.close()


async def test_a_whole_journal_verifies_beside_the_writer_and_alone(make: Make, path: Path) -> None:
    journal = make()
    journal.load()
    for number in range(5):
        await durable(journal, samples.passed(number), samples.refused())
        journal.enforced([(number + 1, samples.enforced())])
    assert await journal.history.verify_chain() == []
    await journal.close()
    alone = SqliteHistory(path)
    assert await alone.verify_chain() == []
    assert len(await alone.verdicts(DeviceId("cam-1"), 10)) == 5
    alone.close()


async def test_a_file_of_a_newer_version_is_named_and_not_taken_for_a_changed_one(make: Make, path: Path) -> None:
    journal = make()
    journal.load()
    await durable(journal, samples.passed(1))
    await journal.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    alone = SqliteHistory(path)
    with pytest.raises(JournalError, match=r"has version 99.*use the newer program"):
        await alone.verify_chain()
    alone.close()


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("UPDATE facts SET at = at + 1 WHERE seq = 2", "does not match its digest"),
        ("UPDATE facts SET until_boot = until_boot + 1 WHERE seq = 2", "does not match its digest"),
        ("UPDATE facts SET until_boot = NULL WHERE seq = 2", "does not match its digest"),
        ("UPDATE devices SET until_boot = until_boot + 1", "the state of 1 devices does not match its checksum"),
        ("UPDATE devices SET until_boot = NULL", "the state of 1 devices does not match its checksum"),
        (
            "INSERT INTO facts SELECT 99, at, kind, device, source, body, NULL, NULL, 0, NULL FROM facts LIMIT 1",
            "1 rows belong to no commit group",
        ),
        ("UPDATE devices SET sum = sum + 1", "the state of 1 devices does not match its checksum, first 'cam-1'"),
    ],
)
async def test_what_was_changed_is_found(make: Make, path: Path, change: str, finding: str) -> None:
    journal = make()
    journal.load()
    await durable(journal, samples.passed(1))
    await durable(journal, samples.failed(2))
    await journal.close()
    with sqlite3.connect(path) as db:
        db.execute(change)
    db.close()
    alone = SqliteHistory(path)
    (found,) = await alone.verify_chain()
    assert finding in found
    alone.close()


async def test_a_broken_file_is_a_finding_and_a_missing_one_an_error(make: Make, path: Path) -> None:
    journal = make()
    journal.load()
    await durable(journal, *(samples.passed(n) for n in range(200)))
    await journal.close()
    path.write_bytes(path.read_bytes()[:-4_096])
    broken = SqliteHistory(path)
    (found,) = await broken.verify_chain()
    assert "damaged" in found
    broken.close()
    missing = SqliteHistory(path.with_name("other.db"))
    with pytest.raises(JournalError, match="cannot be read"):
        await missing.refusals(1)
    missing.close()


async def test_a_question_that_takes_too_long_is_given_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_STEPS", 1)
    journal = make()
    journal.load()
    with pytest.raises(JournalError, match="interrupted"):
        await journal.history._ask(lambda db: db.execute("SELECT * FROM meta").fetchall(), -1.0)
    assert await journal.history.refusals(1) == []
    await journal.close()


async def test_closing_ends_a_running_question(make: Make) -> None:
    journal = make()
    journal.load()
    forever = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    asked = asyncio.create_task(journal.history._ask(lambda db: db.execute(forever).fetchall(), 3_600.0))
    await until(lambda: bool(journal.history._open))
    await journal.close()
    with pytest.raises(JournalError):
        await asked
    with pytest.raises(JournalError, match="closed"):
        await journal.history.refusals(1)


async def test_a_pruned_row_ends_the_line(make: Make, path: Path) -> None:
    journal = make()
    journal.load()
    first = await durable(journal, samples.passed(1))
    second = await durable(journal, samples.passed(2))
    with sqlite3.connect(path, timeout=10) as db:
        db.execute("DELETE FROM facts WHERE seq = ?", first)
    db.close()
    assert [row["seq"] for row in await journal.history.verdicts(DeviceId("cam-1"), 9)] == second
    await journal.close()
