"""Asking the verifier's API: questions as SEDIMENT reads them, and every way of not answering."""

from __future__ import annotations

import pytest

from gateway.control.ports import Confirmed
from gateway.core.errors import SourceError
from gateway.core.model import DeviceId, SourceName
from gateway.intake.feed import VerifierApi, api
from tests.fakes.verifier import ApiServer, listening
from tests.ports import free_place

VERIFIER = SourceName("verifier")
CAM = DeviceId("cam-1")


async def test_id_and_ip() -> None:
    server = ApiServer({"10.77.1.11": b"1795283400 1", "10.77.1.12": b"1795283400 0"})
    async with listening(server) as place:
        asked = VerifierApi(VERIFIER, *place)
        await asked.attest(CAM)
        assert await asked.confirm("10.77.1.11") == Confirmed(1_795_283_400, good=True)
        assert await asked.confirm("10.77.1.12") == Confirmed(1_795_283_400, good=False)
        assert await asked.confirm("10.77.1.13") is None
    assert server.asked == [b"id cam-1", b"ip 10.77.1.11", b"ip 10.77.1.12", b"ip 10.77.1.13"]


async def test_nobody_there() -> None:
    with pytest.raises(SourceError, match="Connection refused"):
        await VerifierApi(VERIFIER, *free_place()).attest(CAM)


async def test_a_verifier_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "ANSWER_SECONDS", 0.2)
    server = ApiServer()
    server.silent = True
    async with listening(server) as place:
        with pytest.raises(SourceError, match=r"no answer within 0\.2 s"):
            await VerifierApi(VERIFIER, *place).confirm("10.77.1.11")


@pytest.mark.parametrize("answer", [b"", b"hello", b"1 1 1", b"9" * 5_000, b"\x1b[2J\xff"])
async def test_an_answer_that_says_nothing(answer: bytes) -> None:
    async with listening(ApiServer({"10.77.1.11": answer})) as place:
        with pytest.raises(SourceError, match="says nothing") as caught:
            await VerifierApi(VERIFIER, *place).confirm("10.77.1.11")
    assert str(caught.value).isprintable()


def test_who_cannot_be_asked_for() -> None:
    asked = VerifierApi(VERIFIER, "127.0.0.1", 1)
    asked.check(CAM)
    with pytest.raises(SourceError, match="63 bytes"):
        asked.check(DeviceId("a" * 64))
    assert asked.address_of("tcp:10.77.1.11:35940") == "10.77.1.11"
    assert asked.address_of("tcp:$(reboot):1") == ""
