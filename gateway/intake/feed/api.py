"""One question to the verifier's API: a line out, at most a line back, a connection each.

The verifier serves one connection after the other, with one ``read`` of 64 bytes that has no time limit (SEDIMENT
v1.0.0, ``servers/verifier/Verifier.cpp``, ``Verifier::runService``): so a question is sent whole in one piece at
once, and every step here has a deadline. ``id`` is answered by closing, after the ALERT was sent.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from gateway.control.ports import Confirmed
from gateway.core.errors import SourceError
from gateway.core.model import Address, DeviceId, SourceName
from gateway.intake.feed.trouble import what
from gateway.sediment.api import ask_about, ask_to_attest, claimed_address, read_answer
from gateway.sediment.text import printable

ANSWER_SECONDS = 10.0
"""For connecting, asking and the answer together: ``id`` waits for the ALERT's own connection to us."""

ANSWER_MOST = 128
"""Bytes of an answer: the verifier's own buffer for one."""


class VerifierApi:
    """The API of one source's verifier at ``host`` and ``port``. Implements the ``Verifier`` port."""

    def __init__(self, source: SourceName, host: str, port: int) -> None:
        self._source = source
        self._host = host
        self._port = port

    def check(self, device: DeviceId) -> None:
        """Raise ``SourceError`` for an id longer than the verifier reads."""
        try:
            ask_to_attest(device)
        except ValueError as error:
            raise SourceError(self._source, str(error)) from error

    def address_of(self, claim: str) -> str:
        """The claim's IPv4 address, as the verifier's database has it; "" without one."""
        address = claimed_address(claim)
        return "" if address is None else str(address)

    async def attest(self, device: DeviceId) -> None:
        """Ask the verifier to have a device attest: it sends an ALERT REQUESTED. Raises ``SourceError``."""
        await self._ask(ask_to_attest(device))

    async def confirm(self, address: str) -> Confirmed | None:
        """Ask about the last attestation from an address. Raises ``SourceError``, also for an answer that is
        none."""
        answer = await self._ask(ask_about(Address.parse(address)))
        found = read_answer(answer)
        if found is None:
            raise SourceError(self._source, f"answers '{printable(answer)}', which says nothing")
        return None if found.good is None else Confirmed(found.at, found.good)

    async def _ask(self, question: bytes) -> bytes:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._exchange(question)
        except OSError as error:  # includes the time limit and failed look-ups
            said = what(error, ANSWER_SECONDS)
            raise SourceError(self._source, f"{self._host}:{self._port}: {said}") from error

    async def _exchange(self, question: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=ANSWER_MOST)
        try:
            writer.write(question)
            answer = b""
            while len(answer) < ANSWER_MOST and (data := await reader.read(ANSWER_MOST)):
                answer += data
            return answer[:ANSWER_MOST]
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
