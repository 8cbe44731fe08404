"""JSON that two readers could understand differently is refused, and nothing but the declared refusal escapes."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InputRefused, Refusal
from gateway.verdicts import strict_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 62), 1 << 62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_strict_is_read_as_everybody_reads_it(value: object) -> None:
    data = json.dumps(value).encode()
    assert strict_json.decode(data) == json.loads(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{} {}",
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": 1, "\\u0061": 2}',
        b"NaN",
        b"[Infinity]",
        b"1e999",
        b"1" * 20,
        b'"\\ud800"',
        b'["\\udc00 "]',
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"{'a': 1}",
        b'{"a": 1,}',
        b"// no\n{}",
        b"[" * 17 + b"]" * 17,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":"\\"",' + b'"b":[' * 60 + b"]" * 60 + b"}",
    ],
    ids=lambda data: repr(data[:24]),
)
def test_what_is_not_strict_is_refused(data: bytes) -> None:
    with pytest.raises(InputRefused) as caught:
        strict_json.decode(data)
    assert caught.value.refusal is Refusal.FORMAT
    assert len(caught.value.detail) < 200


def test_brackets_within_strings_are_no_nesting_and_pairs_are_one_character() -> None:
    assert strict_json.decode(b'"' + b"[{" * 500 + b'"') == "[{" * 500
    assert strict_json.decode(rb'"\\\"[[[[[[[[[[[[[[[[[[[["') == '\\"' + "[" * 20
    assert strict_json.decode(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert strict_json.decode(b"[" * 16 + b"]" * 16)


def test_many_members_are_compared_in_time_that_grows_with_their_number() -> None:
    members = [f'"m{number}": 1' for number in range(60_000)]
    with pytest.raises(InputRefused, match="m59999"):
        strict_json.decode(("{" + ",".join([*members, members[-1]]) + "}").encode())


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\u01eE+-tfn ', max_size=60).map(str.encode))
def test_only_the_declared_refusal_escapes(data: bytes) -> None:
    with suppress(InputRefused):
        strict_json.decode(data)
