"""Reading a journal for a rehearsal, beside the writer and alone."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from gateway.control.ports import Entry
from gateway.core.errors import JournalError
from gateway.core.model import Standing, Transition
from gateway.core.rehearsal import Journalled
from gateway.journal import JournalReader, rehearse
from gateway.journal.schema import open_journal
from tests.fakes.clock import ManualClock
from tests.journal.conftest import Make, durable
from tests.journal.samples import WALL, device, failed, overridden, passed, replayed, trusted


def journalled(entry: Entry) -> Journalled:
    fact = entry.fact
    assert isinstance(fact, Transition)
    return Journalled(fact.device, fact.source, fact.event, fact.before, fact.after)


async def test_events_come_back_as_they_were(make: Make, path: Path) -> None:
    journal = make()
    journal.load()
    entries = [passed(1), failed(1), passed(2, device(2)), replayed(), passed(3)]
    await durable(journal, *entries)
    wanted = [journalled(entry) for entry in entries if entry is not entries[3]]
    with JournalReader(path) as reader:
        assert list(reader.since(0.0)) == wanted
        assert reader.states() == {(device(1), "verifier"): trusted(3), (device(2), "verifier"): trusted(2)}
    assert list(journal.history.since(0.0)) == wanted
    await journal.close()
    with JournalReader(path) as reader:
        assert list(reader.since(0.0)) == wanted
        assert reader.states()[device(1), "verifier"] == trusted(3)  # type: ignore[index]


async def test_overrides_are_asked_for_beside_the_states(make: Make, path: Path) -> None:
    journal = make()
    journal.load()
    await durable(journal, passed(1), overridden(1), overridden(2), overridden(2, 0.0))
    for closed in (False, True):
        if closed:
            await journal.close()
        with JournalReader(path) as reader:
            assert set(reader.states()) == {(device(1), "verifier")}
            assert reader.overrides() == {device(1): overridden(1).record, device(2): overridden(2, 0.0).record}
            assert len(list(reader.since(0.0))) == 1


async def test_what_one_row_left_is_what_the_next_met(make: Make, path: Path) -> None:
    journal = make()
    journal.load()
    noted = passed(1).fact
    assert isinstance(noted, Transition)
    unchanged = noted._replace(before=trusted(1), after=trusted(1))
    await durable(journal, passed(1), Entry(unchanged), failed(1))
    await journal.close()
    with JournalReader(path) as reader:
        first, second, third = reader.since(0.0)
    assert first.after is second.before is second.after is third.before
    assert third.after.standing is Standing.DISTRUSTED


async def test_a_time_range_in_batches(
    make: Make, path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearse, "BATCH", 3)
    journal = make()
    journal.load()
    await durable(journal, *[passed(n) for n in range(1, 9)])
    later = clock.now().wall + 100
    clock.advance(200)
    await durable(journal, *[passed(n, at=WALL + 200) for n in range(9, 17)])
    with JournalReader(path) as reader:
        assert [row.event.issued_at - int(WALL) for row in reader.since(later)] == list(range(9, 17))
        assert len(list(reader.since(0.0))) == 16
        assert list(reader.since(clock.now().wall + 1)) == []
        stream = reader.since(0.0)
        next(stream)
        # What is written while it is read comes another time: a live journal has no end.
        await durable(journal, passed(17))
        assert len(list(stream)) == 15
    await journal.close()


async def test_a_slow_reader_leaves_the_writer_its_log(make: Make, path: Path) -> None:
    journal = make()
    journal.load()
    await durable(journal, *[passed(n) for n in range(1, 9)])
    with JournalReader(path) as reader:
        stream = reader.since(0.0)
        next(stream)
        with sqlite3.connect(path) as other:
            busy, logged, moved = other.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        assert (busy, logged) == (0, moved)
    await journal.close()


def test_what_is_no_journal_is_told(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"none\.db: cannot be read"):
        JournalReader(tmp_path / "none.db")
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(JournalError, match="not a ragate journal"):
        JournalReader(foreign)
    (tmp_path / "text.db").write_text("hello, this is no database at all" * 50)
    with pytest.raises(JournalError, match=r"text\.db: cannot be read"):
        JournalReader(tmp_path / "text.db")


async def test_damaged_state_is_told(make: Make, path: Path) -> None:
    journal = make()
    journal.load()
    await durable(journal, passed(1))
    await journal.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE devices SET record = replace(record, '6', '1')")
    with JournalReader(path) as reader, pytest.raises(JournalError, match="state of device 'cam-1' is damaged"):
        reader.states()


def test_an_empty_journal_has_nothing(path: Path) -> None:
    opened = open_journal(path)
    opened.connection.close()
    os.close(opened.lock)
    with JournalReader(path) as reader:
        assert (reader.states(), list(reader.since(0.0))) == ({}, [])
