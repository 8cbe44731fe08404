"""The journal's file: creation, lock, versions, migrations, and the checks before it is trusted.

What lives here: everything that happens to the file before the first row is read. What must not: rows.
A journal that is damaged, foreign, newer than this program or in use is refused with a sentence that says what to
do; it is never replaced, because an empty memory would forget every failure.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.core.errors import JournalError

APPLICATION_ID = 0x72616774
"""``ragt`` in SQLite's application_id: tells our file from any other SQLite file."""

PAGE_SIZE = 4_096
"""Bytes a page: the file system's block, so that a checkpoint never reads before it writes."""

CACHE = 32 * 1024
"""KiB of page cache: the state of 100,000 devices (about 25 MB) stays in memory, so that looking up a device's
newest row reads no file."""

BUSY_SECONDS = 0.1
"""Seconds to wait for another connection's lock: only foreign programs take one, the lock file keeps ours out."""

WHOLE_CHECK = 256 * 1024 * 1024
"""Bytes up to which the whole file is checked at opening (about 0.3 s in cache); in a larger file the state, the
marks and the chain's newest part are, and ``ragate check --journal`` looks at all of it."""

SMALLEST = 512
"""Bytes of the smallest possible SQLite file."""

STATE_TABLES = ("meta", "devices", "groups")

_V1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;

-- One row per fact. prev: the device's row before this one (of the same source), record: the device state it left.
CREATE TABLE facts (
    seq INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    device TEXT NOT NULL,
    source TEXT NOT NULL,
    body TEXT NOT NULL,
    record TEXT,
    remaining REAL,
    prev INTEGER
);

-- State as of meta.folded, facts behind it carry what is newer. last: the device's newest row, rec: the row that
-- left this record (0: none yet).
CREATE TABLE devices (
    device TEXT NOT NULL,
    source TEXT NOT NULL,
    last INTEGER NOT NULL,
    rec INTEGER NOT NULL,
    remaining REAL,
    record TEXT,
    sum INTEGER,
    PRIMARY KEY (device, source)
) WITHOUT ROWID;

CREATE TABLE outcomes (
    seq INTEGER NOT NULL,
    grp INTEGER NOT NULL,
    n INTEGER NOT NULL,
    target TEXT NOT NULL,
    backend TEXT NOT NULL,
    profile TEXT NOT NULL,
    state TEXT NOT NULL,
    detail TEXT NOT NULL,
    accepted_ms REAL,
    verified_ms REAL,
    durable_ms REAL,
    PRIMARY KEY (seq, grp, n)
) WITHOUT ROWID;

CREATE TABLE refusals (
    slot INTEGER NOT NULL,
    peer TEXT NOT NULL,
    refusal TEXT NOT NULL,
    source TEXT NOT NULL,
    times INTEGER NOT NULL,
    first REAL NOT NULL,
    last REAL NOT NULL,
    sample TEXT NOT NULL,
    PRIMARY KEY (slot, peer, refusal)
) WITHOUT ROWID;

CREATE TABLE groups (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    highest REAL NOT NULL,
    facts INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    outcomes INTEGER NOT NULL,
    lowest_answered INTEGER NOT NULL,
    highest_answered INTEGER NOT NULL,
    digest BLOB NOT NULL
);
"""


# until_boot: CLOCK_BOOTTIME seconds at which the record ends, NULL in rows of version 1. It means something in the
# boot that wrote the row alone: rows from meta.boot_first on are of the boot meta.boot_id. A column put in at the
# end costs no rewriting of rows, however large the file.
_V2 = """
ALTER TABLE facts ADD COLUMN until_boot REAL;
ALTER TABLE devices ADD COLUMN until_boot REAL;
"""

_V1_READ = """
CREATE TEMP VIEW facts AS SELECT
    seq, at, kind, device, source, body, record, remaining, prev, NULL AS until_boot FROM main.facts;
CREATE TEMP VIEW devices AS SELECT
    device, source, last, rec, remaining, record, sum, NULL AS until_boot FROM main.devices;
"""
"""What makes a file of version 1 read like one of version 2, on the connection alone."""


def _run(connection: sqlite3.Connection, statements: str) -> None:
    # Not executescript, which would end the transaction that a step of a migration is.
    for statement in statements.split(";"):
        if statement.strip():
            connection.execute(statement)


def _create(connection: sqlite3.Connection) -> None:
    _run(connection, _V1)


def _remember_boots(connection: sqlite3.Connection) -> None:
    _run(connection, _V2)


Migration = Callable[[sqlite3.Connection], None]

MIGRATIONS: Sequence[Migration] = (_create, _remember_boots)
"""Step ``n`` (from 0) brings a file of version ``n`` to version ``n + 1``."""

_KEEP = "keep the file for inspection and put back a copy, or move it away to begin with an empty journal"


class Opened(NamedTuple):
    """The one writing connection and the descriptor that holds the lock; closing the latter releases it."""

    connection: sqlite3.Connection
    lock: int


def open_journal(path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> Opened:
    """Open or create the journal for writing, exclusively. The connection is in autocommit mode.

    Raises ``JournalError``: in use, unreadable, damaged, foreign, or written by a newer version.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _take_lock(path)
    except OSError as error:
        raise JournalError(f"{path}: cannot be used: {error.strerror}") from error
    try:
        if not path.exists():
            _begin(path, migrations)
        connection = _connect(path)
        try:
            recognise(connection, path, len(migrations))
            _settle(connection)
            check(connection, path)
            migrate(connection, migrations)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError, UnicodeError) as error:
        os.close(lock)
        # SQLite quotes the damaged bytes in its message, and Python cannot always decode that (UnicodeError).
        # An operational error (locked, full, not readable) says nothing against the file itself.
        mend = "" if isinstance(error, sqlite3.OperationalError | OSError) else f"; {_KEEP}"
        raise JournalError(f"{path}: cannot be opened: {error}{mend}") from error
    except BaseException:
        os.close(lock)
        raise
    return Opened(connection, lock)


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, for questions; beside the running writer or offline.

    A file of version 1, which only a start brings forward, is read as one of version 2 that knows no boot times.
    Raises ``sqlite3.Error``.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=1.0, check_same_thread=False
    )
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] == 1:
            _run(connection, _V1_READ)
    except sqlite3.Error as error:
        # Damage is told by the question, as damage anywhere else is.
        if isinstance(error, sqlite3.OperationalError):
            connection.close()
            raise
    connection.execute("PRAGMA query_only=ON")
    return connection


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the file to the newest version, one transaction a step: a step that fails leaves the version before."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for number in range(version, len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            migrations[number](connection)
            connection.execute(f"PRAGMA user_version={number + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def check(connection: sqlite3.Connection, path: Path, *, whole: bool = False) -> None:
    """Raise ``JournalError`` when the file's structure is damaged (``PRAGMA quick_check``) or cut short."""
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    wal = path.with_name(f"{path.name}-wal")
    settled = not wal.exists() or not wal.stat().st_size
    if settled and path.stat().st_size < pages * size:
        msg = f"{path}: damaged: {path.stat().st_size} bytes are left of {pages * size}; {_KEEP}"
        raise JournalError(msg)
    if whole or pages * size <= WHOLE_CHECK:
        queries = ["PRAGMA quick_check(3)"]
    else:
        present = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")}
        queries = [f"PRAGMA quick_check({table})" for table in STATE_TABLES if table in present]
    for query in queries:
        found = [row[0] for row in connection.execute(query)]
        if found != ["ok"]:
            raise JournalError(f"{path}: damaged: {'; '.join(map(str, found))[:500]}; {_KEEP}")


def _take_lock(path: Path) -> int:
    # A file of its own: closing any descriptor of the database would drop SQLite's own POSIX locks on it.
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        msg = f"{path}: another process is using this journal; stop it first, one gateway has one journal"
        raise JournalError(msg) from error
    except OSError:
        os.close(lock)
        raise
    return lock


def _begin(path: Path, migrations: Sequence[Migration]) -> None:
    """Create the file under another name and rename it when it is whole: an empty file is then always damage."""
    for suffix in ("-wal", "-journal"):
        orphan = path.with_name(path.name + suffix)
        if orphan.exists() and orphan.stat().st_size:
            msg = f"{path}: missing, but {orphan.name} is there: put the journal back, or move both away"
            raise JournalError(msg)
    fresh = path.with_name(f"{path.name}.new")
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(fresh.name + suffix).unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(fresh, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        migrate(connection, migrations)
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _connect(path: Path) -> sqlite3.Connection:
    if path.stat().st_size < SMALLEST:
        raise JournalError(f"{path}: damaged: only {path.stat().st_size} bytes are left; {_KEEP}")
    return sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False)


def _settle(connection: sqlite3.Connection) -> None:
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        msg = f"the file system allows no write-ahead log (journal mode {mode})"
        raise sqlite3.OperationalError(msg)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute(f"PRAGMA cache_size=-{CACHE}")
    connection.execute("PRAGMA temp_store=MEMORY")
    # Move what an unclean stop left in the log into the file, so that the check sees one file.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def recognise(connection: sqlite3.Connection, path: Path, newest: int = len(MIGRATIONS)) -> None:
    """Raise ``JournalError`` for a file that is no journal, or one of a newer version than ``newest``."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise JournalError(f"{path}: is an SQLite file, but not a ragate journal; name another file")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > newest:
        msg = f"{path}: has version {version}, this program knows up to {newest}; use the newer program again"
        raise JournalError(msg)
