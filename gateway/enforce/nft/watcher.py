"""What others changed in the sets, brought to who can put it right. Belongs to the guard's thread.

Known addresses and anchors are put right here, in place; admissions and tombstones are told by address. When the
kernel could not tell everything (a burst beyond the socket's room) all sets are surveyed, a step at a probe, and
listening goes on meanwhile. What must not live here: listening itself, what is wanted for a device, the static part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from gateway.control.ports import Strayed
from gateway.control.storms import Storm
from gateway.core.errors import BackendError
from gateway.enforce.nft.events import Events, Told
from gateway.enforce.nft.netlink import NetlinkError
from gateway.enforce.nft.standing import Layer

#: Sets that a sentence names.
MOST_NAMED = 3

_BURST = "somebody else changed more at once than the kernel could tell: every element is looked at"


class Watcher:
    """Takes what was told at each probe; ``strayed`` is called with what others are to do."""

    def __init__(self, strayed: Callable[[Strayed], None]) -> None:
        self._strayed = strayed
        self._storm = Storm()
        self._deaf_until = 0.0
        self._quiet = False  # what is told next may be of before the table was laid, and was told already
        self._survey: Iterator[None] | None = None
        self._again = False  # more was lost since the survey began: it is followed by another
        self.events: Events | None = None

    def close(self) -> None:
        """Stop listening."""
        if self.events is not None:
            self.events.close()
            self.events = None

    def forget(self) -> None:
        """The table was laid anew: whatever was told before is of no interest any more."""
        self._survey = None
        self._quiet = True

    def watch(self, layer: Layer) -> None:
        """Take what was told since the last probe; when it cannot be put right, survey everything."""
        if self.events is None:
            return
        try:
            if (now := time.monotonic()) >= self._deaf_until:
                self._listen(layer, self.events, now)
            if self._survey is not None and next(self._survey, self) is self:
                self._survey = None
                if self._again:
                    self._begin(layer)
        except BackendError:  # what ails the table is found by the guard's own probe
            self._begin(layer)

    def _listen(self, layer: Layer, events: Events, now: float) -> None:
        try:
            told = events.take()
        except NetlinkError:
            told = Told(frozenset(), lost=True)
        if told.lost:
            # What waits is older than the survey; what comes from here on is told, however long the survey takes.
            with suppress(NetlinkError):
                events.drop()
            self._deaf_until = now + self._storm.repaired(now)
            self._strayed(Strayed(_BURST, everything=True))
            if self._survey is None:
                self._begin(layer)
            else:
                self._again = True
            return
        if not told.elements:
            return
        if addresses := layer.addresses(told.elements):
            self._strayed(Strayed(f"somebody else changed elements of {len(addresses):,} addresses", addresses))
        mended = layer.mend(told.elements)
        quiet, self._quiet = self._quiet, False
        if mended and not quiet:
            self._deaf_until = now + self._storm.repaired(now)
            named = ", ".join(list(mended)[:MOST_NAMED])
            count = sum(mended.values())
            self._strayed(Strayed(f"somebody else changed {count:,} elements of {named}: put right"))

    def _begin(self, layer: Layer) -> None:
        """Survey our own part of the sets: known addresses, anchors, and admissions of addresses that nobody has."""
        self._again = False
        self._survey = self._surveying(layer)

    def _surveying(self, layer: Layer) -> Iterator[None]:
        for strangers in layer.strangers():
            if strangers:
                what = f"somebody else admitted {len(strangers):,} addresses that nobody has"
                self._strayed(Strayed(what, strangers))
            yield
        dropped = 0
        for count in layer.keeping():
            dropped += count
            yield
        for _ in layer.filling():
            yield
        if dropped:
            self._strayed(Strayed(f"{dropped:,} addresses and anchors that nobody has were taken out"))
