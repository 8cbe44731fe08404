"""The memory: what is kept, what it remembers at a start, and questions to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from gateway.control.ports.facts import Answered
from gateway.core.errors import JournalError
from gateway.core.model import DeviceId, Record, Rejected, SourceName, Transition
from gateway.core.policy import Override


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

    def enforced(self, outcomes: Sequence[Answered]) -> None:
        """Add each outcome to its row with a later commit group; nobody waits for it. 0: a row of its own."""
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
