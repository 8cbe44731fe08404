"""The relying party's conversation: what SEDIMENT's relying party answers, and what ours does. Pure.

One table says for every message and every case what is done. The way of one frame::

    hear      lengths, device, HMAC: who speaks, and what (raises the refusal; then the connection is closed)
    case_of   what is true of it: the guards, in order
    TABLE     the step: answer, forward, copy, submit, wait, close
    answer    the bytes

SEDIMENT's own steps are those of ``servers/firewall/Firewall.cpp`` (commit 00e2e3e): CONFIG lines 100-119, DATA
121-159, KEY_CHANGE 218-227, PASSPORT_REQUEST 229-264, PASSPORT_CHECK 266-299; without an answer it closes the
connection, after one it reads on (``servers/common/Server.cpp`` lines 115-141). What is different here, on purpose:

* HMAC is always required, of every message, before its body is looked at; so is a device of the inventory.
* PERMISSION and DATA are answered from the standing. A passport must be genuine, and raises nothing: SEDIMENT
  takes a passport from before a failure, and one that a verifier which passes failures through grants right after
  it.
* A PASSPORT_CHECK that comes before its alert has been acted on waits for it a moment instead of being turned away.
* DATA and KEY_CHANGE that were taken before, or are stamped ahead of our clock, are refused (``replay``).
* ALERT is believed only from a verifier's own address, and becomes an envelope like one at the door for alerts.
* A profile with a rate carries no more messages of a device than that.
* ATTEST is answered at most once in a while for one device: anyone can make a verifier sign REQUESTED.
* Message ids that were never recorded (15 to 17) close the connection, and a connection speaks for one device.

No sockets, clock or randomness here: time, nonces and what the standing says come in as arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from hmac import compare_digest
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import DeviceId
from gateway.sediment.authenticate import SedimentSource
from gateway.sediment.bodies import decode_body, encode_body, judge_data
from gateway.sediment.compose import compose_prepared
from gateway.sediment.digest import digest, prepare
from gateway.sediment.messages import (
    Acceptance,
    Admittance,
    Cause,
    KeyBox,
    KeyPurpose,
    KeyType,
    PassportCheck,
    Permission,
)
from gateway.sediment.messages import PassportResponse as _PassportResponse
from gateway.sediment.text import printable
from gateway.sediment.wire import HMAC_START, Endpoint, Header, MessageId, decode_header

DEVICE_KINDS = frozenset(
    {
        MessageId.CONFIG,
        MessageId.PASSPORT_REQUEST,
        MessageId.PASSPORT_CHECK,
        MessageId.DATA,
        MessageId.KEY_CHANGE,
    }
)
"""What devices may say to a relying party."""

HEARD_KINDS = DEVICE_KINDS | {MessageId.ALERT}
"""What may be said on its port."""

CARRIED_KINDS = frozenset({MessageId.DATA, MessageId.KEY_CHANGE})
"""What a relying party carries to the app server: never for a device that is not admitted."""


PREPARED = 16_384
"""Keys kept prepared, of the devices that spoke last: some 400 bytes each, and as many as may be connected."""


class Case(Enum):
    """What is true of a message, as far as it matters for the answer."""

    PLAIN = "asks for nothing that a standing decides"
    ADMITTED = "the device is admitted"
    SHUT = "the device is not admitted"
    SLOWED = "the device is admitted, and its profile allows no more just now"
    WANTED = "the verifier wants the device to attest again"
    REPEATED = "taken before, too old to tell, or ahead of our clock"
    FORGED = "the passport is not genuine, not this device's or over"
    VERIFIER = "from a verifier's address"
    STRANGER = "from any other address"

    __hash__ = object.__hash__  # members are singletons; the library's own hash costs a Python call each time


class Answer(Enum):
    """What is sent back."""

    CONFIG = "the device's settings, or DUMMY where none are handed out"
    VERIFIER = "PASSPORT_RESPONSE naming the verifier"
    PERMISSION = "PERMISSION granted"
    ACCEPT = "RESULT ACCEPT once the app server has it, else NO_COMM"
    REJECT = "RESULT REJECT"
    ATTEST = "RESULT ATTEST"

    __hash__ = object.__hash__  # see Case


class Step(NamedTuple):
    """What is done. Whatever has no answer closes the connection, as SEDIMENT does.

    ``forward`` to the app server (beside SEDIMENT's relying party: on to that party); ``copy`` the answer to the
    verifier first; ``submit`` as an envelope, and read on; ``wait`` a moment for the device to be admitted, then
    judge again.
    """

    answer: Answer | None = None
    forward: bool = False
    copy: bool = False
    submit: bool = False
    wait: bool = False


_K, _C = MessageId, Case

TABLE: Mapping[tuple[MessageId, Case], Step] = {
    (_K.CONFIG, _C.PLAIN): Step(Answer.CONFIG),
    (_K.PASSPORT_REQUEST, _C.PLAIN): Step(Answer.VERIFIER, copy=True),
    (_K.PASSPORT_CHECK, _C.FORGED): Step(),
    (_K.PASSPORT_CHECK, _C.ADMITTED): Step(Answer.PERMISSION),
    (_K.PASSPORT_CHECK, _C.SHUT): Step(wait=True),
    (_K.DATA, _C.REPEATED): Step(Answer.REJECT),
    (_K.DATA, _C.WANTED): Step(Answer.ATTEST),
    (_K.DATA, _C.ADMITTED): Step(Answer.ACCEPT, forward=True),
    (_K.DATA, _C.SHUT): Step(Answer.REJECT),
    (_K.DATA, _C.SLOWED): Step(Answer.REJECT),
    (_K.KEY_CHANGE, _C.REPEATED): Step(),
    (_K.KEY_CHANGE, _C.ADMITTED): Step(forward=True),
    (_K.KEY_CHANGE, _C.SHUT): Step(),
    (_K.KEY_CHANGE, _C.SLOWED): Step(),
    (_K.ALERT, _C.VERIFIER): Step(submit=True),
    (_K.ALERT, _C.STRANGER): Step(),
}
"""In the place of SEDIMENT's relying party."""

BESIDE: Mapping[tuple[MessageId, Case], Step] = {
    (_K.CONFIG, _C.PLAIN): Step(forward=True),
    (_K.PASSPORT_REQUEST, _C.PLAIN): Step(forward=True),
    (_K.PASSPORT_CHECK, _C.PLAIN): Step(forward=True),
    (_K.DATA, _C.REPEATED): Step(Answer.REJECT),
    (_K.DATA, _C.ADMITTED): Step(forward=True),
    (_K.DATA, _C.SHUT): Step(Answer.REJECT),
    (_K.DATA, _C.SLOWED): Step(Answer.REJECT),
    (_K.KEY_CHANGE, _C.REPEATED): Step(),
    (_K.KEY_CHANGE, _C.ADMITTED): Step(forward=True),
    (_K.KEY_CHANGE, _C.SHUT): Step(),
    (_K.KEY_CHANGE, _C.SLOWED): Step(),
    (_K.ALERT, _C.VERIFIER): Step(forward=True, submit=True),
    (_K.ALERT, _C.STRANGER): Step(),
}
"""Before SEDIMENT's relying party: it answers what is passed on; we answer only what is not."""


class Heard(NamedTuple):
    """One authentic message of a known device. ``fault``: what is wrong with its passport, if it has one."""

    kind: MessageId
    device: DeviceId
    header: Header
    frame: bytes
    fault: tuple[Refusal, str] | None = None


class Word(NamedTuple):
    """What the standing and the memory say of a device and its message."""

    admitted: bool
    wanted: bool = False
    repeated: bool = False
    slowed: bool = False


def case_of(heard: Heard, word: Word, *, beside: bool) -> Case:  # noqa: PLR0911 -- one return for each guard
    """What is true of a device's message; the first guard that holds decides."""
    kind = heard.kind
    if kind in CARRIED_KINDS:
        if word.repeated:
            return Case.REPEATED
        # As in SEDIMENT, a wish to attest again is told whatever else is true (Firewall.cpp lines 131-135).
        if word.wanted and kind is MessageId.DATA and not beside:
            return Case.WANTED
        if not word.admitted:
            return Case.SHUT
        return Case.SLOWED if word.slowed else Case.ADMITTED
    if kind is MessageId.PASSPORT_CHECK and not beside:
        if heard.fault is not None:
            return Case.FORGED
        return Case.ADMITTED if word.admitted else Case.SHUT
    return Case.PLAIN


def step_of(kind: MessageId, case: Case, *, beside: bool) -> Step:
    """The row of the table. Raises ``KeyError`` for a pair that cannot be: a bug."""
    return (BESIDE if beside else TABLE)[kind, case]


@dataclass(frozen=True, slots=True)
class Party:
    """What a relying party tells devices.

    ``verifier``  where to be attested, as PASSPORT_RESPONSE says it.
    ``here``      where this relying party is, as PERMISSION says it.
    ``settings``  the text of CONFIG, with its NUL; None: a DUMMY is answered, as without ``download``.
    """

    verifier: Endpoint
    here: Endpoint
    settings: bytes | None = None


class Conversation:
    """Hears and answers, for one relying party. ``sources``: whose passports each device may present."""

    __slots__ = ("_ids", "_party", "_prepared", "_sources", "_tails")

    def __init__(
        self, party: Party, hmac_keys: Mapping[DeviceId, bytes], sources: Mapping[DeviceId, SedimentSource]
    ) -> None:
        self._party = party
        self._sources = sources
        # By the bytes on the wire: nothing is decoded before it is known.
        self._ids = {device.encode(): (device, key) for device, key in hmac_keys.items()}
        self._tails = _tails(party)
        self._prepared = lru_cache(PREPARED)(prepare)

    def hear(self, frame: bytes, now: float) -> Heard:
        """Who speaks, and what. ``now`` (UNIX seconds) is for a passport's end.

        Raises ``InputRefused``: ``FRAMING``, ``KIND``, ``LENGTHS``, ``DEVICE`` (not in the inventory) or ``HMAC``.
        """
        header = decode_header(frame)
        kind = header.message_id
        if kind not in DEVICE_KINDS:
            raise InputRefused(Refusal.KIND, f"{kind.name} is not what a device says to a relying party")
        known = self._ids.get(header.device)
        if known is None:
            what = f"'{printable(header.device)}' is not in the inventory"
            raise InputRefused(Refusal.DEVICE, what)
        device, key = known
        if not compare_digest(header.digest, digest(self._prepared(key), frame[HMAC_START:])):
            what = "the digest is all zero" if not any(header.digest) else "the digest is not this device's"
            raise InputRefused(Refusal.HMAC, f"{kind.name} as '{device}': {what}")
        if kind is MessageId.DATA:
            judge_data(frame, header)
            return Heard(kind, device, header, frame)
        message = decode_body(header, frame)
        fault = self._fault(device, message, frame, now) if isinstance(message, PassportCheck) else None
        return Heard(kind, device, header, frame, fault)

    def answer(self, heard: Heard, answer: Answer, nonce: bytes, now: int, *, taken: bool = True) -> bytes:
        """The bytes of an answer. ``taken``: whether the app server has what was to be forwarded.

        ``nonce`` are 32 fresh random bytes, ``now`` UNIX seconds.
        """
        if answer is Answer.ACCEPT and not taken:
            kind, body = _NO_COMM
        else:
            kind, body = self._tails[answer]
        device = heard.header.device
        tail = bytes((len(device),)) + device + body
        return compose_prepared(kind, now, nonce, tail, self._prepared(self._ids[device][1]))

    def _fault(
        self, device: DeviceId, message: PassportCheck, frame: bytes, now: float
    ) -> tuple[Refusal, str] | None:
        """What is wrong with a passport; None when it is genuine, this device's and not over."""
        passport, source = message.passport, self._sources.get(device)
        if source is None:
            return Refusal.DEVICE, "no source speaks for this device"
        start, end = passport.signed
        try:
            source.public_key.verify(passport.signature, frame[start:end], _PADDING, _HASH)
        except InvalidSignature:
            return Refusal.SIGNATURE, "not made by this source's key"
        if passport.prover_id != message.header.device:
            return Refusal.DEVICE, f"it was granted to '{printable(passport.prover_id)}'"
        if passport.verifier_id != source.verifier_id:
            return (
                Refusal.VERIFIER,
                f"granted as '{printable(passport.verifier_id)}', not as the configured verifier",
            )
        # In whole seconds, as SEDIMENT compares (Firewall.cpp lines 275-279).
        if passport.expires < int(now):
            return Refusal.FRESHNESS, f"it ended {now - passport.expires:.0f} s ago"
        return None


_PADDING = PKCS1v15()
_HASH = SHA256()
_NO_COMM = (MessageId.RESULT, bytes((Acceptance.NO_COMM,)))


def _tails(party: Party) -> Mapping[Answer, tuple[MessageId, bytes]]:
    """Kind and body of every answer: none depends on the device."""
    nobody = Header(0, bytes(32), bytes(32), MessageId.DUMMY, 0, b"")
    # SEDIMENT sends the key box of a build without key distribution empty (Firewall.cpp lines 243-261).
    box = KeyBox(KeyPurpose.ATTESTATION, KeyType.JEDI, b"")
    config = (MessageId.DUMMY, b"")
    if party.settings is not None:
        config = (MessageId.CONFIG, len(party.settings).to_bytes(4, "big") + party.settings)
    permission = Permission(nobody, Admittance.GRANTED, Cause.INIT, party.here)
    return {
        Answer.CONFIG: config,
        Answer.VERIFIER: (
            MessageId.PASSPORT_RESPONSE,
            encode_body(_PassportResponse(nobody, party.verifier, box, ())),
        ),
        Answer.PERMISSION: (MessageId.PERMISSION, encode_body(permission)),
        Answer.ACCEPT: (MessageId.RESULT, bytes((Acceptance.ACCEPT,))),
        Answer.REJECT: (MessageId.RESULT, bytes((Acceptance.REJECT,))),
        Answer.ATTEST: (MessageId.RESULT, bytes((Acceptance.ATTEST,))),
    }
