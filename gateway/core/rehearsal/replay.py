"""A journal's events under another book: who would have been cut or admitted differently, when and for how long.

What lives here: each device's two histories side by side, the one that was and the one that would have been. What
must not: reading a journal. Memory is constant per device, whatever number of events it had.

What was comes from the journal (each row says what the device left and became); what would have been is the same
events through the lifecycle under the other rules. Both are decided by their own book, and both end by themselves
at their deadlines. The world is taken as it was: a device that would have been cut attests no sooner for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.core import lifecycle
from gateway.core.binding import AddressBook
from gateway.core.lifecycle import Rules
from gateway.core.model import Device, DeviceId, Event, EventKind, Record, SourceName, Standing
from gateway.core.policy import Book, decide, quorum_for
from gateway.core.rehearsal.shifts import Shifts, lowest_sharer

RulesOf = Callable[[Device, SourceName], Rules]
"""How one source's verdicts about a device are weighed under the other book. Asked once for each of both."""

States = Mapping[tuple[DeviceId, SourceName], Record]
"""Records by device and source."""

_LAPSED = Standing.LAPSED
_LAPSE = EventKind.LAPSED


class Journalled(NamedTuple):
    """One event as the journal has it: what happened, what it met, and what it left."""

    device: DeviceId
    source: SourceName
    event: Event
    before: Record
    after: Record


class Span(NamedTuple):
    """A time (UNIX seconds) in which a device had ``was`` and would have had ``would``: profiles."""

    start: float
    end: float
    was: str
    would: str


class Differing(NamedTuple):
    """One device for which something would have been different. Seconds by what it would have reached.

    ``spans`` counts the times; ``first`` and ``longest`` are two of them.
    """

    device: DeviceId
    less: float
    more: float
    other: float
    spans: int
    first: Span
    longest: Span


class Differences(NamedTuple):
    """What a replay from ``begin`` to ``end`` (UNIX seconds) found; devices in inventory order.

    ``events``       rows that were replayed.
    ``skipped``      rows of devices, or of sources of devices, that the inventory no longer lists.
    ``standings``    rows after which the device would have had another standing.
    ``rejoined``     rows before which the journal had moved on without an event (restart, taken back) for a device
                     whose two histories had parted: the second took over what the first had.
    ``seen``         devices that were looked at.
    """

    begin: float
    end: float
    events: int
    skipped: int
    standings: int
    rejoined: int
    seen: int
    devices: tuple[Differing, ...]


class _Side:
    """One of a device's two histories: its records, one for each of its sources in their order, and the profile
    that it has until when, and then."""

    __slots__ = ("key", "profile", "quorum", "records", "then", "until")

    def __init__(self, records: list[Record], quorum: int | None) -> None:
        self.quorum = quorum
        self.key: tuple[Standing, bool] | None = None  # what the profile was decided for
        self.records = records
        self.profile = self.then = ""
        self.until: float | None = None


class _Track:
    """One device's two histories and what was counted of their differences."""

    __slots__ = (
        "at",
        "device",
        "differs",
        "first",
        "less",
        "longest",
        "more",
        "open",
        "other",
        "rules",
        "sharers",
        "spans",
        "was",
        "would",
    )

    def __init__(self, device: Device, rules: Sequence[Rules], was: _Side, would: _Side, at: float) -> None:
        self.device = device
        self.rules = rules
        self.sharers: frozenset[DeviceId] = frozenset()
        self.at = at
        self.was, self.would = was, would
        self.differs = False
        self.less = self.more = self.other = 0.0
        self.spans = 0
        self.open: Span | None = None
        self.first: Span | None = None
        self.longest: Span | None = None


class Replay:
    """Two books over one stream of events. Feed rows in the journal's order, then finish once.

    ``states`` are the devices' records now: for those of whom the stream says nothing, and for those who share an
    address with another before the stream first speaks of them. ``starts`` are records at the beginning, of devices
    with several sources: what one source says is held against what the others had said (see ``starting``).
    """

    def __init__(
        self,
        devices: Sequence[Device],
        states: States,
        before: Book,
        after: Book,
        rules: RulesOf,
        begin: float,
        starts: States,
    ) -> None:
        self._devices = {device.id: device for device in devices}
        self._states = states
        self._starts = starts
        self._before, self._after = before, after
        self._rules = rules
        self._begin = begin
        self._addresses = AddressBook(devices)
        self._any_shared = any(self._addresses.sharers(device.id) for device in devices)
        self._shifts = Shifts(before, after)
        self._tracks: dict[DeviceId, _Track] = {}
        self._events = self._skipped = self._standings = self._rejoined = 0

    def feed(self, row: Journalled) -> None:
        """Take the next event. Raises ``LifecycleError`` for one that the table does not list."""
        name, source, event, before, after = row
        track = self._tracks.get(name)
        device = self._devices.get(name) if track is None else track.device
        if device is None or source not in device.sources:
            self._skipped += 1
            return
        which = device.sources.index(source)
        if track is None:
            records = self._begun(device)
            records[which] = before
            track = self._begin_track(device, records)
        self._events += 1
        at = max(track.at, event.at)
        was = track.was.records[which]
        if was is not before and was != before:
            self._continue(track, which, before, at)  # which may bring the two together
        # Histories that have not parted share one object: equal records are made the same one.
        was, would = track.was.records[which], track.would.records[which]
        base = would
        if base is was or base == before:
            base = before
        elif base.deadline is not None and base.deadline <= at and event.kind is not _LAPSE:
            # Parted histories: here the deadline came first, and nobody has said so yet.
            base = lifecycle.step(base, Event(_LAPSE, base.deadline), track.rules[which]).record
        made = lifecycle.step(base, event, track.rules[which]).record
        if made == after:
            made = after
        if made.standing is not after.standing:
            self._standings += 1
        if made is would and after is was:
            return
        self._move(track, which, after, made, at)

    def finish(self, end: float) -> Differences:
        """Return what was found; histories go on to ``end`` as they stand. Nothing may be fed after it."""
        found: list[Differing] = []
        seen = 0
        for device in self._devices.values():
            track = self._tracks.get(device.id)
            if track is None:
                if not any((device.id, source) in self._states for source in device.sources):
                    continue
                track = self._begin_track(device, self._begun(device))
            seen += 1
            self._advance(track, max(end, track.at))
            self._close(track)
            if track.first is not None and track.longest is not None:
                found.append(
                    Differing(
                        device.id, track.less, track.more, track.other, track.spans, track.first, track.longest
                    )
                )
        return Differences(
            self._begin, end, self._events, self._skipped, self._standings, self._rejoined, seen, tuple(found)
        )

    # --- one device -----------------------------------------------------------------------------------------

    def _begun(self, device: Device) -> list[Record]:
        """The records with which a device begins, as far as the stream has not said otherwise."""
        keys = [(device.id, source) for source in device.sources]
        return [self._starts.get(key) or self._states.get(key) or Record() for key in keys]

    def _begin_track(self, device: Device, records: list[Record]) -> _Track:
        was = _Side(records, quorum_for(device, self._before))
        would = _Side(list(records), quorum_for(device, self._after))
        rules = [self._rules(device, source) for source in device.sources]
        track = self._tracks[device.id] = _Track(device, rules, was, would, self._begin)
        track.sharers = self._addresses.sharers(device.id)
        self._decide(track)
        return track

    def _continue(self, track: _Track, which: int, before: Record, at: float) -> None:
        """The journal goes on from another record than it had left: a restart, or something was taken back."""
        old, would = track.was.records[which], track.would.records[which]
        if would == old:
            self._move(track, which, before, before, at)
            return
        self._rejoined += 1
        if before.standing is old.standing and _shortened(old, before):
            # Less time was left than had been given: the other history loses as much.
            lost = (old.deadline or 0.0) - (before.deadline or 0.0)
            left = None if would.deadline is None else would.deadline - lost
            self._move(track, which, before, would._replace(deadline=left), at)
            return
        self._move(track, which, before, before, at)

    def _move(self, track: _Track, which: int, was: Record, would: Record, at: float) -> None:
        """Both histories go on from here, and with them those who share an address."""
        self._advance(track, at)
        track.was.records[which], track.would.records[which] = was, would
        self._decide(track)
        if not self._any_shared:
            return
        for other in self._addresses.affected(track.device.id):
            sharing = self._tracks.get(other)
            if sharing is not None:
                self._advance(sharing, max(at, sharing.at))
                self._decide(sharing)

    # --- decisions ------------------------------------------------------------------------------------------

    def _decide(self, track: _Track) -> None:
        self._decide_side(track, track.was, self._before, would=False)
        self._decide_side(track, track.would, self._after, would=True)
        was, mine = track.was, track.would
        track.differs = (
            was.until != mine.until
            or self._shifts.between(was.profile, mine.profile) is not None
            or (was.until is not None and self._shifts.between(was.then, mine.then) is not None)
        )

    def _decide_side(self, track: _Track, side: _Side, book: Book, *, would: bool) -> None:
        device = track.device
        standing, deadline = lifecycle.fold(side.records, side.quorum)
        sharers = track.sharers
        key = (standing, deadline is None)
        if side.key == key and not sharers:
            # The usual event moves the deadline alone, and that changes no profile.
            side.until = None if side.until is None else deadline
            return
        conflict = lowest_sharer(standing, sharers, self._standing_of(would=would)) if sharers else None
        decision = decide(device, standing, deadline, book, conflict)
        side.key, side.profile, side.until = key, decision.profile, decision.until
        if decision.until is not None and (sharers or not side.then):
            if sharers:
                conflict = lowest_sharer(_LAPSED, sharers, self._standing_of(would=would))
            side.then = decide(device, _LAPSED, None, book, conflict).profile

    def _standing_of(self, *, would: bool) -> Callable[[DeviceId], Standing | None]:
        def standing_of(name: DeviceId) -> Standing | None:
            track = self._tracks.get(name)
            if track is not None:
                side = track.would if would else track.was
                return lifecycle.fold(side.records, side.quorum)[0]
            device = self._devices.get(name)
            if device is None:
                return Standing.UNKNOWN
            book = self._after if would else self._before
            return lifecycle.fold(self._begun(device), quorum_for(device, book))[0]

        return standing_of

    # --- time -----------------------------------------------------------------------------------------------

    def _advance(self, track: _Track, end: float) -> None:
        """Count what was different from where the device stands to ``end``."""
        start = track.at
        track.at = end
        if not track.differs:
            if track.open is not None:
                self._close(track)
            return
        was, would = track.was, track.would
        ends = sorted(
            {min(max(until, start), end) for until in (was.until, would.until) if until is not None} | {end}
        )
        for until in ends:
            if until > start:
                self._count(track, Span(start, until, _at(was, start), _at(would, start)))
                start = until

    def _count(self, track: _Track, span: Span) -> None:
        shift = self._shifts.between(span.was, span.would)
        if shift is None:
            self._close(track)
            return
        seconds = span.end - span.start
        if shift.direction == "less":
            track.less += seconds
        elif shift.direction == "more":
            track.more += seconds
        else:
            track.other += seconds
        running = track.open
        if running is not None and running.end == span.start and running[2:] == span[2:]:
            track.open = running._replace(end=span.end)
            return
        self._close(track)
        track.open = span

    def _close(self, track: _Track) -> None:
        span, track.open = track.open, None
        if span is None:
            return
        track.spans += 1
        track.first = track.first or span
        if track.longest is None or span.end - span.start > track.longest.end - track.longest.start:
            track.longest = span


def replay(
    rows: Iterable[Journalled],
    devices: Sequence[Device],
    states: States,
    before: Book,
    after: Book,
    rules: RulesOf,
    begin: float,
    end: float,
    starts: States | None = None,
) -> Differences:
    """Return what ``after`` with ``rules`` would have done otherwise from ``begin`` to ``end`` (UNIX seconds).

    See ``Replay``. Raises ``LifecycleError`` for an event that the table does not list.
    """
    made = Replay(devices, states, before, after, rules, begin, starts or {})
    feed = made.feed
    for row in rows:
        feed(row)
    return made.finish(end)


def starting(rows: Iterable[Journalled], devices: Sequence[Device]) -> dict[tuple[DeviceId, SourceName], Record]:
    """Return the records with which devices of several sources begin: what the first row of each source met.

    A source without a row among ``rows`` said nothing in that time: its record is the one it has now."""
    several = {device.id for device in devices if len(device.sources) > 1}
    found: dict[tuple[DeviceId, SourceName], Record] = {}
    for row in rows:
        if row.device in several:
            found.setdefault((row.device, row.source), row.before)
    return found


def _shortened(old: Record, new: Record) -> bool:
    return old.deadline is not None and new.deadline is not None and new.deadline < old.deadline


def _at(side: _Side, moment: float) -> str:
    """The profile in force from ``moment`` on."""
    return side.then if side.until is not None and side.until <= moment else side.profile
