"""What an operator's answer waits for: the journal, for so long and no longer."""

from __future__ import annotations

import pytest

from gateway.app import windows
from gateway.app.windows import kept
from gateway.core.errors import JournalError
from tests.fakes.clock import ManualClock
from tests.fakes.journal import FakeJournal


@pytest.fixture
def journal() -> FakeJournal:
    made = FakeJournal(ManualClock())
    made.load()
    return made


async def test_what_is_durable_is_answered(journal: FakeJournal) -> None:
    assert await kept(journal) == ""


async def test_what_cannot_be_written_is_said_with_its_cause(journal: FakeJournal) -> None:
    journal.fail("disk is full")
    assert "disk is full" in await kept(journal)
    journal.mend()
    assert await kept(journal) == ""


async def test_a_journal_that_does_not_answer_is_not_waited_for(
    journal: FakeJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "KEPT_SECONDS", 0.01)
    journal.delay()
    assert await kept(journal) == "the journal has not answered for 0.01 s"
    journal.release()  # too late to be an answer, and no error either


async def test_a_journal_that_takes_nothing_is_said(journal: FakeJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> None:
        raise JournalError("the journal is closed")

    monkeypatch.setattr(journal, "record", closed)
    assert "the journal is closed" in await kept(journal)
