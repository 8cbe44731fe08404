"""Pruning: whole groups go, the chain still holds, and refusals are bounded."""

from __future__ import annotations

import pytest

from gateway.journal import pruning
from gateway.journal.store import Group
from tests.journal import samples
from tests.journal.stored import File, outcome, refusal


def test_old_groups_go_whole_and_the_chain_still_holds(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "PRUNE_SLICE", 4)
    for number in range(10):
        rows = file.rows(samples.passed(number), samples.passed(number, samples.device(2)))
        file.store.commit(
            Group(rows, [outcome(max(rows[0].seq - 2, 1))], ()),
            samples.NOW._replace(wall=samples.WALL + number * 100),
        )
    assert not file.store.prune(samples.WALL + 10_000), "rows that are not folded stay"
    file.store.start_fold()
    file.store.fold_slice()
    slices = 0
    while file.store.prune(samples.WALL + 450):
        slices += 1
        assert file.findings() == []
    assert slices > 1
    assert (file.count("groups"), file.count("facts"), file.count("outcomes")) == (5, 10, 5)
    while file.store.prune(0.0, oldest=True):
        assert file.findings() == []
    assert file.count("groups") == 1, "the newest group stays"
    assert file.count("devices") == 2
    file.write(samples.passed(50))
    assert file.findings() == []
    file.crash()
    file.open()
    assert len(file.known.records) == 2
    assert file.known.highest == samples.WALL + 900


def test_refusals_add_up_and_are_bounded(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    file.store.commit(Group((), (), [refusal(100, times=2), refusal(110)]), samples.NOW)
    file.store.commit(Group((), (), [refusal(100, times=3)]), samples.NOW)
    assert file.db.execute("SELECT times FROM refusals ORDER BY slot").fetchall() == [(5,), (1,)]
    monkeypatch.setattr(pruning, "REFUSAL_ROWS", 10)
    monkeypatch.setattr(pruning, "REFUSAL_SLACK", 2)
    file.store.commit(Group((), (), [refusal(200 + n) for n in range(20)]), samples.NOW)
    file.store.prune_refusals(105.0)
    assert file.count("refusals") == 8
    assert file.db.execute("SELECT min(slot) FROM refusals").fetchone() == (212,)
    file.crash()
    file.open()
    file.store.prune_refusals(215.0)
    assert file.db.execute("SELECT min(slot) FROM refusals").fetchone() == (215,)


def test_size_counts_what_is_in_use(file: File) -> None:
    before = file.store.size()
    file.write(*(samples.passed(number) for number in range(500)))
    full = file.store.size()
    assert full > before + 50_000
    file.write(samples.passed(500))
    file.store.start_fold()
    file.store.fold_slice()
    while file.store.prune(0.0, oldest=True):
        pass
    assert file.store.size() < full / 2
