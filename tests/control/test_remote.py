"""A host that can be reached again: what was changed there meanwhile, and what is nobody's doing."""

from __future__ import annotations

from gateway.control.remote import _Found
from gateway.core.model import DENY, Address, DeviceId, Rule, Stands

ONE, TWO, THREE = (Address.parse(f"10.0.0.{n}") for n in (1, 2, 3))
OPEN = Rule(DeviceId("cam"), "admitted", 100.0)
NOTHING, STANDS = Stands("", None, tombstone=False), Stands("admitted", 50.0, tombstone=False)


def test_what_was_taken_and_what_was_added_is_told() -> None:
    found = _Found({ONE: OPEN, TWO: OPEN, THREE: Rule(DeviceId("cam"), DENY, 0.0)}, frozenset())
    found.judge(ONE, NOTHING, 10.0)
    found.judge(TWO, STANDS, 10.0)
    assert len(found.wrongs) == 1
    found.judge(THREE, STANDS, 10.0)
    assert [one.partition(":")[0] for one in found.wrongs] == ["10.0.0.3", "10.0.0.1"]


def test_a_gate_that_began_anew_is_no_drift() -> None:
    found = _Found({ONE: OPEN, TWO: OPEN}, frozenset())
    found.judge(ONE, NOTHING, 10.0)
    found.judge(TWO, NOTHING, 10.0)
    assert found.wrongs == []


def test_what_was_never_answered_and_what_ended_by_itself_is_no_drift() -> None:
    found = _Found({ONE: OPEN, TWO: OPEN}, frozenset({ONE, THREE}))
    found.judge(TWO, NOTHING, 101.0)
    found.judge(ONE, NOTHING, 10.0)
    found.judge(THREE, STANDS, 10.0)
    assert found.wrongs == []
