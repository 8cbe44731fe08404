"""The store alone: what is folded, pruned and reserved, and that a failed transaction changed nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.control.ports import Entry
from gateway.core.errors import JournalError
from gateway.core.model import DeviceId, Record, SourceName
from gateway.core.policy import Override
from gateway.journal import chain, fold, pruning
from gateway.journal.refusals import RefusalRow
from gateway.journal.rows import FactRow, OutcomeRow, encode_entry, prepare
from gateway.journal.schema import open_journal
from gateway.journal.store import RESERVED, Group, Store
from tests.journal import samples


class File:
    """One journal file, opened as often as a test likes. ``crash`` closes it without a word."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.next = 1
        self.open()

    def open(self) -> None:
        self.db, self.lock = open_journal(self.path)
        self.store = Store(self.db)
        try:
            self.known = self.store.load("boot")
        except JournalError:
            self.crash()
            raise
        self.next = self.known.next_seq

    def crash(self) -> None:
        self.db.close()
        self._unlock()

    def close(self) -> None:
        self.store.close(self.next)
        self._unlock()

    def _unlock(self) -> None:
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def rows(self, *entries: Entry) -> list[FactRow]:
        made = []
        for fact, record in entries:
            assert not isinstance(record, Override)
            ready = fact if isinstance(fact, tuple) else prepare(fact)
            made.append(encode_entry(self.next, ready, record, samples.WALL))
            self.next += 1
        return made

    def write(self, *entries: Entry, wall: float = samples.WALL) -> list[int]:
        rows = self.rows(*entries)
        self.store.commit(Group(rows, (), ()), wall)
        return [row.seq for row in rows]

    def findings(self) -> list[str]:
        meta = dict(self.db.execute("SELECT key, value FROM meta").fetchall())
        return chain.verify(self.db, meta.get("anchor", 0), meta.get("anchor_digest", chain.START))

    def count(self, table: str) -> int:
        return int(self.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    made = File(tmp_path / "journal.db")
    yield made
    made.crash()


def refusal(slot: int, peer: str = "192.0.2.0/24", times: int = 1) -> RefusalRow:
    return RefusalRow(slot, peer, "hmac", "verifier", times, slot + 1.0, slot + 2.0, "sample")


def outcome(seq: int) -> OutcomeRow:
    return OutcomeRow(seq, "gateway", "nft", "admitted", "verified", "", 1.0, 2.0, None)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=6)),
        st.tuples(st.sampled_from(["start", "slice", "crash", "close"]), st.none()),
    ),
    max_size=25,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_whatever_was_folded_or_cut_short_the_newest_records_come_back(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[tuple[int, bool]] | None]]
) -> None:
    file = File(tmp_path_factory.mktemp("fold") / "journal.db")
    wanted: dict[tuple[DeviceId, SourceName], Record] = {}
    number = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "FOLD_SLICE", 2)
        for step, what in steps:
            if step == "write" and what is not None:
                entries = []
                for name, leaves in what:
                    number += 1
                    entry = samples.passed(number, samples.device(name))
                    entries.append(entry if leaves else Entry(samples.replayed().fact))
                    if leaves and isinstance(entry.record, Record):
                        wanted[samples.device(name), samples.SOURCE] = entry.record
                file.write(*entries)
            elif step == "start":
                file.store.start_fold()
            elif step == "slice" and file.store.folding:
                file.store.fold_slice()
            elif step in {"crash", "close"}:
                file.crash() if step == "crash" else file.close()
                file.open()
                assert file.known.records == wanted
    file.close()
    file.open()
    assert file.known.records == wanted
    assert file.findings() == []
    file.crash()


def test_numbers_are_never_used_again_after_a_crash(file: File) -> None:
    assert file.next == 1
    (first,) = file.write(samples.passed(1))
    file.crash()  # numbers behind ``first`` may have been told to somebody
    file.open()
    known = file.known
    assert not known.clean
    assert file.next == first + RESERVED
    (second,) = file.write(samples.passed(2))
    file.close()
    file.open()
    assert file.known != known
    assert file.known.clean
    assert file.next == second + 1


def test_the_reservation_moves_on_before_it_is_used_up(file: File) -> None:
    file.next = 1 + RESERVED // 2 + 10
    (seq,) = file.write(samples.passed(1))
    file.crash()
    file.open()
    assert file.next == seq + RESERVED


def test_a_group_that_fails_changed_nothing(file: File) -> None:
    file.write(samples.passed(1))
    before = (file.findings(), file.count("facts"), file.count("groups"), file.store.behind)
    rows = file.rows(samples.passed(2), samples.passed(3))
    bad = Group([rows[0], rows[1]._replace(seq=rows[0].seq)], (), ())
    with pytest.raises(sqlite3.IntegrityError):
        file.store.commit(bad, samples.WALL)
    assert (file.findings(), file.count("facts"), file.count("groups"), file.store.behind) == before
    file.store.commit(Group(rows, (), ()), samples.WALL)
    assert file.findings() == []
    assert file.count("facts") == 3


def test_a_slice_rides_with_a_group_and_the_last_one_moves_the_mark(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold, "FOLD_SLICE", 2)
    seqs = file.write(*(samples.passed(1, samples.device(n)) for n in range(3)))
    file.store.start_fold()
    file.write(samples.failed(2, samples.device(2)))
    assert file.count("devices") == 2
    assert file.db.execute("SELECT value FROM meta WHERE key='folded'").fetchone() is None
    file.write(samples.passed(3, samples.device(0)))
    assert file.db.execute("SELECT value FROM meta WHERE key='folded'").fetchone() == (seqs[-1],)
    assert file.store.behind


@pytest.mark.parametrize(("limit", "due"), [("FOLD_AFTER", True), ("REPLAYED", True), ("FOLD_SLICE", False)])
def test_a_fold_is_due_by_pairs_or_by_rows(
    file: File, monkeypatch: pytest.MonkeyPatch, limit: str, due: bool
) -> None:
    file.write(samples.passed(1), samples.passed(1, samples.device(2)))
    monkeypatch.setattr(fold, limit, 2)
    assert file.store.fold_due is due
    file.store.start_fold()
    assert file.store.fold_due is False


def test_records_of_lost_rows_win_over_older_rows(file: File) -> None:
    kept, lost = file.rows(samples.passed(1), samples.failed(2))
    file.store.commit(Group([kept], (), (), [lost]), samples.WALL)
    wanted = {(samples.device(1), samples.SOURCE): samples.failed(2).record}
    file.crash()
    file.open()
    assert file.known.records == wanted
    file.close()  # folds the older row over it
    file.open()
    assert file.known.records == wanted


@pytest.mark.parametrize("column", ["record", "remaining", "device"])
def test_state_that_was_changed_on_disk_is_refused(file: File, column: str) -> None:
    file.write(samples.failed(1))
    file.close()
    db = sqlite3.connect(file.path)
    change = {"record": "replace(record, '2', '6')", "remaining": "remaining + 1", "device": "'cam-2'"}[column]
    db.execute(f"UPDATE devices SET {column} = {change}")
    db.commit()
    db.close()
    with pytest.raises(JournalError, match="damaged"):
        file.open()


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("UPDATE facts SET record = replace(record, '2', '6') WHERE seq = 2", "does not match its digest"),
        ("DELETE FROM facts WHERE seq = 2", "the file has 1 and 1"),
        ("UPDATE outcomes SET state = 'failed'", "does not match its digest"),
        ("DELETE FROM groups WHERE id = 2", "groups 2 to 2 are missing"),
        ("UPDATE groups SET at = 0 WHERE id = 3", "does not match its digest"),
        ("UPDATE facts SET seq = 9 WHERE seq = 2", "the file has 1 and 1"),
    ],
)
def test_a_change_to_history_shows_and_stops_the_start(file: File, change: str, finding: str) -> None:
    file.write(samples.passed(1))
    rows = file.rows(samples.failed(2), samples.passed(3))
    file.store.commit(Group(rows, [outcome(1)], ()), samples.WALL)
    file.write(samples.passed(4))
    assert file.findings() == []
    file.db.execute(change)
    assert any(finding in text for text in file.findings())
    file.crash()
    with pytest.raises(JournalError, match="were changed"):
        file.open()


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO facts VALUES (99, 1, 'note', 'cam-1', 'verifier', '{}', '{\"standing\":6}', 900, NULL)",
        "DELETE FROM groups",
    ],
)
def test_rows_that_no_group_vouches_for_never_become_state(file: File, change: str) -> None:
    file.write(samples.failed(1))
    file.db.execute(change)
    file.crash()
    with pytest.raises(JournalError, match="were changed"):
        file.open()


def test_old_groups_go_whole_and_the_chain_still_holds(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "PRUNE_SLICE", 4)
    for number in range(10):
        rows = file.rows(samples.passed(number), samples.passed(number, samples.device(2)))
        file.store.commit(Group(rows, [outcome(max(rows[0].seq - 2, 1))], ()), samples.WALL + number * 100)
    assert not file.store.prune(samples.WALL + 10_000), "rows that are not folded stay"
    file.store.start_fold()
    file.store.fold_slice()
    slices = 0
    while file.store.prune(samples.WALL + 450):
        slices += 1
        assert file.findings() == []
    assert slices > 1
    assert (file.count("groups"), file.count("facts"), file.count("outcomes")) == (5, 10, 5)
    while file.store.prune(0.0, oldest=True):
        assert file.findings() == []
    assert file.count("groups") == 1, "the newest group stays"
    assert file.count("devices") == 2
    file.write(samples.passed(50))
    assert file.findings() == []
    file.crash()
    file.open()
    assert len(file.known.records) == 2
    assert file.known.highest == samples.WALL + 900


def test_refusals_add_up_and_are_bounded(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    file.store.commit(Group((), (), [refusal(100, times=2), refusal(110)]), samples.WALL)
    file.store.commit(Group((), (), [refusal(100, times=3)]), samples.WALL)
    assert file.db.execute("SELECT times FROM refusals ORDER BY slot").fetchall() == [(5,), (1,)]
    monkeypatch.setattr(pruning, "REFUSAL_ROWS", 10)
    monkeypatch.setattr(pruning, "REFUSAL_SLACK", 2)
    file.store.commit(Group((), (), [refusal(200 + n) for n in range(20)]), samples.WALL)
    file.store.prune_refusals(105.0)
    assert file.count("refusals") == 8
    assert file.db.execute("SELECT min(slot) FROM refusals").fetchone() == (212,)
    file.crash()
    file.open()
    file.store.prune_refusals(215.0)
    assert file.db.execute("SELECT min(slot) FROM refusals").fetchone() == (215,)


def test_size_counts_what_is_in_use(file: File) -> None:
    before = file.store.size()
    file.write(*(samples.passed(number) for number in range(500)))
    full = file.store.size()
    assert full > before + 50_000
    file.write(samples.passed(500))
    file.store.start_fold()
    file.store.fold_slice()
    while file.store.prune(0.0, oldest=True):
        pass
    assert file.store.size() < full / 2
