"""Cutting SEDIMENT's frames out of a byte stream, sans-I/O. What a frame says is not judged here.

A TCP segment may hold part of a frame, one frame or several. The fixed fields of a header are judged as soon as
their bytes are in, so a peer that is no SEDIMENT speaker is known after four bytes, not after a time-out.
"""

from __future__ import annotations

from gateway.core.errors import InputRefused, Refusal
from gateway.sediment.wire import (
    FRAME_LIMIT,
    HEADER_SIZE,
    HMAC_START,
    KIND_AT,
    MessageId,
    judge_length_of,
    judge_message_id,
    judge_size,
)

_SIZE_IN = 2  #: bytes after which the total size is in
_DIGEST_LENGTH_IN = 4
_NONCE_LENGTH_IN = HMAC_START + 2
_KIND_IN = KIND_AT + 1


class Framer:
    """Turns what one connection sends into whole frames.

    ``accept`` are the message ids that this door takes; ``limit`` is the largest frame in bytes. After bytes
    that cannot be a frame the stream has no frame boundaries any more: the framer is dead.
    """

    __slots__ = ("_accept", "_buffer", "_fault", "_judged", "_limit")

    def __init__(self, accept: frozenset[MessageId], limit: int = FRAME_LIMIT) -> None:
        self._accept = accept
        self._limit = limit
        self._buffer = bytearray()
        self._judged = 0  # bytes of the frame at the buffer's start whose fixed fields were found good
        self._fault: InputRefused | None = None

    @property
    def pending(self) -> int:
        """Bytes held back because their frame is not whole yet, or because it never can be."""
        return len(self._buffer)

    @property
    def fault(self) -> InputRefused | None:
        """What killed the framer, or None while it lives. Look at it after every ``feed``."""
        return self._fault

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream; return the frames that they complete, in order.

        Raises ``InputRefused`` (``FRAMING`` or ``KIND``) for bytes that cannot be a frame, and then on every
        later call. Whole frames that came before the bad bytes in the same call are never lost: they are
        returned, ``fault`` is set, and the next call raises.
        """
        if self._fault is not None:
            raise InputRefused(self._fault.refusal, self._fault.detail)
        buffer = self._buffer
        if not buffer and self._is_one_frame(data):
            return [data]
        buffer += data
        frames: list[bytes] = []
        start = 0
        try:
            while (size := self._judge(start)) is not None:
                frames.append(bytes(buffer[start : start + size]))
                start += size
                self._judged = 0
        except InputRefused as fault:
            self._fault = fault
            if not frames:
                raise
        finally:
            if start:
                del buffer[:start]
        return frames

    def _is_one_frame(self, data: bytes) -> bool:
        """Whether ``data`` is exactly one frame with a good header: then nothing needs to be copied."""
        return (
            len(data) >= HEADER_SIZE
            and (data[0] << 8 | data[1]) == len(data) <= self._limit
            and data[_SIZE_IN:_DIGEST_LENGTH_IN] == data[HMAC_START:_NONCE_LENGTH_IN] == b"\x00\x20"
            and data[KIND_AT] in self._accept
        )

    def _judge(self, start: int) -> int | None:
        """Judge what is in of the frame at ``start``; return its size when it is whole, else None."""
        buffer = self._buffer
        have = len(buffer) - start
        if have < _SIZE_IN:
            return None
        size = buffer[start] << 8 | buffer[start + 1]
        if self._judged < _KIND_IN:
            self._judge_fixed_fields(start, have, size)
            self._judged = have
        return size if have >= size else None

    def _judge_fixed_fields(self, start: int, have: int, size: int) -> None:
        judge_size(size, self._limit)
        buffer = self._buffer
        if have >= _DIGEST_LENGTH_IN:
            judge_length_of("digest", buffer[start + 2] << 8 | buffer[start + 3])
        if have >= _NONCE_LENGTH_IN:
            judge_length_of("nonce", buffer[start + HMAC_START] << 8 | buffer[start + HMAC_START + 1])
        if have >= _KIND_IN:
            kind = judge_message_id(buffer[start + KIND_AT])
            if kind not in self._accept:
                raise InputRefused(Refusal.KIND, f"{kind.name} is not taken here")
