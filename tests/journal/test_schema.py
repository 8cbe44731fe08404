"""The file before it is trusted: creation, lock, versions, damage."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.core.errors import JournalError
from gateway.journal import schema
from gateway.journal.schema import APPLICATION_ID, MIGRATIONS, Opened, open_journal


def close(opened: Opened) -> None:
    opened.connection.close()
    os.close(opened.lock)


def refusal(path: Path) -> str:
    with pytest.raises(JournalError) as caught:
        close(open_journal(path))
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "journal.db"


@pytest.fixture
def filled(path: Path) -> Path:
    """A closed journal of some 70 pages."""
    opened = open_journal(path)
    opened.connection.executemany(
        "INSERT INTO facts VALUES (?, 1.0, 'note', '', '', ?, NULL, NULL, NULL, NULL)",
        ((number, "x" * 1_000) for number in range(200)),
    )
    opened.connection.executemany(
        "INSERT INTO devices VALUES (?, 'verifier', 1, 1, NULL, ?, 1, NULL)",
        ((f"cam-{n}", "y" * 200) for n in range(200)),
    )
    close(opened)
    return path


def test_only_the_owner_may_read_what_is_created(path: Path) -> None:
    old = os.umask(0)
    try:
        opened = open_journal(path)
        opened.connection.execute("INSERT INTO meta VALUES ('a', 1)")
        names = {item.name: stat.S_IMODE(item.stat().st_mode) for item in path.parent.iterdir()}
        close(opened)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert set(names) == {"journal.db", "journal.db-wal", "journal.db-shm", "journal.db.lock"}
    assert set(names.values()) == {0o600}


def test_commits_are_flushed_and_checkpoints_are_ours(path: Path) -> None:
    opened = open_journal(path)
    settings = [
        opened.connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "wal_autocheckpoint", "application_id", "user_version")
    ]
    close(opened)
    assert settings == ["wal", 2, 0, APPLICATION_ID, len(MIGRATIONS)]


def test_two_owners_are_refused(path: Path) -> None:
    opened = open_journal(path)
    assert "another process is using this journal" in refusal(path)
    close(opened)
    close(open_journal(path))


def test_a_newer_version_is_refused(path: Path) -> None:
    close(open_journal(path))
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    connection.close()
    assert "use the newer program" in refusal(path)


def test_an_older_version_is_brought_forward_step_by_step(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute("CREATE TABLE old (name TEXT)")
    connection.execute("INSERT INTO old VALUES ('kept')")
    connection.commit()
    connection.close()

    def third(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE devices ADD COLUMN label TEXT NOT NULL DEFAULT ''")
        connection.execute(
            "INSERT INTO devices (device, source, last, rec, label) SELECT name, '', 0, 0, 'x' FROM old"
        )

    opened = open_journal(path, (*MIGRATIONS, third))
    assert opened.connection.execute("PRAGMA user_version").fetchone() == (3,)
    assert opened.connection.execute("SELECT device, label FROM devices").fetchall() == [("kept", "x")]
    close(opened)
    assert "use the newer program" in refusal(path)


def test_a_step_that_fails_leaves_the_version_before(path: Path) -> None:
    close(open_journal(path))

    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half (a)")
        connection.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(JournalError, match="nowhere"):
        open_journal(path, (*MIGRATIONS, broken))
    opened = open_journal(path)
    tables = {name for (name,) in opened.connection.execute("SELECT name FROM sqlite_schema")}
    close(opened)
    assert "half" not in tables


def test_a_foreign_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE somebodys (thing)")
    connection.close()
    before = path.read_bytes()
    assert "not a ragate journal" in refusal(path)
    assert path.read_bytes() == before


def garbage_header(data: bytes) -> bytes:
    return b"garbage!" * 12 + data[96:]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def stump(data: bytes) -> bytes:
    return data[:50]


def nothing(_: bytes) -> bytes:
    return b""


def odd_end(data: bytes) -> bytes:
    return data[:-1_000]


def flipped_pages(data: bytes) -> bytes:
    size, page = 4_096, bytearray(data)
    for number in range(8, len(data) // size, 5):
        page[number * size : number * size + 64] = bytes(b ^ 0xFF for b in page[number * size : number * size + 64])
    return bytes(page)


def garbled_schema(data: bytes) -> bytes:
    return data.replace(b"tablegroups", b"table\x80roups")  # SQLite quotes the name in its message


@pytest.mark.parametrize("damage", [garbage_header, half, stump, nothing, odd_end, flipped_pages, garbled_schema])
def test_a_damaged_file_is_refused_with_what_to_do_and_left_alone(
    filled: Path, damage: Callable[[bytes], bytes]
) -> None:
    spoilt = damage(filled.read_bytes())
    filled.write_bytes(spoilt)
    text = refusal(filled)
    assert str(filled) in text
    assert "put back a copy" in text
    assert "begin with an empty journal" in text
    assert filled.read_bytes() == spoilt
    assert refusal(filled) == text  # and the lock was given back


@pytest.mark.parametrize("damage", [half, flipped_pages])
def test_a_large_file_is_checked_where_state_lives(
    filled: Path, damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "WHOLE_CHECK", 0)
    filled.write_bytes(damage(filled.read_bytes()))
    assert "put back a copy" in refusal(filled)


def test_a_log_without_its_file_is_no_new_journal(path: Path) -> None:
    path.parent.mkdir()
    path.with_name("journal.db-wal").write_bytes(b"something")
    assert "put the journal back" in refusal(path)
    assert not path.exists()


def test_a_start_that_was_interrupted_leaves_nothing_half_made(path: Path) -> None:
    path.parent.mkdir()
    path.with_name("journal.db.new").write_bytes(b"half of a new file")
    close(open_journal(path))
    assert not path.with_name("journal.db.new").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert "cannot be used" in refusal(tmp_path / "file" / "journal.db")
