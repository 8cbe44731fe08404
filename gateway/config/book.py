"""The policy book's file. What the book means and which books contradict themselves is policy's, not ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Literal, NamedTuple

from gateway.config.book_levels import Levels
from gateway.config.book_profiles import read_profiles
from gateway.config.book_site import read_site, read_targets, read_thresholds
from gateway.config.document import SMALL_FILE, Problems, Section, Value, compose, did_you_mean, read_text
from gateway.config.parsing import parse_name, parse_network
from gateway.config.values import Network
from gateway.core.errors import ConfigError
from gateway.core.model import DENY, Standing
from gateway.core.policy import (
    ADMITTED,
    BUILT_IN,
    Book,
    CorridorEntry,
    Deployment,
    DeviceClass,
    Profile,
    ProfileName,
    Protocol,
    Service,
    SiteProfile,
    Thresholds,
    check,
)

#: Keys of the file and of the sections that live here.
BOOK_KEYS = (
    "targets",
    "profiles",
    "services",
    "corridor",
    "always_allowed",
    "node_default",
    "suspect",
    "deployments",
    "classes",
    "devices",
    "site",
    "thresholds",
    "cut_on_hints",
)
SERVICE_KEYS = ("name", "address", "port", "protocol", "path", "profiles")
CORRIDOR_KEYS = ("name", "address", "port", "protocol")
PROTOCOLS: tuple[Protocol, ...] = ("tcp", "udp")
PATHS: tuple[Literal["routed", "relayed"], ...] = ("routed", "relayed")


class Placed(NamedTuple):
    """A book, and where its parts stand in the file, by the subjects of policy's findings."""

    book: Book
    places: Mapping[str, str]


def load_book(path: Path) -> Book:
    """Return the book in ``path``. Raises ``ConfigError`` for one that cannot be used."""
    return read_book(path).book


def read_book(path: Path) -> Placed:
    """As ``load_book``, with the places."""
    problems = Problems()
    places: dict[str, str] = {}
    top = compose(read_text(path, SMALL_FILE), path, problems)
    top.known(*BOOK_KEYS)
    places |= {key: value.where for key in BOOK_KEYS if (value := top.get(key)) is not None}
    no_profiles: dict[ProfileName, Profile] = {}
    before = bool(problems)
    own = top.take("profiles", lambda value: _profiles(value, path, places), no_profiles)
    if problems and not before:
        problems.settle()  # a profile left out for its mistake would look unknown in the book
    levels = Levels({**BUILT_IN, **own}, places)
    try:
        book = _book(top, levels, own)
    except ValueError as error:
        if not problems:  # what was left out in place of a mistake need not fit the rest
            problems.add(str(path), str(error), "correct the book")
        problems.settle()
        raise
    # A value left out for its mistake would look like a contradiction: first things first.
    for finding in () if problems else check(book):
        if finding.severity == "error":
            problems.add(places.get(finding.subject, str(path)), f"{finding.subject}: {finding.what}", finding.mend)
    problems.settle()
    return Placed(book, places)


def _book(top: Section, levels: Levels, profiles: Mapping[ProfileName, Profile]) -> Book:
    places = levels.places
    nothing: dict[Standing, ProfileName] = {}
    default = top.take("node_default", levels.standings, nothing)
    suspect = top.take("suspect", levels.suspected, DENY)
    if Standing.SUSPECT in default:
        both = top.get("suspect")
        if both is not None:
            top.problems.add(both.where, "node_default says already what suspect gets", "keep one of the two")
        suspect = default[Standing.SUSPECT]
    no_deployments: tuple[Deployment, ...] = ()
    no_classes: tuple[DeviceClass, ...] = ()
    no_site: tuple[SiteProfile, ...] = ()
    return Book(
        services=top.take("services", lambda value: value.gather(lambda item: _service(item, levels)), ()),
        corridor=top.take("corridor", lambda value: value.gather(lambda item: _corridor(item, places)), ()),
        always_allowed=top.take(
            "always_allowed", lambda value: value.gather(lambda item: _network(item, places)), ()
        ),
        node_default=default.get(Standing.TRUSTED, DENY),
        suspect=suspect,
        devices=top.take("devices", lambda value: levels.devices(value.section()), {}),
        others={each: name for each, name in default.items() if each not in (Standing.TRUSTED, Standing.SUSPECT)},
        deployments=top.take("deployments", lambda value: value.gather(levels.deployment), no_deployments),
        classes=top.take("classes", lambda value: value.gather(levels.device_class), no_classes),
        site=top.take("site", lambda value: value.gather(lambda item: read_site(item, places)), no_site),
        profiles=profiles,
        targets=top.take("targets", lambda value: read_targets(value.section(), places), {}),
        thresholds=top.take("thresholds", lambda value: read_thresholds(value.section()), Thresholds()),
        cut_on_hints=top.take("cut_on_hints", lambda value: _hint_sources(value, places), frozenset()),
    )


def check_hints(placed: Placed, known: Sequence[str], problems: Problems) -> None:
    """Remember as mistakes the sources of hints that the book names and nobody has configured."""
    for name in sorted(placed.book.cut_on_hints - set(known)):
        what = f"the main file has no source of hints named {name!r}"
        mend = did_you_mean(name, known) if known else "configure doors.hook, or a feed at a source"
        problems.add(placed.places[f"hints {name}"], what, mend)


def _hint_sources(value: Value, places: dict[str, str]) -> frozenset[str]:
    found: set[str] = set()
    for item in value.items():
        name = item.parsed(parse_name)
        if name in found:
            raise item.wrong(f"{name} is listed twice", "keep one of the two")
        places[f"hints {name}"] = item.where
        found.add(name)
    return frozenset(found)


def _profiles(value: Value, path: Path, places: dict[str, str]) -> dict[ProfileName, Profile]:
    try:
        return read_profiles(path.absolute().parent / value.text(), value.problems, places)
    except ConfigError as error:
        raise value.wrong(str(error)) from error


def _service(item: Value, levels: Levels) -> Service:
    section = item.section()
    section.name = "a service"
    section.known(*SERVICE_KEYS)
    name = section.need("name", "feed").parsed(parse_name)
    service = Service(
        name=name,
        address=section.need("address", "10.77.3.2").parsed(_address),
        port=section.need("port", "8001").whole(1, 65_535),
        protocol=section.take("protocol", _protocol, "tcp"),
        path=section.take("path", lambda value: value.choice(PATHS), "routed"),
        profiles=section.take("profiles", levels.reaching, (ADMITTED,)),
    )
    levels.places[f"service {name}"] = section.where
    written = section.get("profiles")
    for profile in () if written is None else service.profiles:
        reach = levels.profiles[profile].reach
        if isinstance(reach, tuple) and name not in reach:
            what = f"{profile} has a reach of its own, and {name} is not in it"
            raise section.wrong(what, f"add {name} to the reach of {profile}, or leave {profile} out here")
    return service


def _corridor(item: Value, places: dict[str, str]) -> CorridorEntry:
    section = item.section()
    section.name = "a corridor entry"
    section.known(*CORRIDOR_KEYS)
    name = section.need("name", "verifier").parsed(parse_name)
    entry = CorridorEntry(
        name=name,
        address=section.need("address", "10.77.2.2").parsed(_address),
        port=section.need("port", "8100").whole(1, 65_535),
        protocol=section.take("protocol", _protocol, "tcp"),
    )
    places[f"corridor entry {name}"] = section.where
    return entry


def _network(item: Value, places: dict[str, str]) -> Network:
    network = item.parsed(parse_network)
    places[f"always_allowed {network}"] = item.where
    return network


def _address(text: str) -> IPv4Address | IPv6Address:
    address = ip_address(text)
    if address.is_unspecified or address.is_multicast or (isinstance(address, IPv6Address) and address.scope_id):
        msg = f"{text} is not the address of one host"
        raise ValueError(msg)
    return address


def _protocol(value: Value) -> Protocol:
    return value.choice(PROTOCOLS)
