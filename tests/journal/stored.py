"""A journal's file under a store alone, and rows for it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from gateway.control.ports import Entry
from gateway.core.errors import JournalError
from gateway.core.model import Instant
from gateway.core.policy import Override
from gateway.journal import chain
from gateway.journal.outcomes import OutcomeRow
from gateway.journal.refusals import RefusalRow
from gateway.journal.rows import FactRow, encode_entry, prepare, times_left
from gateway.journal.schema import open_journal
from gateway.journal.store import Group, Store
from tests.journal import samples

VERSION_1 = Path(__file__).resolve().parents[1] / "fixtures" / "journal" / "version-1.sql"


def version_1(path: Path) -> Path:
    """A journal that version 1 wrote, closed in order once and was then killed with (boot ``boot``): of three
    devices, one has failed, and two have an override."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_1.read_text(encoding="utf-8"))
    return path


class File:
    """One journal file, opened as often as a test likes. ``crash`` closes it without a word."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.next = 1
        self.open()

    def open(self, boot_id: str = "boot") -> None:
        self.db, self.lock = open_journal(self.path)
        self.store = Store(self.db)
        try:
            self.known = self.store.load(boot_id)
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
        for fact, record, until_boot in entries:
            word = record if isinstance(record, Override) else None
            ready = fact if isinstance(fact, tuple) else prepare(fact, word)
            left = None if isinstance(record, Override) else record
            made.append(encode_entry(self.next, ready, left, samples.WALL, until_boot))
            self.next += 1
        return made

    def write(self, *entries: Entry, now: Instant = samples.NOW) -> list[int]:
        rows = self.rows(*entries)
        self.store.commit(Group(rows, (), ()), now)
        return [row.seq for row in rows]

    def findings(self) -> list[str]:
        meta = dict(self.db.execute("SELECT key, value FROM meta").fetchall())
        return chain.verify(self.db, meta.get("anchor", 0), meta.get("anchor_digest", chain.START))

    def count(self, table: str) -> int:
        return int(self.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def times(row: FactRow, now: Instant = samples.NOW) -> tuple[float | None, float | None]:
    """``remaining`` and ``until_boot`` as the store writes them."""
    return (None, None) if row.deadline is None else times_left(row.deadline, row.until_boot, *now)


def refusal(slot: int, peer: str = "192.0.2.0/24", times: int = 1) -> RefusalRow:
    return RefusalRow(slot, peer, "hmac", "verifier", times, slot + 1.0, slot + 2.0, "sample")


def outcome(seq: int) -> OutcomeRow:
    return OutcomeRow(seq, "gateway", "nft", "admitted", "verified", "", 1.0, 2.0, None)
