"""Operators' overrides: set, ended, over, remembered. They change what the book gives a device, never its standing.

As with verdicts, what tightens is told to the gates at once and what loosens when the journal has it. An override
ends on whichever clock comes to its end first, and after a restart it never has more time left than it had.
What must not live here: deciding what an override means (the policy does), who may set one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from gateway.control.devices import Devices
from gateway.control.followed import Cause
from gateway.control.ports import Clock, Entry, Journal, Loaded, Notice, Observer, Overridden
from gateway.control.reconcile import Reconciler
from gateway.control.slots import Slot
from gateway.control.timers import Deadlines
from gateway.core import policy
from gateway.core.errors import JournalError, NotNow
from gateway.core.model import DENY, Address, DeviceId, Instant, Rule
from gateway.core.policy import Book, Override

SHORTEST = 1.0
"""Seconds: well above a quarter of one, in which the clockwork looks at its timers anew."""

LONGEST = 7 * 86_400.0
"""Seconds: what is meant for longer belongs into the book, where it is reviewed."""

SLICE = 256
"""Overrides ended in one turn of the loop."""

_EVER = float("inf")


class _Act(NamedTuple):
    """An override (None: its end) on its way. ``waits``: it admits more, so that the journal must have it first."""

    slot: Slot
    word: Override | None
    until_boot: float
    waits: bool
    causes: list[Cause]


_Rules = Sequence[tuple[Address, Rule | None]]


class Overrides:
    """Implements the ``Overriding`` and ``Timed`` ports."""

    def __init__(
        self,
        devices: Devices,
        gates: Sequence[Reconciler],
        journal: Journal,
        clock: Clock,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._devices = devices
        self._gates = gates
        self._journal = journal
        self._clock = clock
        self._observers = observers
        self._due: Deadlines[DeviceId] = Deadlines()
        self._running: dict[DeviceId, Slot] = {}
        self._waiting: dict[DeviceId, _Act] = {}
        self._unopened: dict[DeviceId, _Act] = {}
        self._stopped = False

    @property
    def count(self) -> int:
        """Overrides in force."""
        return len(self._running)

    def remember(self, loaded: Loaded) -> None:
        """Put back what the journal remembers. Only before standings are restored."""
        now = self._clock.now()
        # Without a boot time a clock that was set back gives nobody time. With one it takes none away, either: who
        # is shut out by an override would be let in too soon.
        known = max(now.wall, loaded.highest_wall)
        for device, running in loaded.overrides.items():
            slot, word = self._devices.slot(device), running.override
            if slot is None or running.left <= 0:
                continue
            by_wall = word.until - (known if running.until_boot is None else now.wall)
            left = min(running.left_at(now.boot), by_wall, LONGEST)
            if left > 0:
                capped = word._replace(until=min(word.until, now.wall + left))
                self._put(_Act(slot, capped, now.boot + left, waits=False, causes=[]), now)
            else:
                why = f"the override to {word.profile} ended while the gateway was down"
                self._fact(slot, _over(word, now.wall), "override-ended", why, word.actor, word.reason, now)

    # --- operators' acts --------------------------------------------------------------------------------

    def override(self, device: DeviceId, profile: str, seconds: float, actor: str, reason: str) -> Overridden:
        """Give a device a profile for so long; see the port."""
        slot = self._slot(device)
        found = self._devices.book.profiles.get(profile)
        if found is None or found.site:
            known = ", ".join(each.name for each in self._devices.book.ordered())
            msg = f"profile {profile[:64]!r} must be one of {known}"
            raise ValueError(msg)
        if not SHORTEST <= seconds <= LONGEST:
            msg = f"{seconds:g} seconds is out of range: {SHORTEST:g} s to {LONGEST / 86_400:g} days"
            raise ValueError(msg)
        now = self._clock.now()
        word = Override(device, profile, now.wall + seconds, actor, reason)
        return self._act(slot, word, now.boot + seconds, actor, reason, now)

    def end_override(self, device: DeviceId, actor: str, reason: str) -> Overridden:
        """End a device's override early; see the port."""
        slot = self._slot(device)
        if slot.override is None and device not in self._waiting:
            profile = slot.decision.profile
            return Overridden(device, profile, profile, slot.decision.until, "no override is in force")
        return self._act(slot, None, _EVER, actor, reason, self._clock.now())

    def _slot(self, device: DeviceId) -> Slot:
        slot = self._devices.slot(device)
        if slot is None:
            raise KeyError(device)
        return slot

    def _act(
        self, slot: Slot, word: Override | None, until_boot: float, actor: str, reason: str, now: Instant
    ) -> Overridden:
        old = slot.decision
        new = self._devices.judged(slot, word, now)
        waits = policy.tighter(old, new, self._devices.book)
        if waits and not self._devices.may_raise:
            msg = f"it would admit more, and nothing may be raised now: {self._devices.why_not}"
            raise NotNow(msg)
        waiting = self._waiting.pop(slot.device.id, None)
        if word is None:
            kind = "override-ended"
            gone = slot.override or (waiting and waiting.word)
            profile = gone.profile if gone else ""
            why = f"the override to {profile} was ended by {actor}: {reason}"
        else:
            kind, why = "overridden", f"overridden by {actor} to {word.profile} until {_date(word.until)}: {reason}"
        leaves = word if word is not None else Override(slot.device.id, "", now.wall, actor, reason)
        self._fact(slot, leaves, kind, why, actor, reason, now, _Act(slot, word, until_boot, waits, []))
        return Overridden(slot.device.id, old.profile, new.profile, new.until, why)

    # --- time -------------------------------------------------------------------------------------------

    def next(self) -> float | None:
        """When the next one ends, boot seconds."""
        return self._due.next()

    def turn(self, now: Instant) -> None:
        """End what is over; open what the journal could not keep before."""
        for device in self._due.pop(now.boot, SLICE):
            slot = self._running[device]
            word = slot.override
            if word is not None:
                why = f"the override to {word.profile} is over"
                over = _over(word, min(now.wall, word.until))
                # The decision waits for nothing: the journal has known this end since the override was set.
                act = _Act(slot, None, _EVER, waits=False, causes=[])
                self._fact(slot, over, "override-ended", why, word.actor, word.reason, now, act)
        if self._unopened and self._journal.writable:
            unopened, self._unopened = self._unopened, {}
            for act in unopened.values():
                self._open(act)

    def jumped(self, now: Instant) -> None:
        """The wall clock jumped: what it now says is nearer comes sooner, nothing comes later."""
        for device, slot in self._running.items():
            if slot.override is not None:
                slot.override_boot = min(slot.override_boot, now.boot + slot.override.until - now.wall)
                self._due.set(device, slot.override_boot)

    def stop(self) -> None:
        """Follow nothing any more; what becomes durable from here on is found at the next start."""
        self._stopped = True

    # --- one act ----------------------------------------------------------------------------------------

    def _fact(
        self,
        slot: Slot,
        leaves: Override,
        kind: str,
        why: str,
        actor: str,
        reason: str,
        now: Instant,
        act: _Act | None = None,
    ) -> None:
        """Journal what happened and tell the windows; then do it, or when the journal has it."""
        device = slot.device.id
        fact: Mapping[str, Any] = {
            "kind": "override",
            "at": now.wall,
            "device": device,
            "event": kind,
            "profile": leaves.profile,
            "until": leaves.until,
            "actor": actor,
            "reason": reason,
            "why": why,
        }
        entry = Entry(fact, leaves, _until_boot(slot, leaves, act, now))
        for observer in self._observers:
            observer.observe(Notice("override", device, f"{device}: {why}", now.wall))
        if act is None:
            self._journal.record((entry,))
            return
        old = slot.decision
        if act.waits:
            self._waiting[device] = act
        else:
            self._put(act, now)
        given = self._devices.judged(slot, act.word, now).profile
        (seq,) = self._journal.record((entry,), lambda error: self._durable(act, error))
        parts = len(slot.device.binding.addresses) + 1
        act.causes.extend(Cause(seq, device, given, 0.0, parts) for _ in self._gates)
        if act.waits:
            return
        loosened = policy.tighter(old, slot.decision, self._devices.book)
        if given == DENY or (self._admitted(slot) and not loosened):
            self._tell(act, self._rules(slot))
        else:
            self._open(act)

    def _put(self, act: _Act, now: Instant) -> None:
        slot, device = act.slot, act.slot.device.id
        if act.word is None:
            self._running.pop(device, None)
            self._due.clear(device)
        else:
            self._running[device] = slot
            self._due.set(device, act.until_boot)
        self._devices.overridden(slot, act.word, act.until_boot, now)

    def _admitted(self, slot: Slot) -> bool:
        """Whether an admission stands at every gate: another one that allows no more is then nothing new."""
        addresses = slot.device.binding.addresses
        return all(gate.lease_until(address) is not None for gate in self._gates for address in addresses)

    def _rules(self, slot: Slot) -> _Rules:
        return [(address, self._devices.rule(slot, address)) for address in slot.device.binding.addresses]

    def _tell(self, act: _Act, rules: _Rules) -> None:
        for address, rule in rules:
            for gate, cause in zip(self._gates, act.causes, strict=True):
                gate.want(address, self._devices.at_once(gate, act.slot, address, rule), cause)

    def _open(self, act: _Act) -> None:
        """Tell the gates once the journal has everything that the present decision rests on: this act, and
        verdicts that came just before it."""
        version, rules, book = act.slot.version, self._rules(act.slot), self._devices.book
        self._journal.record((), lambda error: self._opened(act, version, rules, book, error))

    def _opened(self, act: _Act, version: int, rules: _Rules, book: Book, error: JournalError | None) -> None:
        if self._stopped:
            return
        if error is not None:
            self._unopened[act.slot.device.id] = act
        elif act.slot.floor > version:
            # Something tightened after this was decided; that wish already went out and stands.
            self._gave_up(act, "overtaken by a later verdict")
        elif self._devices.book is not book:
            self._open(act)  # what was wished under the book before is asked of this one
        else:
            self._tell(act, rules)

    def _durable(self, act: _Act, error: JournalError | None) -> None:
        """The journal has the act, or could not keep it."""
        if self._stopped:
            return
        now = self._clock.now()
        for gate, cause in zip(self._gates, act.causes, strict=True):
            cause.durable = 0.0 if error else now.boot
            gate.count_down(cause, now.boot)
        if not act.waits:
            return
        if self._waiting.get(act.slot.device.id) is not act:
            self._gave_up(act, "overtaken by a later act")
            return
        del self._waiting[act.slot.device.id]
        if error is None:
            self._put(act, now)
            self._open(act)
        else:
            self._gave_up(act, "the journal could not be written")
            self._take_back(act, error, now)

    def _gave_up(self, act: _Act, why: str) -> None:
        now = self._clock.now().boot
        for gate, cause in zip(self._gates, act.causes, strict=True):
            if cause.left > 0:
                cause.failed, cause.detail, cause.left = True, why, 1
                gate.count_down(cause, now)

    def _take_back(self, act: _Act, error: JournalError, now: Instant) -> None:
        """The journal could not keep it: nothing was opened by it. The row may yet be written, and this one after
        it, with what is in force."""
        slot = act.slot
        stays = slot.override or Override(slot.device.id, "", now.wall, "", "not durable")
        why = f"taken back, it could not be made durable: {error}"
        self._fact(slot, stays, "override-taken-back", why, stays.actor, stays.reason, now)


def _until_boot(slot: Slot, leaves: Override, act: _Act | None, now: Instant) -> float:
    """When what an act leaves ends, boot seconds. The clock that counts down is asked, not the one that can be set
    while the row waits for its commit."""
    if act is not None and act.word is leaves:
        return act.until_boot
    return slot.override_boot if slot.override is leaves else now.boot


def _over(word: Override, wall: float) -> Override:
    """What the journal is left with once an override has ended."""
    return word._replace(until=wall)


def _date(wall: float) -> str:
    """An end for people; it lies a week ahead at most."""
    return datetime.fromtimestamp(wall, UTC).isoformat(sep=" ", timespec="seconds")
