"""The verifier's API, sans I/O: the two questions and the one answer (SEDIMENT v1.0.0, ``Verifier::runService``).

``ip ADDRESS`` is answered ``LASTATTESTATION STATUS`` (UNIX seconds; 1 good, 0 bad; ``0 -1`` unknown) and replaces
the verifier's cached device, whose challenge nonce lives only there: asked just after a pass it ends the replay of
old evidence, asked in the middle of an attestation it makes a genuine device fail. ``id DEVICE`` makes the verifier
sign and send an ALERT REQUESTED for any string.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.core.model import Address, DeviceId

QUESTION_MOST = 63
"""Bytes that the verifier reads of a question."""

_ANSWER = re.compile(rb"([0-9]{1,10}) (1|0|-1)\s*\Z")


class LastAttestation(NamedTuple):
    """What the verifier's database says of an address: UNIX seconds, and good, bad or (None) unknown."""

    at: int
    good: bool | None


def ask_to_attest(device: DeviceId) -> bytes:
    """The question that makes the verifier ask a device to attest. Raises ``ValueError`` for an id too long."""
    question = b"id " + device.encode("ascii")
    if len(question) > QUESTION_MOST:
        msg = f"the verifier's API reads {QUESTION_MOST} bytes, and this id needs {len(question)}"
        raise ValueError(msg)
    return question


def ask_about(address: Address) -> bytes:
    """The question about an address. Raises ``ValueError`` for one that SEDIMENT, which has IPv4 alone, cannot
    have."""
    if address.prefix != 32:
        msg = f"{address}: SEDIMENT knows single IPv4 addresses only"
        raise ValueError(msg)
    return f"ip {address}".encode("ascii")


def claimed_address(claim: str) -> Address | None:
    """The address of an alert's endpoint, ``tcp:192.0.2.7:35940``, as the verifier's database has it; None:
    none."""
    _, _, rest = claim.partition(":")
    text, colon, port = rest.rpartition(":")
    try:
        address = Address.parse(text if colon and port.isdecimal() else rest)
    except ValueError:
        return None
    return address if address.prefix == 32 else None


def read_answer(answer: bytes) -> LastAttestation | None:
    """What the answer to ``ip`` says; None when these bytes are none."""
    match = _ANSWER.match(answer)
    if match is None:
        return None
    status = int(match[2])
    return LastAttestation(int(match[1]), None if status < 0 else bool(status))
