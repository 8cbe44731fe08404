"""How single values are written, and that parsers raise only what they declare."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.parsing import parse_address, parse_duration, parse_endpoint, parse_network
from gateway.core.model import Address


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0.0), ("900", 900.0), ("2.5", 2.5), ("90s", 90.0), ("15m", 900.0), ("2h", 7_200.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "m", "1w", "1e3", "1:30", "inf", "nan", "9" * 40, "1 m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["127.0.0.1:1", "[::1]:65535", "[2001:db8::1]:8000"])
def test_endpoints_are_written_as_they_are_read(text: str) -> None:
    assert str(parse_endpoint(text)) == text


@given(st.text(max_size=30))
def test_parsers_raise_only_what_they_declare(text: str) -> None:
    for parse in (parse_duration, parse_endpoint, parse_network, parse_address):
        with contextlib.suppress(ValueError):
            parse(text)


addresses = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda ip: f"{ip}/64"),
    st.from_regex(r"[0-9a-f:.]{1,20}", fullmatch=True),
    st.sampled_from(["0.0.0.0", "::", "::1", "ff02::1", "::ffff:1.2.3.4", "fe80::1", "010.0.0.1", "1.2.3"]),
)


@given(addresses)
def test_the_short_way_to_an_address_agrees_with_the_long_one(text: str) -> None:
    try:
        expected = Address.parse(text)
    except ValueError:
        with pytest.raises(ValueError):
            parse_address(text)
    else:
        assert parse_address(text) == expected
