"""What a relay of DATA may go by: which device may reach which service, until when, and who is to attest again.

What lives here: the fold of decisions into that answer, told as gates are told: what tightens at once, what loosens
only when it is durable. What must not: deciding, sockets, messages.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.control.ports import Clock
from gateway.core.model import DENY, DeviceId, EventKind, Rule, Transition

ASK_AGAIN_SECONDS = 10.0
"""Between two answers of ATTEST to one device. Whoever reaches the verifier's API makes it sign a wish to attest as
often as he likes, and each such answer stands for one message that is not carried."""

_ANSWERED = frozenset({EventKind.PASSED, EventKind.FAILED, EventKind.FAILED_LATE, EventKind.RETIRED})
"""After these there is nothing left to ask for."""


class DeviceStandings:
    """Implements the ``Standings`` port. ``services_of``: the names of the services that a profile reaches."""

    def __init__(self, services_of: Callable[[str], frozenset[str]], clock: Clock) -> None:
        self._services_of = services_of
        self._clock = clock
        self._of: dict[DeviceId, tuple[frozenset[str], float]] = {}
        self._wanted: set[DeviceId] = set()
        self._asked_at: dict[DeviceId, float] = {}
        self._followers: list[Callable[[DeviceId], None]] = []

    def until(self, device: DeviceId, service: str) -> float:
        """Boot seconds until which ``device`` may reach ``service``; 0.0: it may not."""
        entry = self._of.get(device)
        return entry[1] if entry is not None and service in entry[0] else 0.0

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

    def follow(self, changed: Callable[[DeviceId], None]) -> None:
        """Call ``changed`` whenever the answer about a device may have become another, once it has."""
        self._followers.append(changed)

    # --- told by the single writer ------------------------------------------------------------------------

    def stands(self, device: DeviceId, rule: Rule | None) -> None:
        """A device's decision asks for ``rule`` (None: it is retired), and that is durable."""
        self._put(device, self._reach(rule))

    def tightens(self, device: DeviceId, rule: Rule | None) -> None:
        """A device's decision asks for no more than ``rule``: what stands becomes the less of both, never more."""
        old, new = self._of.get(device), self._reach(rule)
        less = None if old is None or new is None else (old[0] & new[0], min(old[1], new[1]))
        if less != old:
            self._put(device, less)

    def _reach(self, rule: Rule | None) -> tuple[frozenset[str], float] | None:
        if rule is None or rule.profile == DENY:
            return None
        return self._services_of(rule.profile), rule.until

    def _put(self, device: DeviceId, entry: tuple[frozenset[str], float] | None) -> None:
        if entry is None:
            self._of.pop(device, None)
        else:
            self._of[device] = entry
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
