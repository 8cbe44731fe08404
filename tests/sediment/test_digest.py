from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st

from gateway.sediment.digest import digest, prepare


@given(st.binary(max_size=200), st.binary(max_size=400))
def test_it_is_the_hmac_of_the_library(key: bytes, covered: bytes) -> None:
    assert digest(prepare(key), covered) == hmac.digest(key, covered, "sha256")


def test_a_key_of_exactly_one_block_and_one_longer() -> None:
    for size in (63, 64, 65):
        key = bytes(range(size))
        assert digest(prepare(key), b"message") == hmac.digest(key, b"message", "sha256")


def test_the_second_case_of_rfc_4231() -> None:
    """Section 4.3 of that document."""
    found = digest(prepare(b"Jefe"), b"what do ya want for nothing?")
    assert found.hex() == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
