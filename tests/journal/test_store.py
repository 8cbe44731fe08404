"""The store alone: numbers are reserved ahead, and a failed transaction changed nothing."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control.ports import Entry
from gateway.journal.store import RESERVED, Group
from tests.journal import samples
from tests.journal.stored import File, outcome


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
        file.store.commit(bad, samples.NOW)
    assert (file.findings(), file.count("facts"), file.count("groups"), file.store.behind) == before
    file.store.commit(Group(rows, (), ()), samples.NOW)
    assert file.findings() == []
    assert file.count("facts") == 3


def test_records_of_lost_rows_win_over_older_rows(file: File) -> None:
    kept, lost = file.rows(samples.passed(1), samples.failed(2))
    file.store.commit(Group([kept], (), (), [lost]), samples.NOW)
    wanted = {(samples.device(1), samples.SOURCE): samples.failed(2).record}
    file.crash()
    file.open()
    assert file.known.records == wanted
    file.close()  # folds the older row over it
    file.open()
    assert file.known.records == wanted


@given(
    st.lists(st.integers(0, 150), max_size=4),
    st.lists(st.sampled_from([0, 1, 2, 3, 9]), min_size=150, max_size=150),
)
@settings(max_examples=25, deadline=None)
def test_groups_of_any_size_stand_in_the_file_row_by_row(sizes: list[int], names: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = File(Path(folder) / "journal.db")
        newest: dict[str, int] = {}
        wanted, told = [], []
        for number, size in enumerate(sizes, 1):
            rows = file.rows(
                *[
                    samples.passed(n, samples.device(name)) if name else Entry({"kind": "note", "n": n})
                    for n, name in enumerate(names[:size])
                ]
            )
            for row in rows:
                wanted.append((*row[:7], newest.get(row.device) if row.device else 0))
                newest[row.device] = row.seq
            answers = [outcome(row.seq // 2 + 1)._replace(detail=str(n)) for n, row in enumerate(reversed(rows))]
            in_order = sorted(answers, key=lambda row: row.seq)
            told += [(row.seq, number, n, *row[1:]) for n, row in enumerate(in_order)]
            file.store.commit(Group(rows, answers, ()), samples.NOW)
            if number % 2:  # the next one meets rows that only ``devices`` knows
                file.store.start_fold()
                while file.store.folding:
                    file.store.fold_slice()
        columns = "seq, at, kind, device, source, body, record, prev"
        assert file.db.execute(f"SELECT {columns} FROM facts ORDER BY seq").fetchall() == wanted
        assert file.db.execute("SELECT * FROM outcomes ORDER BY grp, n").fetchall() == told
        assert file.findings() == []
        file.close()
