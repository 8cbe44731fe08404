"""The checks that a book must pass by itself and against an inventory.

What lives here: findings, in the book's order. What must not: places in files, other configuration, links.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise
from typing import Literal, NamedTuple

from gateway.core.model import DENY, Address, Device, Standing
from gateway.core.policy.book import (
    Book,
    CorridorEntry,
    Deployment,
    DeviceClass,
    Level,
    Network,
    Service,
    SiteProfile,
)
from gateway.core.policy.rulings import Finder, Span, disagreeing, ends_of, span_of

Severity = Literal["error", "warning"]


class Finding(NamedTuple):
    """Something about a book that an operator should mend; an ``error`` keeps the book from being used."""

    severity: Severity
    subject: str
    what: str
    mend: str


#: Sources that an inventory gives one device.
_SUSPECT, _TRUSTED = Standing.SUSPECT, Standing.TRUSTED


def check(book: Book) -> tuple[Finding, ...]:
    """Return what is wrong with a book by itself, errors and warnings in the book's order."""
    return (
        *_duplicates("service", book.services),
        *_duplicates("corridor entry", book.corridor),
        *_profiles(book),
        *_openings(book),
        *_twice("deployment", book.deployments),
        *_twice("class", book.classes),
        *(finding for deployment in book.deployments for finding in _deployment(deployment, book)),
        *(finding for each in book.classes for finding in _level(f"class {each.name}", each.level, book)),
        *_devices(book),
        *_site(book),
        *_idle(book),
    )


def _profiles(book: Book) -> Iterator[Finding]:
    """Ranks that do not order, services that are none, and a lower profile that reaches more."""
    ordered = book.ordered()
    for low, high in pairwise(ordered):
        if low.rank == high.rank:
            what = f"its rank {high.rank} is that of {low.name} too: neither would be the more restrictive"
            yield Finding("error", f"profile {high.name}", what, "give each profile a rank of its own")
    names = {service.name for service in book.services}
    for profile in ordered:
        for name in profile.reach if isinstance(profile.reach, tuple) else ():
            if name not in names:
                what = f"it reaches {name}, and the book has no such service"
                yield Finding("error", f"profile {profile.name}", what, "name one of the book's services")
    listed = {profile.name: book.listed(profile.name) for profile in ordered}
    for service in book.services:
        for low, high in combinations(ordered, 2):
            if service in listed[low.name] and service not in listed[high.name]:
                what = f"{low.name} reaches it and {high.name} does not: a lower profile would reach more"
                mend = f"list {high.name} too" if high.reach is None else f"add it to the reach of {high.name}"
                yield Finding("error", f"service {service.name}", what, mend)
                break


def _openings(book: Book) -> Iterator[Finding]:
    """Gates that stand open by themselves."""
    gated = {(service.address, service.port, service.protocol): service.name for service in book.services}
    for entry in book.corridor:
        opened = gated.get((entry.address, entry.port, entry.protocol))
        if opened is not None:
            what = f"it opens the gated service {opened} to every known device, whatever its standing"
            yield Finding("error", f"corridor entry {entry.name}", what, "remove it from the corridor")
    for network in book.always_allowed:
        if network.prefixlen == 0:
            what = "it allows every client, devices too: nothing would be gated"
            yield Finding("error", f"always_allowed {network}", what, "name the clients' own prefixes")


def _level(subject: str, level: Level, book: Book, *, names: bool = False) -> Iterator[Finding]:
    """What a level says against itself. ``names``: its rule says something beside."""
    trusted, suspect = level.standings.get(_TRUSTED), level.standings.get(_SUSPECT)
    if trusted is not None and suspect is not None and book.rank(suspect) > book.rank(trusted):
        what = f"suspect gets {suspect} and trusted only {trusted}: a lower standing would reach more"
        yield Finding("error", subject, what, f"give suspect {trusted} or less")
    if level == Level() and not names:
        what = "it says nothing: no standings, max_age, recovery_passes or quorum"
        yield Finding("warning", subject, what, "write standings, or remove it")


def _deployment(deployment: Deployment, book: Book) -> Iterator[Finding]:
    """What a deployment says it reaches must be what its trusted devices get by it: nothing else enforces it."""
    subject = f"deployment {deployment.name}"
    yield from _level(subject, deployment.level, book, names=bool(deployment.services))
    if not deployment.services:
        return
    profile = deployment.level.standings.get(_TRUSTED, book.node_default)
    reached = [service.name for service in book.reach(profile)]
    known = {service.name for service in book.services}
    for name in deployment.services:
        if name not in known:
            what = f"the book has no service {name}"
            yield Finding("error", subject, what, "name one of the book's services")
        elif name not in reached:
            what = f"its devices need {name}, and {profile}, which they get when trusted, does not reach it"
            yield Finding("error", subject, what, f"let {profile} reach it, or give another profile")
    for name in reached:
        if name not in deployment.services:
            what = f"its devices get {profile} when trusted, which reaches {name} as well"
            mend = "list it among the deployment's services, or give a profile that reaches less"
            yield Finding("error", subject, what, mend)


def _devices(book: Book) -> Iterator[Finding]:
    for name, own in book.devices.items():
        if isinstance(own, Level):
            yield from _level(f"device {name}", own, book)


def _site(book: Book) -> Iterator[Finding]:
    known = {profile.name for profile in book.profiles.values() if profile.site}
    classes = {each.name for each in book.classes}
    always = ""
    for rule in book.site:
        subject = f"site {rule.name}"
        if rule.name in book.profiles and rule.name not in known:
            yield Finding("error", subject, "it is a profile of devices", "name a site profile, such as lockdown")
        elif known and rule.name not in known:
            what = "the profiles folder has no such site profile"
            yield Finding("error", subject, what, f"use one of {', '.join(sorted(known))}")
        if always:
            what = f"it is never reached: {always} above it has no condition"
            yield Finding("error", subject, what, f"move it above {always}, or remove it")
        always = always or ("" if rule.when else rule.name)
        for condition in rule.when:
            if condition.device_class and condition.device_class not in classes:
                what = f"the book has no class {condition.device_class}"
                yield Finding("error", subject, what, "name one of the book's classes")
    yield from _twice("site", book.site)


def _idle(book: Book) -> Iterator[Finding]:
    if not book.services:
        yield Finding("warning", "services", "the book protects no service", "list the gated services")
        return
    levels = [book.default, *(rule.level for rule in book.deployments), *(rule.level for rule in book.classes)]
    given = {level.standings.get(_TRUSTED, DENY) for level in levels}
    given |= {own.standings.get(_TRUSTED, DENY) for each in book.devices if (own := book.own(each)) is not None}
    if not any(book.profiles[name].admits for name in given):
        what = "no device reaches anything, trusted or not"
        yield Finding("warning", "node_default", what, "set it to admitted, or list devices")


# --- against the inventory ----------------------------------------------------------------------------------------


def check_against(book: Book, devices: Iterable[Device]) -> tuple[Finding, ...]:
    """Return where a book and an inventory contradict each other: gates that open or lock out by themselves."""
    endpoints = {entry.address.packed: f"corridor entry {entry.name}" for entry in book.corridor}
    endpoints |= {service.address.packed: f"service {service.name}" for service in book.services}
    allowed = tuple((network, span_of(network)) for network in book.always_allowed)
    nets = {packed[:8]: packed for packed in endpoints}  # an IPv4 address has no eight bytes to be found by
    found: list[Finding] = []
    unlisted = dict(book.devices)
    met = _Met(book)
    for device in devices:
        unlisted.pop(device.id, None)
        met.look(device)
        for address in device.binding.addresses:
            packed = address.packed if address.prefix != 64 else nets.get(address.packed[:8], b"")
            if packed in endpoints:
                what = f"its address {address} is that of {endpoints[packed]}: cutting one would cut the other"
                found.append(Finding("error", f"device {device.id}", what, "give each an address of its own"))
            if allowed:
                found += _bypasses(device, address, allowed)
    for name in unlisted:
        what = "the book gives it a profile, but the inventory does not list it"
        found.append(Finding("error", f"device {name}", what, "correct the name, or remove it from the book"))
    return (*found, *met.findings(), *_quorums(book, devices))


class _Met:
    """Which rules devices match, and which of equal specificity disagree."""

    def __init__(self, book: Book) -> None:
        self._deployments, self._classes = Finder(book.deployments), Finder(book.classes)
        self._subjects = [f"deployment {rule.name}" for rule in book.deployments]
        self._subjects += [f"class {rule.name}" for rule in book.classes]
        # By the identity of a set of rules: how many devices have it, and the first of them.
        self._sets: dict[int, tuple[int, Device, str, tuple[Deployment, ...] | tuple[DeviceClass, ...]]] = {}

    def look(self, device: Device) -> None:
        """Take note of one device."""
        if not self._subjects:
            return
        self._count(device, "deployment", self._deployments.find(device))
        self._count(device, "class", self._classes.find(device))

    def _count(self, device: Device, kind: str, rules: tuple[Deployment, ...] | tuple[DeviceClass, ...]) -> None:
        if rules:
            number, first, _, _ = self._sets.get(id(rules), (0, device, kind, rules))
            self._sets[id(rules)] = (number + 1, first, kind, rules)

    def findings(self) -> Iterator[Finding]:
        """What is worth saying once every device was looked at."""
        for number, first, kind, rules in self._sets.values():
            for standing in disagreeing(rules):
                names = " and ".join(f"{rule.name} ({_given(rule, standing)})" for rule in rules)
                what = f"{number} devices ({first.id} first) match {names}: the more restrictive wins"
                mend = "narrow a match, or say what is meant for the device by its name"
                yield Finding("warning", f"{kind} {rules[-1].name}", what, mend)
        met = {f"{kind} {rule.name}" for _, _, kind, rules in self._sets.values() for rule in rules}
        for subject in self._subjects:
            if subject not in met:
                what = "no device of the inventory matches it"
                yield Finding("warning", subject, what, "correct the match, or remove it")


def _given(rule: Deployment | DeviceClass, standing: Standing) -> str:
    return f"{standing.label} {rule.level.standings.get(standing, 'as elsewhere')}"


def _quorums(book: Book, devices: Iterable[Device]) -> Iterator[Finding]:
    """No more sources can ever trust a device than the inventory gives it."""
    most = max((len(device.sources) for device in devices), default=1)
    levels = [(f"deployment {rule.name}", rule.level) for rule in book.deployments]
    levels += [(f"class {rule.name}", rule.level) for rule in book.classes]
    # The book's entry, not the inventory's.
    levels += [(f"devices {name}", own) for name, own in book.devices.items() if isinstance(own, Level)]
    for subject, level in levels:
        if level.quorum is not None and level.quorum > most:
            what = f"quorum {level.quorum}: no device of the inventory has more than {most} source{'s'[: most - 1]}"
            mend = f"write quorum: {most}, or list further sources of the devices"
            yield Finding("error", subject, f"{what}, so none would be trusted", mend)


def _bypasses(
    device: Device,
    address: Address,
    allowed: tuple[tuple[Network, Span], ...],
) -> Iterable[Finding]:
    size, first, last = ends_of(address)
    for network, (length, low, high) in allowed:
        if size == length and low <= last and first <= high:
            what = f"its address {address} lies in always_allowed {network}: it would never be gated"
            yield Finding("error", f"device {device.id}", what, "narrow the prefix, or move the device out of it")


def _duplicates(kind: str, entries: Iterable[Service | CorridorEntry]) -> Iterable[Finding]:
    names: set[str] = set()
    places: dict[tuple[object, int, str], str] = {}
    for entry in entries:
        if entry.name in names:
            yield Finding(
                "error", f"{kind} {entry.name}", "the name is listed twice", "give each a name of its own"
            )
        names.add(entry.name)
        place = (entry.address, entry.port, entry.protocol)
        first = places.setdefault(place, entry.name)
        if first != entry.name:
            what = f"{entry.address} port {entry.port}/{entry.protocol} is listed already as {first}"
            yield Finding("error", f"{kind} {entry.name}", what, "keep one of the two")


def _twice(kind: str, rules: Iterable[Deployment | DeviceClass | SiteProfile]) -> Iterator[Finding]:
    names: set[str] = set()
    for rule in rules:
        if rule.name in names:
            yield Finding("error", f"{kind} {rule.name}", "the name is listed twice", "give each a name of its own")
        names.add(rule.name)
