"""What others changed in the sets, brought to who can put it right. Belongs to the guard's thread.

Known addresses and anchors are put right here, in place; admissions and tombstones are told by address. When the
kernel could not tell everything (a burst beyond the socket's room) all sets are surveyed, a step at a probe, while
listening goes on. What must not live here: listening itself, what is wanted for a device, the static part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

from gateway.control.ports import Strayed
from gateway.control.storms import Storm
from gateway.core.errors import BackendError
from gateway.core.model import Address
from gateway.enforce.nft.events import Events, Told
from gateway.enforce.nft.netlink import NetlinkError, NetlinkSocket
from gateway.enforce.nft.standing import Layer

#: Sets that a sentence names.
MOST_NAMED = 3
#: Seconds of each probe for a survey, and one piece of a dump more.
STEP_SECONDS = 0.005
#: Addresses that nobody has which are told at one time before a survey has come to its end.
MANY = 5_000

_BURST = "somebody else changed more at once than the kernel could tell: every element is looked at"


class Watcher:
    """Takes what was told at each probe; ``strayed`` is called with what others are to do."""

    def __init__(self, strayed: Callable[[Strayed], None]) -> None:
        self._strayed = strayed
        self._storm = Storm()
        self._deaf_until = 0.0
        self._quiet = False  # what is told next may be of before the table was laid, and was told already
        self._survey: Iterator[None] | None = None
        self._dumps: NetlinkSocket | None = None
        self._again = False  # more was lost since the survey began: it is followed by another
        self._events: Events | None = None
        self._new = False  # what was changed before listening began is told by nobody

    @property
    def listening(self) -> bool:
        """Whether anything can be told."""
        return self._events is not None

    def listen(self, events: Events) -> None:
        """Take from here on what these tell."""
        self._new = True
        self._events = events

    def close(self) -> None:
        """Stop listening."""
        self._end_survey()
        if self._events is not None:
            self._events.close()
            self._events = None

    def forget(self) -> None:
        """The table was laid anew: whatever was told before is of no interest any more."""
        self._end_survey()
        self._quiet = True

    def watch(self, layer: Layer) -> bool:
        """Take what was told since the last probe; when it cannot be put right, survey everything.

        Returns whether somebody else may have changed anything, in whatever table, of which nothing was returned
        before: False only if all that the kernel had to tell was taken, and there was nothing.
        """
        if self._events is None:
            return True
        changed, self._new = self._new, False
        try:
            if (now := time.monotonic()) < self._deaf_until or self._listen(layer, self._events, now):
                changed = True
            if self._survey is not None:
                self._step(layer, self._survey, now + STEP_SECONDS)
        except BackendError:  # what ails the table is found by the guard's own probe
            self._begin(layer)
            return True
        return changed

    def _listen(self, layer: Layer, events: Events, now: float) -> bool:
        """Whether anything was told, or could not be."""
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
            return True
        if not told.elements:
            return told.any
        if addresses := layer.addresses(told.elements):
            self._strayed(Strayed(f"somebody else changed elements of {len(addresses):,} addresses", addresses))
        mended = layer.mend(told.elements)
        quiet, self._quiet = self._quiet, False
        if mended and not quiet:
            self._deaf_until = now + self._storm.repaired(now)
            named = ", ".join(list(mended)[:MOST_NAMED])
            count = sum(mended.values())
            self._strayed(Strayed(f"somebody else changed {count:,} elements of {named}: put right"))
        return True

    def _step(self, layer: Layer, survey: Iterator[None], until: float) -> None:
        while next(survey, self) is not self:
            if time.monotonic() >= until:
                return
        self._end_survey()
        if self._again:
            self._begin(layer)

    def _begin(self, layer: Layer) -> None:
        """Survey our part of it: known addresses, anchors, and admissions of addresses that nobody has."""
        self._end_survey()
        self._again = False
        # A socket of its own: a dump in pieces would be in the way of whatever else is asked meanwhile.
        self._dumps = NetlinkSocket()
        self._survey = self._surveying(layer, self._dumps)

    def _end_survey(self) -> None:
        self._survey = None
        if self._dumps is not None:
            self._dumps.close()
            self._dumps = None

    def _surveying(self, layer: Layer, dumps: NetlinkSocket) -> Iterator[None]:
        found: dict[Address, None] = {}
        for strangers in layer.strangers(dumps):
            found |= dict.fromkeys(strangers)
            if len(found) >= MANY:
                self._foreign(found)
                found.clear()
            yield
        if found:
            self._foreign(found)
        dropped = 0
        for count in layer.keeping(dumps):
            dropped += count
            yield
        for _ in layer.filling():
            yield
        if dropped:
            self._strayed(Strayed(f"{dropped:,} addresses and anchors that nobody has were taken out"))

    def _foreign(self, found: Collection[Address]) -> None:
        what = f"somebody else admitted {len(found):,} addresses that nobody has"
        self._strayed(Strayed(what, found))
