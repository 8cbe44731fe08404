"""EAT Attestation Results (draft-ietf-rats-ear): from a claims set to statements. Serialisation and keys are
elsewhere.

What lives here: the claims, the AR4SI tiers and trustworthiness vector (draft-ietf-rats-ar4si, sections 2.3 and
3.2), and what they mean here. What must not: JSON, CBOR, signatures.

A status is never taken for better than its vector: a claim of 2 to 31 (or -2 to -32) affirms, 32 to 95 (-33 to -96)
warns, 96 and above (-97 and below) contraindicates, 1 and -1 say that the verifier could not tell, 0 says nothing.
Affirming passes, contraindicated fails, warning doubts, none is recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import Outcome, Statement, Tier
from gateway.verdicts.source import VerdictSource

#: The claims' names here, and as they stand in CBOR and in the older and newer JSON (cddl/ of the draft's
#: repository at d3ac6eea and 07e88444; RFC 9711 and RFC 8392 for those of EAT and CWT).
CLAIMS: Mapping[str, tuple[object, ...]] = {
    "profile": (265, "eat_profile"),
    "issued_at": (6, "iat"),
    "expires_at": (4, "exp"),
    "not_before": (5, "nbf"),
    "subject": (2, "sub"),
    "ueid": (256, "ueid"),
    "submods": (266, "submods"),
}
APPRAISAL: Mapping[str, tuple[object, ...]] = {
    "status": (1000, "ear.status", "ear_status"),
    "vector": (1001, "ear.trustworthiness-vector", "ear_trustworthiness_vector"),
}
VECTOR = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)

#: The profiles taken: the two of the implementations before the working group's, and the working group's own.
PROFILES = frozenset(
    {
        "tag:github.com,2023:veraison/ear",
        "tag:github.com,2024:confidential-containers/Trustee",
        "tag:ietf.org,2026:rats/ear#03",
        "tag:ietf.org,2026:rats/ear#04",
    }
)

SUBJECTS = ("submod", "sub", "ueid")
"""Where the device's name stands: each submodule is a device of that name, or the whole token is about one."""

SUBMODS = 64  #: appraisals in one token
VECTOR_CLAIMS = 16  #: in one vector; AR4SI defines eight
REASON = 300  #: characters kept of tier and vector

_TIERS = {tier.name.lower(): tier for tier in Tier} | {tier.value: tier for tier in Tier}
_WORST_FIRST = (Tier.CONTRAINDICATED, Tier.WARNING, Tier.NONE, Tier.AFFIRMING)
_OUTCOMES = {
    Tier.AFFIRMING: Outcome.PASSED,
    Tier.WARNING: Outcome.DOUBTED,
    Tier.CONTRAINDICATED: Outcome.FAILED,
    Tier.NONE: Outcome.NOTED,
}


def statements_of(claims: object, payload: bytes, source: VerdictSource) -> Sequence[Statement]:
    """Return what a verified claims set says. Raises ``InputRefused`` (format).

    ``payload``: the signed bytes. Their digest is the nonce that makes a replay a replay: ``eat_nonce`` is the
    attester's challenge and need not be there, and a signature by elliptic curve has a twin that verifies as well.
    """
    top = _picked(claims, CLAIMS, "the claims set")
    profile = top.get("profile")
    if not isinstance(profile, str) or profile not in PROFILES:
        raise _refused(f"eat_profile {ascii(profile)[:60]} is not one that is taken")
    issued_at = _time(top, "issued_at")
    if issued_at is None:
        raise _refused("iat is missing")
    # What is not valid yet is from the future, whenever it was issued.
    issued_at = max(issued_at, _time(top, "not_before") or 0)
    expires_at = _time(top, "expires_at")
    submods = top.get("submods")
    if not isinstance(submods, dict) or not 1 <= len(submods) <= SUBMODS:
        raise _refused(f"submods must be a map of 1 to {SUBMODS} appraisals")
    appraisals = [_appraisal(name, appraisal) for name, appraisal in submods.items()]
    nonce = hashlib.sha256(payload).digest()
    if source.subject in ("sub", "ueid"):
        tier = _worst(tier for _, tier, _ in appraisals)
        told = "; ".join(f"{name}: {text}" for name, _, text in appraisals)
        appraisals = [(_subject(top, source.subject), tier, f"{tier.name.lower()} ({told})")]
    return [
        Statement(name, _OUTCOMES[tier], issued_at, nonce, f"EAR {text}"[:REASON], expires_at, tier)
        for name, tier, text in appraisals
    ]


def _refused(what: str) -> InputRefused:
    return InputRefused(Refusal.FORMAT, what)


def _picked(claims: object, names: Mapping[str, tuple[object, ...]], where: str) -> dict[str, Any]:
    """The known claims under their names here; others are the verifier's own business. One claim has one name."""
    if not isinstance(claims, dict):
        raise _refused(f"{where} is no map")
    found: dict[str, Any] = {}
    for name, spellings in names.items():
        present = [spelling for spelling in spellings if spelling in claims]
        if len(present) > 1:
            raise _refused(f"{where} has {name} in two spellings")
        if present:
            found[name] = claims[present[0]]
    return found


def _time(top: Mapping[str, Any], name: str) -> int | None:
    value = top.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1 << 40:
        raise _refused(f"{name} must be a whole number of seconds")
    return value


def _subject(top: Mapping[str, Any], name: str) -> str:
    value = top.get("subject" if name == "sub" else "ueid")
    if isinstance(value, bytes):
        value = value.hex()
    if not isinstance(value, str):
        raise _refused(f"{name} must name the device")
    return value


def _appraisal(name: object, claims: object) -> tuple[str, Tier, str]:
    if not isinstance(name, str):
        raise _refused("a submodule's name is no text")
    own = _picked(claims, APPRAISAL, f"submodule {name[:40]!a}")
    status = own.get("status")
    tier = _TIERS.get(status) if isinstance(status, int | str) and not isinstance(status, bool) else None
    if tier is None:
        raise _refused(f"submodule {name[:40]!a}: the status {ascii(status)[:20]} is no trust tier")
    vector = _vector(own.get("vector", {}), name)
    worst = _worst((tier, *(tier_of(value) for _, value in vector if value != 0)))
    told = " ".join(f"{claim}={value}" for claim, value in vector)
    text = worst.name.lower() if worst is tier else f"{worst.name.lower()} (status {tier.name.lower()})"
    return name, worst, f"{text} {told}".rstrip()


def _vector(claims: object, name: str) -> list[tuple[str, int]]:
    if not isinstance(claims, dict) or len(claims) > VECTOR_CLAIMS:
        raise _refused(f"submodule {name[:40]!a}: the vector is no map of at most {VECTOR_CLAIMS} claims")
    found: dict[str, int] = {}
    for key, value in claims.items():
        known = isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(VECTOR)
        claim = VECTOR[key] if known else ascii(key)[:24].strip("'")
        if not isinstance(value, int) or isinstance(value, bool) or not -128 <= value <= 127 or claim in found:
            raise _refused(f"submodule {name[:40]!a}: {claim} must be one number from -128 to 127")
        found[claim] = value
    return list(found.items())


def tier_of(value: int) -> Tier:
    """The tier of one claim of the vector (draft-ietf-rats-ar4si section 2.3.2)."""
    size = -value - 1 if value < 0 else value  # -97 is to contraindicate what 96 is, -33 to warn what 32 is
    if size >= 96:
        return Tier.CONTRAINDICATED
    if size >= 32:
        return Tier.WARNING
    return Tier.AFFIRMING if value >= 2 or value <= -2 else Tier.NONE


def _worst(tiers: Iterable[Tier]) -> Tier:
    found = set(tiers)
    return next(tier for tier in _WORST_FIRST if tier in found)
