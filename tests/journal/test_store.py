"""The store alone: numbers are reserved ahead, and a failed transaction changed nothing."""

from __future__ import annotations

import sqlite3

import pytest

from gateway.journal.store import RESERVED, Group
from tests.journal import samples
from tests.journal.stored import File


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
