"""What a relay of DATA may go by: which device may reach which service, until when, and who is to attest again.

What lives here: the fold of decisions into that answer, told as gates are told: what tightens at once, what loosens
only when it is durable. What must not: deciding, sockets, messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from gateway.control.ports import Clock
from gateway.core.model import DENY, DeviceId, EventKind, Rule, Transition
from gateway.core.policy import Rate

ASK_AGAIN_SECONDS = 10.0
"""Between two answers of ATTEST to one device. Whoever reaches the verifier's API makes it sign a wish to attest as
often as he likes, and each such answer stands for one message that is not carried."""

_ANSWERED = frozenset({EventKind.PASSED, EventKind.FAILED, EventKind.FAILED_LATE, EventKind.RETIRED})
"""After these there is nothing left to ask for."""


class Reach(NamedTuple):
    """What a profile reaches, by names of services, and how quickly; None: as quickly as it likes."""

    services: frozenset[str]
    rate: Rate | None = None


class _Stand(NamedTuple):
    profile: str
    until: float
    least: frozenset[str]  # profiles whose reach bounds it too, until what has tightened is told anew


class DeviceStandings:
    """Implements the ``Standings`` port. ``reach_of``: what a profile reaches, by the book that runs now."""

    def __init__(self, reach_of: Callable[[str], Reach], clock: Clock) -> None:
        self._reach_of = reach_of
        self._clock = clock
        self._of: dict[DeviceId, _Stand] = {}
        # What is left of a device's rate, and as of when: a bucket that is full at first.
        self._left: dict[DeviceId, tuple[float, float]] = {}
        self._wanted: set[DeviceId] = set()
        self._asked_at: dict[DeviceId, float] = {}
        self._followers: list[Callable[[DeviceId], None]] = []

    def until(self, device: DeviceId, service: str) -> float:
        """Boot seconds until which ``device`` may reach ``service``; 0.0: it may not."""
        stand = self._of.get(device)
        if stand is None or service not in self._reach_of(stand.profile).services:
            return 0.0
        if stand.least and any(service not in self._reach_of(profile).services for profile in stand.least):
            return 0.0
        return stand.until

    def spend(self, device: DeviceId) -> bool:
        """Take one of the messages that the device's profile allows in a while. False: none is left now."""
        stand = self._of.get(device)
        rate = None if stand is None else self._reach_of(stand.profile).rate
        if rate is None:
            return stand is not None
        now = self._clock.now().boot
        left, at = self._left.get(device, (float(rate.new_connections), now))
        left = min(rate.new_connections, left + (now - at) * rate.new_connections / rate.per)
        spent = left >= 1.0
        self._left[device] = (left - 1.0 if spent else left, now)
        return spent

    def wanted(self, device: DeviceId) -> bool:
        """Whether its verifier wants it to attest again and it may be told so now."""
        if device not in self._wanted:
            return False
        asked = self._asked_at.get(device)
        return asked is None or self._clock.now().boot - asked >= ASK_AGAIN_SECONDS

    def asked(self, device: DeviceId) -> None:
        """It was told to attest again: the wish is answered."""
        self._wanted.discard(device)
        self._asked_at[device] = self._clock.now().boot

    def remember(self, wanted: Iterable[DeviceId]) -> None:
        """At a start: the devices with a wish to attest that nothing had answered before it."""
        self._wanted.update(wanted)

    def follow(self, changed: Callable[[DeviceId], None]) -> None:
        """Call ``changed`` whenever the answer about a device may have become another, once it has."""
        self._followers.append(changed)

    def book_changed(self) -> None:
        """What profiles reach has changed: whoever follows must ask again, for every device that has one."""
        self._left.clear()
        for device in tuple(self._of):
            for changed in self._followers:
                changed(device)

    # --- told by the single writer ------------------------------------------------------------------------

    def stands(self, device: DeviceId, rule: Rule | None) -> None:
        """A device's decision asks for ``rule`` (None: it is retired), and that is durable."""
        self._put(device, self._stand(rule))

    def tightens(self, device: DeviceId, rule: Rule | None) -> None:
        """A device's decision asks for no more than ``rule``: what stands becomes the less of both, never more."""
        old, new = self._of.get(device), self._stand(rule)
        less = None
        if old is not None and new is not None:
            least = old.least if old.profile == new.profile else old.least | {old.profile}
            less = _Stand(new.profile, min(old.until, new.until), least)
        if less != old:
            self._put(device, less)

    def _stand(self, rule: Rule | None) -> _Stand | None:
        if rule is None or rule.profile == DENY:
            return None
        return _Stand(rule.profile, rule.until, frozenset())

    def _put(self, device: DeviceId, stand: _Stand | None) -> None:
        if stand is None:
            self._of.pop(device, None)
        else:
            self._of[device] = stand
        for changed in self._followers:
            changed(device)

    def happened(self, transition: Transition) -> None:
        """Something happened to a device."""
        kind = transition.event.kind
        if kind is EventKind.REQUESTED:
            self._wanted.add(transition.device)
        elif kind in _ANSWERED:
            self._wanted.discard(transition.device)
            self._asked_at.pop(transition.device, None)
