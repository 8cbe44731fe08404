"""From rules to rulings: which rules match a device, and what every standing gets by them.

What lives here: matching, specificity, conflicts, and the form made ahead for an inventory. What must not: the
standing of any device, time, operators' overrides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Sequence
from copy import copy
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from gateway.core.model import DENY, Address, Device, DeviceId, Standing
from gateway.core.policy.book import (
    Book,
    Deployment,
    DeviceClass,
    Level,
    Match,
    Network,
    ProfileName,
    Ruled,
    Ruling,
)

#: Devices between two breaths of ``compiling``: below a millisecond of work.
SLICE = 100

_SUSPECT, _TRUSTED = Standing.SUSPECT, Standing.TRUSTED


class Matched(NamedTuple):
    """The rules that are for one device, less specific first."""

    deployments: tuple[Deployment, ...]
    classes: tuple[DeviceClass, ...]
    own: Level | None


class Given(NamedTuple):
    """A profile, and the level that gave it in words."""

    profile: ProfileName
    by: str


def matched(device: Device, book: Book) -> Matched:
    """Return the rules that are for a device."""
    return Matched(
        tuple(rule for rule in book.deployments if matches(rule.match, device)),
        tuple(rule for rule in book.classes if matches(rule.match, device)),
        book.own(device.id),
    )


def matches(match: Match, device: Device) -> bool:
    """Whether a device is meant: everything that the match gives must hold."""
    if not set(match.labels) <= set(device.labels):
        return False
    if match.id and not _pattern(match.id)(device.id):
        return False
    return not match.prefixes or _within(_spans(match), device)


def _pattern(text: str) -> Callable[[str], object]:
    """Return what tells whether a whole id is as the pattern says."""
    start = text[:-1]
    if text.endswith("*") and not {"*", "?"} & set(start):
        return lambda device: device.startswith(start)  # five times as quick, and what most patterns are
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in text)
    return re.compile("".join(parts), re.DOTALL).fullmatch


Span = tuple[int, int, int]
"""Address length in bytes, lowest and highest address of a network."""


def span_of(network: Network) -> Span:
    """A network's ends."""
    return network.max_prefixlen // 8, int(network.network_address), int(network.broadcast_address)


def ends_of(address: Address) -> Span:
    """The ends of a device's address: of all that it may send from, when it is a /64."""
    first = int.from_bytes(address.packed)
    return len(address.packed), first, first | ((1 << 64) - 1) if address.prefix == 64 else first


def _spans(match: Match) -> tuple[Span, ...]:
    return tuple(map(span_of, match.prefixes))


def _within(spans: Sequence[Span], device: Device) -> bool:
    for address in device.binding.addresses:
        size, first, last = ends_of(address)
        for length, low, high in spans:
            if size == length and low <= first and last <= high:
                return True
    return False


# --- from rules to rulings ----------------------------------------------------------------------------------------


def ruled(rules: Matched, book: Book) -> Ruled:
    """Return what every standing gets by these rules, and the marks that they set."""
    chain = _chain(rules, book)
    levels = _levels(rules, book)
    given = [_resolve(standing, levels, book) for standing in Standing]
    trusted = given[_TRUSTED]
    without, running = [], []
    for standing in Standing:
        without.append(_ruling(standing, given[standing], trusted, chain, book, runs=False))
        running.append(_ruling(standing, given[standing], trusted, chain, book, runs=True))
    return Ruled(tuple(without), tuple(running), _marks(rules))


def _levels(rules: Matched, book: Book) -> list[tuple[str, tuple[Level, ...]]]:
    """The levels, most specific first, each in words and with the rules that stand on it."""
    return [
        ("this device", () if rules.own is None else (rules.own,)),
        (_words("class", rules.classes), tuple(rule.level for rule in rules.classes)),
        (_words("deployment", rules.deployments), tuple(rule.level for rule in rules.deployments)),
        ("node default", (book.default,)),
    ]


def _words(kind: str, rules: Sequence[DeviceClass | Deployment]) -> str:
    names = " and ".join(rule.name for rule in rules)
    return f"{kind} {names}"


def _resolve(standing: Standing, levels: list[tuple[str, tuple[Level, ...]]], book: Book) -> Given:
    """More specific wins; at equal specificity the more restrictive; nothing said is deny."""
    for words, level in levels:
        said = [each.standings[standing] for each in level if standing in each.standings]
        if said:
            return Given(min(said, key=book.rank), words)
    return Given(DENY, "built-in")


def _ruling(
    standing: Standing, given: Given, trusted: Given, chain: tuple[str, ...], book: Book, *, runs: bool
) -> Ruling:
    label = standing.label
    if standing not in (_TRUSTED, _SUSPECT):
        # Only what reaches nothing fits here; the book was refused otherwise.
        by = "" if given.profile == DENY else f" ({given.by})"
        return Ruling(given.profile, False, (*chain, f"standing {label}: {given.profile}{by}"))
    profile = min(given.profile, trusted.profile, key=book.rank)
    admits = book.profiles[profile].admits
    if not runs:
        profile = DENY if admits else profile
        return Ruling(profile, False, (*chain, f"standing {label} without a deadline: {profile}"))
    if standing is _TRUSTED:
        return Ruling(profile, admits, (*chain, f"standing trusted: {profile} until the deadline"))
    by = "" if given.by == "node default" else f" ({given.by})"
    return Ruling(profile, admits, (*chain, f"standing suspect: at most {given.profile}{by} until the deadline"))


def _chain(rules: Matched, book: Book) -> tuple[str, ...]:
    """One line for each rule that matched, and for each level of the book where none did."""
    lines = [f"built-in: {DENY}", f"node default: {book.node_default}"]
    if book.deployments:
        lines += _lines("deployment", rules.deployments)
    if book.classes:
        lines += _lines("class", rules.classes)
    if rules.own is not None:
        lines.append(f"this device: {says(rules.own)}")
    return tuple(lines)


def _lines(kind: str, rules: Sequence[DeviceClass | Deployment]) -> Iterable[str]:
    if not rules:
        return [f"{kind}: none matches"]
    lines = [f"{kind} {rule.name}: {says(rule.level)}" for rule in rules]
    if disagreeing(rules):
        lines.append(f"{kind}: the more restrictive of {len(rules)} wins")
    return lines


def says(level: Level) -> str:
    """A level's profiles in words, the trusted one first and by itself when it is all."""
    profiles = dict(sorted(level.standings.items(), reverse=True))
    if set(profiles) == {_TRUSTED}:
        return profiles[_TRUSTED]
    return ", ".join(f"{standing.label} {profile}" for standing, profile in profiles.items()) or "no profile"


def disagreeing(rules: Sequence[DeviceClass | Deployment]) -> tuple[Standing, ...]:
    """The standings to which rules of equal specificity give different profiles."""
    found: list[Standing] = []
    for standing in Standing:
        given = {rule.level.standings[standing] for rule in rules if standing in rule.level.standings}
        if len(given) > 1:
            found.append(standing)
    return tuple(found)


def _marks(rules: Matched) -> Level:
    """Maximum age, recovery and quorum: more specific wins, and at equal specificity the stricter."""
    levels = (
        () if rules.own is None else (rules.own,),
        tuple(rule.level for rule in rules.classes),
        tuple(rule.level for rule in rules.deployments),
    )
    ages = ([each.max_age for each in level if each.max_age is not None] for level in levels)
    passes = ([each.recovery_passes for each in level if each.recovery_passes is not None] for level in levels)
    quorums = ([each.quorum for each in level if each.quorum is not None] for level in levels)
    return Level(
        {},
        next((min(said) for said in ages if said), None),
        next((max(said) for said in passes if said), None),
        next((max(said) for said in quorums if said), None),
    )


# --- made ahead ---------------------------------------------------------------------------------------------------


R = TypeVar("R", Deployment, DeviceClass)


_Ready = list[tuple[R, Callable[[str], object], tuple[Span, ...]]]


class Finder(Generic[R]):
    """The rules of one level for many devices: labels are looked at once for all who have the same.

    Equal results are one object, so that its identity names it.
    """

    def __init__(self, rules: Sequence[R]) -> None:
        self._rules: _Ready[R] = [(rule, _pattern(rule.match.id or "*"), _spans(rule.match)) for rule in rules]
        self._by_labels: dict[tuple[tuple[str, str], ...], tuple[_Ready[R], tuple[R, ...] | None]] = {}
        self._sets: dict[tuple[int, ...], tuple[R, ...]] = {}

    def find(self, device: Device) -> tuple[R, ...]:
        """The rules that are for this device, in the book's order."""
        if not self._rules:
            return ()
        known = self._by_labels.get(device.labels)
        if known is None:
            known = self._by_labels[device.labels] = self._candidates(device.labels)
        ready, settled = known
        if settled is not None:
            return settled
        name = device.id
        found = [each for each in ready if each[1](name) and (not each[2] or _within(each[2], device))]
        return self._one([rule for rule, _, _ in found])

    def _candidates(self, labels: tuple[tuple[str, str], ...]) -> tuple[_Ready[R], tuple[R, ...] | None]:
        """The rules whose labels hold; if nothing else needs to be looked at, they are the result too."""
        have = set(labels)
        ready = [each for each in self._rules if set(each[0].match.labels) <= have]
        rules = [rule for rule, _, _ in ready]
        more = any(rule.match.id or rule.match.prefixes for rule in rules)
        return ready, None if more else self._one(rules)

    def _one(self, found: Sequence[R]) -> tuple[R, ...]:
        key = tuple(map(id, found))
        one = self._sets.get(key)
        if one is None:
            one = self._sets[key] = tuple(found)
        return one


def compile_book(book: Book, devices: Iterable[Device]) -> Book:
    """Return the book with rulings made ahead for these devices; what it decides stays the same."""
    work = compiling(book, devices)
    while True:
        try:
            next(work)
        except StopIteration as end:
            made: Book = end.value
            return made


def compiling(book: Book, devices: Iterable[Device]) -> Generator[None, None, Book]:
    """As ``compile_book``, in slices: yields often enough for a loop that has other things to do."""
    deployments, classes = Finder(book.deployments), Finder(book.classes)
    known: dict[tuple[object, ...], Ruled] = {}
    compiled: dict[DeviceId, tuple[Device, Ruled]] = {}
    own_of, of_deployments, of_classes = book.devices.get, deployments.find, classes.find
    stream = iter(devices)
    while part := list(islice(stream, SLICE)):
        for device in part:
            name = device.id
            own, found, kinds = own_of(name), of_deployments(device), of_classes(device)
            # The book keeps its rules alive: identities name a set of rules, and are quicker than values.
            key = (own if own is None or isinstance(own, str) else id(own), id(found), id(kinds))
            made = known.get(key)
            if made is None:
                made = known[key] = ruled(Matched(found, kinds, book.own(name)), book)
            compiled[name] = (device, made)
        if len(part) == SLICE:
            yield
    made_ahead = copy(book)  # was checked when it was made
    object.__setattr__(made_ahead, "compiled", compiled)
    return made_ahead
