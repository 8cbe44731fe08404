"""Folding: whatever was folded or cut short, the newest records come back."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.control.ports import Entry
from gateway.core.model import DeviceId, Record, SourceName
from gateway.journal import fold
from tests.journal import samples
from tests.journal.stored import File

steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=6)),
        st.tuples(st.sampled_from(["start", "slice", "crash", "close"]), st.none()),
    ),
    max_size=25,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_whatever_was_folded_or_cut_short_the_newest_records_come_back(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[tuple[int, bool]] | None]]
) -> None:
    file = File(tmp_path_factory.mktemp("fold") / "journal.db")
    wanted: dict[tuple[DeviceId, SourceName], Record] = {}
    number = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "FOLD_SLICE", 2)
        for step, what in steps:
            if step == "write" and what is not None:
                entries = []
                for name, leaves in what:
                    number += 1
                    entry = samples.passed(number, samples.device(name))
                    entries.append(entry if leaves else Entry(samples.replayed().fact))
                    if leaves and isinstance(entry.record, Record):
                        wanted[samples.device(name), samples.SOURCE] = entry.record
                file.write(*entries)
            elif step == "start":
                file.store.start_fold()
            elif step == "slice" and file.store.folding:
                file.store.fold_slice()
            elif step in {"crash", "close"}:
                file.crash() if step == "crash" else file.close()
                file.open()
                assert file.known.records == wanted
    file.close()
    file.open()
    assert file.known.records == wanted
    assert file.findings() == []
    file.crash()


def test_a_slice_rides_with_a_group_and_the_last_one_moves_the_mark(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold, "FOLD_SLICE", 2)
    seqs = file.write(*(samples.passed(1, samples.device(n)) for n in range(3)))
    file.store.start_fold()
    file.write(samples.failed(2, samples.device(2)))
    assert file.count("devices") == 2
    assert file.db.execute("SELECT value FROM meta WHERE key='folded'").fetchone() is None
    file.write(samples.passed(3, samples.device(0)))
    assert file.db.execute("SELECT value FROM meta WHERE key='folded'").fetchone() == (seqs[-1],)
    assert file.store.behind


@pytest.mark.parametrize(("limit", "due"), [("FOLD_AFTER", True), ("REPLAYED", True), ("FOLD_SLICE", False)])
def test_a_fold_is_due_by_pairs_or_by_rows(
    file: File, monkeypatch: pytest.MonkeyPatch, limit: str, due: bool
) -> None:
    file.write(samples.passed(1), samples.passed(1, samples.device(2)))
    monkeypatch.setattr(fold, limit, 2)
    assert file.store.fold_due is due
    file.store.start_fold()
    assert file.store.fold_due is False
