"""The ports between the clockwork and the rooms around it.

Every method that is not ``async`` returns at once and is called on the event loop's thread; callbacks come back
on that thread too. Implementations live in their own rooms; fakes of each live in ``tests/fakes`` and pass the
same contract suites.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

from gateway.core.errors import JournalError, Refusal
from gateway.core.model import (
    Address,
    Change,
    ChangeOutcome,
    Decision,
    Device,
    DeviceId,
    Enforced,
    Envelope,
    Event,
    Hint,
    Instant,
    Record,
    Rejected,
    Rule,
    SourceName,
    Standing,
    Stands,
    Statement,
    Transition,
    Verdict,
)
from gateway.core.policy import Book, Override
from gateway.kubearmor.documents import Document
from gateway.kubearmor.render import Rendering


class Clock(Protocol):
    """Tells both times."""

    def now(self) -> Instant:
        """The present moment on the wall clock and on the boot-time clock."""
        ...


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


class Confirmed(NamedTuple):
    """What a verifier's own memory says of the device at an address: when (UNIX seconds), and whether it was
    good."""

    at: int
    good: bool | None


class Verifier(Protocol):
    """A verifier that can be asked. Every wait has a limit of its own."""

    def check(self, device: DeviceId) -> None:
        """Raise ``SourceError`` when this device cannot be asked for, whatever the verifier does."""
        ...

    def address_of(self, claim: str) -> str:
        """The address that a verdict's claim would be asked about; "": none."""
        ...

    async def attest(self, device: DeviceId) -> None:
        """Ask it to have a device attest again. Raises ``SourceError``."""
        ...

    async def confirm(self, address: str) -> Confirmed | None:
        """Ask about the last attestation from an address; None: it knows of none. Raises ``SourceError``."""
        ...


class Showing(NamedTuple):
    """What a layer that never admits showed of one part: ``found`` or not (None: it could not be read); words."""

    found: bool | None
    words: str


class Proof(NamedTuple):
    """What a target showed when it was asked. ``at``: boot seconds of this host's clock at which it had been read;
    ``elements``: for each address, what was found of it as the target's own tools name it (empty: nothing);
    ``layers``: what KubeArmor on that host showed, by part."""

    at: float
    stands: Mapping[Address, Stands]
    elements: Mapping[Address, Sequence[str]]
    layers: Mapping[str, Showing]


LayerProof = Callable[[Sequence[Address]], Awaitable[Mapping[str, Showing]]]
"""Has a layer that never admits show at this moment, by part, our policies and each of these addresses. Bounded in
time; never raises ``BackendError``."""


class Backend(Protocol):
    """One way of enforcing at one target: a path gate.

    Promises of every implementation, checked by ``tests/contract/test_backend.py``:

    * ``cut`` never waits behind ``apply``: it has a lane of its own;
    * one outcome per change, in order; ``VERIFIED`` only when the state was read back after the change;
    * a batch that fails is taken again one transaction per change, so one bad change spoils no other;
    * every admission ends by itself at ``Change.until``, even when this process is dead; an ``until`` less than
      1 ms away admits nothing;
    * applying twice is applying once; a tombstone is removed only by ADMIT and FORGET;
    * raises only ``BackendError``, and then nothing is known about the batch.
    """

    @property
    def name(self) -> str:
        """``nft`` or ``relay``: the ``backend`` label of metrics."""
        ...

    async def start(self) -> bool:
        """Adopt what stands or lay the static baseline (default deny, corridor). True: state was found and
        kept; False: there was none (first start, reboot), everything begins shut. Raises ``ConfigError`` for
        what the operator has to mend, such as an address that is taken."""
        ...

    async def cut(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        """Take CUT, WITHDRAW and FORGET changes now, on the cut lane."""
        ...

    async def apply(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        """Take any changes, in order, on the ordinary lane."""
        ...

    async def observe(self, addresses: Sequence[Address]) -> Mapping[Address, Stands]:
        """Read back these addresses, one by one."""
        ...

    async def prove(self, addresses: Sequence[Address]) -> Proof:
        """Read these addresses back as ``observe`` does, and name what was found. Raises ``BackendError``."""
        ...

    def damages(self) -> AsyncIterator[str]:
        """Yield a sentence each time the static part was found damaged and has been laid again (shut, empty):
        the clockwork then resynchronises every element; and a ``Strayed`` when somebody else changed elements.
        Never ends by itself."""
        ...

    async def stop(self) -> None:
        """Release sockets and threads; leave enforcement with its ends in place."""
        ...


class Resync(str):
    """A sentence among a backend's damages that tells of no damage: what stands is not known any more (a link was
    lost and is there again), so it is read back and brought to what is wanted."""

    __slots__ = ()


class Strayed(str):
    """A sentence among a backend's damages that tells of elements which others may have changed: ``addresses`` are
    to be looked at, and every other as well if ``everything``. The static part stands."""

    __slots__ = ("addresses", "everything")

    addresses: frozenset[Address]
    everything: bool

    def __new__(cls, sentence: str, addresses: Iterable[Address] = (), *, everything: bool = False) -> Self:
        made = super().__new__(cls, sentence)
        made.addresses = frozenset(addresses)
        made.everything = everything
        return made


class Contact(Protocol):
    """Whether a backend that is not of this process can be reached."""

    @property
    def why(self) -> str:
        """Why it cannot be reached; "" when it can."""
        ...

    async def reached(self) -> None:
        """Return as soon as it can be reached."""
        ...


class Advisory(Protocol):
    """A declarative, slower layer (KubeArmor) that never counts for admission and never delays the path gate."""

    @property
    def name(self) -> str:
        """The ``backend`` label of metrics, e.g. ``kubearmor``."""
        ...

    def declare(self, admitted: frozenset[Address]) -> None:
        """The newest truth: addresses admitted now. Newest wins; returns at once; paced inside."""
        ...

    def declare_documents(self, documents: Sequence[Document], absent: frozenset[str] = frozenset()) -> None:
        """The newest truth: the documents of profiles that stand now, judged as a whole. ``absent``: names of
        network documents that stand at other times. Newest wins; returns at once; paced inside."""
        ...

    def state(self) -> Mapping[str, str]:
        """What an operator should see: ``state`` (absent, connecting, accepted, failed …), ``detail``, …"""
        ...

    async def run(self) -> None:
        """Work until cancelled."""
        ...


class Renderer(Protocol):
    """Makes the documents of profiles; pure work, done beside the loop, in one thread at a time."""

    @property
    def documented(self) -> frozenset[str]:
        """The profiles of devices that have documents."""
        ...

    def move(self, device: Device, profile: str) -> None:
        """A device has this profile now."""
        ...

    def render(self, site: str) -> Rendering:
        """What stands now under a site profile, judged as a whole; what did not change is the same object. Raises
        ``DocumentRefused``, and then nothing is lost."""
        ...

    def networks(self, target: str) -> frozenset[str]:
        """The names of all network documents that may stand at a target at one time or another."""
        ...


class Entry(NamedTuple):
    """One journal row to be: a fact, and what it leaves behind (``None``: no state changed).

    A transition leaves the record of its (device, source). A mapping may leave a device's newest override instead;
    one whose ``until`` has passed says that there is none any more.
    """

    fact: Transition | Rejected | Mapping[str, Any]
    record: Record | Override | None = None


class Running(NamedTuple):
    """An override as the journal remembers it. ``left``: seconds it still had at the commit that left it."""

    override: Override
    left: float


_NO_OVERRIDES: Mapping[DeviceId, Running] = {}


class Loaded(NamedTuple):
    """What the journal remembers at start.

    ``highest_wall`` UNIX seconds, the highest wall time ever committed (0.0: new journal); ``clean`` whether the
    last stop was orderly; ``boot_id`` of the boot in which it last wrote; ``remaining`` seconds of validity left
    per (device, source) at the last commit of that record (never more may be left now); ``overrides`` the newest
    of each device that had one, also where it has ended since.
    """

    records: Mapping[tuple[DeviceId, SourceName], Record]
    remaining: Mapping[tuple[DeviceId, SourceName], float]
    highest_wall: float
    clean: bool
    boot_id: str
    overrides: Mapping[DeviceId, Running] = _NO_OVERRIDES


class Journal(Protocol):
    """The memory: durable facts in order, and the device records they leave."""

    def load(self) -> Loaded:
        """Read everything, once, before the doors open. Raises ``JournalError``."""
        ...

    @property
    def writable(self) -> bool:
        """Whether the last commit succeeded. False: raising verdicts are refused, lowering ones act."""
        ...

    @property
    def pending(self) -> int:
        """Entries handed in and not yet committed."""
        ...

    def record(
        self, entries: Sequence[Entry], done: Callable[[JournalError | None], None] | None = None
    ) -> Sequence[int]:
        """Queue entries as one unit for the next commit group; returns their sequence numbers at once.

        ``done(None)`` is called on the loop once they are durable, ``done(error)`` once if they could not be
        made so now (they are kept and tried again). Unauthenticated refusals are aggregated, not stored singly.
        """
        ...

    def enforced(self, seq: int, fact: Enforced) -> None:
        """Add the outcome to row ``seq`` with a later commit group; nobody waits for it. 0: a row of its own."""
        ...

    async def close(self) -> None:
        """Commit what is queued, mark the stop as clean, release the file."""
        ...


class History(Protocol):
    """Questions to the memory, answered off the loop's thread. Values are plain JSON-able types."""

    async def verdicts(self, device: DeviceId, limit: int) -> Sequence[Mapping[str, Any]]:
        """The newest rows of a device, newest first."""
        ...

    async def refusals(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """The newest aggregated refusals, newest first."""
        ...


class TargetState(NamedTuple):
    """What one target has of one device, as the clockwork last saw it."""

    target: str
    backend: str
    required: bool
    wanted: str  # profile
    state: str  # pending, accepted, verified, failed
    detail: str
    latest_end: float | None  # wall time at which an admission there ends by itself
    verified_at: float | None = None  # wall time of the newest read-back that showed what is wanted


class DeviceView(NamedTuple):
    """Everything a window shows of one device."""

    device: Device
    decision: Decision
    records: Mapping[SourceName, Record]
    lease_until: float | None  # wall time
    targets: Sequence[TargetState]
    last: Transition | None
    last_ms: float | None  # verdict -> verified of the last enforced verdict, milliseconds
    override: Override | None = None  # in force now
    held: Transition | None = None  # the operator's hold, where it is newer than this process
    replayable: Sequence[SourceName] = ()  # sources at whose verifier the device's old evidence can be replayed


class ReadBack(NamedTuple):
    """What a gate was asked for at one address, and what it answered just now.

    ``until`` and ``ends`` are UNIX seconds (None: nothing is admitted). ``trouble``: why it could not be read.
    """

    target: str
    backend: str
    address: Address
    wanted: str  # profile
    until: float | None
    stands: str  # profile, "" none
    ends: float | None
    tombstone: bool
    trouble: str = ""


class Explained(NamedTuple):
    """What an explanation rests on: the view, the book that judged, and each gate's own answer of this moment."""

    view: DeviceView
    book: Book
    shared: tuple[DeviceId, Standing] | None  # the device of lowest standing judged for one of its addresses
    standing: Standing  # its own, before that
    deadline: float | None  # UNIX seconds, likewise
    answers: Sequence[ReadBack]
    at: float  # UNIX seconds


class ProofLine(NamedTuple):
    """What was wanted of one target at one address, and what it showed. Times are UNIX seconds.

    ``result``: ``verified`` (what stands is what is wanted), ``not found`` (something is wanted, nothing stands),
    ``differs``, or ``cannot be read``; ``element`` says what was found, or why it could not be read. For a part of
    KubeArmor ``address`` and ``wanted`` are empty and ``part`` names it.
    """

    target: str
    backend: str
    part: str
    address: str
    wanted: str
    until: float | None
    result: str
    element: str
    read_at: float | None


class Proven(NamedTuple):
    """A device's view and the proof of it, asked for at ``at`` (UNIX seconds)."""

    view: DeviceView
    lines: Sequence[ProofLine]
    at: float


class Directory(Protocol):
    """Read access to the living state, for windows and operators."""

    def view(self, device: DeviceId) -> DeviceView | None:
        """One device, or None when the inventory does not list it."""
        ...

    def standing(self, device: DeviceId) -> Standing | None:
        """A device's effective standing alone, a hundredth of a view's work; None likewise."""
        ...

    def views(self) -> Iterable[DeviceView]:
        """All devices, in inventory order."""
        ...

    def counts(self) -> Mapping[str, int]:
        """Devices per effective standing label; every label is present."""
        ...


class Operator(Protocol):
    """What an operator may do. ``actor`` is the authenticated identity, ``reason`` is never empty."""

    def hold(self, device: DeviceId, actor: str, reason: str) -> Transition:
        """Hold a device. Raises ``KeyError`` when it is not in the inventory."""
        ...

    def release(self, device: DeviceId, actor: str, reason: str) -> Transition:
        """Release a held device to what lies beneath. Raises ``KeyError`` likewise."""
        ...


class Standings(Protocol):
    """What a relay of DATA asks. It never decides: it carries while the answer is yes, and stops when told."""

    def until(self, device: DeviceId, service: str) -> float:
        """Boot seconds until which ``device`` may reach ``service``; 0.0: it may not. Only what is durable."""
        ...

    def spend(self, device: DeviceId) -> bool:
        """Take one of the messages that the device's profile allows in a while. False: none is left now."""
        ...

    def wanted(self, device: DeviceId) -> bool:
        """Whether its verifier wants it to attest again and it may be told so now."""
        ...

    def asked(self, device: DeviceId) -> None:
        """It was told to attest again."""
        ...

    def follow(self, changed: Callable[[DeviceId], None]) -> None:
        """Call ``changed`` on the loop whenever the answer about a device may have become another, once it has."""
        ...


class StandingsFollower(Protocol):
    """What the single writer tells, device by device: what tightens at once, what loosens when it is durable."""

    def stands(self, device: DeviceId, rule: Rule | None) -> None:
        """A device's decision asks for ``rule`` (None: it is retired), and that is durable."""
        ...

    def tightens(self, device: DeviceId, rule: Rule | None) -> None:
        """A device's decision asks for no more than ``rule`` now; what it would add waits for ``stands``."""
        ...

    def happened(self, transition: Transition) -> None:
        """Something happened to a device."""
        ...


class Overridden(NamedTuple):
    """What came of an override or of its end: the profile before and after, until when (UNIX seconds), and why."""

    device: DeviceId
    before: str
    after: str
    until: float | None
    why: str


class Overriding(Protocol):
    """An operator's word for one device, with an end. ``actor`` and ``reason`` as for ``Operator``."""

    def override(self, device: DeviceId, profile: str, seconds: float, actor: str, reason: str) -> Overridden:
        """Give a device a profile for so long, in place of what the book gives to it when trusted, and as the
        most that it gets otherwise. Raises ``KeyError`` when it is not in the inventory, ``ValueError`` for a
        profile or time that is none, ``NotNow`` when it would admit more and nothing may be raised."""
        ...

    def end_override(self, device: DeviceId, actor: str, reason: str) -> Overridden:
        """End it early; without one nothing happens. Raises ``KeyError`` and ``NotNow`` likewise."""
        ...


class Usage(NamedTuple):
    """How much of this host is in use: shares from 0 to 1, None where it does not tell.

    ``number`` counts samples.
    """

    number: int
    cpu: float | None = None
    memory: float | None = None


class SiteNow(NamedTuple):
    """The site's profile that runs, since when (UNIX seconds), what was counted, and the rules looked at."""

    profile: str
    since: float
    counts: Mapping[str, int]
    chain: tuple[str, ...]
    alarms: Mapping[str, str]  # resources above their threshold, in words


class SiteProfiles(Protocol):
    """Who follows the site's profile: what stands on its hosts may depend on it."""

    @property
    def profile(self) -> str:
        """The name of the one that runs."""
        ...

    def watch(self, told: Callable[[str], None]) -> None:
        """Call ``told`` with the name, on the loop, each time another one begins to run."""
        ...


class Timed(Protocol):
    """What happens because time passes, beside deadlines. The clockwork drives it."""

    def next(self) -> float | None:
        """Boot seconds at which a turn is wanted; None: none in particular (there is one every quarter second)."""
        ...

    def turn(self, now: Instant) -> None:
        """Do what is due. The clockwork commits afterwards."""
        ...

    def jumped(self, now: Instant) -> None:
        """The wall clock jumped against the boot-time clock."""
        ...


class Health(NamedTuple):
    """One line of readiness: a part's name, whether it is ready, and what an operator should know."""

    part: str
    ready: bool
    detail: str


class Notice(NamedTuple):
    """A fact about the service itself (drift repaired, backend failed, journal unwritable, device withheld)."""

    # The closed list: drift, backend-error, journal, withheld, clock, backlog, conflict, late-failure, book,
    # bypass, agent, certificate, override, site, resources, asked, tls, alert, alerts, kubearmor.
    kind: str
    subject: str  # backend, queue or device concerned; a label only for backend and queue
    detail: str
    at: float  # UNIX seconds
    times: int = 1


Fact = Transition | Rejected | Enforced | Notice | Event


class Observer(Protocol):
    """Folds over facts (metrics, event streams, the terminal). Must not raise and must not decide."""

    def observe(self, fact: Fact) -> None:
        """Take one fact."""
        ...
