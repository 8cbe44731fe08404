"""Journal rows and journal files with anything in them: read back exactly, or refused by a declared error."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from gateway.control.ports import Entry
from gateway.core.errors import JournalError
from gateway.core.model import DeviceId, Record, SourceName, Transition
from gateway.core.policy import Override
from gateway.journal import SqliteJournal, rows
from tests.fakes.clock import ManualClock
from tests.fuzz.mutants import mutants
from tests.journal import samples
from tests.journal.stored import times

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(900)]

DECLARED = (msgspec.MsgspecError, ValueError)
Known = dict[tuple[DeviceId, SourceName], Record]


def stored(entry: Entry) -> rows.StoredRow:
    assert isinstance(entry.fact, Transition)
    assert not isinstance(entry.record, Override)
    row = rows.encode_entry(1, entry.fact, entry.record, samples.WALL)
    return rows.StoredRow(*row[:7], *times(row))


ROWS = [stored(samples.passed()), stored(samples.failed())]


@given(st.sampled_from(ROWS).flatmap(lambda row: mutants((row.record or "").encode())))
def test_damaged_records(raw: bytes) -> None:
    try:
        record = rows.decode_record(raw.decode("utf-8", "surrogateescape"))
    except DECLARED:
        return
    event("read")
    assert rows.decode_record(rows.encode_record(record)) == record


@given(st.sampled_from(ROWS), st.data())
def test_damaged_transitions(row: rows.StoredRow, data: st.DataObject) -> None:
    body = data.draw(mutants(row.body.encode())).decode("utf-8", "surrogateescape")
    record = data.draw(st.none() | mutants((row.record or "").encode(), most=1).map(lambda b: b.decode("latin-1")))
    try:
        fact = rows.decode_transition(row._replace(body=body, record=record))
    except DECLARED:
        return
    event("read")
    assert fact.device == row.device


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Known]:
    """A journal of a few devices, closed in order."""
    path = tmp_path_factory.mktemp("journal") / "journal.db"

    async def write() -> Known:
        journal = opened(path)
        journal.load()
        made = [samples.passed(n, samples.device(n)) for n in range(40)]
        made += [samples.failed(n + 100, samples.device(n)) for n in range(0, 40, 3)]
        for start in range(0, len(made), 7):
            journal.record(made[start : start + 7])
            journal.record([samples.refused(f"192.0.2.{start}")])
            await asyncio.sleep(0.01)
        await journal.close()
        return {
            (e.fact.device, e.fact.source): e.record
            for e in made
            if isinstance(e.fact, Transition) and isinstance(e.record, Record)
        }

    return path, asyncio.run(write())


def opened(path: Path) -> SqliteJournal:
    return SqliteJournal(path, loop=asyncio.get_running_loop(), clock=ManualClock(), boot_id="boot")


places = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=4)


@settings(max_examples=max(1, settings().max_examples // 5))
@given(places, st.floats(0, 1) | st.just(1.0))
def test_damaged_files(written: tuple[Path, Known], damage: list[tuple[float, bytes]], kept: float) -> None:
    """A damaged file is refused; or what is read of it is what was written, state by state."""
    path, known = written
    content = bytearray(path.read_bytes())
    for place, replacement in damage:
        at = int(place * len(content))
        content[at : at + len(replacement)] = replacement
    folder = path.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / path.name).write_bytes(content[: int(kept * len(content))])

    async def read() -> None:
        journal = opened(folder / path.name)
        try:
            loaded = journal.load()
        except JournalError:
            event("refused")
        else:
            event("read")
            for key, record in loaded.records.items():
                assert known[key] == record
        finally:
            await journal.close()

    asyncio.run(read())
