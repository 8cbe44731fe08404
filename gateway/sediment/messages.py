"""What a message is: the values of all kinds but ALERT and DATA. No bytes, no keys, no trust.

Facts are those of SEDIMENT v1.0.0 (commit 00e2e3e): ``modules/protocol/Enum.hpp`` for the numbers, ``Message.cpp``
lines 70-390 beside it for the fields.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from gateway.sediment.wire import Alert, Data, Endpoint, Header, Measurement, Reason, Span


class Acceptance(IntEnum):
    """What became of a DATA (``Enum.hpp`` lines 71-80)."""

    ACCEPT = 1
    REJECT = 2
    ATTEST = 3
    NO_COMM = 4


class Admittance(IntEnum):
    """What a PERMISSION says; SEDIMENT only ever sends ``GRANTED``."""

    DENIED = 1
    GRANTED = 2


class Cause(IntEnum):
    """Why a PERMISSION was sent; SEDIMENT only ever sends ``INIT``."""

    POWER_ON = 1
    INVALID_PASSPORT = 2
    INIT = 3
    RESET = 4
    PERIODIC = 5
    REQUESTED = 6
    DATA_REJECTED = 7


class KeyPurpose(IntEnum):
    """What the key in a key box is for."""

    ENCRYPTION = 0
    ATTESTATION = 1
    AUTHENTICATION = 2


class KeyType(IntEnum):
    """How the key in a key box is wrapped. SEDIMENT's types 2 and 3 cannot be encoded (``KeyBox.cpp`` lines
    50-58)."""

    JEDI = 0
    RSA = 1


class KeyBox(NamedTuple):
    """A wrapped key, or an empty one."""

    purpose: KeyPurpose
    type: KeyType
    key: bytes


class EvidenceItem(NamedTuple):
    """One piece of evidence. Type and encoding are numbers: nothing here depends on what they mean."""

    type: int
    encoding: int
    value: bytes


class Passport(NamedTuple):
    """What a verifier grants. ``signed``: the span of the frame under the signature; not consulted by encoding."""

    prover_id: bytes
    verifier_id: bytes
    issued: int
    expires: int
    signature: bytes
    signed: Span = Span(0, 0)


class PassportRequest(NamedTuple):
    """A device asks where to be attested."""

    header: Header
    reason: Reason


class PassportResponse(NamedTuple):
    """The relying party names the verifier."""

    header: Header
    verifier: Endpoint
    key_box: KeyBox
    measurements: tuple[Measurement, ...]


class AttestationRequest(NamedTuple):
    """A device asks the verifier for a challenge. ``port``: where it says it could be asked again."""

    header: Header
    port: int
    counter: int


class Challenge(NamedTuple):
    """The verifier's challenge."""

    header: Header
    evidence_types: bytes
    block_size: int
    block_count: int
    counter: int
    nonce: bytes


class Evidence(NamedTuple):
    """The device's answer to a challenge."""

    header: Header
    measurement: Measurement
    counter: int
    items: tuple[EvidenceItem, ...]


class Grant(NamedTuple):
    """The verifier hands out a passport."""

    header: Header
    passport: Passport


class PassportCheck(NamedTuple):
    """A device presents its passport."""

    header: Header
    passport: Passport


class Permission(NamedTuple):
    """The relying party's answer to a passport that it takes."""

    header: Header
    admittance: Admittance
    cause: Cause
    relying_party: Endpoint


class Result(NamedTuple):
    """The relying party's answer to DATA."""

    header: Header
    acceptance: Acceptance


class KeyChange(NamedTuple):
    """A device tells the app server new keys."""

    header: Header
    encryption: KeyBox
    signing: KeyBox
    measurements: tuple[Measurement, ...]


class Dummy(NamedTuple):
    """Nothing but a header."""

    header: Header


class ConfigMessage(NamedTuple):
    """A device asks for its settings (empty text), or gets them: ``key value`` lines and a NUL."""

    header: Header
    text: bytes


Message = (
    Alert
    | Data
    | PassportRequest
    | PassportResponse
    | AttestationRequest
    | Challenge
    | Evidence
    | Grant
    | PassportCheck
    | Permission
    | Result
    | KeyChange
    | Dummy
    | ConfigMessage
)
