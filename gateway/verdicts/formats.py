"""The formats in which results may be posted: one row each. A new format is one module and one row.

A row says how documents are read, which algorithms and proofs there are to choose from, whether the format may
raise, and, for operators, what is verified and what a stolen key would be worth (the README's table is made of
these words).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from gateway.core.model import Presented, Statement
from gateway.verdicts import ear, ear_cwt, ear_jwt, keylime, keylime_status, posted
from gateway.verdicts.keys import Algorithm
from gateway.verdicts.source import Proof, VerdictSource

Read = Callable[[bytes, VerdictSource, Presented, float], Sequence[Statement]]
"""(document, source, what came beside it, wall time of receipt) to statements; raises only ``InputRefused``."""


class Format(NamedTuple):
    """One row. The first of ``algorithms``, ``proofs`` and ``subjects`` is the default."""

    name: str
    read: Read
    media_types: tuple[str, ...]
    algorithms: tuple[Algorithm, ...]
    proofs: tuple[Proof, ...]
    raises: bool
    verified: str
    stolen: str
    subjects: tuple[str, ...] = ()
    zoned: bool = False  # the verifier writes local time: the configuration may name its zone


_JOSE = (Algorithm.ES256, Algorithm.ES384, Algorithm.ED25519, Algorithm.RS256)
_SIGNED = (Proof.SIGNATURE, Proof.BOTH)
_ANY = (Proof.SIGNATURE, Proof.CERTIFICATE, Proof.BOTH)

FORMATS: Mapping[str, Format] = {
    row.name: row
    for row in (
        Format(
            "ragate",
            posted.read,
            ("application/json",),
            (Algorithm.ED25519,),
            _ANY,
            True,
            "Ed25519 over the exact bytes, or the client certificate, or both; source name, expiry, nonce",
            "pass or fail any device of this source until the key is removed",
        ),
        Format(
            "ear-jwt",
            ear_jwt.read,
            ("application/eat+jwt", "application/jwt"),
            _JOSE,
            _SIGNED,
            True,
            "JWS by a configured key of the configured algorithm; profile, iat, exp, nbf, tier against vector",
            "pass or fail any device of this source until the key is removed",
            ear.SUBJECTS,
        ),
        Format(
            "ear-cwt",
            ear_cwt.read,
            ("application/eat+cwt", "application/cwt"),
            _JOSE,
            _SIGNED,
            True,
            "COSE_Sign1 by a configured key of the configured algorithm; the same claims",
            "pass or fail any device of this source until the key is removed",
            ear.SUBJECTS,
        ),
        Format(
            "keylime",
            keylime.read,
            ("application/json",),
            (Algorithm.KEYLIME,),
            _SIGNED,
            False,
            "RSA-PSS by the agent's revocation key over the message; event time",
            "cut the agents of that key, never admit one",
            zoned=True,
        ),
        Format(
            "keylime-status",
            keylime_status.read,
            ("application/json",),
            (Algorithm.ED25519,),
            (Proof.CERTIFICATE, Proof.SIGNATURE, Proof.BOTH),
            True,
            "the poster's client certificate, Ed25519 over the exact bytes, or both; time of the last good quote",
            "pass or fail any device of this source until certificate or key is removed",
        ),
    )
}
