"""What windows read of the living state, and what operators may do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from gateway.core.model import Address, Decision, Device, DeviceId, Record, SourceName, Standing, Transition
from gateway.core.policy import Book, Override


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


class Health(NamedTuple):
    """One line of readiness: a part's name, whether it is ready, and what an operator should know."""

    part: str
    ready: bool
    detail: str
