"""The soak's judge must itself be able to say no."""

from __future__ import annotations

from tests.soak.model import Kind, Model, Sent, State, Word

T = 1_795_283_400
AGE, SETTLE = 130.0, 3.0


def model() -> Model:
    return Model(["cam"], AGE, SETTLE)


def quiet(judge: Model, now: float) -> None:
    judge.settled(now, 0.0)


def test_a_pass_must_admit_until_its_deadline_and_not_beyond() -> None:
    judge = model()
    assert judge.must_not("cam", T)
    judge.sent("cam", Sent(Kind.PASS, T), T + 0.5)
    assert not judge.must("cam", T + 1)
    assert not judge.must_not("cam", T + 1)
    quiet(judge, T + 4.0)
    assert judge.must("cam", T + 4.0)
    assert judge.must_not("cam", T + AGE)


def test_a_failure_must_cut_and_two_passes_bring_back() -> None:
    judge = model()
    judge.sent("cam", Sent(Kind.FAIL, T), T)
    judge.sent("cam", Sent(Kind.PASS, T), T)
    judge.sent("cam", Sent(Kind.PASS, T + 1), T + 1)
    quiet(judge, T + 10.0)
    assert judge.must_not("cam", T + 10)
    judge.sent("cam", Sent(Kind.PASS, T + 1), T + 11)
    quiet(judge, T + 20.0)
    assert judge.must_not("cam", T + 20)
    judge.sent("cam", Sent(Kind.PASS, T + 21), T + 21)
    quiet(judge, T + 30.0)
    assert judge.must("cam", T + 30)


def test_what_was_told_just_before_a_kill_may_be_either() -> None:
    judge = model()
    judge.sent("cam", Sent(Kind.PASS, T), T)
    quiet(judge, T + 4.0)
    judge.sent("cam", Sent(Kind.FAIL, T + 5), T + 5)
    judge.killed()
    judge.started(T + 6, T + 7, doubtful=False)
    assert not judge.must("cam", T + 8)
    assert not judge.must_not("cam", T + 8)
    assert not judge.seen("cam", "held", T + 8, T + 8)
    assert judge.seen("cam", "suspect", T + 8, T + 8)
    assert judge.must_not("cam", T + 8)
    judge.sent("cam", Sent(Kind.PASS, T + 8), T + 9)
    quiet(judge, T + 12.0)
    assert not judge.must("cam", T + 13)
    judge.sent("cam", Sent(Kind.PASS, T + 13), T + 13)
    quiet(judge, T + 17.0)
    assert judge.must("cam", T + 17)


def test_a_settled_device_keeps_its_admission_over_a_kill_and_loses_it_with_the_kernels_state() -> None:
    judge = model()
    judge.sent("cam", Sent(Kind.PASS, T), T)
    quiet(judge, T + 4.0)
    judge.killed()
    judge.started(T + 5, T + 6, doubtful=False)
    assert judge.must("cam", T + 9)
    judge.killed()
    judge.started(T + 10, T + 11, doubtful=True)
    assert not judge.must("cam", T + 14)
    judge.emptied()
    assert judge.must_not("cam", T + 14)


def test_holds_stand_above_passes_and_keep_marks() -> None:
    judge = model()
    for sent in (Sent(Kind.HOLD), Sent(Kind.FAIL, T), Sent(Kind.PASS, T + 1), Sent(Kind.PASS, T + 2)):
        judge.sent("cam", sent, T + 2)
    quiet(judge, T + 6.0)
    assert judge.must_not("cam", T + 6)
    judge.sent("cam", Sent(Kind.RELEASE), T + 6)
    assert judge.devices["cam"].states == {State(Word.LAPSED, 0.0, T + 2, T)}


def test_late_and_future_failures_make_suspect() -> None:
    for issued in (T - 200, T + 60):
        judge = model()
        judge.sent("cam", Sent(Kind.PASS, T), T)
        quiet(judge, T + 4.0)
        judge.sent("cam", Sent(Kind.FAIL, issued), T + 5)
        assert {state.word for state in judge.devices["cam"].states} == {Word.SUSPECT}
        quiet(judge, T + 9.0)
        assert judge.must_not("cam", T + 9)
