"""The path gate of this host, as the configuration and the book have it, and who looks for ways around it.

What lives here: its static part, its backend, and how both follow another book. What must not: gates of
other hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.config import Config
from gateway.control.ports import Backend, Clock
from gateway.control.reload import Lay
from gateway.core.model import Address, AnchorKind
from gateway.core.policy import Book, CorridorEntry, Service, Zone, zone_of
from gateway.enforce.nft import Anchor, Baseline, ConnectionRate, Endpoint, GatedService, NftBackend, sets_in_use
from gateway.enforce.relay import ConnectionRate as RelayRate
from gateway.enforce.relay import RelayBackend, RelayRoute
from gateway.watch.bypass import BypassWatch


def reaches(book: Book) -> Mapping[str, frozenset[str]]:
    """The names of the services that each profile reaches, lowest first; only profiles that admit."""
    return _reached(zone_of(book))


def baseline(config: Config) -> Baseline:
    """The static part of the nftables path gate."""
    return baseline_of(zone_of(config.book), len(known(config)), sources(config))


def anchors(config: Config) -> tuple[Anchor, ...]:
    """Where packets of each address come from, as far as the inventory says so and this host can see it.

    What an upstream guarantees is looked at only where the inventory names the interface that it comes by.
    """
    return tuple(
        Anchor(address, binding.interface, binding.mac, routed_back=binding.anchor is AnchorKind.L3)
        for binding in (device.binding for device in config.devices)
        for address in binding.addresses
    )


def sources(config: Config) -> tuple[str, ...]:
    """Which sets of anchors the path gate needs."""
    return sets_in_use(known(config), anchors(config))


def baseline_of(zone: Zone, addresses: int, anchored: tuple[str, ...] = ()) -> Baseline:
    """The static part for a zone, with room for so many addresses and these sets of anchors.

    Raises ``ConfigError``.
    """
    places = {name: {_endpoint(service) for service in reached} for name, reached in zone.reaches.items()}
    endpoints = [_endpoint(service) for service in zone.services]
    return Baseline(
        services=tuple(
            GatedService(endpoint, frozenset(name for name in places if endpoint in places[name]))
            for endpoint in endpoints
        ),
        corridor=tuple(_endpoint(entry) for entry in zone.corridor),
        always_allowed=zone.always_allowed,
        profiles=tuple(places),
        inventory_size=addresses,
        rates={name: ConnectionRate(rate.new_connections, int(rate.per)) for name, rate in zone.rates.items()},
        sources=anchored,
    )


def _endpoint(named: Service | CorridorEntry) -> Endpoint:
    return Endpoint(Address(named.address.packed, named.address.max_prefixlen), named.port, named.protocol)


def known(config: Config) -> tuple[Address, ...]:
    """Every address of the inventory, once."""
    return tuple(dict.fromkeys(a for device in config.devices for a in device.binding.addresses))


def bypass_watch(config: Config, tell: Callable[[str], None]) -> BypassWatch | None:
    """Who looks for ways around the path gate; None where devices reach the services through a relay anyway."""
    if config.target.path_gate != "nft":
        return None
    return BypassWatch(*bypass_addresses(config), tell)


def bypass_addresses(config: Config) -> tuple[list[str], list[str]]:
    """Addresses of the services that are routed to, and of every device."""
    return routed(config.book), list(map(str, known(config)))


def routed(book: Book) -> list[str]:
    """Addresses of the services that are routed to, each once."""
    return list(dict.fromkeys(str(service.address) for service in book.services if service.path == "routed"))


def path_gate(config: Config, clock: Clock) -> Backend:
    """The backend of the one target."""
    if config.target.path_gate == "nft":
        return NftBackend(baseline(config), known(config), clock, anchors(config))
    zone = zone_of(config.book)
    return RelayBackend(
        routes(config, config.book),
        _reached(zone),
        clock,
        zone.always_allowed,
        rates=_slowed(zone),
    )


def routes(config: Config, book: Book) -> list[RelayRoute]:
    """Where the relay listens, and where it carries what arrives."""
    services = {service.name: service for service in book.services}
    return [
        RelayRoute(entry.service, str(entry.listen), str(service.address), service.port)
        for entry in config.target.relay
        if (service := services.get(entry.service)) is not None
    ]


def _reached(zone: Zone) -> Mapping[str, frozenset[str]]:
    """The names of the services that each profile reaches."""
    return {name: frozenset(service.name for service in reached) for name, reached in zone.reaches.items()}


def _slowed(zone: Zone) -> Mapping[str, RelayRate]:
    return {name: RelayRate(rate.new_connections, rate.per) for name, rate in zone.rates.items()}


def layer(config: Config, backend: Backend) -> Lay:
    """What makes the path gate's static part that of a zone while it runs."""
    if isinstance(backend, NftBackend):
        addresses, anchored = len(known(config)), sources(config)
        return lambda zone: backend.move(baseline_of(zone, addresses, anchored))
    if isinstance(backend, RelayBackend):
        return lambda zone: backend.rewrite(_reached(zone), zone.always_allowed, _slowed(zone))
    raise TypeError(backend)


def check_gate(config: Config, book: Book) -> None:
    """Raise ``ConfigError`` for a book of which the path gate cannot be made."""
    if config.target.path_gate == "nft":
        baseline_of(zone_of(book), 0)
