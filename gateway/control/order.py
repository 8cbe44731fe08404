"""The order between targets: what opens nothing first, the path gate nearest the devices last; cuts know no order.

An admission is two-phase: every required target that stands behind the path gate verifies it, then the path gate
opens. A renewal is an admission for longer, so it asks the same. What tightens (a lesser profile, an earlier end, a
cut) never asks. So a target that cannot be reached stops new admissions and renewals, and withdraws nothing before
the lease ends. What must not live here: lanes, backends, deciding what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.core.model import DENY, Address, Rule


class Target(Protocol):
    """A target that must have verified before the last one opens."""

    @property
    def target(self) -> str:
        """Its name."""

    @property
    def unreachable(self) -> str:
        """Why it cannot be reached now; "" when it can."""

    def stands(self, address: Address) -> Rule | None:
        """What was verified to stand there; None: nothing, or not known."""


def opens(rule: Rule, have: Rule | None, now: float, lease: float, rank: Callable[[str], int]) -> bool:
    """Whether bringing ``have`` to ``rule`` at boot time ``now`` lets an address reach more, or for longer."""
    if rule.profile == DENY:
        return False
    if have is None or have.profile == DENY or have.until <= now:
        return True
    if rule.profile != have.profile:
        return rank(rule.profile) >= rank(have.profile)
    return min(rule.until, now + lease) > have.until


class Order:
    """Says whether the last target may open an address now."""

    def __init__(self, first: Sequence[Target], lease: float, rank: Callable[[str], int]) -> None:
        self._first = tuple(first)
        self._lease = lease
        self._rank = rank

    def waits_for(self, address: Address, rule: Rule, have: Rule | None, now: float) -> str:
        """Why bringing the last target from ``have`` to ``rule`` must wait; "" when it need not.

        Each of the first targets must be within reach, and must have verified the same profile, not yet ended.
        """
        if not opens(rule, have, now, self._lease, self._rank):
            return ""
        for each in self._first:
            why = each.unreachable
            if why:
                return f"waits for {each.target}: {why}"
            stands = each.stands(address)
            if stands is None or stands.profile != rule.profile or stands.until <= now:
                return f"waits for {each.target} to verify it first"
        return ""
