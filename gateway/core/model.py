"""Value types shared by every room.

Units: wall time is UNIX seconds (``float``; SEDIMENT's issued-at values are whole seconds, ``int``), boot time
is seconds of ``CLOCK_BOOTTIME`` (runs on during suspend, never jumps). Words follow RFC 9334 (RATS) and AR4SI.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple, NewType

from gateway.core.errors import Refusal

DeviceId = NewType("DeviceId", str)
SourceName = NewType("SourceName", str)

_DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z")


def parse_device_id(text: str) -> DeviceId:
    """Return ``text`` as a device id: ``[A-Za-z0-9][A-Za-z0-9._:-]{0,63}`` without ``..``.

    Raises ``ValueError`` naming the rule. An id from the wire is hostile until it matches the inventory; this
    check is for inventories and operators' input.
    """
    if not _DEVICE_ID.match(text):
        msg = f"device id {text[:64]!r} must be 1 to 64 of A-Z a-z 0-9 . _ : - and start with a letter or digit"
        raise ValueError(msg)
    if ".." in text:
        msg = f"device id {text!r} must not contain '..'"
        raise ValueError(msg)
    return DeviceId(text)


class Instant(NamedTuple):
    """One moment on both clocks: UNIX seconds and ``CLOCK_BOOTTIME`` seconds."""

    wall: float
    boot: float


class Standing(IntEnum):
    """Our state for a device, lowest first; comparing compares trust. Only ``TRUSTED`` admits fully."""

    RETIRED = 0
    HELD = 1
    DISTRUSTED = 2
    SUSPECT = 3
    LAPSED = 4
    UNKNOWN = 5
    TRUSTED = 6

    @property
    def label(self) -> str:
        """The word that people, metrics and the journal see."""
        return self.name.lower()


class Tier(IntEnum):
    """AR4SI trust tiers (draft-ietf-rats-ar4si, section 3.2). ``NONE`` means could not appraise: not trusted."""

    NONE = 0
    AFFIRMING = 2
    WARNING = 32
    CONTRAINDICATED = 96


class Strength(Enum):
    """What a source may do: ``SIGNED`` raises or lowers, ``HINT`` only lowers."""

    SIGNED = "signed"
    HINT = "hint"


class Outcome(Enum):
    """What an attestation result says of a device."""

    PASSED = "passed"
    FAILED = "failed"
    REJECTED = "rejected"
    REQUESTED = "requested"
    NOTED = "noted"  # authentic, recorded, without effect (SEDIMENT reasons 1, 2, 3, 5)
    DOUBTED = "doubted"  # authentic and not affirming, yet no failure (AR4SI warning): weighs as a hint does

    __hash__ = object.__hash__  # see Refusal


class Timeliness(Enum):
    """Where a verdict's issued-at stands. Only ``FRESH`` raises; an authentic failure counts in any of them."""

    FRESH = "fresh"
    STALE = "stale"  # before the clock window
    FUTURE = "future"  # after the clock window
    LATE = "late"  # inside the window but older than a verdict already accepted

    __hash__ = object.__hash__  # see Refusal


_MULTICAST = 224  #: first byte of the first IPv4 multicast address (RFC 5771)


class Address(NamedTuple):
    """A device's address as the path gate keys it: packed bytes and prefix length (32, 128 or 64).

    A /64 stands for all of a device's IPv6 privacy addresses; its host bits are zero.
    """

    packed: bytes
    prefix: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return 4 if len(self.packed) == 4 else 6

    def __str__(self) -> str:
        packed = self.packed
        if len(packed) == 4:  # a tenth of the library's time, which a hundred thousand devices would notice
            return "%d.%d.%d.%d" % (*packed,)  # noqa: UP031 - twice as fast as an f-string here
        text = str(ipaddress.ip_address(packed))
        return f"{text}/64" if self.prefix == 64 else text

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse ``192.0.2.7``, ``2001:db8::7`` or ``2001:db8:0:1::/64``.

        Raises ``ValueError`` for anything else: another prefix length, host bits in a /64, multicast,
        unspecified, limited broadcast, IPv4-mapped or scoped addresses.
        """
        try:
            packed = bytes(map(int, text.split(".")))
        except ValueError:
            packed = b""
        # Most addresses are written so; the library takes ten times as long for them.
        if len(packed) == 4 and 0 < packed[0] < _MULTICAST and "%d.%d.%d.%d" % (*packed,) == text:  # noqa: UP031
            return cls(packed, 32)
        net = ipaddress.ip_network(text)
        allowed = (32,) if net.version == 4 else (128, 64)
        if net.prefixlen not in allowed:
            msg = f"{text}: a device address is a single IPv4 or IPv6 address, or an IPv6 /64"
            raise ValueError(msg)
        ip = net.network_address
        if isinstance(ip, ipaddress.IPv6Address) and (ip.ipv4_mapped is not None or ip.scope_id):
            msg = f"{text}: write an IPv4-mapped address as IPv4 and leave out the scope"
            raise ValueError(msg)
        if ip.is_multicast or ip.is_unspecified or text.startswith("255.255.255.255"):
            msg = f"{text}: not an address that a device can send from"
            raise ValueError(msg)
        return cls(ip.packed, net.prefixlen)

    def covers(self, packed: bytes) -> bool:
        """Whether the packed address lies in this one (equal, or in the /64)."""
        if self.prefix == 64:
            return len(packed) == 16 and packed[:8] == self.packed[:8]
        return packed == self.packed


class AnchorKind(Enum):
    """What guarantees that a source address really is the device's."""

    L2 = "l2"  # interface + MAC + IP
    L3 = "l3"  # an interface or tunnel of its own, reverse path checked
    UPSTREAM = "upstream"  # a UPF or switch guarantees the source
    NONE = "none"  # nothing does: shown as a finding


@dataclass(frozen=True, slots=True)
class Binding:
    """Device and addresses from the inventory. An alert's endpoint is a claim and never makes one.

    ``interface`` and ``mac`` (six bytes) are the gateway's interface that the device's packets arrive by and the
    address of the link that they come from; "" and b"": not said.
    """

    device: DeviceId
    addresses: tuple[Address, ...]
    anchor: AnchorKind = AnchorKind.NONE
    interface: str = ""
    mac: bytes = b""


@dataclass(frozen=True, slots=True)
class Device:
    """One inventory entry. The inventory file is the truth; the journal keeps state.

    ``also`` are further sources that may speak about it: its standing is the fold over all of them.
    """

    id: DeviceId
    source: SourceName
    binding: Binding
    labels: tuple[tuple[str, str], ...] = ()
    also: tuple[SourceName, ...] = ()
    max_age: float | None = None  # seconds; its own, where the source's does not fit
    recovery_passes: int | None = None  # likewise

    @property
    def sources(self) -> tuple[SourceName, ...]:
        """Every source that may speak about it, the first one first."""
        return (self.source, *self.also)


class Presented(NamedTuple):
    """What came with a document beside its own bytes.

    ``certificate``: the door has tied the peer's verified certificate to exactly this source. ``key_id`` and
    ``signature``: a detached signature over the exact bytes, as the peer wrote it; untrusted.
    """

    certificate: bool = False
    key_id: str = ""
    signature: bytes = b""


class Envelope(NamedTuple):
    """Received bytes plus where they came from: untrusted."""

    data: bytes
    source: SourceName  # the configured source whose rules judge these bytes
    peer: str  # textual address of the sender
    received: Instant  # when the last byte was read
    presented: Presented | None = None  # None: this door takes nothing beside the bytes


class Statement(NamedTuple):
    """What an authentic document of a source says about one device, before anybody has asked whether that device is
    the source's, whether it is fresh, or whether it was said before. Only a format's reader makes one."""

    device: str  # as written: hostile until it matches the inventory
    outcome: Outcome
    issued_at: int  # UNIX seconds, the verifier's clock
    nonce: bytes
    reason: str  # the source's own word, tiers and vector included
    valid_until: int | None = None
    tier: Tier = Tier.NONE


class Verdict(NamedTuple):
    """An authenticated attestation result (RATS). Only ``authenticate`` code makes one."""

    device: DeviceId
    source: SourceName
    outcome: Outcome
    issued_at: int  # UNIX seconds, the verifier's clock
    timeliness: Timeliness
    nonce: bytes
    reason: str  # the source's own word, e.g. "PASS"
    claim: str  # endpoint the source reported; a claim, never a binding
    valid_until: int | None = None
    tier: Tier = Tier.NONE


class Hint(NamedTuple):
    """An unauthenticated word about a device that an anchored binding backs: it may lower, never raise.

    ``adverse`` whether it speaks of a failure; any other hint is counted and changes nothing. ``of`` the source
    whose verdicts it speaks of (``None``: every source of the device).
    """

    device: DeviceId
    source: SourceName
    adverse: bool
    reason: str  # the source's own word, e.g. "FAILED_ATTEST"
    of: SourceName | None = None


class EventKind(Enum):
    """Inputs of the lifecycle."""

    PASSED = "passed"
    FAILED = "failed"  # signed and fresh: FAILED or REJECTED
    FAILED_LATE = "failed-late"  # signed, authentic, but stale, late or from the future
    REQUESTED = "requested"
    NOTED = "noted"
    HINTED = "hinted"  # a hint of failure, or a runtime alert at or above the threshold
    LAPSED = "lapsed"
    HELD = "held"
    RELEASED = "released"
    PASSPORT = "passport"
    RETIRED = "retired"
    REINSTATED = "reinstated"  # the inventory lists a retired device again
    WITHHELD = "withheld"  # an admission that kernel and journal do not both back, see the reason

    __hash__ = object.__hash__  # see Refusal


class Event(NamedTuple):
    """Something that happened to one (device, source).

    ``at`` is our wall clock when it happened; ``issued_at`` the source's. ``solicited`` marks a REQUESTED that
    answers our own request of the last 5 s. ``cut`` marks a hint that the book wants cut at once.
    """

    kind: EventKind
    at: float
    issued_at: int = 0
    valid_until: int | None = None
    nonce: bytes = b""
    reason: str = ""
    actor: str = ""
    solicited: bool = False
    cut: bool = False


class Effect(Enum):
    """What an event did."""

    RAISED = "raised"
    LOWERED = "lowered"
    EXTENDED = "extended"  # the deadline moved, the standing did not
    RECORDED = "recorded"  # marks changed, or only the journal knows
    NONE = "none"  # listed in the table as without effect
    REFUSED = "refused"  # would have raised, but a mark forbids it

    __hash__ = object.__hash__  # see Refusal


class Record(NamedTuple):
    """Standing and marks of one (device, source). Marks survive retirement and restart.

    ``deadline``         UNIX seconds after which the standing no longer admits; every TRUSTED has one.
    ``newest``           issued-at of the newest accepted verdict (0: none); ``nonces`` those of that second.
    ``epoch``            issued-at of the newest known failure (0: none); a pass must be newer.
    ``debt``             satisfying passes still owed after a failure; ``paid_at`` issued-at of the last one.
    ``suspected_since``  our wall time of the suspicion (0: none); a pass must be issued after it.
    ``hold``             an operator holds the device; survives retirement.
    ``graced``           a solicited REQUESTED has already shortened this deadline.
    """

    standing: Standing = Standing.UNKNOWN
    deadline: float | None = None
    newest: int = 0
    nonces: tuple[bytes, ...] = ()
    epoch: int = 0
    debt: int = 0
    paid_at: int = 0
    suspected_since: float = 0.0
    hold: bool = False
    graced: bool = False


class Transition(NamedTuple):
    """A fact: one event stepped one (device, source)."""

    device: DeviceId
    source: SourceName
    event: Event
    before: Record
    after: Record
    effect: Effect
    why: str  # one sentence for people


class Rejected(NamedTuple):
    """A fact: an envelope was refused."""

    source: SourceName
    refusal: Refusal
    detail: str
    peer: str
    at: float
    device: str = ""  # as claimed; not authenticated
    authentic: bool = False  # HMAC and signature were good (freshness, replay and order refusals)


class Decision(NamedTuple):
    """What a device may do, and why. ``chain`` names every rule used, in order."""

    device: DeviceId
    standing: Standing  # effective: the fold over sources and address conflicts
    profile: str
    until: float | None  # UNIX seconds; None: this profile admits nothing
    chain: tuple[str, ...]


#: The profile that reaches nothing in the protected zone.
DENY = "deny"


class Rule(NamedTuple):
    """One enforceable item: what an address should have. ``until`` is the deadline in boot seconds."""

    device: DeviceId
    profile: str  # DENY, or the name of a profile that the path gate has a set for
    until: float  # boot seconds; ignored for DENY
    tombstone: bool = False  # DENY because of negative evidence: leave a mark that outranks the journal


class ChangeKind(Enum):
    """One step at a backend, in the order in which steps are taken: tighten before loosen."""

    CUT = "cut"  # tombstone, and out of every profile
    WITHDRAW = "withdraw"  # out of every profile; an existing tombstone stays
    FORGET = "forget"  # retired: no trace, tombstone included
    ADMIT = "admit"  # into exactly this profile until ``until``; tombstone removed
    REFRESH = "refresh"  # the same profile, a later end; never touches a tombstone

    __hash__ = object.__hash__  # see Refusal


class Change(NamedTuple):
    """One step for one address. ``until`` in boot seconds, already min(deadline, lease)."""

    kind: ChangeKind
    address: Address
    profile: str = DENY
    until: float = 0.0


class Applied(Enum):
    """How far one change got."""

    ACCEPTED = "accepted"  # the backend was told so
    VERIFIED = "verified"  # and it was read back
    FAILED = "failed"

    __hash__ = object.__hash__  # see Refusal


class ChangeOutcome(NamedTuple):
    """The result of one change at one backend. ``accepted``: boot seconds at which the backend had taken it, where
    it tells (0: with its verification)."""

    change: Change
    state: Applied
    detail: str = ""
    accepted: float = 0.0


class Stands(NamedTuple):
    """Read-back of one address: profile ("" none), seconds left (None: no timeout), tombstone or not."""

    profile: str
    remaining: float | None
    tombstone: bool


class Enforced(NamedTuple):
    """A fact: what came of a decision at one target. Times are boot seconds."""

    device: DeviceId
    target: str
    backend: str
    profile: str
    state: Applied
    detail: str
    received: float  # when the envelope's last byte was read; 0: no envelope (timer, start, repair)
    accepted: float
    verified: float
    durable: float = 0.0  # when the journal had committed the event; 0: it could not
