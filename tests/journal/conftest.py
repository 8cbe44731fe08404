"""A journal on a real file, and helpers to wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.control.ports import Entry
from gateway.core.errors import JournalError
from gateway.journal import SqliteJournal
from tests.fakes.clock import ManualClock
from tests.journal.stored import File


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    made = File(tmp_path / "journal.db")
    yield made
    made.crash()


Make = Callable[..., SqliteJournal]


@pytest.fixture
async def make(path: Path, clock: ManualClock) -> Make:
    def build(**limits: float) -> SqliteJournal:
        loop = asyncio.get_running_loop()
        return SqliteJournal(path, loop=loop, clock=clock, boot_id="boot", **limits)  # type: ignore[arg-type]

    return build


async def durable(journal: SqliteJournal, *entries: Entry) -> list[int]:
    """Record and wait; raises what ``done`` was given."""
    future: asyncio.Future[JournalError | None] = asyncio.get_running_loop().create_future()
    seqs = journal.record(entries, future.set_result)
    async with asyncio.timeout(60):
        error = await future
    if error is not None:
        raise error
    return list(seqs)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)
