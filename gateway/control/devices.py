"""The single writer of device state: events in, transitions, decisions and wishes out.

Every change of a standing goes through here, on the loop's thread, one at a time. A turn may take many events;
``commit`` then hands their facts to the journal as one unit, tells the gates at once what tightens, and tells
them what loosens only when the unit is durable. What must not live here: reading envelopes, driving backends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from gateway.control.census import Census
from gateway.control.followed import Cause
from gateway.control.ports import Clock, DeviceView, Entry, Journal, Notice, Observer, StandingsFollower
from gateway.control.reconcile import Reconciler, Report
from gateway.control.shown import Beside, shown
from gateway.control.slots import Ends, Slot, less_of, less_than, rule_of
from gateway.control.telling import Telling
from gateway.control.timers import Deadlines
from gateway.core import lifecycle, policy
from gateway.core.binding import AddressBook
from gateway.core.errors import JournalError
from gateway.core.lifecycle import Rules
from gateway.core.model import (
    DENY,
    Address,
    Decision,
    Device,
    DeviceId,
    Effect,
    Event,
    EventKind,
    Hint,
    Instant,
    Outcome,
    Record,
    Rule,
    SourceName,
    Standing,
    Timeliness,
    Transition,
    Verdict,
)
from gateway.core.policy import Book, Override

# Read for every alert; a member read from its Enum costs fifteen times as much.
_FAILED_LATE = EventKind.FAILED_LATE
_REQUESTED = Outcome.REQUESTED
_RETIRED = Standing.RETIRED

_FRESH = Record()
"""What every device starts with; shared, because records never change."""

_EVER = float("inf")

_RAISES = frozenset({Effect.RAISED, Effect.EXTENDED})


Committed = Callable[[Sequence[int]], Callable[[JournalError | None], None]]
"""Takes the rows of a turn's facts; returns what to call once they are durable."""

_Touch = tuple[Slot, Transition, float, int, Ends, Decision]
"""A slot and what stepped it; boot seconds of the envelope (0: no envelope caused it); place of its fact in this
turn's entries (-1: another device's fact bears on this one); its deadlines before, and what was decided then."""

_Opening = tuple[Slot, int, Address, Rule | None, Sequence[Cause], Book]
"""A wish that loosens and waits for its commit: slot, version of the decision, address, rule, causes, book."""

_Rising = tuple[Slot, int, Rule | None, Book]
"""The same without an address, for who follows devices."""


class Devices:
    """Implements the ``Directory`` and ``Operator`` ports and is what admission, timers and start write to."""

    def __init__(
        self,
        inventory: Sequence[Device],
        book: Book,
        rules: Mapping[SourceName, Rules],
        journal: Journal,
        clock: Clock,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.book = policy.compile_book(book, inventory)
        self.addresses = AddressBook(inventory)
        self._rules = rules
        self._journal = journal
        self._clock = clock
        self._gates: list[Reconciler] = []
        #: The targets that answer for each event, one for each gate.
        self.targets: tuple[str, ...] = ()
        self._follower: StandingsFollower | None = None
        self._slots: dict[DeviceId, Slot] = {}
        self.telling = Telling(journal, observers, self._slots)
        #: A gate's report of what came of a cause; told by and by.
        self.enforced: Report = self.telling.enforced
        self.census = Census(book)
        self._entries: list[Entry] = []
        self._touched: list[_Touch] = []
        self.deadlines: Deadlines[DeviceId] = Deadlines()
        self.on_armed: Callable[[], None] = lambda: None
        #: Whether a REQUESTED answers a request of ours.
        self.solicited: Callable[[DeviceId, SourceName, Instant], bool] = lambda *_: False
        #: At which of a device's sources its old evidence can be replayed; for windows only.
        self.replayable: Callable[[Device, Iterable[SourceName]], Sequence[SourceName]] = lambda *_: ()
        #: What targets that never count for admission have for a device; for windows only.
        self.beside: list[Beside] = []
        self.on_moved: Callable[[Slot, str], None] | None = None  # slot, and the profile that it had until now
        self._turns_under_way = 0
        # Whose pass the journal could not keep though the record has moved on since.
        self._unkept: set[tuple[DeviceId, SourceName]] = set()
        self._stopped = False
        self.barrier = "starting"  # why nothing may be raised now; "" when raising is allowed
        for device in inventory:
            ruled = policy.ruled_by(device, self.book)
            decision = policy.decide_by(ruled, device, Standing.UNKNOWN, None, self.book, None, None, None)
            slot = Slot(device, decision, self.book, ruled)
            slot.records.update(dict.fromkeys(device.sources, _FRESH))
            self._slots[device.id] = slot
            self.census.add(device, Standing.UNKNOWN)

    def add_gate(self, gate: Reconciler) -> None:
        """Let a gate be told what is wished from now on."""
        self._gates.append(gate)
        self.targets = (*self.targets, gate.target)

    def tell_standings(self, follower: StandingsFollower | None) -> None:
        """Tell ``follower`` what each device's decision asks for now, and from now on. Once, after the start."""
        self._follower = follower
        if follower is None:
            return
        for slot in self._slots.values():
            follower.stands(slot.device.id, rule_of(slot))

    # --- what others ask --------------------------------------------------------------------------------

    @property
    def may_raise(self) -> bool:
        """Whether a passed verdict may be taken now."""
        return not self.barrier and self._journal.writable

    @property
    def why_not(self) -> str:
        """Why raising is refused."""
        return self.barrier or "the journal cannot be written"

    def records_of(self, source: SourceName) -> Callable[[DeviceId], Record | None]:
        """``record`` for one source: asked for every verdict."""
        slots = self._slots

        def record_of(device: DeviceId) -> Record | None:
            slot = slots.get(device)
            return None if slot is None else slot.records.get(source)

        return record_of

    def record(self, device: DeviceId, source: SourceName) -> Record | None:
        """The record of one (device, source); None when the inventory does not pair them."""
        slot = self._slots.get(device)
        return None if slot is None else slot.records.get(source)

    @property
    def waiting(self) -> int:
        """Facts of this turn so far: the next one's place among the rows of its commit."""
        return len(self._entries)

    def slot(self, device: DeviceId) -> Slot | None:
        """The living state of a device, for the rooms of the clockwork."""
        return self._slots.get(device)

    def slots(self) -> Iterable[Slot]:
        """All living states, in inventory order."""
        return self._slots.values()

    def counts(self) -> Mapping[str, int]:
        """Devices per effective standing; every label is present."""
        return self.census.labelled()

    def view(self, device: DeviceId) -> DeviceView | None:
        """Everything a window shows of one device."""
        slot = self._slots.get(device)
        if slot is None:
            return None
        replayable = self.replayable(slot.device, slot.records)
        return shown(slot, self._gates, self._clock.now(), replayable, self.beside)

    def standing(self, device: DeviceId) -> Standing | None:
        """The effective standing alone."""
        slot = self._slots.get(device)
        return None if slot is None else slot.decision.standing

    def views(self) -> Iterable[DeviceView]:
        """All devices, in inventory order, made one by one."""
        for device in self._slots:
            view = self.view(device)
            if view is not None:
                yield view

    # --- events in --------------------------------------------------------------------------------------

    def verdict(self, verdict: Verdict, received: Instant) -> Transition:
        """Take an authenticated verdict. The caller ends its turn with ``commit``."""
        requested = verdict.outcome is _REQUESTED
        solicited = requested and self.solicited(verdict.device, verdict.source, received)
        event = lifecycle.event_of(verdict, received.wall, solicited=solicited)
        slot = self._slots[verdict.device]
        transition = self.apply(slot, verdict.source, event, received, received.boot, verdict)
        if event.kind is _FAILED_LATE and verdict.timeliness is not Timeliness.FRESH:
            detail = f"{verdict.device}: an authentic failure is {verdict.timeliness.value}: {transition.why}"
            self.notice(Notice("late-failure", verdict.device, detail, received.wall))
        return transition

    def hint(self, hint: Hint, received: Instant) -> bool:
        """Take an adverse hint; says whether it lowered anything. The caller ends its turn with ``commit``."""
        slot = self._slots[hint.device]
        cut = hint.source in self.book.cut_on_hints
        reason = f"{hint.source}: {hint.reason}"
        event = Event(EventKind.HINTED, received.wall, reason=reason, actor=hint.source, cut=cut)
        lowered = False
        for source, record in list(slot.records.items()):
            if hint.of is not None and hint.of != source:
                continue
            # A hint that changes nothing is counted and no more: it must not hide what really happened last.
            if lifecycle.step(record, event, self.rules_of(slot, source)).effect is Effect.LOWERED:
                self.apply(slot, source, event, received, 0.0)
                lowered = True
        return lowered

    def hold(self, device: DeviceId, actor: str, reason: str) -> Transition:
        """Hold a device in every source; raises ``KeyError`` when the inventory does not list it."""
        return self._operator(EventKind.HELD, device, actor, reason)

    def release(self, device: DeviceId, actor: str, reason: str) -> Transition:
        """Release a device to what lies beneath; raises ``KeyError`` likewise."""
        return self._operator(EventKind.RELEASED, device, actor, reason)

    def _operator(self, kind: EventKind, device: DeviceId, actor: str, reason: str) -> Transition:
        slot = self._slots[device]
        now = self._clock.now()
        event = Event(kind, now.wall, reason=reason, actor=actor)
        transitions = [self.apply(slot, source, event, now, 0.0) for source in list(slot.records)]
        if kind is EventKind.RELEASED:
            slot.held = None
        elif slot.held is None or transitions[0].effect is not Effect.NONE:
            # Who holds a device again changes nothing, unless a restart has forgotten who held it before.
            slot.held = transitions[0]
        self.commit()
        return transitions[0]

    def lapse(self, device: DeviceId, now: Instant) -> None:
        """A deadline of this device has come, on either clock. The caller ends its turn with ``commit``."""
        slot = self._slots[device]
        for source, deadline, due in slot.ends:
            # The boot-time clock decides too: a wall clock that was set back must not prolong anything.
            at = max(now.wall, deadline) if due <= now.boot else now.wall
            if at >= deadline:
                event = Event(EventKind.LAPSED, at, reason="silent until its deadline")
                self.apply(slot, source, event, now, 0.0)
        self._arm(slot, now)

    def rearm(self, slot: Slot, now: Instant) -> None:
        """The wall clock jumped: what it now says is nearer comes sooner, nothing comes later."""
        slot.ends = tuple(
            (source, deadline, min(due, now.boot + (deadline - now.wall))) for source, deadline, due in slot.ends
        )
        self._arm(slot, now)

    def apply(
        self,
        slot: Slot,
        source: SourceName,
        event: Event,
        now: Instant,
        received: float,
        verdict: Verdict | None = None,
    ) -> Transition:
        """Step one (device, source) and decide anew. The caller ends its turn with ``commit``.

        ``received``: boot seconds of the envelope, 0 without one. ``verdict``: what the event was made of, if any.
        """
        before, ends, until_boot = slot.records[source], slot.ends, None
        step = lifecycle.step(before, event, self.rules_of(slot, source))
        transition = Transition(slot.device.id, source, event, before, step.record, step.effect, step.why)
        changed = step.record is not before
        if changed:
            slot.records[source] = step.record
            self._decide(slot, now)
            for end in slot.ends:
                if end[0] == source:
                    until_boot = end[2]
            if self.addresses.shared:
                for other in self.addresses.affected(slot.device.id):
                    each = self._slots[other]
                    self._decide(each, now)
                    self._touched.append((each, transition, 0.0, -1, (), each.decision))
        slot.last = transition
        self._touched.append((slot, transition, received, len(self._entries), ends, slot.decision))
        self._entries.append(Entry(transition, step.record if changed else None, until_boot))
        self.telling.stepped(transition, verdict, now)
        return transition

    def restore(self, slot: Slot, source: SourceName, record: Record, now: Instant) -> None:
        """Put back what the journal remembers; no event, no fact. Only before the doors open."""
        slot.records[source] = record
        self._decide(slot, now)

    def notice(self, fact: Notice) -> None:
        """Tell the windows and the journal something about the service itself."""
        self._entries.append(Entry(fact._asdict()))
        self.telling.notice(fact)

    # --- decisions out ----------------------------------------------------------------------------------

    def judged(self, slot: Slot, override: Override | None, now: Instant) -> Decision:
        """What a device would be given now if this were its override; nothing is changed."""
        standing, deadline, conflict = self.own(slot)
        return policy.decide(slot.device, standing, deadline, self.book, conflict, override, now.wall)

    def own(self, slot: Slot) -> tuple[Standing, float | None, tuple[DeviceId, Standing] | None]:
        """A device's own standing and deadline, and who of lower standing is judged for one of its addresses."""
        standing, deadline = self._fold(slot)
        return standing, deadline, self._conflict(slot, standing)

    def overridden(self, slot: Slot, override: Override | None, boot: float, now: Instant) -> None:
        """Decide anew under an override that ends at ``boot``, or without one. The caller tells the gates."""
        slot.override, slot.override_boot = override, boot
        self._decide(slot, now)

    def _decide(self, slot: Slot, now: Instant) -> None:
        old, device, book = slot.decision, slot.device, self.book
        ruled = self._ruled(slot)
        standing, deadline = lifecycle.fold(tuple(slot.records.values()), ruled.marks.quorum)
        conflict = self._conflict(slot, standing)
        decision = policy.decide_by(ruled, device, standing, deadline, book, conflict, slot.override, now.wall)
        slot.version += 1
        if decision.standing is not old.standing:
            self.census.move(device.id, old.standing, decision.standing)
        if policy.tighter(decision, old, book):
            slot.floor = slot.version
        slot.decision, slot.under, slot.ruled = decision, book, ruled
        if self.on_moved is not None and decision.profile != old.profile:
            self.on_moved(slot, old.profile)
        self._arm(slot, now)

    def redecide(self, slot: Slot, now: Instant) -> Decision:
        """Decide a device anew because the book is another one; returns what was decided before. Tells no gate.

        A maximum age that is now shorter holds at once. No event, no fact: the change of the book is one.
        """
        old = slot.decision
        for source, record in slot.records.items():
            slot.records[source] = lifecycle.capped(record, self.rules_of(slot, source))
        self._decide(slot, now)
        return old

    def tell(self, slot: Slot) -> None:
        """Wish what a device's decision asks of its addresses now, though no event caused it."""
        for address in slot.device.binding.addresses:
            rule = self.rule(slot, address)
            for gate in self._gates:
                gate.want(address, self.at_once(gate, slot, address, rule))
        if self._follower is not None:
            # A raise that is on its way to the disk opens when it is there.
            told = self._follower.tightens if slot.opening else self._follower.stands
            told(slot.device.id, rule_of(slot))

    def rules_of(self, slot: Slot, source: SourceName) -> Rules:
        """How a source's verdicts of this device are weighed: the book's word before the source's."""
        return policy.rules_by(self._ruled(slot), slot.device, self._rules[source])

    def _ruled(self, slot: Slot) -> policy.Ruled:
        """What the book in force says of a device: a slot remembers what the one that it stands under says."""
        return slot.ruled if slot.under is self.book else policy.ruled_by(slot.device, self.book)

    def _fold(self, slot: Slot) -> tuple[Standing, float | None]:
        return lifecycle.fold(tuple(slot.records.values()), self._ruled(slot).marks.quorum)

    def _conflict(self, slot: Slot, standing: Standing) -> tuple[DeviceId, Standing] | None:
        if not self.addresses.shared:
            return None
        lowest: tuple[DeviceId, Standing] | None = None
        for other in self.addresses.sharers(slot.device.id):
            theirs, _ = self._fold(self._slots[other])
            if theirs is not _RETIRED and theirs < standing and (lowest is None or theirs < lowest[1]):
                lowest = (other, theirs)
        return lowest

    def _arm(self, slot: Slot, now: Instant) -> None:
        """Set the timer of a device. A deadline that did not change keeps the boot time it was given first, and one
        that came nearer comes no later: the wall clock may have been set back in between."""
        ends = []
        for source, record in slot.records.items():
            deadline = record.deadline
            if deadline is None:
                continue
            latest = _EVER
            for end in slot.ends:
                if end[0] == source and end[1] >= deadline:
                    if end[1] == deadline:
                        ends.append(end)
                        break
                    latest = end[2]
            else:
                left = min(deadline - now.wall, self.rules_of(slot, source).max_age)
                ends.append((source, deadline, min(now.boot + left, latest)))
        if not ends:
            if slot.ends:
                slot.ends = ()
                slot.until_boot = 0.0
                self.deadlines.clear(slot.device.id)
            return
        slot.ends = tuple(ends)
        earliest = ends[0][2] if len(ends) == 1 else min(due for _, _, due in ends)
        if len(ends) == 1:
            slot.until_boot = earliest
        else:
            # Where a quorum admits, the admission outlives the first source that falls silent.
            until = slot.decision.until
            slot.until_boot = min((due for _, deadline, due in ends if deadline == until), default=earliest)
        self.deadlines.set(slot.device.id, earliest)
        self.on_armed()

    def rule(self, slot: Slot, address: Address) -> Rule | None:
        """What an address of this device should have now: the least that any of its owners may."""
        if not self.addresses.shared:
            return rule_of(slot)
        owners = self.addresses.owners(address)
        if not owners:
            return Rule(slot.device.id, DENY, 0.0, tombstone=False)
        if len(owners) == 1 and owners[0] == slot.device.id:
            return rule_of(slot)
        rules = [rule_of(self._slots[owner]) for owner in owners]
        living = [rule for rule in rules if rule is not None]
        return min(
            living, key=lambda rule: (self.book.rank(rule.profile), not rule.tombstone, rule.until), default=None
        )

    def at_once(self, gate: Reconciler, slot: Slot, address: Address, rule: Rule | None) -> Rule | None:
        """What of ``rule`` a gate may be told now: no more than it was told before while the journal does not have
        the raise that the rule rests on."""
        # A raise of a device that shares the address is one of this device, too: ``apply`` says so to both.
        return less_of(self.book, gate.wished(address), rule) if slot.opening else rule

    # --- the end of a turn ------------------------------------------------------------------------------

    def commit(self, told: Committed | None = None) -> None:
        """End a turn: journal what happened, tighten now, loosen when durable.

        ``told`` gets the journal rows of this turn's facts, in order; it returns what to call once they are durable
        or could not be made so.
        """
        if not self._entries:
            if told is not None:
                told(())(None)
            return
        entries, self._entries = self._entries, []
        touched, self._touched = self._touched, []
        opening: list[_Opening] = []
        rising: list[_Rising] = []
        followed: list[Sequence[Cause]] = []
        self._turns_under_way += 1
        after: list[Callable[[JournalError | None], None]] = []

        def durable(error: JournalError | None) -> None:
            self._durable(error, followed, opening, touched, rising)
            for each in after:
                each(error)

        seqs = self._journal.record(entries, durable)
        if told is not None:
            after.append(told(seqs))
        for slot, transition, _, _, _, _ in touched:
            # Before anything of this turn is told: an event of it must not tell what another one of it raised.
            if transition.effect in _RAISES and slot.decision.profile != DENY:
                slot.opening += len(slot.device.binding.addresses)
        for slot, transition, received, entry, _, decision in touched:
            seq = seqs[entry] if entry >= 0 else 0
            device, profile = slot.device, slot.decision.profile
            addresses = device.binding.addresses
            left = len(addresses) + 1
            causes = [Cause(seq, device.id, profile, received, left) for _ in self._gates]
            followed.append(causes)
            loosens = transition.effect in _RAISES and profile != DENY
            if loosens:
                opening += [
                    (slot, slot.version, address, self.rule(slot, address), causes, slot.under)
                    for address in addresses
                ]
            else:
                self._tighten(slot, decision, causes)
            if self._follower is not None:
                self._follower.happened(transition)
                if loosens:
                    rising.append((slot, slot.version, rule_of(slot), slot.under))
        self.telling.show()  # last: no window may delay a cut

    def _tighten(self, slot: Slot, decision: Decision, causes: Sequence[Cause]) -> None:
        """Tell at once what was decided, which a later event of the same turn may have raised."""
        passing = decision is not slot.decision
        for address in slot.device.binding.addresses:
            rule = self.rule(slot, address)
            if passing:
                rule = less_than(self.book, decision, rule)
            for gate, cause in zip(self._gates, causes, strict=True):
                gate.want(address, self.at_once(gate, slot, address, rule), cause)
        if self._follower is not None:
            own = rule_of(slot)
            self._follower.tightens(slot.device.id, less_than(self.book, decision, own) if passing else own)

    @property
    def at_rest(self) -> bool:
        """Whether no turn waits for its commit, nothing is on its way to a backend, and every outcome is told."""
        return not self._turns_under_way and self.telling.at_rest and not any(gate.busy for gate in self._gates)

    async def flush(self) -> None:
        """Wait until every turn is durable, its wishes are with the gates and every outcome is told (orderly stop).
        The caller sets the time limit."""
        while self._turns_under_way or not self.telling.at_rest:  # noqa: ASYNC110 - only at stop
            await asyncio.sleep(0.005)

    def stop(self) -> None:
        """Follow nothing any more: gates and journal are about to close, and what becomes durable from here on is
        found at the next start."""
        self._stopped = True
        self.telling.tell_all()

    def _tell(self, address: Address, rule: Rule | None, causes: Sequence[Cause]) -> None:
        for gate, cause in zip(self._gates, causes, strict=True):
            gate.want(address, rule, cause)

    def _durable(
        self,
        error: JournalError | None,
        followed: Sequence[Sequence[Cause]],
        opening: Sequence[_Opening],
        touched: Sequence[_Touch],
        rising: Sequence[_Rising],
    ) -> None:
        self._turns_under_way -= 1
        if self._stopped:
            return
        now = self._clock.now().boot
        for causes in followed:
            for gate, cause in zip(self._gates, causes, strict=True):
                cause.durable = 0.0 if error else now
                gate.count_down(cause, now)
        for wish in opening:
            wish[0].opening -= 1
        if error is not None:
            for _, _, _, _, causes, _ in opening:
                self._gave_up(causes, "the journal could not be written", now)
            self._take_back([each for each in touched if each[1].effect in _RAISES and each[3] >= 0])
            return
        if self._unkept:
            self._unkept.difference_update([(slot.device.id, step.source) for slot, step, _, _, _, _ in touched])
        self._open(opening, now)
        for slot, version, risen, book in rising:
            if self._follower is None:
                break
            if slot.floor <= version:
                anew = risen if slot.under is book else _lesser(risen, rule_of(slot))
                self._follower.stands(slot.device.id, anew)
            elif not slot.opening:
                self._follower.stands(slot.device.id, rule_of(slot))  # overtaken: what was held back

    def _open(self, opening: Sequence[_Opening], now: float) -> None:
        """These are durable."""
        for slot, version, address, rule, causes, book in opening:
            if slot.floor > version:
                # Something tightened after this was decided; that wish already went out, cut to what was durable.
                self._gave_up(causes, "overtaken by a later verdict", now)
                if not slot.opening:
                    anew = self.rule(slot, address)
                    for gate in self._gates:
                        gate.want(address, anew)
            else:
                self._tell(address, rule if slot.under is book else self._under_now(slot, address, rule), causes)

    def _under_now(self, slot: Slot, address: Address, rule: Rule | None) -> Rule | None:
        """What was wished under the book before, under this one: never longer than what has become durable."""
        return _lesser(rule, self.rule(slot, address))

    def _gave_up(self, causes: Sequence[Cause], why: str, now: float) -> None:
        for gate, cause in zip(self._gates, causes, strict=True):
            cause.failed, cause.detail = True, why
            gate.count_down(cause, now)

    def _take_back(self, raised: Sequence[_Touch]) -> None:
        """The journal could not keep these: nothing was opened by them, and the records forget them.

        Where a record has moved on since, it rests on what was not kept, and may admit no longer.
        """
        now = self._clock.now()
        keys = {(slot.device.id, transition.source) for slot, transition, *_ in raised}
        for slot, transition, _, _, ends, _ in reversed(raised):
            source = transition.source
            if slot.records.get(source) is transition.after:
                slot.records[source] = transition.before
                # The wall clock may have been set back since: what was due keeps the boot time it had.
                slot.ends = (*[e for e in slot.ends if e[0] != source], *[e for e in ends if e[0] == source])
                self.rearm(slot, now)
                self._decide(slot, now)
                if self.addresses.shared:
                    for other in self.addresses.affected(slot.device.id):
                        self._decide(self._slots[other], now)
                fact = {"kind": "taken-back", "device": transition.device, "at": now.wall, "why": "not durable"}
                until_boot = next((due for name, _, due in slot.ends if name == source), None)
                self._entries.append(Entry(fact | {"source": source}, transition.before, until_boot))
            else:
                self._unkept.add((slot.device.id, source))
        for device, source in keys & self._unkept:
            slot = self._slots[device]
            if slot.opening:
                continue  # another raise is on its way: what becomes of that one decides
            self._unkept.discard((device, source))
            if slot.records[source].deadline is not None:
                reason = "a pass that it rests on could not be made durable"
                self.apply(slot, source, Event(EventKind.WITHHELD, now.wall, reason=reason), now, 0.0)
        if self._entries:
            self.commit()


def _lesser(rule: Rule | None, anew: Rule | None) -> Rule | None:
    """A wish of the book before under the present one: its profile, never longer than what has become durable."""
    if rule is None or anew is None or DENY in (rule.profile, anew.profile):
        return anew if anew is None or anew.profile == DENY else rule
    return anew._replace(until=min(anew.until, rule.until))
