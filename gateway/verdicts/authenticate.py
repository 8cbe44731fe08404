"""From a posted document to verdicts or refusals: the only code that makes verdicts of posted formats.

Pure: keys, marks and the time of receipt come in as arguments. The verification plan, numbered alike in the code
and in the formats' readers:

1. source      the bytes came as this source's, with the client certificate that it demands
2. format      they are exactly one document of the source's format, read strictly
3. algorithm   signed by an algorithm that one of the source's keys is for; a message's own word chooses nothing
4. key         the key it names is this source's
5. signature   ... and made the signature over the exact bytes
6. device      the inventory pairs the device with this source
7. freshness   the statement lies within the clock window, and has not expired
8. replay      it was not accepted before
9. order       it is newer than what was accepted before it and than the last failure
10. retired    a retired device is not raised

One document may say something of many devices: ``open`` takes steps 1 to 5 once, ``appraise`` steps 6 to 10 for
each statement, in order, against the record as the statement before has left it. After step 5 a statement is
authentic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.core.acceptance import weigh
from gateway.core.errors import InputRefused, Refusal
from gateway.core.model import DeviceId, Envelope, Outcome, Presented, Record, Rejected, Statement, Verdict
from gateway.verdicts.formats import Format
from gateway.verdicts.source import STATEMENTS, VerdictSource

DOCUMENT = 1 << 20  #: bytes of one document; a thousand verdicts of our own format have 200 KiB

# Asked for every statement; a member read from its Enum costs ten times as much.
_PASSED = Outcome.PASSED

_NOTHING = Presented()
_CLAIMED = 64  #: characters of a claimed device that a refusal repeats


class VerdictAuthenticator:
    """Authenticates the documents of one source."""

    __slots__ = ("_format", "_source")

    def __init__(self, source: VerdictSource, form: Format) -> None:
        self._source = source
        self._format = form

    def open(self, envelope: Envelope) -> Sequence[Statement] | Rejected:
        """Steps 1 to 5 for a whole document. Never raises for any bytes."""
        presented = envelope.presented or _NOTHING
        # 1 source
        if self._source.proof.certificate and not presented.certificate:
            return self._reject(envelope, Refusal.SOURCE, "this source is known by its client certificate, too")
        # 2 to 5
        if len(envelope.data) > DOCUMENT:
            return self._reject(envelope, Refusal.FORMAT, f"more than {DOCUMENT} bytes")
        try:
            statements = self._format.read(envelope.data, self._source, presented, envelope.received.wall)
        except InputRefused as refused:
            return self._reject(envelope, refused.refusal, refused.detail)
        if not 1 <= len(statements) <= STATEMENTS:
            return self._reject(envelope, Refusal.FORMAT, f"not 1 to {STATEMENTS} statements")
        return statements

    def appraise(
        self, statement: Statement, envelope: Envelope, record_of: Callable[[DeviceId], Record | None]
    ) -> Verdict | Rejected:
        """Steps 6 to 10 for one authentic statement."""
        device = DeviceId(statement.device)
        # 6 device
        record = record_of(device)
        if record is None:
            what = "the inventory of this source does not list it"
            return self._reject(envelope, Refusal.DEVICE, what, statement.device)
        now = envelope.received.wall
        outcome = statement.outcome
        if outcome is _PASSED:
            if not self._format.raises:
                return self._reject(envelope, Refusal.SOURCE, "this source only lowers", device, authentic=True)
            # 7 freshness: a pass whose validity is over says nothing of now
            if statement.valid_until is not None and statement.valid_until <= now:
                what = f"expired {now - statement.valid_until:.0f} s ago"
                return self._reject(envelope, Refusal.FRESHNESS, what, device, authentic=True)
        # 7 to 10
        timeliness, refusal = weigh(outcome, statement.issued_at, statement.nonce, record, now, self._source.window)
        if refusal is not None:
            return self._reject(envelope, *refusal, device, authentic=True)
        return Verdict(
            device,
            self._source.name,
            outcome,
            statement.issued_at,
            timeliness,
            statement.nonce,
            statement.reason,
            "",
            statement.valid_until,
            statement.tier,
        )

    def authenticate(
        self, envelope: Envelope, record_of: Callable[[DeviceId], Record | None]
    ) -> Verdict | Rejected:
        """All steps for a document with exactly one statement. Never raises for any bytes."""
        statements = self.open(envelope)
        if isinstance(statements, Rejected):
            return statements
        if len(statements) != 1:
            return self._reject(envelope, Refusal.FORMAT, "several statements where one is taken")
        return self.appraise(statements[0], envelope, record_of)

    def _reject(
        self, envelope: Envelope, refusal: Refusal, detail: str, device: str = "", *, authentic: bool = False
    ) -> Rejected:
        claimed = device.encode("ascii", "backslashreplace").decode("ascii")[:_CLAIMED]
        return Rejected(
            self._source.name, refusal, detail, envelope.peer, envelope.received.wall, claimed, authentic
        )
