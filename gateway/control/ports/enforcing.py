"""The hands: path gates, layers that never admit, and what they showed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, Self

from gateway.core.model import Address, Change, ChangeOutcome, Device, Stands
from gateway.kubearmor.documents import Document
from gateway.kubearmor.render import Rendering


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
