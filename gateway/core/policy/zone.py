"""What a book makes of the protected zone, and what two books both allow.

What lives here: the part of a book that does not depend on any device, and the zone that may stand while devices go
from one book to another. What must not: rulings, devices, rendering for a backend.

Why the zone between two books opens nothing: a device stands either in the profile that the old book gave it or in
the one that the new book gives it, and nobody knows which. A profile that both books have reaches, between them,
only what it reaches by both; one that a single book has is had only by that book's devices. So whichever of the two
a device stands in, it reaches nothing that the book which put it there would refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from gateway.core.policy.book import Book, CorridorEntry, Network, ProfileName, Rate, Service

#: Address, port and protocol: what a name stands for.
Place = tuple[object, int, str]


class Zone(NamedTuple):
    """The gated services, what is open beside them, and what each profile that admits reaches, lowest first."""

    services: tuple[Service, ...]
    corridor: tuple[CorridorEntry, ...]
    always_allowed: tuple[Network, ...]
    reaches: Mapping[ProfileName, tuple[Service, ...]]
    rates: Mapping[ProfileName, Rate]


def zone_of(book: Book) -> Zone:
    """Return the zone of a book."""
    reaches = {profile.name: book.reach(profile.name) for profile in book.ordered() if profile.admits}
    rates = {name: rate for name in reaches if (rate := book.profiles[name].rate) is not None}
    return Zone(book.services, book.corridor, book.always_allowed, reaches, rates)


def place(named: Service | CorridorEntry) -> Place:
    """Where something listens."""
    return named.address, named.port, named.protocol


def allows(zone: Zone, profile: ProfileName, service: Service) -> bool:
    """Whether a device of a profile reaches an endpoint: by its profile, by the corridor, or because nothing on
    that host is gated."""
    where = place(service)
    return any(place(each) == where for each in zone.reaches.get(profile, ())) or _is_open(zone, service)


def _is_open(zone: Zone, named: Service | CorridorEntry) -> bool:
    """Whether every known device reaches an endpoint, whatever its profile."""
    where = place(named)
    return any(place(each) == where for each in zone.corridor) or all(
        each.address != named.address for each in zone.services
    )


def meet(old: Zone, new: Zone) -> Zone:
    """Return the zone that may stand while devices go from one book to the other: it opens what neither refuses.

    Gated is what either book gates; open to every device is what both leave open, and always allowed are the
    clients of both; of two rates the slower holds. The new book's names are kept where both have one for a place.
    """
    gated = {place(service): service for service in (*old.services, *new.services)}
    corridor = {place(entry): entry for entry in (*old.corridor, *new.corridor) if place(entry) not in gated}
    names = dict.fromkeys((*new.reaches, *old.reaches))
    return Zone(
        services=tuple(gated.values()),
        corridor=tuple(each for each in corridor.values() if _is_open(old, each) and _is_open(new, each)),
        always_allowed=_common(old.always_allowed, new.always_allowed),
        reaches={
            name: tuple(
                service
                for service in gated.values()
                if all(allows(zone, name, service) for zone in (old, new) if name in zone.reaches)
            )
            for name in names
        },
        rates={name: rate for name in names if (rate := _slower(old.rates.get(name), new.rates.get(name)))},
    )


def _slower(one: Rate | None, other: Rate | None) -> Rate | None:
    """The rate that keeps within both: as few connections as the lower allows, in the longer time."""
    if one is None or other is None:
        return one or other
    return Rate(min(one.new_connections, other.new_connections), max(one.per, other.per))


def _common(one: tuple[Network, ...], other: tuple[Network, ...]) -> tuple[Network, ...]:
    """The prefixes that lie in both lists, each once."""
    found = [inner for a in one for b in other if (inner := _inner(a, b)) is not None]
    return tuple(dict.fromkeys(found))


def _inner(one: Network, other: Network) -> Network | None:
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one if one.subnet_of(other) else other if other.subnet_of(one) else None
    if isinstance(one, IPv6Network) and isinstance(other, IPv6Network):
        return one if one.subnet_of(other) else other if other.subnet_of(one) else None
    return None
