"""Recorded messages and keys for the tests of this room; and a site with fresh keys of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from hypothesis import HealthCheck, settings

from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import DeviceId, Envelope, Instant, Record, Rejected, SourceName, Verdict
from gateway.sediment.authenticate import SedimentAuthenticator, SedimentSource
from gateway.sediment.compose import compose_alert, evidence_endpoint
from gateway.sediment.keys import load_public_key
from gateway.sediment.wire import Endpoint, Reason

FIXTURES = Path(__file__).parent.parent / "fixtures" / "sediment"
ALL = ("pass", "full-session", "failed-record-altered-on-demand", "requested", "synthetic", "negative")
VALID = ALL[:-1]
SOURCE = SourceName("verifier")
VERIFIER_ID = b"RAP_Server"


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For properties: how fast a shared machine happens to be is not what they are about."""


class Message(NamedTuple):
    """One recorded message: its bytes, and everything that was noted about it."""

    name: str
    kind: str
    frame: bytes
    about: dict[str, Any]

    @property
    def fields(self) -> dict[str, Any]:
        return dict(self.about["decoded"]["fields"])


@cache
def messages(file: str) -> tuple[Message, ...]:
    """All messages of one file, in its order."""
    lines = (FIXTURES / f"{file}.jsonl").read_text().splitlines()
    return tuple(
        Message(one["name"], one.get("message", ""), bytes.fromhex(one["hex"]), one)
        for one in map(json.loads, lines)
    )


def of_kind(kind: str, files: tuple[str, ...] = VALID) -> list[Message]:
    """The messages of one kind in these files."""
    return [message for file in files for message in messages(file) if message.kind == kind]


@cache
def published_key() -> RSAPublicKey:
    return load_public_key((FIXTURES / "verifier-public-key.pem").read_bytes())


@cache
def published_hmac_keys() -> dict[DeviceId, bytes]:
    keys = json.loads((FIXTURES / "device-auth-keys.json").read_text())
    return {DeviceId(device): bytes.fromhex(key) for device, key in keys.items()}


@cache
def private_key() -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


def refusal_of(take: Callable[[], object]) -> Refusal | None:
    """The refusal of the declared error that ``take`` raises, None when it raises nothing. Others escape."""
    try:
        take()
    except InputRefused as refused:
        return refused.refusal
    return None


@dataclass
class Bench:
    """An authenticator with one record per known device, as the clockwork would hold them."""

    authenticator: SedimentAuthenticator
    records: dict[DeviceId, Record] = field(default_factory=dict)

    def judge(self, frame: bytes, at: float, peer: str = "10.77.2.2") -> Verdict | Rejected:
        envelope = Envelope(frame, SOURCE, peer, Instant(at, 1_000.0))
        return self.authenticator.authenticate(envelope, self.records.get)


def recorded_bench() -> Bench:
    """Knows every published device and key."""
    keys = published_hmac_keys()
    source = SedimentSource(SOURCE, published_key(), VERIFIER_ID)
    return Bench(SedimentAuthenticator(source, keys), {device: Record() for device in keys})


DEVICE = DeviceId("cam-1")
HMAC_KEY = hashlib.sha256(b"the HMAC key of cam-1 in these tests").digest()
NOW = 1_795_283_400


def own_bench(record: Record | None = None) -> Bench:
    """Knows one device, ``cam-1``, under keys made for the tests."""
    source = SedimentSource(SOURCE, private_key().public_key(), VERIFIER_ID)
    keys = {DEVICE: HMAC_KEY}
    return Bench(SedimentAuthenticator(source, keys), {DEVICE: record if record is not None else Record()})


def make_alert(
    reason: Reason = Reason.PASS,
    issued_at: int = NOW,
    nonce: bytes = b"n" * 32,
    *,
    device: bytes = b"cam-1",
    verifier_id: bytes = VERIFIER_ID,
    endpoint: Endpoint | None = None,
    signing_key: Callable[[], RSAPrivateKey] = private_key,
    hmac_key: bytes | None = HMAC_KEY,
) -> bytes:
    """An ALERT that ``own_bench`` takes, unless told otherwise."""
    return compose_alert(
        device=device,
        verifier_id=verifier_id,
        reason=reason,
        endpoint=endpoint or evidence_endpoint(b"192.0.2.7", 35940),
        timestamp=issued_at,
        nonce=nonce,
        signing_key=signing_key(),
        hmac_key=hmac_key,
    )
