"""How a stored object differs from a wanted one, and what follows: pure, told the time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import BackendError
from gateway.enforce.kubernetes import KubernetesSettings, objects
from gateway.enforce.kubernetes.client import Change
from gateway.enforce.kubernetes.ledger import Ledger, Stage, Step
from gateway.enforce.kubernetes.objects import Key, Kind, Object
from tests.fakes.kubernetes import _merged

SETTINGS = KubernetesSettings("cluster", "edge", "sediment")
KEY = Key(Kind.HOST, "60-key")

leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=1), inner, max_size=3),
)
specs = st.dictionaries(st.text("abc", max_size=1), values, max_size=4)


def no_nulls(value: Any) -> Any:
    """A merge patch cannot say null, and no stored spec has one."""
    if isinstance(value, dict):
        return {key: no_nulls(each) for key, each in value.items() if each is not None}
    return value


@settings(max_examples=30)
@given(specs)
def test_everything_covers_itself_and_has_nothing_beside(spec: Object) -> None:
    assert objects.covers(spec, spec)
    assert objects.extras(spec, spec) == {}


@settings(max_examples=30)
@given(specs, specs)
def test_what_is_taken_away_leaves_what_is_wanted(wanted: Object, others: Object) -> None:
    wanted, others = no_nulls(wanted), no_nulls(others)
    stored = _merged(others, wanted)
    left = _merged(stored, objects.extras(stored, wanted))
    assert objects.covers(left, wanted) or not objects.covers(stored, wanted)
    assert objects.extras(left, wanted) == {}


@settings(max_examples=30)
@given(st.binary(max_size=64))
def test_only_declared_errors_come_of_bytes(data: bytes) -> None:
    try:
        objects.key_of(objects.decode(data))
    except BackendError:
        return


def test_deep_json_is_an_error_and_no_crash() -> None:
    with pytest.raises(BackendError):
        objects.decode(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_ours_is_what_carries_our_labels_or_what_we_applied() -> None:
    ours = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "ragate", "ragate/owner": "edge"}}}
    assert objects.is_ours(ours, "edge")
    assert not objects.is_ours(ours, "other")
    applied = {"metadata": {"managedFields": [{"manager": "ragate-edge", "operation": "Apply"}, 3]}}
    assert objects.is_ours(applied, "edge")
    assert not objects.is_ours(applied, "edg")
    assert not objects.is_ours({}, "edge")


def thing(**spec: Any) -> Object:
    return {"kind": "KubeArmorHostPolicy", "metadata": {"name": KEY.name}, "spec": spec}


def stored(wanted: Object, generation: int = 1, uid: str = "u1", **spec: Any) -> Object:
    made = copy.deepcopy(wanted)
    made["spec"] |= spec
    made["metadata"] |= {"uid": uid, "generation": generation, "resourceVersion": "7"}
    return made


def ledger(wanted: Object) -> Ledger:
    made = Ledger(SETTINGS)
    made.want({KEY: wanted}, {}, frozenset())
    for kind in Kind:
        made.listed(kind, {})
    return made


def moved(made: Ledger, now: object, *, gone: bool = False) -> None:
    assert isinstance(now, dict)
    made.saw(Change(gone, KEY, now, "9"))


def test_nothing_is_done_before_a_kind_is_listed() -> None:
    wanted, made = thing(a=1), Ledger(SETTINGS)
    made.want({KEY: wanted}, {}, frozenset())
    assert list(made.steps(0.0)) == []
    made.listed(Kind.HOST, {})
    assert list(made.steps(0.0)) == [Step(KEY, wanted)]


def test_the_echo_of_an_older_write_of_ours_is_no_drift() -> None:
    old, new = thing(a=1), thing(a=2)
    made = ledger(old)
    made.stored(KEY, old, stored(old, 1))
    made.want({KEY: new}, {}, frozenset())
    made.stored(KEY, new, stored(new, 2))
    moved(made, stored(old, 1))
    assert list(made.steps(0.0)) == []
    made.listed(Kind.HOST, {KEY: stored(old, 1)})
    assert list(made.steps(0.0)) == []
    moved(made, stored(old, 3))
    assert [step.drift for step in made.steps(0.0)] == ["was edited"]


def test_the_end_of_an_earlier_life_is_no_drift() -> None:
    wanted = thing(a=1)
    made = ledger(wanted)
    made.stored(KEY, wanted, stored(wanted, uid="u2"))
    moved(made, stored(wanted, uid="u1"), gone=True)
    assert list(made.steps(0.0)) == []
    moved(made, stored(wanted, uid="u2"), gone=True)
    assert [step.drift for step in made.steps(0.0)] == ["was deleted, or its labels were taken away"]


def test_another_life_in_the_place_of_ours_is_drift() -> None:
    wanted = thing(a=1)
    made = ledger(wanted)
    made.stored(KEY, wanted, stored(wanted))
    moved(made, stored(wanted, uid="u2"))
    assert [step.drift for step in made.steps(0.0)] == ["was replaced"]


def test_an_edit_that_is_undone_by_its_author_needs_nothing() -> None:
    wanted = thing(a=1)
    made = ledger(wanted)
    made.stored(KEY, wanted, stored(wanted))
    moved(made, stored(wanted, 3))
    assert list(made.steps(0.0)) == []


def test_what_the_server_itself_puts_beside_is_known_from_its_answer() -> None:
    wanted = thing(a=1)
    made = ledger(wanted)
    made.stored(KEY, wanted, stored(wanted, default=True))
    assert list(made.steps(0.0)) == []
    moved(made, stored(wanted, 2))
    assert [step.drift for step in made.steps(0.0)] == ["was edited"]


def test_repairs_of_one_object_come_more_and_more_seldom_and_calm_down() -> None:
    wanted = thing(a=1)
    made = ledger(wanted)
    now, news = 100.0, []
    for _ in range(3):
        made.stored(KEY, wanted, stored(wanted))
        news.append(made.repaired(KEY, now))
    assert news == [False, False, True]
    moved(made, {"metadata": {"uid": "u1"}}, gone=True)
    assert list(made.steps(now + 4.9)) == []
    assert made.due(now) == pytest.approx(5.0)
    assert [step.drift[:11] for step in made.steps(now + 5.0)] == ["was deleted"]
    made.stored(KEY, wanted, stored(wanted))
    made.repaired(KEY, now + 5.0)
    moved(made, {"metadata": {"uid": "u1"}}, gone=True)
    assert list(made.steps(now + 14.9)) == []
    for later in range(30):
        made.repaired(KEY, now + 6.0 + later)
    assert made.due(now + 35.0) == pytest.approx(SETTINGS.storm_max)
    made.repaired(KEY, now + 35.0 + SETTINGS.storm_window + 1)
    assert made.due(now + 700.0) == 0.0


def test_a_failure_waits_and_another_document_does_not() -> None:
    wanted = thing(a=1)
    made = ledger(wanted)
    assert made.failed(KEY, wanted, "no", 50.0)
    assert not made.failed(KEY, wanted, "no", 60.0)
    assert list(made.steps(59.0)) == []
    assert made.due(10.0) == 50.0
    assert list(made.steps(60.0)) == [Step(KEY, wanted)]
    other = thing(a=2)
    made.want({KEY: other}, {}, frozenset())
    assert list(made.steps(0.0)) == [Step(KEY, other)]


def test_pruning_waits_until_it_is_known_what_is_wanted() -> None:
    leftover = stored(thing(a=1))
    made = Ledger(SETTINGS)
    made.listed(Kind.HOST, {KEY: leftover})
    assert list(made.steps(0.0)) == []
    made.want({}, {}, frozenset({KEY}))
    assert list(made.steps(0.0)) == []
    made.want({}, {KEY: "cannot be made now"}, frozenset())
    assert list(made.steps(0.0)) == []
    assert [each.stage for each in made.shown()] == [Stage.FAILED]
    made.want({}, {}, frozenset())
    assert list(made.steps(0.0)) == [Step(KEY, None, "u1")]
    made.gone(KEY)
    assert list(made.steps(0.0)) == []


def test_what_kubearmor_itself_says_is_shown_and_not_believed() -> None:
    wanted = thing(a=1)
    made = ledger(wanted)
    made.stored(KEY, wanted, {**stored(wanted), "status": {"status": "OK"}})
    (shown,) = made.shown()
    assert shown.stage is Stage.ACCEPTED
    assert shown.detail == "stored, generation 1; status 'OK'"
