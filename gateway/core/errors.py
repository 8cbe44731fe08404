"""The declared errors, split by who must act.

``InputRefused``   the peer sent something we do not accept; count it and go on.
``ConfigError``    the operator wrote something wrong; say where and what to write instead; exit 2.
``LifecycleError`` an event the table does not know: a bug, the process stops.
``BackendError``   a way of enforcing failed; ``transient`` tells whether trying again may help.
``SourceError``    a verifier could not be asked; whoever wanted to know is told, standings stay.
``JournalError``   the memory cannot be read or written; admissions stop, cuts go on.
``NotNow``         an operator's act has to wait until something may be raised again; told to the operator.

Anything else that escapes is a bug and ends the process; enforcement with its deadlines outlives it.
"""

from __future__ import annotations

from enum import Enum


class Refusal(Enum):
    """Why input was refused: a closed list, used as metric label and journal word."""

    PEER = "peer"  # the door does not take connections from this address
    LIMIT = "limit"  # a connection limit was reached
    TIMEOUT = "timeout"  # no complete frame in time
    FRAMING = "framing"  # no SEDIMENT frame, too long, or cut short
    KIND = "kind"  # a SEDIMENT message that this door does not take
    LENGTHS = "lengths"  # an inner length or value is not exactly what the format allows
    SOURCE = "source"  # nobody could say whose rules judge these bytes, or its proof of identity was not presented
    FORMAT = "format"  # not exactly one document of the source's format
    ALGORITHM = "algorithm"  # signed by an algorithm that the source's key is not for
    KEY = "key"  # the key it names is none of this source's
    DEVICE = "device"  # not in the inventory of this source
    HMAC = "hmac"
    SIGNATURE = "signature"
    VERIFIER = "verifier"  # signed by the right key under another verifier's name
    FRESHNESS = "freshness"
    REPLAY = "replay"
    ORDER = "order"
    RETIRED = "retired"
    BINDING = "binding"  # a hint that no anchored binding of the device backs
    RATE = "rate"  # more hints of one source, or about one device, than are taken in a minute
    DEGRADED = "degraded"  # the journal cannot be written: raising is refused, lowering still acts

    __hash__ = object.__hash__  # members are singletons; the library's own hash costs a Python call each time


class RagateError(Exception):
    """Root of every declared error."""


class InputRefused(RagateError):
    """Bytes from a peer were not accepted.

    ``refusal`` is the closed name that metrics and journal use; the text says what was wrong, never more than
    a bounded excerpt of the peer's own bytes.
    """

    def __init__(self, refusal: Refusal, detail: str) -> None:
        super().__init__(f"{refusal.value}: {detail}")
        self.refusal = refusal
        self.detail = detail


class ConfigError(RagateError):
    """A configuration, inventory or book that cannot be used.

    The message is ``file:line:column: what is wrong; what to write instead``.
    """

    def __init__(self, where: str, what: str, mend: str = "") -> None:
        super().__init__(f"{where}: {what}" + (f"; {mend}" if mend else ""))
        self.where = where
        self.what = what
        self.mend = mend


class LifecycleError(RagateError):
    """A (standing, event) pair that the lifecycle table does not list. Nothing was changed."""


class BackendError(RagateError):
    """A backend could not observe or apply. ``transient`` means that trying again may help."""

    def __init__(self, backend: str, what: str, *, transient: bool) -> None:
        super().__init__(f"{backend}: {what}")
        self.backend = backend
        self.what = what
        self.transient = transient


class SourceError(RagateError):
    """A verifier could not be asked, or did not answer as it should."""

    def __init__(self, source: str, what: str) -> None:
        super().__init__(f"{source}: {what}" if source else what)
        self.source = source
        self.what = what


class Unreached(BackendError):
    """The link to a backend was lost, or is not there: nothing is known of what was asked, and nothing failed."""

    def __init__(self, backend: str, what: str) -> None:
        super().__init__(backend, what, transient=True)


class JournalError(RagateError):
    """The journal could not be opened, read or written."""


class NotNow(RagateError):
    """An act that would admit more, while nothing may be raised; the text says why."""
