"""Names: safe as a file name and log prefix, unique, in order."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kubearmor.names import DocumentRefused, Kind, check_name, policy_name


@given(st.integers(10, 99), st.sampled_from(Kind), st.text(), st.text())
def test_any_text_gives_a_safe_name(order: int, kind: Kind, slug: str, identity: str) -> None:
    name = policy_name(order, kind, slug, identity)
    assert re.fullmatch(r"[a-z0-9-]{1,63}", name)
    assert name.startswith(f"{order}-{kind.value}-")
    assert re.search(r"-[0-9a-f]{8}$", name)


def test_the_identity_tells_names_apart_and_the_digest_is_known() -> None:
    name = policy_name(50, Kind.NETWORK, "Edge Site/1", "ragate/edge/network")
    assert name == "50-network-edge-site-1-17e60280"
    assert name != policy_name(50, Kind.NETWORK, "Edge Site/1", "ragate/edge2/network")
    assert name == policy_name(50, Kind.NETWORK, "Edge Site/1", "ragate/edge/network")


def test_the_alphabet_is_the_order() -> None:
    names = [policy_name(order, Kind.HOST, "z" * (99 - order), "x") for order in range(10, 100)]
    assert names == sorted(names)


@pytest.mark.parametrize("order", [0, 9, 100, -1])
def test_orders_that_the_alphabet_would_misplace_are_refused(order: int) -> None:
    with pytest.raises(DocumentRefused, match="order"):
        policy_name(order, Kind.HOST, "a", "b")


@pytest.mark.parametrize("name", ["", "../../etc/x", "a b", 'a"', "A", "a\n", "a" * 64, "a.b"])
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(DocumentRefused, match="policy name"):
        check_name(name)
