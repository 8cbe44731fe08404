"""Making the parts from the configuration: which class serves which port, with which settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gateway.app import hinting
from gateway.certs import ServedTls
from gateway.config import SOURCE_ALERTS, Config, KubeArmor, Relying, document_targets
from gateway.console.metrics import RelyingCounts
from gateway.control.devices import Devices
from gateway.control.ports import Admission, Authenticator, Backend, Clock, Loaded, Notice, Opener, Presenting
from gateway.control.reception import Reception, Sender
from gateway.control.reload import Lay
from gateway.control.running import Books, RunningBook
from gateway.control.standings import DeviceStandings, Reach
from gateway.core.errors import ConfigError
from gateway.core.lifecycle import Rules
from gateway.core.model import Address, AnchorKind, DeviceId, Instant, SourceName, Standing
from gateway.core.policy import Book, CorridorEntry, Service, Zone, zone_of
from gateway.enforce.kubearmor import (
    KubeArmorAdvisory,
    KubeArmorSettings,
    Tables,
    connect,
    read_record,
)
from gateway.enforce.nft import (
    Anchor,
    Baseline,
    ConnectionRate,
    Endpoint,
    GatedService,
    NftBackend,
    sets_in_use,
)
from gateway.enforce.relay import ConnectionRate as RelayRate
from gateway.enforce.relay import RelayBackend, RelayRoute
from gateway.intake.sediment import UNASSIGNED, DoorSettings, Forwarder, SedimentDoor, open_listeners
from gateway.journal import wishes
from gateway.kubearmor.alerts import RuntimeAlert
from gateway.kubearmor.host import Hardening
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.network import Scope
from gateway.kubearmor.policies import Port
from gateway.kubearmor.prefixes import Prefix
from gateway.kubearmor.render import Library, Renderer
from gateway.relying import End, RelyingDoor, RelyingSettings
from gateway.sediment.authenticate import SedimentAuthenticator, SedimentSource
from gateway.sediment.relying import Conversation, Party
from gateway.sediment.replay import ReplayMemory
from gateway.sediment.wire import Endpoint as WireEndpoint
from gateway.sediment.wire import Protocol as WireProtocol
from gateway.verdicts import FORMATS, STATEMENTS, VerdictAuthenticator
from gateway.watch.bypass import BypassWatch
from gateway.watch.kubearmor import MESSAGE_BYTES, Ear, EarSettings

# Here for their names alone: each is loaded where the configuration has it.
if TYPE_CHECKING:
    from gateway.intake.rest import RestDoor
    from gateway.intake.rpc import RpcDoor


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
        _routes(config, config.book),
        _reached(zone),
        clock,
        zone.always_allowed,
        rates=_slowed(zone),
    )


def _routes(config: Config, book: Book) -> list[RelayRoute]:
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


def needs_restart(config: Config, old: Book, new: Book) -> list[str]:
    """What of a new book cannot take effect while the service runs, in sentences; empty when all of it can.

    A restart is safe: what is enforced stays in the kernel with its leases. A relay's connections end with it.
    """
    found = []
    before, after = _routes(config, old), _routes(config, new)
    if before != after:
        moved = sorted({each.service for each in set(before) ^ set(after)})
        found.append(
            f"the relay listens for {', '.join(moved)}, whose address or port changes: it needs a new start"
        )
    relying = config.relying
    if relying is not None and _place(old, relying.app_server) != _place(new, relying.app_server):
        found.append(
            f"the relying party's port carries DATA to {relying.app_server}, which changes: it needs a new start"
        )
    try:
        keeps = config.target.kubearmor is not None or any(each.nodes for each in config.clusters)
        changes = keeps and scope_of(old) != scope_of(new)
    except DocumentRefused as error:
        return [*found, f"KubeArmor's network policy cannot be made from it: {error}"]
    if changes:
        what = "KubeArmor's network policy is made from services, corridor and always_allowed, which change"
        found.append(f"{what}: it is made anew by a start")
    return found


def _place(book: Book, name: str) -> tuple[str, int, str] | None:
    """Where a service is; None: the book does not have it."""
    found = (service for service in book.services if service.name == name)
    return next(((str(service.address), service.port, service.protocol) for service in found), None)


def rules(config: Config) -> Mapping[SourceName, Rules]:
    """How each source's verdicts are weighed."""
    return {
        **{source.name: source.rules for source in config.sources},
        **{poster.name: poster.rules for poster in config.posting.posters},
    }


def authenticators(config: Config) -> Mapping[SourceName, Authenticator]:
    """One authenticator per source, with the HMAC keys of the devices that it speaks for."""
    made: dict[SourceName, Authenticator] = {}
    for source in config.sources:
        keys = {
            device.id: config.hmac_keys[device.id] for device in config.devices if source.name in device.sources
        }
        made[source.name] = SedimentAuthenticator(_described(config)[source.name], keys)
    return {**made, **hinting.authenticators(config)}


def _described(config: Config) -> Mapping[SourceName, SedimentSource]:
    return {
        source.name: SedimentSource(source.name, source.public_key, source.verifier_id.encode())
        for source in config.sources
    }


def door(config: Config, admission: Admission, clock: Clock, notices: Callable[[Notice], None]) -> SedimentDoor:
    """The SEDIMENT door, listening from here on. Raises ``ConfigError`` when it cannot.

    Without a place to listen on, and then perhaps without a verifier, it is one to which nobody comes.
    """
    limits, forward = config.door.limits, config.door.forward_to
    sources = [source.name for source in config.sources] or [UNASSIGNED]
    settings = DoorSettings(
        peers=config.door.peers,
        verifiers={peer: source.name for source in config.sources for peer in source.peers},
        default_source=sources[0] if len(sources) == 1 else None,
        connections=limits.connections,
        connections_per_peer=limits.connections_per_peer,
        frame_seconds=limits.frame_seconds,
        forward_to=None if forward is None else (forward.host, forward.port),
    )
    return SedimentDoor(
        open_listeners([str(endpoint) for endpoint in config.door.listen]), admission, clock, settings, notices
    )


def openers(config: Config) -> Mapping[SourceName, Opener]:
    """One authenticator per source that posts its results."""
    return {
        poster.name: VerdictAuthenticator(poster.verdicts, FORMATS[poster.format])
        for poster in config.posting.posters
    }


def reception(config: Config, admission: Presenting, clock: Clock) -> Reception:
    """What the doors for posted documents share."""
    senders = [
        Sender(
            poster.name,
            FORMATS[poster.format].media_types,
            poster.certificates,
            poster.rate,
            # A second's worth at once, and never less than one whole document.
            max(poster.rate, STATEMENTS),
        )
        for poster in config.posting.posters
    ]
    return Reception(senders, admission, clock)


class PostingDoor(Protocol):
    """A door for posted documents, as the service runs it."""

    @property
    def name(self) -> str:
        """For logs, and the ``queue`` label of metrics that says how many connections it holds."""
        ...

    @property
    def addresses(self) -> Sequence[tuple[str, int]]:
        """Where it listens."""
        ...

    @property
    def tls(self) -> ServedTls:
        """What it shows to clients and asks of them."""
        ...

    @property
    def serving(self) -> bool:
        """Whether it takes connections."""
        ...

    def state(self) -> str:
        """One line for people."""
        ...

    def depth(self) -> int:
        """Connections, or streams, that it holds."""
        ...

    def close(self) -> None:
        """Close it when it was never run."""
        ...

    async def run(self) -> None:
        """Serve until cancelled."""
        ...


def posting(
    config: Config, admission: Presenting, clock: Clock, notices: Callable[[Notice], None]
) -> Sequence[PostingDoor]:
    """The doors for posted documents, listening from here on. Raises ``ConfigError`` when they cannot."""

    def told(what: str) -> None:
        notices(Notice("tls", "doors", what, clock.now().wall))

    shared = reception(config, admission, clock)
    doors = (rest(config, shared, clock, told), rpc(config, shared, clock, told))
    return [door for door in doors if door is not None]


def rest(config: Config, shared: Reception, clock: Clock, told: Callable[[str], None]) -> RestDoor | None:
    """The REST door, listening from here on, where one is configured. Raises ``ConfigError`` when it cannot."""
    wanted = config.posting.rest
    if wanted is None:
        return None
    from gateway.intake.rest import RestDoor, RestSettings, open_listener  # noqa: PLC0415

    tls = ServedTls(wanted.files, "doors.rest", told)
    limits = wanted.limits
    settings = RestSettings(
        connections=limits.connections,
        silent=limits.silent,
        connections_per_peer=limits.connections_per_peer,
        idle_seconds=limits.idle_seconds,
        request_seconds=limits.request_seconds,
        body=limits.body,
    )
    listeners = [open_listener(place.host, place.port) for place in wanted.listen]
    return RestDoor(listeners, shared, clock, tls, settings)


def rpc(config: Config, shared: Reception, clock: Clock, told: Callable[[str], None]) -> RpcDoor | None:
    """The gRPC door, where one is configured. Raises ``ConfigError`` for files that it cannot use."""
    wanted = config.posting.rpc
    if wanted is None:
        return None
    from gateway.intake.rpc import RpcDoor, RpcSettings  # noqa: PLC0415

    tls = ServedTls(wanted.files, "doors.rpc", told)
    limits = wanted.limits
    settings = RpcSettings(streams=limits.connections, body=limits.body, idle_seconds=limits.idle_seconds)
    return RpcDoor([(place.host, place.port) for place in wanted.listen], shared, clock, tls, settings)


def standings(devices: Devices, clock: Clock, books: Books) -> DeviceStandings:
    """What a relay of DATA may go by. What a profile reaches is looked up once for each book.

    While one book gives way to another, a profile reaches what both allow; when every device is decided under the
    new one, everybody is asked about again.
    """
    known: dict[str, Reach] = {}
    of: Book | None = None
    settled = devices.book

    def reach_of(profile: str) -> Reach:
        nonlocal of
        book = devices.book
        if book is not of:
            known.clear()
            of = book
        found = known.get(profile)
        if found is None:
            services = _services_reached(book, profile)
            if settled is not book:
                services &= _services_reached(settled, profile)
            rate = book.profiles[profile].rate if profile in book.profiles else None
            found = known[profile] = Reach(services, rate)
        return found

    made = DeviceStandings(reach_of, clock)

    def took(_: RunningBook) -> None:
        nonlocal settled
        settled = devices.book
        known.clear()
        made.book_changed()

    books.followers.append(took)
    return made


def _services_reached(book: Book, profile: str) -> frozenset[str]:
    """The names of the services that a profile reaches; none for a profile that the book does not know."""
    return frozenset(service.name for service in book.reach(profile)) if profile in book.profiles else frozenset()


def relying_forwarder(config: Config, clock: Clock, notices: Callable[[Notice], None]) -> Forwarder | None:
    """What passes alerts on that came to the relying party's port, beside SEDIMENT's own."""
    relying = config.relying
    if relying is None or relying.relying_party is None:
        return None
    return Forwarder(relying.relying_party.host, relying.relying_party.port, clock, notices)


def still_wanted(config: Config, loaded: Loaded) -> frozenset[DeviceId]:
    """The devices that were asked to attest again before this start and have not been judged since.

    Raises ``JournalError``. A request of ours that shortened a deadline is in the record itself.
    """
    ours = (
        device
        for (device, _), record in loaded.records.items()
        if record.graced and record.standing is Standing.TRUSTED
    )
    return wishes(config.journal).union(ours)


def relying_door(
    config: Config,
    relying: Relying,
    followed: DeviceStandings,
    admission: Admission,
    clock: Clock,
    forwarder: Forwarder | None,
    highest_wall: float,
) -> RelyingDoor:
    """The relying party's port, listening from here on. Raises ``ConfigError`` when it cannot.

    ``highest_wall``: the journal's newest wall time; a clock that was set back must not make old DATA new.
    """
    service = next(service for service in config.book.services if service.name == relying.app_server)
    beside, limits = relying.relying_party, relying.limits
    settings = RelyingSettings(
        service=service.name,
        onward=(str(service.address), service.port) if beside is None else (beside.host, beside.port),
        verifiers={peer: source.name for source in config.sources for peer in source.peers},
        beside=beside is not None,
        verifier=None if relying.verifier is None else (relying.verifier.host, relying.verifier.port),
        kept=relying.connections == "kept",
        source=config.sources[0].name if len(config.sources) == 1 else UNASSIGNED,
        connections=limits.connections,
        connections_per_peer=limits.connections_per_peer,
        frame_seconds=limits.frame_seconds,
        idle_seconds=limits.idle_seconds,
        onward_seconds=limits.onward_seconds,
    )
    conversation = Conversation(party(relying), config.hmac_keys, speaking(config))
    return RelyingDoor(
        open_listeners([str(endpoint) for endpoint in relying.listen]),
        conversation,
        ReplayMemory(max(clock.now().wall, highest_wall), relying.clock_ahead),
        followed,
        admission,
        clock,
        settings,
        None if forwarder is None else forwarder.offer,
    )


def speaking(config: Config) -> Mapping[DeviceId, SedimentSource]:
    """The SEDIMENT verifier of each device that has one: the first that the inventory lists."""
    described = _described(config)
    return {
        device.id: described[source]
        for device in config.devices
        for source in [next((each for each in device.sources if each in described), None)]
        if source is not None
    }


def party(relying: Relying) -> Party:
    """What devices are told. Beside SEDIMENT's own relying party nobody is told anything by us."""
    here = relying.here or relying.listen[0]
    verifier = relying.verifier or here
    return Party(
        WireEndpoint(WireProtocol.TCP, verifier.host.encode(), verifier.port),
        WireEndpoint(WireProtocol.TCP, here.host.encode(), here.port),
        relying.device_settings,
    )


def relying_counts(door: RelyingDoor) -> RelyingCounts:
    """What the relying party's port has counted, in the words of metrics."""
    return RelyingCounts(
        {(kind.name.lower(), case.name.lower()): number for (kind, case), number in door.messages.items()},
        {"taken": door.taken, "not_taken": door.not_taken},
        {end.value: door.ends[end] for end in End},
        door.copies(),
    )


def _unheard(_: Notice) -> None:
    """For commands, which show a layer's state and end."""


def kubearmor(
    config: Config, clock: Clock, notice: Callable[[Notice], None] = _unheard
) -> KubeArmorAdvisory | None:
    """The KubeArmor layer beside the path gate, where one is configured; ``notice`` takes what it has to tell.

    Raises ``ConfigError`` for an address beyond this host and for policies that KubeArmor could not enforce.
    """
    wanted = config.target.kubearmor
    if wanted is None:
        return None
    with refusals(config.path, config.target.name):
        scope = scope_of(config.book)
        # Nothing is sealed: a folder that root itself cannot write would surprise the operator who edits the book.
        hardening = Hardening(
            journal=str(config.journal), private=tuple(str(source.public_key_path) for source in config.sources)
        )
        return kubearmor_layer(config.target.name, wanted, clock, scope, hardening, notice)


def renderer(library: Library, book: Book, target: str, clusters: Collection[str] = ()) -> Renderer:
    """What makes the documents of a book's profiles for the target of this host, and for clusters."""
    return Renderer(library, document_targets(book, target, clusters))


def kubearmor_layer(
    target: str,
    wanted: KubeArmor,
    clock: Clock,
    scope: Scope,
    hardening: Hardening,
    notice: Callable[[Notice], None] = _unheard,
) -> KubeArmorAdvisory:
    """The KubeArmor layer of one host. Raises ``DocumentRefused``."""
    settings = _kubearmor_settings(wanted, target)
    return KubeArmorAdvisory(
        settings, clock, scope, hardening, lsm=partial(read_record, wanted.record), notice=notice
    )


def _kubearmor_settings(wanted: KubeArmor, target: str) -> KubeArmorSettings:
    return KubeArmorSettings(
        address=wanted.address,
        logs=wanted.logs,
        tls=wanted.tls,
        health=wanted.health,
        tables=Tables(wanted.tables),
        target=target,
    )


def ear(
    wanted: KubeArmor,
    clock: Clock,
    hear: Callable[[RuntimeAlert, Instant], None],
    lost: Callable[[str], None],
) -> Ear:
    """The listener at a host's KubeArmor. Raises ``ConfigError`` for an address beyond this host, or TLS files that
    cannot be used."""
    settings = _kubearmor_settings(wanted, "")
    return Ear(
        EarSettings(streams=wanted.streams, per_source=SOURCE_ALERTS),
        clock,
        lambda: connect(settings.events, settings.tls, MESSAGE_BYTES),
        hear,
        lost,
    )


@contextmanager
def refusals(file: Path, target: str) -> Iterator[None]:
    """Policies that KubeArmor could not enforce are a mistake of the configuration: ``ConfigError``."""
    try:
        yield
    except DocumentRefused as error:
        mend = "change the book or the paths, or leave kubearmor out of the target"
        raise ConfigError(str(file), f"target {target}: kubearmor: {error}", mend) from error


def scope_of(book: Book, only: Collection[str] | None = None) -> Scope:
    """What KubeArmor's network policy is about: these services of the book. Raises ``DocumentRefused``."""
    return Scope(
        gated=tuple(_ports(each for each in book.services if only is None or each.name in only)),
        always_allowed=tuple(Prefix.parse(str(network)) for network in book.always_allowed),
        corridor=tuple(_ports(book.corridor)),
    )


def _ports(named: Iterable[Service | CorridorEntry]) -> list[Port]:
    return list(dict.fromkeys(Port(each.port, each.protocol) for each in named))
