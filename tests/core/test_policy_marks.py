"""Maximum age, recovery and quorum: the book's word before the source's, and what a quorum folds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.lifecycle import Rules, fold, step
from gateway.core.model import Binding, Device, DeviceId, Event, EventKind, Record, SourceName, Standing
from gateway.core.policy import Book, DeviceClass, Level, Match, compile_book, quorum_for, rules_for

S = Standing
CAM = DeviceId("cam-1")
CAMERA = Device(CAM, SourceName("verifier"), Binding(CAM, ()), (("class", "camera"),))
SOURCE = Rules(max_age=900.0, recovery_passes=2, skew=1.0, grace=30.0)


def classed(*levels: Level) -> tuple[DeviceClass, ...]:
    return tuple(DeviceClass(f"c{n}", Match(id="cam-*"), level) for n, level in enumerate(levels))


@pytest.mark.parametrize(
    ("book", "age", "passes", "quorum"),
    [
        (Book(), 900.0, 2, None),
        (Book(classes=classed(Level(max_age=60.0))), 60.0, 2, None),
        (Book(classes=classed(Level(max_age=3_600.0, recovery_passes=1))), 3_600.0, 1, None),
        (
            Book(classes=classed(Level(max_age=60.0, recovery_passes=3), Level(max_age=90.0, quorum=1))),
            60.0,
            3,
            1,
        ),
        (
            Book(classes=classed(Level(recovery_passes=3, quorum=1), Level(recovery_passes=4, quorum=2))),
            900.0,
            4,
            2,
        ),
        (Book(classes=classed(Level(max_age=60.0, quorum=2)), devices={CAM: Level(max_age=90.0)}), 90.0, 2, 2),
        (Book(devices={CAM: Level(quorum=1), DeviceId("cam-2"): Level(max_age=1.0)}), 900.0, 2, 1),
    ],
)
def test_more_specific_wins_and_at_equal_specificity_the_stricter(
    book: Book, age: float, passes: int, quorum: int | None
) -> None:
    for each in (book, compile_book(book, [CAMERA])):
        assert rules_for(CAMERA, SOURCE, each) == Rules(age, passes, SOURCE.skew, SOURCE.grace)
        assert quorum_for(CAMERA, each) == quorum


def test_without_a_word_of_the_book_the_source_holds() -> None:
    assert rules_for(CAMERA, SOURCE, Book()) is SOURCE


def record(standing: Standing, deadline: float | None = None) -> Record:
    return Record(standing, deadline)


A, B, C = record(S.TRUSTED, 100.0), record(S.TRUSTED, 200.0), record(S.TRUSTED, 300.0)


@pytest.mark.parametrize(
    ("records", "quorum", "folded"),
    [
        ([A], None, (S.TRUSTED, 100.0)),
        ([A], 1, (S.TRUSTED, 100.0)),
        ([A], 2, (S.UNKNOWN, None)),
        ([A, B, C], None, (S.TRUSTED, 100.0)),
        ([A, B, C], 3, (S.TRUSTED, 100.0)),
        ([A, C, B], 2, (S.TRUSTED, 200.0)),
        ([A, B, C], 1, (S.TRUSTED, 300.0)),
        ([A, B, C], 4, (S.UNKNOWN, None)),
        ([A, record(S.LAPSED)], None, (S.LAPSED, None)),
        ([A, record(S.LAPSED)], 1, (S.TRUSTED, 100.0)),
        ([A, record(S.LAPSED)], 2, (S.LAPSED, None)),
        ([A, record(S.UNKNOWN)], 1, (S.TRUSTED, 100.0)),
        ([A, record(S.UNKNOWN), record(S.LAPSED)], 2, (S.LAPSED, None)),
        ([A, B, record(S.DISTRUSTED)], 2, (S.DISTRUSTED, None)),
        ([A, B, record(S.HELD)], 1, (S.HELD, None)),
        ([A, record(S.SUSPECT, 50.0)], 1, (S.SUSPECT, 50.0)),
        ([A, record(S.SUSPECT, 50.0)], 3, (S.SUSPECT, None)),
        ([A, record(S.SUSPECT)], 1, (S.SUSPECT, None)),
        ([], 1, (S.UNKNOWN, None)),
    ],
)
def test_a_quorum_lets_others_be_silent_and_nobody_negative(
    records: list[Record], quorum: int | None, folded: tuple[Standing, float | None]
) -> None:
    assert fold(records, quorum) == folded


records = st.lists(
    st.sampled_from(Standing).flatmap(
        lambda each: st.builds(
            Record,
            st.just(each),
            st.floats(1, 1_000) if each is S.TRUSTED else st.none() | st.floats(1, 1_000),
        )
    ),
    max_size=4,
)


@settings(deadline=None)
@given(records, st.integers(1, 4))
def test_a_larger_quorum_never_gives_more(some: list[Record], quorum: int) -> None:
    fewer, more = fold(some, quorum), fold(some, quorum + 1)
    assert (more[1] or 0.0) <= (fewer[1] or 0.0)
    assert more[0] <= fewer[0]
    if fewer[0] is S.TRUSTED:
        assert fewer[1] is not None
        assert sum(each.standing is S.TRUSTED and (each.deadline or 0) >= fewer[1] for each in some) >= quorum
    negative = [each.standing for each in some if each.standing < S.LAPSED]
    if negative:
        assert fewer[0] is min(negative)


@settings(deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.lists(st.integers(0, 2), min_size=1, max_size=24),
    st.integers(0, 20),
)
def test_after_a_failure_exactly_the_passes_of_the_book_are_owed_each_issued_later(
    passes: int, sources: int, gaps: list[int], relapse: int
) -> None:
    """``gaps``: seconds between passes; one of the same second pays nothing. ``relapse``: a failure among them."""
    book = Book(classes=classed(Level(recovery_passes=passes)))
    rules = rules_for(CAMERA, Rules(max_age=900.0, recovery_passes=sources, skew=1.0, grace=30.0), book)
    state, issued, paid, last = Record(), 1_000, 0, 1_000
    state = step(state, Event(EventKind.FAILED, float(issued), issued, nonce=b"f"), rules).record
    for number, gap in enumerate(gaps):
        issued += gap
        if number == relapse:
            state = step(state, Event(EventKind.FAILED, float(issued), issued, nonce=b"f%d" % number), rules).record
            paid, last = 0, issued
            continue
        state = step(state, Event(EventKind.PASSED, float(issued), issued, nonce=b"%d" % number), rules).record
        if issued > last and paid < passes:
            paid, last = paid + 1, issued
        assert (state.standing is S.TRUSTED) is (paid >= passes)
        assert (fold((state,))[1] is not None) is (paid >= passes)
