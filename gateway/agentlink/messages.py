"""What the two ends of the link say: typed messages, their encoding, and the limits of both.

Pure: values in, bytes out. Encoding: MessagePack arrays, each beginning with the number of its kind; a field added
at the end with a default is understood by older ends. What must not live here: streams, backends, clocks.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final

import msgspec

from gateway.core.errors import RagateError

METHOD_SERVICE = "ragate.link.v1.Link"
METHOD_NAME = "Attach"

#: Versions of the protocol that this program speaks, oldest first.
PROTOCOLS: Final = (1, 2, 3)
#: The first one in which an agent tells runtime alerts.
ALERTS_PROTOCOL: Final = 2
#: The first one in which the gateway tells documents of profiles, and the agent how far they got.
DOCUMENTS_PROTOCOL: Final = 3

#: Changes or addresses in one message: a reconciler's batch.
MOST_CHANGES = 1_000
#: Bytes of one message: the plan of a site with a million addresses.
MESSAGE_BYTES = 32 << 20
#: Ways around a path gate that one beat tells of: one is enough to fail the target.
MOST_BYPASSES = 8
#: Bytes of one sentence that the other end wrote: it goes into notices.
SENTENCE = 300

#: What the gateway's proof of its key is for.
PROOF = "ragate link v1: gateway"


class LinkProtocolError(RagateError):
    """The other end sent something that this protocol does not have; the link is ended."""


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Root of all messages."""


# --- from the agent
# --------------------------------------------------------------------------------------------------


class Hello(Message, tag=1, frozen=True):
    """The agent's first message. ``boot`` is its boot clock in seconds when it was sent; ``digest`` that of the
    plan it has kept ("": none); ``nonce`` what the gateway has to sign; ``program`` its version, for people."""

    protocols: tuple[int, ...]
    program: str
    boot_id: str
    boot: float
    digest: str
    nonce: bytes
    path_gate: str


class Ready(Message, tag=2, frozen=True):
    """The plan is in force. ``found``: enforcement state was found on the host and kept."""

    backend: str
    found: bool


class Unable(Message, tag=3, frozen=True):
    """The plan cannot be brought into force; the agent tries again with the next attachment."""

    why: str


class Beat(Message, tag=4, frozen=True):
    """Said every second. ``boot``: the agent's boot clock when it was sent. ``resources`` and ``notes`` are given
    now and then: numbers of the host by metric name, and sentences by part (an advisory layer's state).
    ``bypasses``: a sentence for each way around the host's path gate, ``MOST_BYPASSES`` at most; None: unknown."""

    boot: float
    not_after: float
    resources: dict[str, float] = {}
    notes: dict[str, str] = {}
    bypasses: tuple[str, ...] | None = None


class Done(Message, tag=5, frozen=True):
    """What came of one ``Work``. ``states``: one byte a change, empty when all are verified; ``details`` by place;
    ``accepted``: the agent's boot clock when the path gate had taken the last of them (0: not told)."""

    number: int
    states: bytes
    details: dict[int, str]
    accepted: float


class Seen(Message, tag=6, frozen=True):
    """Read-back for one ``Look``, in its order: profile ("": none), milliseconds left (-1: no end), tombstone.

    For a proof also, in the same order, the ``elements`` found as the host's own tools name them; what ``layers``
    showed by part (found, -1: could not be read; words); and the agent's boot clock when all was ``read``.
    """

    number: int
    stands: tuple[tuple[str, int, bool], ...]
    elements: tuple[tuple[str, ...], ...] = ()
    layers: dict[str, tuple[int, str]] = {}
    read: float = 0.0


class Failed(Message, tag=7, frozen=True):
    """A ``Work`` or ``Look`` could not be done at all; nothing is known about it."""

    number: int
    why: str
    transient: bool


class Damage(Message, tag=8, frozen=True):
    """The static part of the path gate was found damaged and has been laid again, shut and empty. With ``strayed``,
    addresses as (packed, prefix), or ``everything``, or ``mended``, it stands, and somebody else changed elements:
    these are to be looked at (a gateway that does not know this tells everything again)."""

    sentence: str
    strayed: tuple[tuple[bytes, int], ...] = ()
    everything: bool = False
    mended: bool = False


class HeardAlert(Message, frozen=True):
    """One runtime alert of the host: the fields of ``RuntimeAlert``, the source packed (empty: none), and how many
    seconds ago it was heard."""

    what: str
    act: str
    policy: str
    severity: int
    source: bytes
    subject: str
    detail: str
    age: float


class Heard(Message, tag=9, frozen=True):
    """What was heard of the host's KubeArmor. ``run`` tells one life of the agent from another; within one,
    ``told`` is the number of alerts told ever, these included; ``heard`` and ``breaks`` by stream and ``lost`` by
    reason are totals. ``up``: streams that are open. Only from protocol 2 on."""

    run: int
    told: int
    up: tuple[str, ...]
    heard: dict[str, int]
    lost: dict[str, int]
    breaks: dict[str, int]
    alerts: tuple[HeardAlert, ...]


class Advised(Message, tag=10, frozen=True):
    """How far the documents with this ``serial`` got at the host's KubeArmor: ``state`` is idle, waiting, accepted,
    verified or failed. Only from protocol 3 on."""

    serial: int
    state: str
    detail: str


# --- from the gateway
# -------------------------------------------------------------------------------------------------


class Plan(Message, frozen=True):
    """The static part of one host: what is gated there, what always passes, whose addresses are known.

    ``services``: (address, port, protocol, profiles that reach it). ``corridor``: (address, port, protocol).
    ``rates``: profile → (new connections, seconds). ``known``: addresses of devices as (packed, prefix).
    """

    services: tuple[tuple[str, str, int, str, tuple[str, ...]], ...]  # the name in the book comes first
    corridor: tuple[tuple[str, int, str], ...]
    always_allowed: tuple[str, ...]
    profiles: tuple[str, ...]
    rates: dict[str, tuple[int, int]]
    known: tuple[tuple[bytes, int], ...]


class Welcome(Message, tag=20, frozen=True):
    """The gateway's first message. ``certificate`` and ``proof`` show that it holds the key of a gateway's
    certificate of this site; ``plan`` is absent when the agent's digest is that of the plan wanted."""

    protocol: int
    program: str
    certificate: bytes
    proof: bytes
    lease: float
    digest: str
    plan: Plan | None


class Work(Message, tag=21, frozen=True):
    """Changes for the path gate. ``reference``: a moment of the agent's own boot clock that was not after the
    moment at which the remaining times were taken; ``profiles`` are named once. Each change: kind (its place in
    ``ChangeKind``), packed address, prefix, place of the profile (-1: none), milliseconds that remain."""

    number: int
    cut: bool
    reference: float
    profiles: tuple[str, ...]
    changes: tuple[tuple[int, bytes, int, int, int], ...]


class Look(Message, tag=22, frozen=True):
    """Read these addresses back: (packed, prefix). ``proof``: and name what is found."""

    number: int
    addresses: tuple[tuple[bytes, int], ...]
    proof: bool = False


class Piece(Message, tag=23, frozen=True):
    """A piece of an encoded ``Declared``; all of one ``serial`` follow one another. Only from protocol 3 on."""

    serial: int
    data: bytes
    last: bool


class Declared(Message, frozen=True):
    """All documents of profiles that should stand at the host's KubeArmor, each as JSON; ``absent``: names of
    network documents that stand at other times."""

    documents: tuple[bytes, ...]
    absent: tuple[str, ...]


FromAgent = Hello | Ready | Unable | Beat | Done | Seen | Failed | Damage | Heard | Advised
FromGateway = Welcome | Work | Look | Piece

_encoder = msgspec.msgpack.Encoder()
_from_agent = msgspec.msgpack.Decoder(FromAgent)
_from_gateway = msgspec.msgpack.Decoder(FromGateway)
_plan = msgspec.msgpack.Decoder(Plan)

#: What the library raises for bytes that are no message: text that is no UTF-8, too, is none of its own errors.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return _encoder.encode(message)


def digest_of(plan: bytes) -> str:
    """What tells one encoded plan from another."""
    return hashlib.sha256(plan).hexdigest()


def read_from_agent(data: bytes) -> FromAgent:
    """Return what an agent sent. Raises ``LinkProtocolError``."""
    try:
        found: FromAgent = _from_agent.decode(data)
    except _UNREADABLE as error:
        raise _unread(error) from error
    if isinstance(found, Hello | Beat) and not math.isfinite(found.boot):
        raise LinkProtocolError("an agent's clock shows no time")
    return found


def read_from_gateway(data: bytes) -> FromGateway:
    """Return what the gateway sent. Raises ``LinkProtocolError``."""
    try:
        found: FromGateway = _from_gateway.decode(data)
    except _UNREADABLE as error:
        raise _unread(error) from error
    return found


def read_plan(data: bytes) -> Plan:
    """Return a kept plan. Raises ``LinkProtocolError``."""
    try:
        found: Plan = _plan.decode(data)
    except _UNREADABLE as error:
        raise _unread(error) from error
    return found


def _unread(error: Exception) -> LinkProtocolError:
    return LinkProtocolError(f"a message cannot be read: {str(error)[:120]}")


# --- read-back
# --------------------------------------------------------------------------------------------------------
