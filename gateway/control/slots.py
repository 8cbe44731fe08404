"""One device's living state, and what its decision asks of its own addresses.

What must not live here: changing a standing (the single writer does), gates, journals.
"""

from __future__ import annotations

from gateway.core.model import DENY, Decision, Device, Record, Rule, SourceName, Standing, Transition
from gateway.core.policy import Book, Override, Ruled

_RETIRED = Standing.RETIRED  # asked for every alert; a member read from its Enum costs fifteen times as much
_TOMBSTONED = frozenset({Standing.DISTRUSTED, Standing.SUSPECT, Standing.HELD, Standing.RETIRED})
"""Standings that are negative evidence: their denial leaves a mark in the kernel that outranks the journal."""


Ends = tuple[tuple[SourceName, float, float], ...]
"""The deadlines of a device: source, UNIX seconds, boot seconds."""


class Slot:
    """One device's living state. ``floor`` is the version of the last decision that tightened, ``under`` the book
    of the last one and ``ruled`` what that says of the device; ``opening`` counts wishes that loosen and wait for
    their commit.

    ``override_boot``: boot seconds at which ``override`` ends. ``held``: the operator's hold, where it was seen by
    this process.
    """

    __slots__ = (
        "decision",
        "device",
        "ends",
        "floor",
        "held",
        "last",
        "last_ms",
        "opening",
        "override",
        "override_boot",
        "records",
        "ruled",
        "under",
        "until_boot",
        "version",
    )

    def __init__(self, device: Device, decision: Decision, under: Book, ruled: Ruled) -> None:
        self.device = device
        self.records: dict[SourceName, Record] = {}
        self.decision = decision
        self.under = under
        self.ruled = ruled
        self.opening = 0
        self.ends: Ends = ()
        self.until_boot = 0.0
        self.version = 0
        self.floor = 0
        self.last: Transition | None = None
        self.held: Transition | None = None
        self.last_ms: float | None = None
        self.override: Override | None = None
        self.override_boot = 0.0


def less_of(book: Book, told: Rule | None, rule: Rule | None) -> Rule | None:
    """The less of what a gate was told before (None: nothing) and of a new rule: what may be told at once."""
    if rule is None or rule.profile == DENY:
        return rule
    if told is None or told.profile == DENY:
        return told
    least = min(told.profile, rule.profile, key=book.rank)
    return rule._replace(profile=least, until=min(told.until, rule.until))


def less_than(book: Book, decision: Decision, rule: Rule | None) -> Rule | None:
    """A rule cut to what was decided for a while, before it was made."""
    if rule is None or rule.profile == DENY:
        return rule
    if decision.profile == DENY or decision.until is None:
        return Rule(rule.device, DENY, 0.0, decision.standing in _TOMBSTONED)
    return rule._replace(profile=min(decision.profile, rule.profile, key=book.rank))


def rule_of(slot: Slot) -> Rule | None:
    """What a device's decision asks of its own addresses; None once it is retired."""
    decision = slot.decision
    if decision.standing is _RETIRED:
        return None
    if decision.profile == DENY or decision.until is None:
        return Rule(slot.device.id, DENY, 0.0, decision.standing in _TOMBSTONED)
    until = slot.until_boot
    if slot.override is not None and slot.override_boot < until:
        until = slot.override_boot
    return Rule(slot.device.id, decision.profile, until)
