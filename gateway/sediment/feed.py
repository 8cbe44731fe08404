"""The verifier's GUI feed, sans I/O: one frame per attestation, unsigned, no history.

``NNNNN,<device>,correct|incorrect,<seconds>``: five digits give the length of what follows their comma; no line
break ends a frame (SEDIMENT v1.0.0, ``servers/verifier/Verifier.cpp``, ``Verifier::publish``). What must not live
here: believing it. Anyone between the verifier and us can write these bytes.
"""

from __future__ import annotations

from gateway.core.errors import InputRefused, Refusal
from gateway.sediment.text import printable

HEAD = 6
"""Bytes of the length and its comma."""

PAYLOAD_LEAST = len("a,correct,0.000000")
PAYLOAD_MOST = 300
"""Bytes: an id of at most 255, ``,incorrect,``, and seconds of at most 18 digits have 284."""


class FeedFramer:
    """Cuts the feed into payloads. After an error the stream is lost: its frames have no mark to find again."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet; never more than one frame's."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they arrive; return the payloads that are complete.

        Raises ``InputRefused`` (framing) when these are no frames; payloads before the fault are lost with it.
        """
        buffer = self._buffer + data
        found: list[bytes] = []
        at = 0
        while len(buffer) - at >= HEAD:
            end = at + HEAD + _length(buffer[at : at + HEAD])
            if end > len(buffer):
                break
            found.append(buffer[at + HEAD : end])
            at = end
        else:
            _check_start(buffer[at:])
        self._buffer = buffer[at:]
        return found


def _length(head: bytes) -> int:
    digits = head[:5]
    if head[5:] != b"," or not digits.isdigit():
        what = f"'{printable(head)}' does not begin a frame: five digits and a comma do"
        raise InputRefused(Refusal.FRAMING, what)
    length = int(digits)
    if not PAYLOAD_LEAST <= length <= PAYLOAD_MOST:
        what = f"a frame of {length} bytes; the feed's have {PAYLOAD_LEAST} to {PAYLOAD_MOST}"
        raise InputRefused(Refusal.FRAMING, what)
    return length


def _check_start(start: bytes) -> None:
    """Less than a head is here: it must at least begin like one."""
    if start and not start[:5].isdigit():
        what = f"'{printable(start)}' does not begin a frame: five digits and a comma do"
        raise InputRefused(Refusal.FRAMING, what)
