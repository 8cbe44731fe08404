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
    one whose ``until`` has passed says that there is none any more. ``until_boot``: ``CLOCK_BOOTTIME`` seconds at
    which the deadline of what is left comes (None: as far from the commit as the wall clock then says).
    """

    fact: Transition | Rejected | Mapping[str, Any]
    record: Record | Override | None = None
    until_boot: float | None = None


class Running(NamedTuple):
    """An override as the journal remembers it. ``left``: seconds it still had at the commit that left it;
    ``until_boot``: boot seconds at which it ends, None where it was left in another boot."""

    override: Override
    left: float
    until_boot: float | None = None

    def left_at(self, boot: float) -> float:
        """Seconds that it may have at ``boot`` (boot seconds) at most; see ``Loaded.left_at``."""
        return _left_at(self.left, self.until_boot, boot)


_NO_OVERRIDES: Mapping[DeviceId, Running] = {}
_NO_ENDS: Mapping[tuple[DeviceId, SourceName], float] = {}


class Loaded(NamedTuple):
    """What the journal remembers at start.

    ``highest_wall`` UNIX seconds, the highest wall time ever committed (0.0: new journal); ``clean`` whether the
    last stop was orderly; ``boot_id`` of the boot in which it last wrote; ``remaining`` seconds of validity left
    per (device, source) at the last commit of that record (never more may be left now); ``overrides`` the newest
    of each device that had one, also where it has ended since; ``until_boot`` boot seconds at which the deadline
    of a (device, source) comes, for records that were left in this same boot.
    """

    records: Mapping[tuple[DeviceId, SourceName], Record]
    remaining: Mapping[tuple[DeviceId, SourceName], float]
    highest_wall: float
    clean: bool
    boot_id: str
    overrides: Mapping[DeviceId, Running] = _NO_OVERRIDES
    until_boot: Mapping[tuple[DeviceId, SourceName], float] = _NO_ENDS

    def left_at(self, device: DeviceId, source: SourceName, boot: float) -> float:
        """Seconds that a record's deadline may be away at ``boot`` (boot seconds) at most; never below 0.

        What has passed since its commit is known in the same boot alone: no wall clock is asked.
        """
        key = (device, source)
        return _left_at(self.remaining.get(key, 0.0), self.until_boot.get(key), boot)


def _left_at(left: float, until_boot: float | None, boot: float) -> float:
    if until_boot is not None and until_boot - boot < left:
        left = until_boot - boot
    return max(left, 0.0)


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
