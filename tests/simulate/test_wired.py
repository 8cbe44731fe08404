"""Attestation over a connection: both sides of the surrogate, and what each refuses."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sediment.wire import MessageId
from gateway.simulate.device import measure
from gateway.simulate.sockets import Peer
from gateway.simulate.wired import (
    Conversation,
    ConversationError,
    attest,
    challenge,
    check_token,
    evidence,
    examine,
    request,
)
from tests.ports import OWN

KEY, OTHER = bytes(range(32)), bytes(32)
NONCE = bytes(range(64, 96))


class Verifier:
    """Listens and remembers what became of each connection."""

    def __init__(self) -> None:
        self.outcomes: asyncio.Queue[tuple[str, bytes, bytes] | Exception] = asyncio.Queue()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Peer]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                self.outcomes.put_nowait(await examine(reader, writer, {"cam-1": KEY}, 64))
            except (ConversationError, OSError, TimeoutError) as error:
                self.outcomes.put_nowait(error)
            finally:
                writer.close()

        server = await asyncio.start_server(serve, OWN, 0)
        try:
            yield Peer(OWN, server.sockets[0].getsockname()[1])
        finally:
            server.close()

    async def outcome(self) -> tuple[str, bytes, bytes] | Exception:
        async with asyncio.timeout(60):
            return await self.outcomes.get()


async def test_the_verifier_gets_what_the_device_made_of_its_nonce() -> None:
    verifier = Verifier()
    async with verifier.listening() as at:
        await attest("cam-1", KEY, OWN, at, lambda nonce: measure(b"firmware", nonce, KEY))
        outcome = await verifier.outcome()
    assert not isinstance(outcome, Exception)
    device, nonce, value = outcome
    assert device == "cam-1"
    assert value == measure(b"firmware", nonce, KEY)


async def test_two_challenges_are_never_the_same() -> None:
    verifier, nonces = Verifier(), set()
    async with verifier.listening() as at:
        for _ in range(3):
            await attest("cam-1", KEY, OWN, at, lambda _: b"x")
            outcome = await verifier.outcome()
            assert not isinstance(outcome, Exception)
            nonces.add(outcome[1])
    assert len(nonces) == 3


@pytest.mark.parametrize(("device", "key"), [("cam-1", OTHER), ("cam-9", KEY)])
async def test_a_device_that_is_not_known_or_has_another_key_is_not_challenged(device: str, key: bytes) -> None:
    verifier = Verifier()
    async with verifier.listening() as at:
        with pytest.raises((ConversationError, OSError)):
            await attest(device, key, OWN, at, lambda _: b"x")
        assert isinstance(await verifier.outcome(), ConversationError)


@pytest.mark.parametrize(
    "made",
    [
        lambda counter: evidence("cam-1", OTHER, b"x", counter),
        lambda counter: evidence("cam-2", KEY, b"x", counter),
        lambda counter: evidence("cam-1", KEY, b"x", counter + 1),
        lambda _: request("cam-1", KEY, 7),
        lambda _: b"GET / HTTP/1.1\r\n\r\n" * 8,
        lambda _: b"",
    ],
    ids=["another key", "another device", "another counter", "another message", "no SEDIMENT", "nothing"],
)
async def test_evidence_that_does_not_answer_the_challenge_is_refused(made: Callable[[int], bytes]) -> None:
    verifier = Verifier()
    async with verifier.listening() as at:
        reader, writer = await asyncio.open_connection(*at)
        conversation = Conversation(reader, writer, MessageId.CHALLENGE)
        await conversation.send(request("cam-1", KEY, 5))
        await conversation.receive(MessageId.CHALLENGE)
        await conversation.send(made(5))
        writer.write_eof()
        assert isinstance(await verifier.outcome(), ConversationError)
        writer.close()


async def test_a_challenge_for_another_request_is_not_answered() -> None:
    asked: list[bytes] = []

    def answer(nonce: bytes) -> bytes:
        asked.append(nonce)
        return nonce

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Conversation(reader, writer, MessageId.ATTESTATION_REQUEST).receive(MessageId.ATTESTATION_REQUEST)
        writer.write(challenge("cam-1", KEY, NONCE, 64, 2**32 - 1))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, OWN, 0)
    at = Peer(OWN, server.sockets[0].getsockname()[1])
    with pytest.raises(ConversationError, match="another request"):
        await attest("cam-1", KEY, OWN, at, answer)
    assert not asked
    server.close()


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_bit_changed_is_noticed(at: int, bit: int) -> None:
    frame = bytearray(evidence("cam-1", KEY, b"measurement", 5))
    check_token(bytes(frame), KEY)
    frame[4 + at % (len(frame) - 4)] ^= 1 << bit
    with pytest.raises(ConversationError):
        check_token(bytes(frame), KEY)


def test_messages_have_the_sizes_of_the_public_format() -> None:
    """Sizes recorded for a device id of ten characters: 92, 136 with three types, 196 with a longer value."""
    assert len(request("Ubuntu-001", KEY, 1)) == 92
    assert len(challenge("Ubuntu-001", KEY, NONCE, 64, 1)) == 136 - 2
    assert len(evidence("Ubuntu-001", KEY, secrets.token_bytes(32), 1)) == 86 + 9 + 4 + 1 + 4 + 32
