"""Making the parts from the configuration: which class serves which port, with which settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gateway.config import Config, KubeArmor
from gateway.control.ports import Admission, Authenticator, Backend, Clock, Notice
from gateway.core.errors import ConfigError
from gateway.core.lifecycle import Rules
from gateway.core.model import Address, SourceName
from gateway.core.policy import Book, CorridorEntry, Rate, Service
from gateway.enforce.kubearmor import KubeArmorAdvisory, KubeArmorSettings, Tables
from gateway.enforce.nft import Baseline, ConnectionRate, Endpoint, GatedService, NftBackend
from gateway.enforce.relay import ConnectionRate as RelayRate
from gateway.enforce.relay import RelayBackend, RelayRoute
from gateway.intake.sediment import DoorSettings, SedimentDoor, open_listeners
from gateway.kubearmor.host import Hardening
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.network import Scope
from gateway.kubearmor.policies import Port
from gateway.kubearmor.prefixes import Prefix
from gateway.sediment.authenticate import SedimentAuthenticator, SedimentSource
from gateway.watch.bypass import BypassWatch


def reaches(book: Book) -> Mapping[str, frozenset[str]]:
    """The names of the services that each profile reaches, lowest first; only profiles that admit."""
    return {
        profile.name: frozenset(service.name for service in book.reach(profile.name))
        for profile in book.ordered()
        if profile.admits
    }


def rates(book: Book) -> Mapping[str, Rate]:
    """How quickly a device of each profile may open connections, where that is bounded."""
    return {name: rate for name in reaches(book) if (rate := book.profiles[name].rate) is not None}


def baseline(config: Config) -> Baseline:
    """The static part of the nftables path gate."""
    reached = reaches(config.book)
    return Baseline(
        services=tuple(
            GatedService(_endpoint(service), frozenset(name for name in reached if service.name in reached[name]))
            for service in config.book.services
        ),
        corridor=tuple(_endpoint(entry) for entry in config.book.corridor),
        always_allowed=config.book.always_allowed,
        profiles=tuple(reached),
        inventory_size=len(known(config)),
        rates={
            name: ConnectionRate(rate.new_connections, int(rate.per)) for name, rate in rates(config.book).items()
        },
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
    routed = [service.address for service in config.book.services if service.path == "routed"]
    return list(dict.fromkeys(map(str, routed))), list(map(str, known(config)))


def path_gate(config: Config, clock: Clock) -> Backend:
    """The backend of the one target."""
    if config.target.path_gate == "nft":
        return NftBackend(baseline(config), known(config), clock)
    services = {service.name: service for service in config.book.services}
    routes = [
        RelayRoute(
            entry.service,
            str(entry.listen),
            str(services[entry.service].address),
            services[entry.service].port,
        )
        for entry in config.target.relay
    ]
    slowed = {name: RelayRate(rate.new_connections, rate.per) for name, rate in rates(config.book).items()}
    return RelayBackend(routes, reaches(config.book), clock, config.book.always_allowed, rates=slowed)


def rules(config: Config) -> Mapping[SourceName, Rules]:
    """How each source's verdicts are weighed."""
    return {source.name: source.rules for source in config.sources}


def authenticators(config: Config) -> Mapping[SourceName, Authenticator]:
    """One authenticator per source, with the HMAC keys of the devices that it speaks for."""
    made: dict[SourceName, Authenticator] = {}
    for source in config.sources:
        keys = {device.id: config.hmac_keys[device.id] for device in config.devices if device.source == source.name}
        described = SedimentSource(source.name, source.public_key, source.verifier_id.encode())
        made[source.name] = SedimentAuthenticator(described, keys)
    return made


def door(config: Config, admission: Admission, clock: Clock, notices: Callable[[Notice], None]) -> SedimentDoor:
    """The SEDIMENT door, listening from here on. Raises ``ConfigError`` when it cannot."""
    limits, forward = config.door.limits, config.door.forward_to
    settings = DoorSettings(
        peers=config.door.peers,
        verifiers={peer: source.name for source in config.sources for peer in source.peers},
        default_source=config.sources[0].name if len(config.sources) == 1 else None,
        connections=limits.connections,
        connections_per_peer=limits.connections_per_peer,
        frame_seconds=limits.frame_seconds,
        forward_to=None if forward is None else (forward.host, forward.port),
    )
    return SedimentDoor(
        open_listeners([str(endpoint) for endpoint in config.door.listen]), admission, clock, settings, notices
    )


def kubearmor(config: Config, clock: Clock) -> KubeArmorAdvisory | None:
    """The KubeArmor layer beside the path gate, where one is configured.

    Raises ``ConfigError`` for an address beyond this host and for policies that KubeArmor could not enforce.
    """
    wanted = config.target.kubearmor
    if wanted is None:
        return None
    with refusals(config.path, config.target.name):
        scope = Scope(
            gated=tuple(_ports(config.book.services)),
            always_allowed=tuple(Prefix.parse(str(network)) for network in config.book.always_allowed),
            corridor=tuple(_ports(config.book.corridor)),
        )
        # Nothing is sealed: a folder that root itself cannot write would surprise the operator who edits the book.
        hardening = Hardening(
            journal=str(config.journal), private=tuple(str(source.public_key_path) for source in config.sources)
        )
        return kubearmor_layer(config.target.name, wanted, clock, scope, hardening)


def kubearmor_layer(
    target: str, wanted: KubeArmor, clock: Clock, scope: Scope, hardening: Hardening
) -> KubeArmorAdvisory:
    """The KubeArmor layer of one host. Raises ``DocumentRefused``."""
    settings = KubeArmorSettings(
        address=str(wanted.address),
        health=None if wanted.health is None else str(wanted.health),
        tables=Tables(wanted.tables),
        target=target,
    )
    return KubeArmorAdvisory(settings, clock, scope, hardening)


@contextmanager
def refusals(file: Path, target: str) -> Iterator[None]:
    """Policies that KubeArmor could not enforce are a mistake of the configuration: ``ConfigError``."""
    try:
        yield
    except DocumentRefused as error:
        mend = "change the book or the paths, or leave kubearmor out of the target"
        raise ConfigError(str(file), f"target {target}: kubearmor: {error}", mend) from error


def _ports(named: Iterable[Service | CorridorEntry]) -> list[Port]:
    return list(dict.fromkeys(Port(each.port, each.protocol) for each in named))
