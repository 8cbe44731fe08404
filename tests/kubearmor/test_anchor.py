"""Names of containers on the wire: matching that container, themselves, and nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kubearmor.anchor import of_wire, relabelled, to_wire

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}\Z", fullmatch=True)


def leads(selected: str, name: str) -> bool:
    """As the daemon searches: unanchored, in the label with its value."""
    label = "kubearmor.io/container.name="
    return re.search(label + selected, label + name) is not None


@given(NAMES, NAMES)
def test_a_name_matches_itself_and_no_other_one(one: str, other: str) -> None:
    wire = to_wire(f"{one}$")
    assert of_wire(wire) == f"{one}$"
    assert leads(wire, one)
    assert leads(wire, wire)
    for name in (other, one + other, other + one):
        assert leads(wire, name) is (name == one)
        assert leads(wire, to_wire(f"{name}$")) is (name == one)


@pytest.mark.parametrize("text", ["", "web", "a.b$", "(web|db)$", "*", "web$|=db[$][|]"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert to_wire(text) == of_wire(text) == text


def test_a_name_alone_does_not_find_itself() -> None:
    """Why it is not sent as books write it."""
    assert not leads("web$", "web$")
    assert leads("web", "web-admin")


def test_only_the_name_in_the_selector_changes() -> None:
    spec = {"selector": {"matchLabels": {"kubearmor.io/container.name": "web$"}, "x": 1}, "message": "web$"}
    wire = relabelled(spec, to_wire)
    assert wire["message"] == "web$"
    assert relabelled(wire, of_wire) == spec
    others: tuple[dict[str, object], ...] = (
        {},
        {"selector": None},
        {"selector": {"matchLabels": {"app": "web$"}}},
        {"nodeSelector": {}},
    )
    for other in others:
        assert relabelled(other, to_wire) == other
