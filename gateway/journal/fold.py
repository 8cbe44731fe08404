"""Bringing the table of devices up to date with the rows behind it, a slice at a time. One thread at a time.

Why state is folded: the state of a verdict's device stands beside its fact, at the end of the file. Writing it into
the table of devices at once would dirty one random page per verdict, and dearer ones the more devices there are.
So ``devices`` is brought up to date later, in key order and in small slices, when many of its rows share a page;
``meta.folded`` is the newest row that it knows, and loading replays the rows behind that.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from gateway.journal.rows import checksum
from gateway.journal.schema import PAGE_SIZE
from gateway.journal.statements import DEVICES, set_values

FOLD_AFTER = 32_768
"""(device, source) pairs with newer rows than ``devices`` knows, at which a fold begins. Replaying that many at
the next start takes about 0.2 s."""

REPLAYED = 65_536
"""Sequence numbers behind ``folded`` at which a fold begins however few devices they concern."""

SORTED_RUN = 1_024
"""Keys sorted at a time."""

FOLD_SLICE = 256
"""Pairs folded in one transaction: about a millisecond."""

Key = tuple[str, str]


class Tail(NamedTuple):
    """A pair's newest row, and the newest one that left a record (0: none), where ``devices`` may not know them."""

    last: int
    rec: int


class Fold:
    """Which pairs have rows that ``devices`` does not know, and the fold under way.

    ``tails`` and ``sweep``: those pairs, without and within the fold under way; for looking up alone.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self.tails: dict[Key, Tail] = {}
        self.sweep: dict[Key, Tail] = {}
        self._fresh: list[Key] = []
        self._runs: list[list[Key]] = []
        self._order: Iterator[Key] = iter(())
        self._ahead: list[Key] = []
        self._left = 0
        self._upto = 0

    def begin(self, folded: int) -> None:
        """The file has just been opened; ``devices`` knows every row up to this one."""
        self._upto = folded

    def due(self, newest: int) -> bool:
        """Whether enough rows have come, ``newest`` the last of them, to make a fold worth while, or the next start
        slow."""
        return not self._left and (
            len(self.tails) >= FOLD_AFTER or (newest - self._upto >= REPLAYED and bool(self.tails))
        )

    @property
    def under_way(self) -> bool:
        """Whether a fold is under way."""
        return self._left > 0

    def start(self, newest: int) -> None:
        """Begin to bring ``devices`` up to date with every row so far, up to ``newest``."""
        if self._left or not self.tails:
            return
        runs, self._runs, self._fresh = [*self._runs, sorted(self._fresh)], [], []
        self.sweep, self.tails = self.tails, {}
        self._order = heapq.merge(*runs)
        self._left = len(self.sweep)
        self._upto = newest

    def note(self, tails: Mapping[Key, Tail]) -> None:
        """Remember newest rows. New keys are sorted in small runs and merged later: sorting all of them at once
        would hold the interpreter, and with it the loop, for tens of milliseconds."""
        self._fresh += [key for key in tails if key not in self.tails]
        self.tails.update(tails)
        if len(self._fresh) >= SORTED_RUN:
            self._runs.append(sorted(self._fresh))
            self._fresh = []

    def slice(self) -> Sequence[Key]:
        """The pairs that are next; the same until ``done`` was told of them."""
        if not self._ahead:
            self._ahead = list(islice(self._order, FOLD_SLICE))
        return self._ahead

    def write(self, keys: Sequence[Key]) -> None:
        """Write these pairs' states, within the caller's transaction. Raises ``sqlite3.Error``."""
        tails = [self.sweep[key] for key in keys]
        wanted = [tail.rec for tail in tails if tail.rec]
        marks = ",".join("?" * len(wanted))
        found = {
            seq: (rest, record, end)
            for seq, rest, record, end in self._db.execute(
                f"SELECT seq, remaining, record, until_boot FROM facts WHERE seq IN ({marks})",  # noqa: S608
                wanted,
            )
        }
        rows: list[tuple[object, ...]] = []
        for (device, source), (last, rec) in zip(keys, tails, strict=True):
            rest, record, end = found.get(rec, (None, None, None))
            if record is None:
                rows.append((device, source, last, 0, None, None, None, None))
            else:
                total = checksum(device, source, record, rest, end)
                rows.append((device, source, last, rec, rest, record, total, end))
        DEVICES.run(self._db, rows)
        if len(keys) == self._left:
            set_values(self._db, folded=self._upto)

    def done(self, keys: Sequence[Key]) -> int:
        """What was written is durable; returns the bytes that it cost in the log, estimated."""
        if not keys:
            return 0
        self._left -= len(keys)
        self._ahead = []
        if not self._left:
            self.sweep = {}
        return FOLD_SLICE * PAGE_SIZE // 4
