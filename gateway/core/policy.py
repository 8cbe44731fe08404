"""The policy book and the decision it gives: standing x device -> profile, with the chain of rules that made it.

What lives here: the book's value types, the decision, and the checks that a book must pass by itself and against
an inventory. What must not: reading files, rendering for a backend, time of its own.

Specificity, least to most: built-in deny, node default, device; then the standing, which only ever lowers. The
decision is total and monotone in access: trusted reaches at least what suspect with a running deadline reaches,
and that at least what every other standing reaches, which is nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, NamedTuple

from gateway.core.model import DENY, Address, Decision, Device, DeviceId, Standing

ProfileName = Literal["deny", "probation", "admitted"]
Protocol = Literal["tcp", "udp"]
Path = Literal["routed", "relayed"]
Severity = Literal["error", "warning"]

PROBATION: Literal["probation"] = "probation"
ADMITTED: Literal["admitted"] = "admitted"
#: Lowest first: each reaches at most what the next one reaches.
PROFILES: tuple[ProfileName, ...] = ("deny", PROBATION, ADMITTED)
_RANK: Mapping[str, int] = {profile: place for place, profile in enumerate(PROFILES)}

_SUSPECT, _TRUSTED = Standing.SUSPECT, Standing.TRUSTED


def rank(profile: str) -> int:
    """Return a profile's place, 0 for ``deny``. Raises ``KeyError`` for a name that is none."""
    return _RANK[profile]


@dataclass(frozen=True, slots=True)
class Service:
    """A gated service in the protected zone. ``profiles``: who reaches it.

    ``path`` routed: the device's own address arrives at the server; relayed: a relying party forwards its data.
    Raises ``ValueError`` for a port, protocol, path or profile that is none.
    """

    name: str
    address: IPv4Address | IPv6Address
    port: int
    protocol: Protocol = "tcp"
    path: Path = "routed"
    profiles: tuple[ProfileName, ...] = (ADMITTED,)

    def __post_init__(self) -> None:
        _check_endpoint(self.name, self.port, self.protocol)
        if self.path not in ("routed", "relayed"):
            msg = f"path {self.path!r} must be routed or relayed"
            raise ValueError(msg)
        if not self.profiles or not set(self.profiles) <= {PROBATION, ADMITTED}:
            msg = f"profiles {list(self.profiles)} must be some of probation, admitted"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class CorridorEntry:
    """What every known device may always reach, whatever its standing: attestation, resolvers, time; never data.

    Raises ``ValueError`` for a port or protocol that is none.
    """

    name: str
    address: IPv4Address | IPv6Address
    port: int
    protocol: Protocol = "tcp"

    def __post_init__(self) -> None:
        _check_endpoint(self.name, self.port, self.protocol)


class Ruling(NamedTuple):
    """What one standing gets, and the chain of rules that says so."""

    profile: ProfileName
    chain: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Book:
    """The appraisal policy for attestation results (RATS). The default book protects nothing and admits nobody.

    ``node_default``  profile of a trusted device; ``devices`` gives single ones another.
    ``suspect``       the most that a suspect device keeps until its deadline: probation or deny.
    ``rulings``       computed: by own profile (None: the node default), whether a deadline runs, standing.

    Raises ``ValueError`` for a profile that is none.
    """

    services: tuple[Service, ...] = ()
    corridor: tuple[CorridorEntry, ...] = ()
    always_allowed: tuple[IPv4Network | IPv6Network, ...] = ()
    node_default: ProfileName = "deny"
    suspect: ProfileName = "deny"
    devices: Mapping[DeviceId, ProfileName] = field(default_factory=dict)
    rulings: Mapping[ProfileName | None, tuple[tuple[Ruling, ...], tuple[Ruling, ...]]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name in (self.node_default, *self.devices.values()):
            if name not in _RANK:
                msg = f"profile {name!r} must be one of {', '.join(PROFILES)}"
                raise ValueError(msg)
        if self.suspect not in (PROBATION, DENY):
            msg = f"suspect profile {self.suspect!r} must be probation or deny"
            raise ValueError(msg)
        rulings = {
            own: (self._rulings(own, runs=False), self._rulings(own, runs=True)) for own in (None, *PROFILES)
        }
        object.__setattr__(self, "rulings", rulings)

    def reach(self, profile: ProfileName) -> tuple[Service, ...]:
        """Return the services that a profile reaches; probation never reaches what admitted does not."""
        if profile == DENY:
            return ()
        return tuple(service for service in self.services if {profile, ADMITTED} <= set(service.profiles))

    def _rulings(self, own: ProfileName | None, *, runs: bool) -> tuple[Ruling, ...]:
        """One ruling per standing, for devices of one profile, with or without a running deadline."""
        base = self.node_default if own is None else own
        chain: tuple[str, ...] = ("built-in: deny", f"node default: {self.node_default}")
        if own is not None:
            chain = (*chain, f"this device: {own}")
        return tuple(self._ruling(standing, base, chain, runs=runs) for standing in Standing)

    def _ruling(self, standing: Standing, base: ProfileName, chain: tuple[str, ...], *, runs: bool) -> Ruling:
        if standing not in (_TRUSTED, _SUSPECT):
            return Ruling("deny", (*chain, f"standing {standing.label}: deny"))
        if not runs:
            return Ruling("deny", (*chain, f"standing {standing.label} without a deadline: deny"))
        if standing is _TRUSTED:
            return Ruling(base, (*chain, f"standing trusted: {base} until the deadline"))
        lower = min(base, self.suspect, key=rank)
        return Ruling(lower, (*chain, f"standing suspect: at most {self.suspect} until the deadline"))


def decide(
    device: Device,
    standing: Standing,
    deadline: float | None,
    book: Book,
    conflict: tuple[DeviceId, Standing] | None = None,
) -> Decision:
    """Return what a device may do, until when (UNIX seconds; None: nothing), and the chain of rules that says so.

    ``conflict``: the lowest-standing other device that is judged for one of its addresses, with its standing. It
    lowers the effective standing to its own, and a standing that denies on its own account denies here too.
    """
    without, running = book.rulings[book.devices.get(device.id)]
    rulings = without if deadline is None else running
    if conflict is not None:
        return _decide_shared(device, standing, deadline, rulings, conflict)
    profile, chain = rulings[standing]
    return Decision(device.id, standing, profile, None if profile == DENY else deadline, chain)


def _decide_shared(
    device: Device,
    standing: Standing,
    deadline: float | None,
    rulings: tuple[Ruling, ...],
    conflict: tuple[DeviceId, Standing],
) -> Decision:
    other, theirs = conflict
    effective = min(standing, theirs)
    # Suspect stands below lapsed and unknown but keeps a probation they do not have: take the lesser of all three.
    ruling = min((rulings[effective], rulings[standing], rulings[theirs]), key=lambda each: _RANK[each.profile])
    says = f"address shared with {other} ({theirs.label}): judged as {effective.label}, {ruling.profile}"
    until = None if ruling.profile == DENY else deadline
    return Decision(device.id, effective, ruling.profile, until, (*rulings[standing].chain, says))


def tighter(new: Decision, old: Decision) -> bool:
    """Whether ``new`` allows less than ``old``: a lesser profile, or the same one until an earlier end."""
    if new.profile != old.profile:
        return _RANK[new.profile] < _RANK[old.profile]
    return new.until is not None and old.until is not None and new.until < old.until


class Finding(NamedTuple):
    """Something about a book that an operator should mend; an ``error`` keeps the book from being used."""

    severity: Severity
    subject: str
    what: str
    mend: str


def check(book: Book) -> tuple[Finding, ...]:
    """Return what is wrong with a book by itself, errors and warnings in the book's order."""
    found: list[Finding] = []
    found += _duplicates("service", book.services)
    found += _duplicates("corridor entry", book.corridor)
    gated = {(service.address, service.port, service.protocol): service.name for service in book.services}
    for service in book.services:
        if ADMITTED not in service.profiles:
            what = "probation reaches it and admitted does not: a lower profile would reach more"
            found.append(Finding("error", f"service {service.name}", what, "list admitted too"))
    for entry in book.corridor:
        opened = gated.get((entry.address, entry.port, entry.protocol))
        if opened is not None:
            what = f"it opens the gated service {opened} to every known device, whatever its standing"
            found.append(Finding("error", f"corridor entry {entry.name}", what, "remove it from the corridor"))
    for network in book.always_allowed:
        if network.prefixlen == 0:
            what = "it allows every client, devices too: nothing would be gated"
            found.append(Finding("error", f"always_allowed {network}", what, "name the clients' own prefixes"))
    if not book.services:
        found.append(Finding("warning", "services", "the book protects no service", "list the gated services"))
    elif book.node_default == DENY and all(profile == DENY for profile in book.devices.values()):
        what = "no device reaches anything, trusted or not"
        found.append(Finding("warning", "node_default", what, "set it to admitted, or list devices"))
    return tuple(found)


def check_against(book: Book, devices: Iterable[Device]) -> tuple[Finding, ...]:
    """Return where a book and an inventory contradict each other: gates that open or lock out by themselves."""
    endpoints = {entry.address.packed: f"corridor entry {entry.name}" for entry in book.corridor}
    endpoints |= {service.address.packed: f"service {service.name}" for service in book.services}
    allowed = tuple((network, _span(network)) for network in book.always_allowed)
    nets = {packed[:8]: packed for packed in endpoints if len(packed) == 16}
    found: list[Finding] = []
    unlisted = dict(book.devices)
    for device in devices:
        unlisted.pop(device.id, None)
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
    return tuple(found)


def _bypasses(
    device: Device,
    address: Address,
    allowed: tuple[tuple[IPv4Network | IPv6Network, tuple[int, int, int]], ...],
) -> Iterable[Finding]:
    first = int.from_bytes(address.packed)
    last = first | ((1 << 64) - 1) if address.prefix == 64 else first
    for network, (size, low, high) in allowed:
        if len(address.packed) == size and low <= last and first <= high:
            what = f"its address {address} lies in always_allowed {network}: it would never be gated"
            yield Finding("error", f"device {device.id}", what, "narrow the prefix, or move the device out of it")


def _span(network: IPv4Network | IPv6Network) -> tuple[int, int, int]:
    """Address length in bytes, lowest and highest address of a network."""
    return len(network.network_address.packed), int(network.network_address), int(network.broadcast_address)


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


def _check_endpoint(name: str, port: int, protocol: str) -> None:
    if not name:
        msg = "a name is needed"
        raise ValueError(msg)
    if not 1 <= port <= 65535:
        msg = f"port {port} must be 1 to 65535"
        raise ValueError(msg)
    if protocol not in ("tcp", "udp"):
        msg = f"protocol {protocol!r} must be tcp or udp"
        raise ValueError(msg)
