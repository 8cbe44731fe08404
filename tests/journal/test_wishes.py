"""Wishes to attest that nothing has answered, as a journal tells them at the next start."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.control.ports import Entry
from gateway.core.errors import JournalError
from gateway.core.model import DeviceId, Effect, Event, EventKind, Transition
from gateway.journal import wishes
from tests.journal.conftest import Make, durable
from tests.journal.samples import SOURCE, WALL, device, failed, overridden, passed, refused, replayed, trusted


def said(kind: EventKind, name: DeviceId, number: int = 1) -> Entry:
    """Something that leaves no record."""
    record = trusted(number)
    event = Event(kind, WALL, int(WALL) + number, None, b"\x09" * 16, kind.name)
    return Entry(Transition(name, SOURCE, event, record, record, Effect.RECORDED, "recorded"))


def wish(name: DeviceId) -> Entry:
    return said(EventKind.REQUESTED, name)


async def written(make: Make, path: Path, *entries: Entry) -> tuple[frozenset[DeviceId], frozenset[DeviceId]]:
    """What is told while the journal is open, as after a crash, and when it was closed in order."""
    journal = make()
    journal.load()
    for entry in entries:
        await durable(journal, entry)
    open_still = wishes(path)
    await journal.close()
    return open_still, wishes(path)


async def test_a_wish_is_pending_until_a_verdict_answers_it(make: Make, path: Path) -> None:
    one, two, three, four = map(device, (1, 2, 3, 4))
    entries = [passed(1, name) for name in (one, two, three)]
    entries += [wish(name) for name in (one, two, three)]
    entries += [passed(2, two), failed(2, three), replayed(), refused(), overridden(4)]
    found = await written(make, path, *entries, wish(four))
    assert found == (frozenset({one, four}),) * 2


async def test_what_answers_nothing_leaves_it(make: Make, path: Path) -> None:
    later = [said(EventKind.NOTED, device(1)), said(EventKind.PASSPORT, device(1)), overridden(1)]
    found = await written(make, path, passed(1), wish(device(1)), *later)
    assert found == (frozenset({device(1)}),) * 2


async def test_a_refused_pass_answers_it_too(make: Make, path: Path) -> None:
    found = await written(make, path, passed(1), wish(device(1)), said(EventKind.PASSED, device(1)))
    assert found == (frozenset(),) * 2


async def test_without_wishes_there_are_none(make: Make, path: Path) -> None:
    assert await written(make, path, passed(1), failed(1)) == (frozenset(),) * 2


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be read"):
        wishes(tmp_path / "none.db")
