"""One configured origin of results: whose keys, what proof, how its devices are named. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from enum import Enum

from gateway.core.acceptance import Window
from gateway.core.model import SourceName
from gateway.verdicts.keys import Algorithm, Key


class Proof(Enum):
    """What must vouch for a document: its signature, the client certificate of the connection, or both."""

    SIGNATURE = "signature"
    CERTIFICATE = "certificate"
    BOTH = "both"

    @property
    def certificate(self) -> bool:
        """Whether a client certificate of this source is asked for."""
        return self is not Proof.SIGNATURE

    @property
    def signature(self) -> bool:
        """Whether a signature by a key of this source is asked for."""
        return self is not Proof.CERTIFICATE


STATEMENTS = 1_000
"""Statements in one document: at 30 us each they are judged in slices, and none keeps the loop."""


@dataclass(frozen=True, slots=True)
class VerdictSource:
    """One source that posts its results.

    ``keys``     its public keys, by id; ids mean nothing beyond this source.
    ``proof``    what must vouch for a document.
    ``subject``  where the format finds the device's name, for formats that leave it open.
    ``zone``     the clock of a verifier that writes local time without saying so.
    ``window``   seconds around our wall clock in which an issued-at is fresh.
    """

    name: SourceName
    keys: Mapping[str, Key]
    proof: Proof = Proof.SIGNATURE
    subject: str = ""
    zone: tzinfo = UTC
    window: Window = field(default_factory=Window)

    @property
    def algorithms(self) -> frozenset[Algorithm]:
        """What its keys are for."""
        return frozenset(key.algorithm for key in self.keys.values())
