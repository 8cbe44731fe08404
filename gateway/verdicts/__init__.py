"""Results of other verifiers, pure: strict JSON and CBOR, JWS and COSE, one module for each format, one table of
them.

What lives here: from the bytes of a posted document to verdicts or named refusals. What must not: sockets, files,
clocks, standings.
"""

from __future__ import annotations

from gateway.verdicts.authenticate import DOCUMENT, VerdictAuthenticator
from gateway.verdicts.formats import FORMATS, Format
from gateway.verdicts.keys import Algorithm, Key, load_key
from gateway.verdicts.posted import PostedVerdict, PostedVerdicts
from gateway.verdicts.source import STATEMENTS, Proof, VerdictSource

__all__ = [
    "DOCUMENT",
    "FORMATS",
    "STATEMENTS",
    "Algorithm",
    "Format",
    "Key",
    "PostedVerdict",
    "PostedVerdicts",
    "Proof",
    "VerdictAuthenticator",
    "VerdictSource",
    "load_key",
]
