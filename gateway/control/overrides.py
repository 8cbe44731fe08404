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
from gateway.core.model import DeviceId, Instant
from gateway.core.policy import Override

SHORTEST = 1.0
"""Seconds: well above a quarter of one, in which the clockwork looks at its timers anew."""

LONGEST = 7 * 86_400.0
"""Seconds: what is meant for longer belongs into the book, where it is reviewed."""

SLICE = 256
"""Overrides ended in one turn of the loop."""

_EVER = float("inf")


class _Act(NamedTuple):
    """An override (None: its end) that is handed to the journal; ``opens``: it waits for the journal."""

    slot: Slot
    word: Override | None
    until_boot: float
    causes: Sequence[Cause]
    opens: bool


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
        self._stopped = False

    @property
    def count(self) -> int:
        """Overrides in force."""
        return len(self._running)

    def remember(self, loaded: Loaded) -> None:
        """Put back what the journal remembers. Only before standings are restored."""
        now = self._clock.now()
        known = max(now.wall, loaded.highest_wall)  # a clock that was set back gives nobody time
        for device, (word, left_then) in loaded.overrides.items():
            slot = self._devices.slot(device)
            if slot is None or left_then <= 0:
                continue
            left = min(left_then, word.until - known, LONGEST)
            if left > 0:
                capped = word._replace(until=min(word.until, now.wall + left))
                self._put(slot, capped, now.boot + left, now)
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
        opens = policy.tighter(old, new, self._devices.book)
        if opens and not self._devices.may_raise:
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
        self._fact(slot, leaves, kind, why, actor, reason, now, _Act(slot, word, until_boot, (), opens))
        return Overridden(slot.device.id, old.profile, new.profile, new.until, why)

    # --- time -------------------------------------------------------------------------------------------

    def next(self) -> float | None:
        """When the next one ends, boot seconds."""
        return self._due.next()

    def turn(self, now: Instant) -> None:
        """End what is over."""
        for device in self._due.pop(now.boot, SLICE):
            slot = self._running[device]
            word = slot.override
            if word is not None:
                # No wait for the journal: it has known this end since the override was set.
                why = f"the override to {word.profile} is over"
                act = _Act(slot, None, _EVER, (), opens=False)
                over = _over(word, min(now.wall, word.until))
                self._fact(slot, over, "override-ended", why, word.actor, word.reason, now, act)

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
        entry = Entry(fact, leaves)
        for observer in self._observers:
            observer.observe(Notice("override", device, f"{device}: {why}", now.wall))
        if act is None:
            self._journal.record((entry,))
            return
        causes: list[Cause] = []
        act = act._replace(causes=causes)
        if act.opens:
            self._waiting[device] = act
        (seq,) = self._journal.record((entry,), lambda error: self._durable(act, error))
        addresses = slot.device.binding.addresses
        if not act.opens:
            self._put(slot, act.word, act.until_boot, now)
        profile = self._devices.judged(slot, act.word, now).profile
        causes += [Cause(seq, device, profile, 0.0, len(addresses) + 1) for _ in self._gates]
        if not act.opens:
            self._tell(act)

    def _put(self, slot: Slot, word: Override | None, until_boot: float, now: Instant) -> None:
        device = slot.device.id
        if word is None:
            self._running.pop(device, None)
            self._due.clear(device)
        else:
            self._running[device] = slot
            self._due.set(device, until_boot)
        self._devices.overridden(slot, word, 0.0 if word is None else until_boot, now)

    def _tell(self, act: _Act) -> None:
        for address in act.slot.device.binding.addresses:
            rule = self._devices.rule(act.slot, address)
            for gate, cause in zip(self._gates, act.causes, strict=True):
                gate.want(address, rule, cause)

    def _durable(self, act: _Act, error: JournalError | None) -> None:
        if self._stopped:
            return
        now = self._clock.now()
        device = act.slot.device.id
        if act.opens:
            if self._waiting.get(device) is act:
                del self._waiting[device]
                if error is None:
                    self._put(act.slot, act.word, act.until_boot, now)
                    self._tell(act)
                else:
                    self._take_back(act, error, now)
            else:
                self._gave_up(act, "overtaken by a later act")
        if error is not None and act.opens:
            self._gave_up(act, "the journal could not be written")
        for gate, cause in zip(self._gates, act.causes, strict=True):
            cause.durable = 0.0 if error else now.boot
            gate.count_down(cause, now.boot)

    def _gave_up(self, act: _Act, why: str) -> None:
        for cause in act.causes:
            cause.failed, cause.detail, cause.left = True, why, 1

    def _take_back(self, act: _Act, error: JournalError, now: Instant) -> None:
        """The journal could not keep it: nothing was opened by it. The row may yet be written, and this one after
        it, with what is in force."""
        slot = act.slot
        stays = slot.override or Override(slot.device.id, "", now.wall, "", "not durable")
        why = f"taken back, it could not be made durable: {error}"
        self._fact(slot, stays, "override-taken-back", why, stays.actor, stays.reason, now)


def _over(word: Override, wall: float) -> Override:
    """What the journal is left with once an override has ended."""
    return word._replace(until=wall)


def _date(wall: float) -> str:
    """An end for people; it lies a week ahead at most."""
    return datetime.fromtimestamp(wall, UTC).isoformat(sep=" ", timespec="seconds")
