"""How much is read in a second, and how much of one source."""

from __future__ import annotations

from gateway.watch.kubearmor.limits import LOSSES, Budget, SourceLimit, Tally


def test_a_second_has_its_budget_and_then_a_rest() -> None:
    budget = Budget(3)
    assert [budget.take(10.0), budget.take(10.1)] == [0.0, 0.0]
    assert budget.take(10.5) == 0.5
    assert budget.take(11.0) == 0.0


def test_a_budget_of_one_rests_after_each() -> None:
    budget = Budget(1)
    assert budget.take(5.0) == 1.0
    assert budget.take(6.0) == 1.0


def test_a_loud_source_leaves_room_for_the_others() -> None:
    limit = SourceLimit(2)
    assert [limit.takes("a", 1.0) for _ in range(4)] == [True, True, False, False]
    assert limit.takes("b", 1.5)
    assert limit.takes("a", 2.0)


def test_a_tally_begins_with_every_word() -> None:
    tally = Tally(("alerts",))
    assert dict(tally.lost) == dict.fromkeys(LOSSES, 0)
    assert dict(tally.heard) == dict(tally.pauses) == dict(tally.breaks) == {"alerts": 0}
