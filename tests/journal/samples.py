"""Facts to journal, made short to write."""

from __future__ import annotations

from gateway.control.ports import Entry
from gateway.core.errors import Refusal
from gateway.core.model import (
    Applied,
    DeviceId,
    Effect,
    Enforced,
    Event,
    EventKind,
    Instant,
    Record,
    Rejected,
    SourceName,
    Standing,
    Transition,
)
from gateway.core.policy import Override

SOURCE = SourceName("verifier")
WALL = 1_795_283_400.0
NOW = Instant(WALL, 1_000.0)


def device(number: int) -> DeviceId:
    return DeviceId(f"cam-{number}")


def trusted(number: int = 1, deadline: float = WALL + 900) -> Record:
    return Record(Standing.TRUSTED, deadline, int(WALL) + number, (bytes([number % 256]) * 16,))


def passed(number: int = 1, name: DeviceId | None = None, at: float = WALL) -> Entry:
    """A pass that admits; ``number`` tells passes of one device apart."""
    after = trusted(number)
    event = Event(EventKind.PASSED, at, int(WALL) + number, None, after.nonces[0], "PASS")
    fact = Transition(name or device(1), SOURCE, event, Record(), after, Effect.RAISED, "a fresh pass")
    return Entry(fact, after)


def failed(number: int = 1, name: DeviceId | None = None, at: float = WALL) -> Entry:
    before = trusted(number)
    after = before._replace(standing=Standing.DISTRUSTED, epoch=int(WALL) + number, debt=2)
    event = Event(EventKind.FAILED, at, int(WALL) + number, None, b"\x07" * 16, "FAILED_ATTEST")
    fact = Transition(name or device(1), SOURCE, event, before, after, Effect.LOWERED, "a signed failure")
    return Entry(fact, after)


def overridden(
    number: int = 1, seconds: float = 600.0, at: float = WALL, profile: str = "probation", actor: str = "unix:ann"
) -> Entry:
    """An operator's override of that many seconds; none: its end."""
    word = Override(device(number), profile, at + seconds, actor, "lens replaced")
    why = f"overridden to {profile}" if seconds else "ended"
    event = "overridden" if seconds else "override-ended"
    told = {"profile": profile, "until": word.until, "actor": actor, "reason": word.reason, "why": why}
    return Entry({"kind": "override", "at": at, "device": word.device, "event": event, **told}, word)


def refused(peer: str = "192.0.2.9", *, at: float = WALL, refusal: Refusal = Refusal.HMAC) -> Entry:
    return Entry(Rejected(SOURCE, refusal, "the code does not match", peer, at, "cam-1"))


def replayed(at: float = WALL) -> Entry:
    return Entry(Rejected(SOURCE, Refusal.REPLAY, "seen before", "192.0.2.9", at, "cam-1", authentic=True))


def enforced(state: Applied = Applied.VERIFIED, detail: str = "", received: float = 1_000.0) -> Enforced:
    accepted, verified = (received + 0.001, received + 0.0025) if received else (0.0, 0.0)
    return Enforced(device(1), "gateway", "nft", "admitted", state, detail, received, accepted, verified)
