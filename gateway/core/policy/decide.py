"""The decision: standing x device -> profile, until when, and the chain of rules that says so.

What lives here: what happens on the hot path, for one device or for the site. What must not: reading a book,
matching rules anew where that was done ahead, time of its own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, Protocol, Self, TypeVar

from gateway.core.model import DENY, Decision, Device, DeviceId, Standing
from gateway.core.policy.book import NORMAL, Book, Condition, Override, ProfileName, Ruled, Ruling
from gateway.core.policy.rulings import matched
from gateway.core.policy.rulings import ruled as ruled_anew

_TRUSTED = Standing.TRUSTED
_STANDARD = Book()
#: The last second of the year 9999, in UNIX seconds.
_LAST = 253_402_300_799.0


def rank(profile: str, book: Book = _STANDARD) -> int:
    """Return a profile's rank in a book, 0 for ``deny``. Raises ``KeyError`` for a name that is none."""
    return book.profiles[profile].rank


def ruled_by(device: Device, book: Book) -> Ruled:
    """Return what the book says of a device: made ahead for this very object, or now."""
    made = book.compiled.get(device.id)
    if made is not None and made[0] is device:
        return made[1]
    return ruled_anew(matched(device, book), book)


def decide(
    device: Device,
    standing: Standing,
    deadline: float | None,
    book: Book,
    conflict: tuple[DeviceId, Standing] | None = None,
    override: Override | None = None,
    now: float | None = None,
) -> Decision:
    """Return what a device may do, until when (UNIX seconds; None: nothing), and the chain of rules that says so.

    ``conflict``: the lowest-standing other device that is judged for one of its addresses, with its standing. It
    lowers the effective standing to its own, and a standing that denies on its own account denies here too.
    ``override``: an operator's word for this device; it counts before its end, for which ``now`` (UNIX seconds)
    is needed, and an admission by it ends with it. Raises ``ValueError`` for an override without ``now`` or of
    another device.
    """
    return decide_by(ruled_by(device, book), device, standing, deadline, book, conflict, override, now)


def decide_by(
    ruled: Ruled,
    device: Device,
    standing: Standing,
    deadline: float | None,
    book: Book,
    conflict: tuple[DeviceId, Standing] | None,
    override: Override | None,
    now: float | None,
) -> Decision:
    """``decide`` for who has looked up what the book says of the device."""
    rulings = ruled.without if deadline is None else ruled.running
    if override is not None:
        rulings, deadline = _overridden(device, rulings, deadline, book, override, now)
    return _decide_shared(device, standing, deadline, rulings, book, conflict)


def _decide_shared(
    device: Device,
    standing: Standing,
    deadline: float | None,
    rulings: tuple[Ruling, ...],
    book: Book,
    conflict: tuple[DeviceId, Standing] | None,
) -> Decision:
    ruling = rulings[standing]
    if conflict is None:
        return Decision(device.id, standing, ruling.profile, deadline if ruling.admits else None, ruling.chain)
    other, theirs = conflict
    effective = min(standing, theirs)
    chain = ruling.chain
    # Suspect stands below lapsed and unknown but keeps a probation they do not have: take the lesser of all three.
    three = (rulings[effective], ruling, rulings[theirs])
    ruling = min(three, key=lambda each: (each.admits, book.rank(each.profile)))
    says = f"address shared with {other} ({theirs.label}): judged as {effective.label}, {ruling.profile}"
    return Decision(device.id, effective, ruling.profile, deadline if ruling.admits else None, (*chain, says))


def _overridden(
    device: Device,
    rulings: tuple[Ruling, ...],
    deadline: float | None,
    book: Book,
    override: Override,
    now: float | None,
) -> tuple[tuple[Ruling, ...], float | None]:
    """The rulings under an operator's word: it takes the place of what trusted gets, and caps what others get."""
    if now is None or override.device != device.id:
        msg = f"an override for {override.device} needs the time and its own device, not {device.id}"
        raise ValueError(msg)
    if not now < override.until:
        return rulings, deadline
    actor, end = override.actor, _date(override.until)
    says = f"operator override by {actor} until {end}: {override.profile} ({override.reason})"
    found = book.profiles.get(override.profile)
    profile = DENY if found is None or found.site else override.profile
    made = tuple(
        _under(standing, ruling, profile, book, says, runs=deadline is not None)
        for standing, ruling in zip(Standing, rulings, strict=True)
    )
    return made, None if deadline is None else min(deadline, override.until)


def _date(wall: float) -> str:
    """A UNIX time for people, as a number where the calendar ends."""
    if not 0 <= wall <= _LAST:
        return f"{wall:g}"
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds")


def _under(
    standing: Standing, ruling: Ruling, profile: ProfileName, book: Book, says: str, *, runs: bool
) -> Ruling:
    *rules, last = ruling.chain
    admits = book.profiles[profile].admits
    if standing is _TRUSTED and (runs or not admits):
        last = f"standing trusted: {profile} until the deadline" if runs else f"standing trusted: {profile}"
        return Ruling(profile, admits, (*rules, says, last))
    kept = min(ruling.profile, profile, key=book.rank)
    return Ruling(kept, ruling.admits and book.profiles[kept].admits, (*rules, says, last))


def tighter(new: Decision, old: Decision, book: Book = _STANDARD) -> bool:
    """Whether ``new`` allows less than ``old``: a lesser profile, or the same one until an earlier end.

    A profile that the book does not know ranks like ``deny`` when new, and above everything when old.
    """
    if new.profile != old.profile:
        return old.profile not in book.profiles or book.rank(new.profile) < book.rank(old.profile)
    return new.until is not None and old.until is not None and new.until < old.until


# --- the marks ----------------------------------------------------------------------------------------------------


class Weighing(Protocol):
    """How one source's verdicts are weighed: the lifecycle's rules, of which only this is asked."""

    def with_own(self, *, max_age: float | None, recovery_passes: int | None) -> Self:
        """The same with another maximum age or recovery, where given."""


W = TypeVar("W", bound=Weighing)
N = TypeVar("N", int, float)


def rules_for(device: Device, source_rules: W, book: Book) -> W:
    """Return the rules by which a source's verdicts of a device are weighed.

    The book's and the inventory's own go before the source's; where both say something, the stricter does.
    """
    return rules_by(ruled_by(device, book), device, source_rules)


def rules_by(ruled: Ruled, device: Device, source_rules: W) -> W:
    """``rules_for`` for who has looked up what the book says of the device."""
    marks = ruled.marks
    if marks.max_age is device.max_age is marks.recovery_passes is device.recovery_passes is None:
        return source_rules  # nothing is said of most devices
    max_age = _stricter(min, marks.max_age, device.max_age)
    passes = _stricter(max, marks.recovery_passes, device.recovery_passes)
    return source_rules.with_own(max_age=max_age, recovery_passes=passes)


def _stricter(choose: Callable[[N, N], N], first: N | None, second: N | None) -> N | None:
    if first is None or second is None:
        return second if first is None else first
    return choose(first, second)


def quorum_for(device: Device, book: Book) -> int | None:
    """Return how many of a device's sources must be trusted; None: all of them."""
    return ruled_by(device, book).marks.quorum


# --- the site -----------------------------------------------------------------------------------------------------


class SiteDecision(NamedTuple):
    """The profile of the site as a whole, and one line for each site rule that was looked at."""

    name: ProfileName
    chain: tuple[str, ...]


_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}


def decide_site(
    counts: Mapping[str, int], total: int, by_class: Mapping[str, Mapping[str, int]], book: Book
) -> SiteDecision:
    """Return the first site profile, top to bottom, whose conditions all hold; ``normal`` when none does.

    ``counts`` are devices by the label of their standing (never by admission), ``total`` all of them, and
    ``by_class`` the same counts for each device class; what is not counted is zero.
    """
    chain: list[str] = []
    for rule in book.site:
        broken = ""
        for condition in rule.when:
            holds, seen = _holds(condition, counts, total, by_class)
            if not holds:
                broken = f"{condition} does not hold ({seen})"
                break
        if not broken:
            held = " and ".join(map(str, rule.when)) or "no condition"
            return SiteDecision(rule.name, (*chain, f"site {rule.name}: {held}"))
        chain.append(f"site {rule.name}: {broken}")
    return SiteDecision(NORMAL, (*chain, "built-in: normal"))


def _holds(
    condition: Condition, counts: Mapping[str, int], total: int, by_class: Mapping[str, Mapping[str, int]]
) -> tuple[bool, str]:
    """Whether a condition holds, and what was counted."""
    if condition.device_class:
        counts = by_class.get(condition.device_class, {})
        total = sum(counts.values())
    number = counts.get(condition.standing.label, 0)
    compare = _COMPARE[condition.operator]
    if not condition.share:
        return compare(number, condition.value), str(number)
    # Multiplied out, so that a share is exact: 1 of 3 is below 33.4% and above 33.3%.
    return total > 0 and compare(number * 100, condition.value * total), f"{number} of {total}"
