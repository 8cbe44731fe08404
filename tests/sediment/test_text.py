from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.sediment.text import TEXT_LIMIT, printable
from tests.sediment.recorded import unhurried


def test_plain_text_stays() -> None:
    assert printable(b"Ubuntu-001 (x)") == "Ubuntu-001 (x)"


def test_everything_else_is_escaped() -> None:
    assert printable(b"\xff\xfe\x01'x\\\n") == r"\xff\xfe\x01'x\x5c\x0a"


def test_long_text_is_cut_and_says_so() -> None:
    assert printable(b"a" * TEXT_LIMIT) == "a" * TEXT_LIMIT
    assert printable(b"a" * (TEXT_LIMIT + 1)) == "a" * (TEXT_LIMIT - 3) + "..."


@unhurried
@given(st.binary(max_size=300))
def test_always_bounded_printable_ascii(raw: bytes) -> None:
    text = printable(raw)
    assert len(text) <= TEXT_LIMIT
    assert all(" " <= c <= "~" for c in text)
