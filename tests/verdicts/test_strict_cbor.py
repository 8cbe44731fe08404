"""CBOR that two readers could understand differently is refused, and nothing but the declared refusal escapes."""

from __future__ import annotations

from contextlib import suppress

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InputRefused, Refusal
from gateway.verdicts import strict_cbor

KEYS = st.integers(-(1 << 62), 1 << 62) | st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_strict_is_read_back(value: object) -> None:
    assert strict_cbor.decode(cbor2.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0101",  # a second item behind the first
        "a201010102",  # a key twice
        "a2616101616102",
        "9f01ff",  # indefinite lengths
        "bf0101ff",
        "5f4101ff",
        "7f6161ff",
        "c11a514b67b0",  # tags: a time, a shared value, an unknown one
        "d81c80",
        "d9d9f701",
        "c249010000000000000000",
        "fb7ff8000000000000",  # floating point
        "f93c00",
        "f7",  # undefined
        "f8ff",  # a simple value
        "e0",
        "1c",  # reserved
        "6180",  # no UTF-8
        "9b7fffffffffffffff",  # lengths beyond the bytes
        "bb7fffffffffffffff",
        "5b7fffffffffffffff",
        "5803",
        "18",
        "a1",
        "a18001",  # a list as key
        "a1a001",
        "81" * 17 + "01",
        "81" * 100_000,
    ],
    ids=lambda text: text[:24],
)
def test_what_is_not_strict_is_refused(text: str) -> None:
    with pytest.raises(InputRefused) as caught:
        strict_cbor.decode(bytes.fromhex(text))
    assert caught.value.refusal is Refusal.FORMAT


def test_lengths_need_not_be_the_shortest() -> None:
    assert strict_cbor.decode(bytes.fromhex("1b0000000000000005")) == 5
    assert strict_cbor.decode(bytes.fromhex("b900010102")) == {1: 2}


def test_more_items_than_any_result_has_are_refused() -> None:
    with pytest.raises(InputRefused, match="items"):
        strict_cbor.decode(cbor2.dumps([0] * strict_cbor.ITEMS))


def test_tags_are_stripped_once_and_in_order() -> None:
    inner = cbor2.dumps([1])
    assert strict_cbor.untag(cbor2.dumps(cbor2.CBORTag(61, cbor2.CBORTag(18, [1]))), 61, 18) == inner
    assert strict_cbor.untag(inner, 61, 18) == inner
    twice = cbor2.dumps(cbor2.CBORTag(18, cbor2.CBORTag(18, [1])))
    assert strict_cbor.untag(twice, 61, 18) != inner


@given(st.binary(max_size=80))
def test_only_the_declared_refusal_escapes(data: bytes) -> None:
    with suppress(InputRefused):
        strict_cbor.decode(data)
