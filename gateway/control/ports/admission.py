"""Where doors hand in what they received, and what judges it."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.core.errors import JournalError, Refusal
from gateway.core.model import (
    DeviceId,
    Envelope,
    Hint,
    Record,
    Rejected,
    SourceName,
    Statement,
    Transition,
    Verdict,
)


class Authenticator(Protocol):
    """One source's pure authentication (``gateway.sediment.authenticate`` is one).

    Takes the envelope and the device's record of this source (``None``: unknown device) by look-up; returns a
    verdict, a hint where the source is one of hints, or the refusal. Never raises for any bytes.
    """

    def authenticate(
        self, envelope: Envelope, record_of: Callable[[DeviceId], Record | None]
    ) -> Verdict | Hint | Rejected:
        """Judge one envelope at ``envelope.received``."""
        ...


class Opener(Protocol):
    """One source's pure authentication where one document may say something of many devices
    (``gateway.verdicts.VerdictAuthenticator`` is one). Never raises for any bytes.
    """

    def open(self, envelope: Envelope) -> Sequence[Statement] | Rejected:
        """Authenticate a whole document: what it says, or why it is refused."""
        ...

    def appraise(
        self, statement: Statement, envelope: Envelope, record_of: Callable[[DeviceId], Record | None]
    ) -> Verdict | Rejected:
        """Judge one statement against the device's record as the statement before has left it."""
        ...


class Item(Protocol):
    """What became of one statement. ``result`` is None until it was judged; ``seq`` its row in the journal."""

    @property
    def device(self) -> str:
        """As the document named it."""
        ...

    @property
    def result(self) -> Transition | Rejected | None:
        """The transition, or the refusal."""
        ...

    @property
    def seq(self) -> int:
        """Number of its row in the journal."""
        ...

    @property
    def milliseconds(self) -> float | None:
        """From receipt to verified at every target; None while that has not happened."""
        ...

    @property
    def failed(self) -> str:
        """Why a target could not enforce it, or ""."""
        ...


class Receipt(Protocol):
    """What becomes of one document that was presented. Dropping it changes nothing."""

    @property
    def refused(self) -> Rejected | None:
        """Why the whole document was refused, once it was."""
        ...

    @property
    def items(self) -> Sequence[Item]:
        """One for each statement, in the document's order; empty until the document was opened."""
        ...

    @property
    def durable(self) -> Future[JournalError | None]:
        """Done when everything about it is durable (None) or could not be made so now (the error)."""
        ...

    @property
    def enforced(self) -> Future[None]:
        """Done when every target has answered for every statement that was taken, if ``follow`` asked for it."""
        ...


class Presenting(Protocol):
    """Where doors hand in documents whose sender waits for an answer."""

    @property
    def full(self) -> bool:
        """Whether doors should ask senders to come back later."""
        ...

    def present(self, envelope: Envelope, *, follow: bool = False) -> Receipt:
        """Take one document. ``follow``: its enforcement is of interest, too."""
        ...

    def refuse(self, source: SourceName, refusal: Refusal, detail: str, peer: str) -> None:
        """Count what a door refused by itself."""
        ...

    def when_ready(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once, on the loop, as soon as ``full`` is false again."""
        ...


class Admission(Protocol):
    """Where doors hand in what they received. Nothing handed in is ever dropped."""

    @property
    def full(self) -> bool:
        """Whether doors should stop accepting; the kernel then keeps the bytes."""
        ...

    def submit(self, envelope: Envelope) -> None:
        """Take one complete message. Always takes it, even when ``full``."""
        ...

    def refuse(self, source: SourceName, refusal: Refusal, detail: str, peer: str) -> None:
        """Count what a door refused by itself (peer, limit, timeout, framing, kind)."""
        ...

    def when_ready(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once, on the loop, as soon as ``full`` is false again."""
        ...
