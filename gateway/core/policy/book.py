"""The policy book's value types: what is gated, which profiles there are, and what each level says.

What lives here: frozen values that cannot be made wrong by themselves. What must not: reading files, deciding,
checks over several values, time of its own.

Levels, least to most specific: built-in deny, node default, deployment (application), device class, device,
operator override with expiry. A level says for some standings which profile they get; what it leaves out, the next
less specific level says, and in the end nothing does: deny.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, NamedTuple

from gateway.core.model import DENY, Device, DeviceId, Standing

#: A profile's name: also that of a set of the path gate.
ProfileName = str
Protocol = Literal["tcp", "udp"]
Path = Literal["routed", "relayed"]
Network = IPv4Network | IPv6Network
#: What one level gives to standings; a standing that is left out is left to the next less specific level.
Standings = Mapping[Standing, ProfileName]
#: The services that a profile reaches, by name; ``all``; None: those that list the profile under ``profiles``.
Reach = tuple[str, ...] | Literal["all"] | None
Kind = Literal["path_gate", "network", "host", "container", "cluster"]
Operator = Literal["<", "<=", "==", "!=", ">=", ">"]

PROBATION = "probation"
ADMITTED = "admitted"
NORMAL = "normal"
KINDS: tuple[Kind, ...] = ("path_gate", "network", "host", "container", "cluster")
OPERATORS: tuple[Operator, ...] = ("<=", ">=", "==", "!=", "<", ">")

#: The path gate names a set after it, with a family behind.
_PROFILE = re.compile(r"[a-z][a-z0-9_]{0,15}\Z")
#: What would collide with other sets of the path gate, or with the words of its language.
RESERVED = frozenset({"cut", "known", "always", "gated", "hosts", "corridor", "ip", "icmpv", "baseline"})


@dataclass(frozen=True, slots=True)
class Service:
    """A gated service in the protected zone. ``profiles``: who reaches it, of those without a reach of their own.

    ``path`` routed: the device's own address arrives at the server; relayed: a relying party forwards its data.
    Raises ``ValueError`` for a port, protocol, path or list of profiles that is none.
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
            raise _wrong(f"path {self.path!r} must be routed or relayed")
        if not self.profiles or DENY in self.profiles:
            raise _wrong(f"profiles {list(self.profiles)} must be one or more, without deny")


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


class Rate(NamedTuple):
    """At most so many new connections of one device in ``per`` seconds."""

    new_connections: int
    per: float


@dataclass(frozen=True, slots=True)
class Profile:
    """A named set of what may be reached and of documents that stand while a device, or the site, has it.

    ``rank``        orders device profiles: a lower rank never reaches what a higher one does not. ``deny`` is 0.
    ``reach``       see ``Reach``; an empty tuple admits nothing, and only such a profile fits every standing.
    ``documents``   KubeArmor documents, opaque here: the file names as the reader found them.
    ``parameters``  typed values for the documents' templates, opaque here.
    ``site``        a profile of the site as a whole, which no device has; rank and reach mean nothing then.

    Raises ``ValueError`` for a name or rank that is none.
    """

    name: ProfileName
    rank: int = 0
    reach: Reach = None
    rate: Rate | None = None
    documents: tuple[str, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    site: bool = False

    def __post_init__(self) -> None:
        if not _PROFILE.match(self.name) or self.name in RESERVED:
            raise _wrong(
                f"profile name {self.name[:64]!r} must be 1 to 16 of a-z 0-9 _ and no word of the path gate"
            )
        if not self.site and (self.rank == 0) is not (self.name == DENY):
            raise _wrong(f"profile {self.name}: rank must be 1 or more, and 0 for deny alone")
        if self.rank < 0:
            raise _wrong(f"profile {self.name}: rank {self.rank} must be 1 or more")

    @property
    def admits(self) -> bool:
        """Whether a device can have it as an admission, for a time."""
        return self.reach != () and not self.site


#: The profiles that stand without a folder.
BUILT_IN: Mapping[ProfileName, Profile] = {
    DENY: Profile(DENY, 0, ()),
    PROBATION: Profile(PROBATION, 50),
    ADMITTED: Profile(ADMITTED, 100),
}
#: Their names, lowest first: each reaches at most what the next one reaches.
PROFILES: tuple[ProfileName, ...] = tuple(BUILT_IN)


@dataclass(frozen=True, slots=True)
class Match:
    """Which devices a rule is for: all that is given must hold. Raises ``ValueError`` when nothing is given.

    ``labels``    each with exactly this value.  ``id``  a pattern with ``*`` and ``?`` over the whole id.
    ``prefixes``  one of the device's addresses lies in one of them.
    """

    labels: tuple[tuple[str, str], ...] = ()
    id: str = ""
    prefixes: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        if not (self.labels or self.id or self.prefixes):
            raise _wrong("a match must be given labels, an id pattern or a prefix: it would be for every device")


@dataclass(frozen=True, slots=True)
class Level:
    """What one rule of one level says; None: it leaves that to the next less specific level, at last the source.

    ``max_age``          seconds for which a pass admits at most.
    ``recovery_passes``  satisfying passes owed after a failure.
    ``quorum``           sources that must be trusted; the others may be silent, none may be negative.

    Raises ``ValueError`` for values under which nothing would ever admit, or a failure be forgotten.
    """

    standings: Standings = field(default_factory=dict)
    max_age: float | None = None
    recovery_passes: int | None = None
    quorum: int | None = None

    def __post_init__(self) -> None:
        if self.max_age is not None and not self.max_age > 0:
            raise _wrong(f"max_age {self.max_age:g} must be above 0 seconds")
        for name, number in (("recovery_passes", self.recovery_passes), ("quorum", self.quorum)):
            if number is not None and number < 1:
                raise _wrong(f"{name} {number} must be 1 or more")


@dataclass(frozen=True, slots=True)
class Deployment:
    """An application. ``services``: exactly those that its trusted devices reach by it; () says nothing of them."""

    name: str
    match: Match
    level: Level = Level()
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """Devices of one kind."""

    name: str
    match: Match
    level: Level = Level()


class Condition(NamedTuple):
    """The devices of one standing, compared with a number, or with a share of all devices in percent.

    ``device_class`` narrows both counts to one class. A share of no devices at all holds for nothing.
    """

    standing: Standing
    operator: Operator
    value: float
    share: bool = False
    device_class: str = ""

    def __str__(self) -> str:
        of = f" of class {self.device_class}" if self.device_class else ""
        return f"{self.standing.label}{of} {self.operator} {self.value:g}{'%' if self.share else ''}"


@dataclass(frozen=True, slots=True)
class SiteProfile:
    """A profile of the site as a whole, and when it stands: all conditions hold. None: always."""

    name: ProfileName
    when: tuple[Condition, ...] = ()


class AlertThreshold(NamedTuple):
    """So many alerts of at least this severity within so many seconds."""

    severity: int
    alerts: int
    within: float


class ResourceThreshold(NamedTuple):
    """A resource above a share (0 to 1) for so many seconds raises an alarm."""

    above: float
    lasting: float


class Thresholds(NamedTuple):
    """When alerts and resources count. None: they never do.

    ``suspect``: alerts about packets of one device make it suspect. ``alarm``: alerts of one host, whoever caused
    them, raise an alarm.
    """

    suspect: AlertThreshold | None = None
    cpu: ResourceThreshold | None = None
    memory: ResourceThreshold | None = None
    alarm: AlertThreshold | None = None


class Override(NamedTuple):
    """An operator's word for one device, until a UNIX time. It changes what the book gives, not the standing."""

    device: DeviceId
    profile: ProfileName
    until: float
    actor: str
    reason: str


class Ruling(NamedTuple):
    """What one standing gets, whether that is an admission, and the chain of rules that says so."""

    profile: ProfileName
    admits: bool
    chain: tuple[str, ...]


class Ruled(NamedTuple):
    """What the book says of one device: rulings by standing without and with a running deadline, and the marks."""

    without: tuple[Ruling, ...]
    running: tuple[Ruling, ...]
    marks: Level


#: What the book says of every device of an inventory. A device is known by identity: equal is not the same.
Compiled = Mapping[DeviceId, tuple[Device, Ruled]]


@dataclass(frozen=True, slots=True)
class Book:
    """The appraisal policy for attestation results (RATS). The default book protects nothing and admits nobody.

    ``node_default``  profile of a trusted device, where nothing more specific says otherwise.
    ``suspect``       the most that a suspect device keeps until its deadline, likewise.
    ``others``        what the node default gives to the standings that admit nothing (``quarantine``, say).
    ``devices``       single devices: the profile when trusted, or a whole level.
    ``profiles``      every profile by name; the built-in ones are added.
    ``targets``       kinds of documents per target of the main file; empty: nothing is said of them.
    ``cut_on_hints``  hint sources (``hook``, ``verifier.feed``) whose word of a failure cuts at once: a suspect
                      device then keeps nothing until its deadline.
    ``compiled``      rulings made ahead for an inventory; any other device's are made when asked for.

    Raises ``ValueError`` for a profile that is none, or one that does not fit a standing.
    """

    services: tuple[Service, ...] = ()
    corridor: tuple[CorridorEntry, ...] = ()
    always_allowed: tuple[Network, ...] = ()
    node_default: ProfileName = DENY
    suspect: ProfileName = DENY
    devices: Mapping[DeviceId, ProfileName | Level] = field(default_factory=dict)
    others: Standings = field(default_factory=dict)
    deployments: tuple[Deployment, ...] = ()
    classes: tuple[DeviceClass, ...] = ()
    site: tuple[SiteProfile, ...] = ()
    profiles: Mapping[ProfileName, Profile] = field(default_factory=dict)
    targets: Mapping[str, tuple[Kind, ...]] = field(default_factory=dict)
    thresholds: Thresholds = Thresholds()  # noqa: RUF009 - immutable value
    cut_on_hints: frozenset[str] = frozenset()
    compiled: Compiled = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "profiles", {**BUILT_IN, **self.profiles})
        for service in self.services:
            for name in service.profiles:
                self._need(name, f"service {service.name}")
        self.fit(self.default.standings, "node default")
        rules: tuple[Deployment | DeviceClass, ...] = (*self.deployments, *self.classes)
        for rule in rules:
            self.fit(rule.level.standings, rule.name)
        for name in {each for each in self.devices.values() if isinstance(each, str)}:
            self._need(name, "devices")
        for device, level in self.devices.items():
            if isinstance(level, Level):
                self.fit(level.standings, device)

    @property
    def default(self) -> Level:
        """The node default as a level."""
        standings = {Standing.TRUSTED: self.node_default, Standing.SUSPECT: self.suspect, **self.others}
        return Level(standings)

    def fit(self, standings: Standings, where: str) -> None:
        """Raise ``ValueError`` unless each profile is known and fits its standing: only trusted admits fully."""
        for standing, name in standings.items():
            profile = self._need(name, where)
            if standing is Standing.TRUSTED:
                continue
            if standing is Standing.SUSPECT:
                if name == ADMITTED:
                    raise _wrong(f"{where}: suspect profile {name!r} must be less than admitted, such as probation")
            elif profile.admits:
                raise _wrong(
                    f"{where}: {standing.label} admits nothing: {name!r} must be a profile that reaches nothing"
                )

    def _need(self, name: ProfileName, where: str) -> Profile:
        profile = self.profiles.get(name)
        if profile is None or profile.site:
            known = ", ".join(each for each, profile in self.profiles.items() if not profile.site)
            raise _wrong(f"{where}: profile {name!r} must be one of {known}")
        return profile

    def own(self, device: DeviceId) -> Level | None:
        """What the book says of one device by its name."""
        level = self.devices.get(device)
        return Level({Standing.TRUSTED: level}) if isinstance(level, str) else level

    def rank(self, profile: ProfileName) -> int:
        """A profile's rank; 0 for a name that the book does not know: it reaches nothing."""
        found = self.profiles.get(profile)
        return 0 if found is None else found.rank

    def listed(self, profile: ProfileName) -> tuple[Service, ...]:
        """The services that a profile itself claims, whatever the others do."""
        reach = self.profiles[profile].reach
        if reach == "all":
            return self.services
        if reach is None:
            return tuple(service for service in self.services if profile in service.profiles)
        return tuple(service for service in self.services if service.name in reach)

    def reach(self, profile: ProfileName) -> tuple[Service, ...]:
        """Return the services that a profile reaches: never one that a profile of higher rank does not."""
        mine = self.listed(profile)
        rank = self.profiles[profile].rank
        for other in self.ordered():
            if other.rank > rank:
                beyond = self.listed(other.name)
                mine = tuple(service for service in mine if service in beyond)
        return mine

    def ordered(self) -> tuple[Profile, ...]:
        """The device profiles, lowest first."""
        return tuple(sorted((p for p in self.profiles.values() if not p.site), key=lambda profile: profile.rank))


def _check_endpoint(name: str, port: int, protocol: str) -> None:
    if not name:
        raise _wrong("a name is needed")
    if not 1 <= port <= 65535:
        raise _wrong(f"port {port} must be 1 to 65535")
    if protocol not in ("tcp", "udp"):
        raise _wrong(f"protocol {protocol!r} must be tcp or udp")


def _wrong(what: str) -> ValueError:
    return ValueError(what)
