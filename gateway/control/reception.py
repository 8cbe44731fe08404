"""What doors for posted documents share: who speaks, how often, and what the answer is. No sockets, no bytes
judged.

A document posted twice, with the same proof, is one document: the second time it gets the first one's answer. That
memory is bounded and does not survive a restart; what was accepted before it is then refused as a replay, by
content.
"""

from __future__ import annotations

import asyncio
import hashlib
import marshal
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import NamedTuple

from gateway.control.ports import Clock, Item, Presenting, Receipt
from gateway.core.errors import Refusal
from gateway.core.model import Effect, Envelope, Instant, Presented, Rejected, SourceName, Standing, Transition

WAIT_SECONDS = 30.0
"""A sender waits this long for the disk, and for the targets if it asked for them; milliseconds are the rule."""

REMEMBERED = 65_536
"""Statements whose answers are kept for senders that ask again: 4 MiB in documents of 32, of one each 26 MiB."""

REMEMBERED_SECONDS = 600.0
"""A sender that has not heard an answer for this long will not ask for it again."""

JOURNAL_RETRY = 5.0
BUSY_RETRY = 1.0
"""Seconds after which a sender should try again: a disk takes its time, a queue drains 10,000 a second."""


DEVICE = 64  #: characters that an answer repeats of a device's name

# Read for every verdict: a name made from its member costs five times as much.
_LABELS = {standing: standing.label for standing in Standing}
_EFFECTS = {effect: effect.value for effect in Effect}


class Identity(NamedTuple):
    """A verified client certificate: SHA-256 of its DER in hex, its names as ``dns:NAME`` and ``uri:URI``, and the
    UNIX time at which it ends."""

    fingerprint: str
    names: tuple[str, ...]
    not_after: float


@dataclass(frozen=True, slots=True)
class Sender:
    """One source as doors know it. ``certificates``: ``sha256:HEX``, ``dns:NAME`` or ``uri:URI`` of its clients.

    ``rate``: statements a second that it may post for long; ``burst``: at once.
    """

    name: SourceName
    media_types: tuple[str, ...]
    certificates: tuple[str, ...] = ()
    rate: float = 20_000.0
    burst: float = 20_000.0


class Submission(NamedTuple):
    """One document as a door received it."""

    data: bytes
    peer: str
    received: Instant
    source: str = ""  # as claimed; "": whoever the certificate says
    identity: Identity | None = None
    key_id: str = ""
    signature: bytes = b""
    media_type: str = ""  # "": not said
    wait: bool = False  # answer when enforced, not when durable


class Result(NamedTuple):
    """What became of one statement. ``step`` and ``detail`` are "" unless it was refused."""

    device: str
    accepted: bool
    step: str = ""
    detail: str = ""
    standing: str = ""  # of the device in this source, after it
    effect: str = ""
    why: str = ""
    journal: int = 0
    milliseconds: float | None = None
    failed: str = ""


_Row = tuple[str, bool, str, str, str, str, str, int, float | None, str]
"""A ``Result`` as a plain tuple."""

_ACCEPTED = itemgetter(1)
_FAILED = itemgetter(9)


class Answer(NamedTuple):
    """A document that was taken, in whole or in part. ``verified``: at every target, for everything taken."""

    receipt: str
    source: SourceName
    results: tuple[Result, ...]
    verified: bool


class Denied(NamedTuple):
    """A document of which nothing was taken. ``retry``: seconds after which trying again may help; 0: it will
    not."""

    step: Refusal
    detail: str
    retry: float = 0.0
    results: tuple[Result, ...] = ()


class _Bucket:
    """Statements that a source may still post. It is charged afterwards, so it can be in debt."""

    def __init__(self, sender: Sender, now: float) -> None:
        self._rate, self._burst = sender.rate, sender.burst
        self._left, self._at = sender.burst, now

    def wait(self, now: float) -> float:
        """Seconds until the debt is paid; 0: go on."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        return 0.0 if self._left > 0 else max(-self._left / self._rate, 0.001)

    def charge(self, number: int) -> None:
        """Take what was posted."""
        self._left -= number


class _Known:
    """A document that was presented: on its way, or answered."""

    __slots__ = ("_answer", "receipt", "rows", "size", "until")

    def __init__(self, receipt: Receipt, until: float) -> None:
        self.receipt: Receipt | None = receipt
        self._answer = b""
        self.rows: list[_Row] = []  # once it is durable
        self.until = until
        self.size = 1

    def keep(self, name: str, source: SourceName, rows: list[_Row], *, verified: bool) -> None:
        """Keep the answer instead of the receipt, as one piece: as many small objects that live
        for minutes would spread over all memory whatever is made for the next document."""
        self._answer, self.receipt, self.rows = marshal.dumps((name, source, rows, verified)), None, []

    @property
    def answer(self) -> Answer | None:
        """The answer that was kept; None while the document is on its way."""
        if not self._answer:
            return None
        name, source, results, verified = marshal.loads(self._answer)  # noqa: S302 - nobody else's bytes
        return Answer(name, source, tuple(map(Result._make, results)), verified)


class Reception:
    """Takes submissions for the doors. ``seconds``: how long a sender is kept waiting for durability or
    enforcement."""

    def __init__(
        self, senders: Iterable[Sender], admission: Presenting, clock: Clock, seconds: float = WAIT_SECONDS
    ) -> None:
        self._senders = {sender.name: sender for sender in senders}
        self._admission = admission
        self._clock = clock
        self._seconds = seconds
        now = clock.now().boot
        self._buckets = {name: _Bucket(sender, now) for name, sender in self._senders.items()}
        self._certificates: dict[str, set[SourceName]] = {}
        for sender in self._senders.values():
            for name in sender.certificates:
                self._certificates.setdefault(name, set()).add(sender.name)
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._size = 0

    @property
    def remembered(self) -> int:
        """Statements whose answers are kept."""
        return self._size

    @property
    def full(self) -> bool:
        """Whether senders are asked to come back later."""
        return self._admission.full

    async def room(self) -> None:
        """Wait until the admission takes more: for doors that can leave bytes with the sender's own host."""
        while self._admission.full:
            woken = asyncio.Event()
            self._admission.when_ready(woken.set)
            await woken.wait()

    def turned_away(self, step: Refusal, detail: str, peer: str) -> None:
        """Count what a door refused before anybody could say which source it was."""
        self._admission.refuse(SourceName("unassigned"), step, detail, peer)

    async def receive(self, submission: Submission) -> Answer | Denied:
        """Take one document and wait for what becomes of it. May be cancelled: the document stays taken."""
        # 1 source
        found = self._source(submission)
        if isinstance(found, Denied):
            self.turned_away(found.step, found.detail, submission.peer)
            return found
        sender, certificate = found
        denied = self._fits(sender, submission)
        if denied is not None:
            self._admission.refuse(sender.name, denied.step, denied.detail, submission.peer)
            return denied
        presented = Presented(certificate, submission.key_id, submission.signature)
        digest = _digest(sender.name, submission.data, presented)
        known = self._recall(digest)
        if known is None:
            denied = self._pressed(sender)
            if denied is not None:
                self._admission.refuse(sender.name, denied.step, denied.detail, submission.peer)
                return denied
            envelope = Envelope(submission.data, sender.name, submission.peer, submission.received, presented)
            known = self._remember(digest, self._admission.present(envelope, follow=True), sender.name)
        if (answer := known.answer) is not None:
            return answer
        return await self._follow(known, digest, sender.name, wait=submission.wait)

    # --- before anything is taken -----------------------------------------------------------------------

    def _source(  # noqa: PLR0911 - one return for each thing that can be wrong
        self, submission: Submission
    ) -> tuple[Sender, bool] | Denied:
        """Exactly one source: the certificate's, or the claimed one. They must not differ."""
        identity = submission.identity
        of_certificate: set[SourceName] = set()
        if identity is not None:
            if identity.not_after <= submission.received.wall:
                return Denied(Refusal.SOURCE, "the client certificate has ended since the connection was made")
            for name in (f"sha256:{identity.fingerprint}", *identity.names):
                of_certificate |= self._certificates.get(name, set())
        if len(of_certificate) > 1:
            return Denied(Refusal.SOURCE, "the client certificate is that of several sources; give each its own")
        if not submission.source:
            if not of_certificate:
                what = "no source is named, and the client certificate is none's; name the source"
                return Denied(Refusal.SOURCE, what)
            return self._senders[next(iter(of_certificate))], True
        sender = self._senders.get(SourceName(submission.source))
        if sender is None:
            return Denied(Refusal.SOURCE, "no such source posts here")
        if of_certificate and sender.name not in of_certificate:
            return Denied(Refusal.SOURCE, "the client certificate is another source's")
        return sender, bool(of_certificate)

    @staticmethod
    def _fits(sender: Sender, submission: Submission) -> Denied | None:
        if submission.media_type and submission.media_type not in sender.media_types:
            what = f"this source posts {' or '.join(sender.media_types)}"
            return Denied(Refusal.KIND, what)
        return None

    def _pressed(self, sender: Sender) -> Denied | None:
        if self._admission.full:
            return Denied(Refusal.LIMIT, "more waits than is judged; come back later", BUSY_RETRY)
        wait = self._buckets[sender.name].wait(self._clock.now().boot)
        if wait:
            return Denied(Refusal.LIMIT, f"this source may post {sender.rate:g} verdicts a second", wait)
        return None

    # --- memory -----------------------------------------------------------------------------------------

    def _recall(self, digest: bytes) -> _Known | None:
        now = self._clock.now().boot
        while self._known:
            oldest = next(iter(self._known.values()))
            if oldest.until > now and self._size <= REMEMBERED:
                break
            self._forget(next(iter(self._known)))
        return self._known.get(digest)

    def _remember(self, digest: bytes, receipt: Receipt, source: SourceName) -> _Known:
        known = self._known[digest] = _Known(receipt, self._clock.now().boot + REMEMBERED_SECONDS)
        self._size += known.size

        def charge(_: object) -> None:
            # Also when the sender has left by now.
            known.rows = list(map(_row, receipt.items))
            number = max(1, len(receipt.items))
            self._buckets[source].charge(number)
            if self._known.get(digest) is known:
                self._size += number - known.size
            known.size = number

        def shorten(_: object) -> None:
            # A kept answer is a small part of its receipt, and most senders do not wait for this moment.
            if self._known.get(digest) is not known:
                return
            rows = list(map(_enforced, known.rows, receipt.items))
            if receipt.durable.result() is not None or not any(map(_ACCEPTED, rows)):
                self._forget(digest)
            else:
                known.keep(receipt_id(digest), source, rows, verified=_verified(receipt, rows))

        receipt.durable.add_done_callback(charge)
        receipt.enforced.add_done_callback(shorten)
        return known

    def _forget(self, digest: bytes) -> None:
        known = self._known.pop(digest, None)
        if known is not None:
            self._size -= known.size

    # --- what becomes of it -----------------------------------------------------------------------------

    async def _follow(self, known: _Known, digest: bytes, source: SourceName, *, wait: bool) -> Answer | Denied:
        receipt = known.receipt
        assert receipt is not None
        until = self._clock.now().boot + self._seconds
        done, _ = await asyncio.wait((receipt.durable,), timeout=self._seconds)
        if not done:
            return Denied(Refusal.DEGRADED, "not durable yet; ask again with the same bytes", BUSY_RETRY)
        error = receipt.durable.result()
        # Those of ``charge``, unless it was enforced meanwhile.
        fresh = receipt.enforced.done() or not known.rows
        results = tuple(map(_result, map(_row, receipt.items) if fresh else known.rows))
        if receipt.refused is not None:
            self._forget(digest)
            return Denied(receipt.refused.refusal, receipt.refused.detail)
        if not any(map(_ACCEPTED, results)):
            self._forget(digest)
            first = next(item.result for item in receipt.items if isinstance(item.result, Rejected))
            retry = JOURNAL_RETRY if first.refusal is Refusal.DEGRADED else 0.0
            return Denied(first.refusal, first.detail, retry, results)
        if error is not None:
            self._forget(digest)
            what = "the journal cannot be written: what lowers acts already, what raises was not taken"
            return Denied(Refusal.DEGRADED, what, JOURNAL_RETRY, results)
        if wait and not receipt.enforced.done():
            left = max(0.0, until - self._clock.now().boot)
            await asyncio.wait((receipt.enforced,), timeout=left)
            results = tuple(map(_waited, receipt.items))
        return _answer(receipt, digest, source, results)


def _waited(item: Item) -> Result:
    """As ``_result``, for a sender that has waited long enough: it is told whom for."""
    result = _result(_row(item))
    if not item.pending:
        return result
    overdue = f"{', '.join(item.pending)}: pending, nothing read back yet"
    return result._replace(failed=f"{result.failed}; {overdue}" if result.failed else overdue)


def _answer(receipt: Receipt, digest: bytes, source: SourceName, results: tuple[Result, ...]) -> Answer:
    return Answer(receipt_id(digest), source, results, _verified(receipt, results))


def _verified(receipt: Receipt, rows: Sequence[_Row]) -> bool:
    """Whether everything taken was read back at every target."""
    if not receipt.enforced.done() or any(map(_FAILED, rows)):
        return False
    return None not in [row[8] for row in rows if row[1]]


def receipt_id(digest: bytes) -> str:
    """A document's receipt: made of its content, so that posting it again gives the same one."""
    return f"r-{digest[:16].hex()}"


def _digest(source: SourceName, data: bytes, presented: Presented) -> bytes:
    """What makes two submissions one: source, bytes and proof; each part with its length, so that none runs
    over."""
    made = hashlib.sha256()
    for part in (
        source.encode(),
        b"certificate" if presented.certificate else b"",
        presented.key_id.encode("utf-8", "surrogatepass"),
        presented.signature,
        data,
    ):
        made.update(len(part).to_bytes(8, "big"))
        made.update(part)
    return made.digest()


# ``Result(*row)`` costs twice as much, and this is made for every verdict.
_result: Callable[[_Row], Result] = partial(tuple.__new__, Result)


def _enforced(row: _Row, item: Item) -> _Row:
    """A row that was made when the statement became durable, with what has come of it since."""
    return (*row[:8], item.milliseconds, item.failed)


def _row(item: Item) -> _Row:
    """What a ``Result`` is made of."""
    result = item.result
    if isinstance(result, Transition):
        return (
            item.device,
            True,
            "",
            "",
            _LABELS[result.after.standing],
            _EFFECTS[result.effect],
            result.why,
            item.seq,
            item.milliseconds,
            item.failed,
        )
    # Whoever sent it wrote the id, and the inventory need not know it.
    device = item.device.encode("ascii", "backslashreplace").decode("ascii")[:DEVICE]
    if result is None:
        return (device, False, "", "", "", "", "", 0, None, "")
    return (device, False, result.refusal.value, result.detail, "", "", "", item.seq, None, "")
