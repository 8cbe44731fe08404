"""When what a row leaves ends on the boot-time clock: kept through everything, believed in the same boot alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.control.ports import Entry, Running
from gateway.core.errors import JournalError
from gateway.core.model import Instant, Rejected, Transition
from gateway.journal import JournalReader, SqliteHistory, wishes
from gateway.journal.schema import MIGRATIONS, open_journal
from gateway.journal.store import Group, Store
from tests.journal import samples
from tests.journal.conftest import Make, durable
from tests.journal.stored import File, version_1
from tests.journal.test_sqlite import run_until_killed

CAM, OTHER, THIRD = ((samples.device(number), samples.SOURCE) for number in (1, 2, 3))
BOOT = samples.NOW.boot


def ending(entry: Entry, until_boot: float) -> Entry:
    return entry._replace(until_boot=until_boot)


@pytest.mark.parametrize(
    "fact", [samples.passed().fact, samples.replayed().fact, {"device": "cam-1", "source": "verifier"}]
)
def test_every_kind_of_row_may_leave_it(file: File, fact: Transition | Rejected | dict[str, str]) -> None:
    (lasting,) = file.write(Entry(fact, samples.trusted(), BOOT + 300))
    assert file.db.execute("SELECT until_boot FROM facts WHERE seq = ?", (lasting,)).fetchone() == (BOOT + 300,)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("pruned", [False, True])
def test_it_outlives_a_crash_a_fold_and_pruning(file: File, folded: bool, pruned: bool) -> None:
    file.write(ending(samples.passed(1), BOOT + 300), ending(samples.overridden(1), BOOT + 200))
    file.write(samples.passed(1, samples.device(2)), Entry({"kind": "note"}))
    if folded or pruned:
        file.store.start_fold()
        while file.store.folding:
            file.store.fold_slice()
    if pruned:
        assert file.store.prune(samples.WALL + 1)
    file.crash()
    for _ in range(2):
        file.open()
        assert file.known.until_boot == {CAM: BOOT + 300, OTHER: BOOT + 900}
        assert file.known.remaining == {CAM: 300.0, OTHER: 900.0}
        running = Running(samples.overridden(1).record, 200.0, BOOT + 200)  # type: ignore[arg-type]
        assert file.known.overrides == {samples.device(1): running}
        assert file.findings() == []
        file.close()


def test_another_boots_row_ends_at_no_boot_time_of_this_one(file: File) -> None:
    file.write(ending(samples.passed(1), BOOT + 300), samples.overridden(1))
    file.crash()
    for _ in range(3):
        file.open("next")
        assert file.known.until_boot == {}
        assert file.known.remaining == {CAM: 300.0}
        assert file.known.overrides[samples.device(1)][1:] == (600.0, None)
        file.close()
    file.open("next")
    file.write(ending(samples.passed(1, samples.device(2)), 50.0), now=Instant(samples.WALL, 10.0))
    file.close()
    file.open("next")
    assert file.known.until_boot == {OTHER: 50.0}
    file.close()
    file.open("boot")  # nobody's boot comes again, but a name may
    assert file.known.until_boot == {}


def test_a_later_record_that_does_not_end_leaves_none(file: File) -> None:
    file.write(samples.passed(1))
    entry = samples.passed(2)
    file.close()
    file.open()
    file.write(entry._replace(record=samples.trusted()._replace(deadline=None)))
    file.crash()
    file.open()
    assert (file.known.until_boot, file.known.remaining) == ({}, {})


def test_the_record_of_a_lost_row_keeps_it(file: File) -> None:
    (lost,) = file.rows(ending(samples.passed(1), BOOT + 30))
    file.store.commit(Group((), (), (), [lost]), samples.NOW)
    file.crash()
    file.open()
    assert (file.known.until_boot, file.known.remaining) == ({CAM: BOOT + 30}, {CAM: 30.0})


# --- version 1 ----------------------------------------------------------------------------------------------------


@pytest.fixture
def old(path: Path) -> Path:
    return version_1(path)


def test_a_journal_of_version_1_says_what_it_said_and_goes_on(old: Path) -> None:
    file = File(old)
    assert file.db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert file.findings() == []
    for _ in range(2):
        known = file.known
        assert known.records == {
            CAM: samples.passed(1).record,
            OTHER: samples.failed(2).record,
            THIRD: samples.passed(1).record,
        }
        assert known.remaining == {CAM: 900.0, OTHER: 890.0, THIRD: 880.0}
        assert {device: each[1:] for device, each in known.overrides.items()} == {
            samples.device(1): (600.0, None),
            samples.device(2): (60.0, None),
        }
        assert (known.until_boot, known.boot_id) == ({}, "boot")
        file.close()
        file.open()
    file.write(ending(samples.passed(9), BOOT + 30))
    assert file.findings() == []
    file.close()
    file.open()
    assert file.known.until_boot == {CAM: BOOT + 30}
    assert file.known.remaining == {CAM: 30.0, OTHER: 890.0, THIRD: 880.0}
    assert file.findings() == []
    file.crash()


def test_a_boot_time_put_into_a_row_of_version_1_shows(old: Path) -> None:
    file = File(old)
    file.db.execute("UPDATE facts SET until_boot = 9e9 WHERE seq = 6")
    assert any("group 4 (rows 6 to 7) does not match" in text for text in file.findings())
    file.crash()
    with pytest.raises(JournalError, match="were changed"):
        file.open()


async def test_a_journal_of_version_1_is_read_as_it_is(old: Path) -> None:
    before = old.read_bytes()
    history = SqliteHistory(old)
    assert await history.verify_chain() == []
    (row,) = await history.verdicts(samples.device(3), 5)
    assert row["event"] == "passed"
    assert len(await history.facts(0, 99)) == 6
    history.close()
    with JournalReader(old) as reader:
        assert reader.states()[OTHER] == samples.failed(2).record
        assert set(reader.overrides()) == {samples.device(1), samples.device(2)}
        assert len(list(reader.since(0.0))) == 4
    assert wishes(old) == frozenset()
    assert old.read_bytes() == before


async def test_a_journal_of_version_1_brought_forward_survives_kill_9(make: Make, old: Path) -> None:
    reported = run_until_killed(old, 100)
    journal = make()
    loaded = journal.load()
    assert loaded.boot_id == "child"
    rows = await journal.history.facts(0, 10_000)
    assert {seq for seq, _, _ in reported} <= {row["seq"] for row in rows}
    assert await journal.history.verify_chain() == []
    assert len(loaded.overrides) == 2
    await durable(journal, samples.passed(0, samples.device(77)))
    await journal.close()


def test_after_kill_9_the_same_boot_knows_when_everything_ends(path: Path) -> None:
    reported = run_until_killed(path, 60)
    opened = open_journal(path)
    known = Store(opened.connection).load("child")
    assert {samples.device(device) for _, device, _ in reported} <= {device for device, _ in known.until_boot}
    assert set(known.until_boot.values()) == {BOOT + 900}
    opened.connection.close()
    os.close(opened.lock)
