"""Opening the file: what was changed on disk never becomes state."""

from __future__ import annotations

import sqlite3

import pytest

from gateway.core.errors import JournalError
from gateway.journal.store import Group
from tests.journal import samples
from tests.journal.stored import File, outcome


@pytest.mark.parametrize("column", ["record", "remaining", "until_boot", "device"])
def test_state_that_was_changed_on_disk_is_refused(file: File, column: str) -> None:
    file.write(samples.failed(1))
    file.close()
    db = sqlite3.connect(file.path)
    changes = {"record": "replace(record, '2', '6')", "device": "'cam-2'"}
    change = changes.get(column, f"{column} + 1")
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
        ("UPDATE facts SET until_boot = until_boot + 60 WHERE seq = 2", "does not match its digest"),
        ("UPDATE facts SET until_boot = NULL WHERE seq = 2", "does not match its digest"),
        ("UPDATE outcomes SET state = 'failed'", "does not match its digest"),
        ("DELETE FROM groups WHERE id = 2", "groups 2 to 2 are missing"),
        ("UPDATE groups SET at = 0 WHERE id = 3", "does not match its digest"),
        ("UPDATE facts SET seq = 9 WHERE seq = 2", "the file has 1 and 1"),
    ],
)
def test_a_change_to_history_shows_and_stops_the_start(file: File, change: str, finding: str) -> None:
    file.write(samples.passed(1))
    rows = file.rows(samples.failed(2), samples.passed(3))
    file.store.commit(Group(rows, [outcome(1)], ()), samples.NOW)
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
        "INSERT INTO facts VALUES (99, 1, 'note', 'cam-1', 'verifier', '{}', '{\"standing\":6}', 900, NULL, NULL)",
        "DELETE FROM groups",
    ],
)
def test_rows_that_no_group_vouches_for_never_become_state(file: File, change: str) -> None:
    file.write(samples.failed(1))
    file.db.execute(change)
    file.crash()
    with pytest.raises(JournalError, match="were changed"):
        file.open()
