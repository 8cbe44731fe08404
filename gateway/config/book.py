"""The policy book's file. What the book means and which books contradict themselves is policy's, not ours."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Literal, NamedTuple

from gateway.config.document import SMALL_FILE, Problems, Section, Value, compose, read_text
from gateway.config.values import Network, parse_name, parse_network
from gateway.core.errors import ConfigError
from gateway.core.model import DeviceId, parse_device_id
from gateway.core.policy import (
    ADMITTED,
    PROBATION,
    PROFILES,
    Book,
    CorridorEntry,
    ProfileName,
    Protocol,
    Service,
    check,
)

_PROTOCOLS: tuple[Protocol, ...] = ("tcp", "udp")
_PATHS: tuple[Literal["routed", "relayed"], ...] = ("routed", "relayed")
_SUSPECT: tuple[ProfileName, ...] = (PROBATION, "deny")
_REACHING: tuple[ProfileName, ...] = (PROBATION, ADMITTED)


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
    top.known("services", "corridor", "always_allowed", "node_default", "suspect", "devices")
    book = Book(
        services=top.take("services", lambda value: value.gather(lambda item: _service(item, places)), ()),
        corridor=top.take("corridor", lambda value: value.gather(lambda item: _corridor(item, places)), ()),
        always_allowed=top.take(
            "always_allowed", lambda value: value.gather(lambda item: _network(item, places)), ()
        ),
        node_default=top.take("node_default", _profile, "deny"),
        suspect=top.take("suspect", _suspect, "deny"),
        devices=top.take("devices", lambda value: _devices(value.section(), places), {}),
    )
    for finding in check(book):
        if finding.severity == "error":
            problems.add(places.get(finding.subject, str(path)), f"{finding.subject}: {finding.what}", finding.mend)
    problems.settle()
    return Placed(book, places)


def _service(item: Value, places: dict[str, str]) -> Service:
    section = item.section()
    section.name = "a service"
    section.known("name", "address", "port", "protocol", "path", "profiles")
    name = section.need("name", "feed").parsed(parse_name)
    service = Service(
        name=name,
        address=section.need("address", "10.77.3.2").parsed(_address),
        port=section.need("port", "8001").whole(1, 65_535),
        protocol=section.take("protocol", _protocol, "tcp"),
        path=section.take("path", lambda value: value.choice(_PATHS), "routed"),
        profiles=section.take("profiles", _profiles, (ADMITTED,)),
    )
    places[f"service {name}"] = section.where
    return service


def _corridor(item: Value, places: dict[str, str]) -> CorridorEntry:
    section = item.section()
    section.name = "a corridor entry"
    section.known("name", "address", "port", "protocol")
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
    return value.choice(_PROTOCOLS)


def _profile(value: Value) -> ProfileName:
    return value.choice(PROFILES)


def _suspect(value: Value) -> ProfileName:
    return value.choice(_SUSPECT)


def _profiles(value: Value) -> tuple[ProfileName, ...]:
    found = value.gather(lambda item: item.choice(_REACHING))
    if not found:
        raise value.wrong("profiles is empty: nobody would reach the service", "write [admitted], or leave it out")
    return found


def _devices(section: Section, places: dict[str, str]) -> dict[DeviceId, ProfileName]:
    found: dict[DeviceId, ProfileName] = {}
    for key, place, value in section.pairs():
        try:
            device = place.parsed(parse_device_id)
            found[device] = _profile(value)
            places[f"device {key}"] = place.where
        except ConfigError as error:
            section.problems.keep(error)
    return found
