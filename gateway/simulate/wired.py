"""Attestation between a surrogate device and the surrogate verifier over a TCP connection of its own.

The device asks, is challenged, and answers, in SEDIMENT's frames: ATTESTATION_REQUEST, CHALLENGE, EVIDENCE (ids 3
to 5 of the public format), each under the device's HMAC key. What lives here: those messages and the conversation
of the two sides. What must not: the judgement, and what follows from it. There is no GRANT: a passport is for a
relying party that forwards data, and the data of this site is routed.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import struct
import time
from collections.abc import Callable

from gateway.sediment.compose import compose_message
from gateway.sediment.framing import Framer
from gateway.sediment.wire import (  # type: ignore[attr-defined] # InputRefused: what the codec declares to raise
    HMAC_START,
    InputRefused,
    MessageId,
    decode_header,
)
from gateway.simulate.sockets import Peer

EXCHANGE_SECONDS = 10.0
"""The longest one attestation may take on either side, connection included; milliseconds on an idle machine."""

LISTENING_PORT = 8899
"""The port that SEDIMENT's prover names in its request; nobody listens there."""

EVIDENCE_TYPE = 1
BLOCK_BYTES = 64
NONCE_BYTES = 32

_READ = 4096
_ID_AT = 76
_REQUEST = struct.Struct(">HI")  # listening port, counter
_CHALLENGE = struct.Struct(
    ">BBIIIH32s"
)  # types: how many, which; block size, block count, counter, nonce with length
_EVIDENCE = struct.Struct(
    ">BIIIBBBH"
)  # measurement: type, elapsed us, extra; counter; items; type, encoding, length


class ConversationError(Exception):
    """The other side said something else than it should have, or nothing."""


def _compose(kind: MessageId, device: str, body: bytes, key: bytes) -> bytes:
    name = device.encode()
    return compose_message(
        message_id=kind,
        timestamp=int(time.time()),
        nonce=secrets.token_bytes(NONCE_BYTES),
        tail=bytes((len(name),)) + name + body,
        hmac_key=key,
    )


def request(device: str, key: bytes, counter: int) -> bytes:
    """ATTESTATION_REQUEST: a device asks to be challenged."""
    return _compose(MessageId.ATTESTATION_REQUEST, device, _REQUEST.pack(LISTENING_PORT, counter), key)


def challenge(device: str, key: bytes, nonce: bytes, blocks: int, counter: int) -> bytes:
    """CHALLENGE: the nonce that the evidence must be made with."""
    body = _CHALLENGE.pack(1, EVIDENCE_TYPE, BLOCK_BYTES, blocks, counter, NONCE_BYTES, nonce)
    return _compose(MessageId.CHALLENGE, device, body, key)


def evidence(device: str, key: bytes, value: bytes, counter: int) -> bytes:
    """EVIDENCE: the measurement."""
    body = _EVIDENCE.pack(EVIDENCE_TYPE, 0, 0, counter, 1, EVIDENCE_TYPE, 0, len(value)) + value
    return _compose(MessageId.EVIDENCE, device, body, key)


class Conversation:
    """One end of one connection: whole frames of the expected kind, or ``ConversationError``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, expected: MessageId) -> None:
        self._reader = reader
        self._writer = writer
        self._framer = Framer(frozenset({expected, MessageId.EVIDENCE}))

    async def receive(self, kind: MessageId) -> tuple[str, bytes, bytes]:
        """The next frame: the device that it names, its body, and the whole of it."""
        while True:
            data = await self._reader.read(_READ)
            try:
                frames = self._framer.feed(data)
                header = decode_header(frames[0]) if frames else None
            except InputRefused as refused:
                raise ConversationError(str(refused)) from refused
            if header is not None:
                break
            if not data:
                msg = f"closed instead of {kind.name}"
                raise ConversationError(msg)
        if header.message_id is not kind or len(frames) > 1:
            msg = f"{header.message_id.name} instead of one {kind.name}"
            raise ConversationError(msg)
        return header.device.decode("ascii", "replace"), frames[0][_ID_AT + len(header.device) :], frames[0]

    async def send(self, frame: bytes) -> None:
        """Hand a frame to the kernel."""
        self._writer.write(frame)
        await self._writer.drain()


def check_token(frame: bytes, key: bytes) -> None:
    """Whether the frame was made with this device's key; ``ConversationError`` if it was not."""
    start = HMAC_START
    if not hmac.compare_digest(frame[4:start], hmac.digest(key, frame[start:], "sha256")):
        msg = "not made with this device's key"
        raise ConversationError(msg)


async def attest(device: str, key: bytes, source: str, verifier: Peer, answer: Callable[[bytes], bytes]) -> None:
    """A device's side: from one of its addresses, answering the nonce it is given.

    Raises ``OSError``, ``TimeoutError`` or ``ConversationError``.
    """
    async with asyncio.timeout(EXCHANGE_SECONDS):
        reader, writer = await asyncio.open_connection(*verifier, local_addr=(source, 0))
        try:
            conversation = Conversation(reader, writer, MessageId.CHALLENGE)
            counter = secrets.randbits(31)
            await conversation.send(request(device, key, counter))
            _, body, frame = await conversation.receive(MessageId.CHALLENGE)
            check_token(frame, key)
            if len(body) != _CHALLENGE.size:
                msg = f"a challenge of {len(body)} bytes instead of {_CHALLENGE.size}"
                raise ConversationError(msg)
            *_, asked, _, nonce = _CHALLENGE.unpack(body)
            if asked != counter:
                msg = "a challenge for another request"
                raise ConversationError(msg)
            await conversation.send(evidence(device, key, answer(nonce), counter))
            await reader.read(1)  # the verifier closes when it has judged
        finally:
            writer.close()


async def examine(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keys: dict[str, bytes], blocks: int
) -> tuple[str, bytes, bytes]:
    """The verifier's side of one connection: the device, the nonce it was given and its evidence.

    Raises ``OSError``, ``TimeoutError`` or ``ConversationError``.
    """
    async with asyncio.timeout(EXCHANGE_SECONDS):
        conversation = Conversation(reader, writer, MessageId.ATTESTATION_REQUEST)
        device, body, frame = await conversation.receive(MessageId.ATTESTATION_REQUEST)
        key = keys.get(device)
        if key is None or len(body) != _REQUEST.size:
            msg = f"no request of a known device: {device[:64]!r}"
            raise ConversationError(msg)
        check_token(frame, key)
        _, counter = _REQUEST.unpack(body)
        nonce = secrets.token_bytes(NONCE_BYTES)
        await conversation.send(challenge(device, key, nonce, blocks, counter))
        who, body, frame = await conversation.receive(MessageId.EVIDENCE)
        check_token(frame, key)
        *_, answered, items, _, _, size = _EVIDENCE.unpack_from(body) if len(body) >= _EVIDENCE.size else (0,) * 8
        value = body[_EVIDENCE.size :]
        if (who, answered, items, size) != (device, counter, 1, len(value)):
            msg = f"evidence that does not belong to the challenge of {device}"
            raise ConversationError(msg)
        return device, nonce, value
