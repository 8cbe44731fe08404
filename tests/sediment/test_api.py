"""The verifier's API: questions as it reads them, answers as it writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Address, DeviceId
from gateway.sediment.api import (
    QUESTION_MOST,
    LastAttestation,
    ask_about,
    ask_to_attest,
    claimed_address,
    read_answer,
)


def test_questions() -> None:
    assert ask_to_attest(DeviceId("cam-1")) == b"id cam-1"
    assert ask_about(Address.parse("10.77.1.11")) == b"ip 10.77.1.11"


def test_an_id_that_the_verifier_would_cut_is_not_asked_for() -> None:
    assert len(ask_to_attest(DeviceId("a" * 60))) == QUESTION_MOST
    with pytest.raises(ValueError, match="63 bytes"):
        ask_to_attest(DeviceId("a" * 61))


@pytest.mark.parametrize("address", ["fd77::1", "fd77:0:0:1::/64"])
def test_sediment_has_no_ipv6(address: str) -> None:
    with pytest.raises(ValueError, match="IPv4"):
        ask_about(Address.parse(address))


@pytest.mark.parametrize(
    ("claim", "address"),
    [
        ("tcp:10.77.1.11:35940", "10.77.1.11"),
        ("tcp:10.77.1.11", "10.77.1.11"),
        ("", None),
        ("tcp:", None),
        ("tcp:camera.example:80", None),
        ("tcp:10.77.1.11 ; id x:80", None),
        ("tcp:0.0.0.0:1", None),
        ("tcp:fd77::1:80", None),
        ("tcp:10.77.1.0/24:80", None),
    ],
)
def test_the_address_of_a_claim(claim: str, address: str | None) -> None:
    found = claimed_address(claim)
    assert (None if found is None else str(found)) == address


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        (b"1795283400 1", LastAttestation(1_795_283_400, good=True)),
        (b"1795283400 0", LastAttestation(1_795_283_400, good=False)),
        (b"0 -1", LastAttestation(0, None)),
        (b"", None),
        (b"1 2", None),
        (b"-1 1", None),
        (b"1 1 1", None),
        (b"12345678901 1", None),
    ],
)
def test_answers(answer: bytes, read: LastAttestation | None) -> None:
    assert read_answer(answer) == read


@given(st.binary(max_size=128))
def test_any_answer_is_read_or_nothing(answer: bytes) -> None:
    found = read_answer(answer)
    assert found is None or found.at >= 0


@given(st.text(max_size=80))
def test_any_claim_gives_an_address_that_can_be_asked_about(claim: str) -> None:
    found = claimed_address(claim)
    if found is not None:
        assert len(ask_about(found)) <= QUESTION_MOST
