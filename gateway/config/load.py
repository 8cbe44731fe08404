"""Everything together: the main file, the inventory and book it names, and what they say of one another."""

from __future__ import annotations

from pathlib import Path

from gateway.config.book import Placed, check_hints, read_book
from gateway.config.book_links import links_of
from gateway.config.digest import book_digest
from gateway.config.document import Problems, did_you_mean
from gateway.config.inventory import Located, read_inventory
from gateway.config.relying import check_relying
from gateway.config.settings import Settings, read_settings
from gateway.config.templates import check_kinds, check_library, document_targets, namespaces_of, read_library
from gateway.config.values import HOOK, Config, alert_sources
from gateway.core.errors import ConfigError
from gateway.core.policy import check_against, check_lockout


def load(path: Path) -> Config:
    """Return everything that a service is built from.

    Raises ``ConfigError`` whose message names file, line, column and what to write instead, for every mistake found
    in the first file that has any.
    """
    settings = read_settings(path)
    try:
        located = read_inventory(settings.inventory, settings.everyone, settings.sealing)
    except ConfigError as error:
        raise _named(error, settings.inventory, settings.places["inventory"]) from error
    try:
        placed = read_book(settings.book)
    except ConfigError as error:
        raise _named(error, settings.book, settings.places["book"]) from error
    _check_together(settings, located, placed)
    inventory = located.inventory
    library = read_library(placed.book)
    places = namespaces_of(settings.clusters)
    check_library(library, document_targets(placed.book, settings.target.name, places), inventory.devices, places)
    return Config(
        path.absolute(),
        settings.journal,
        settings.console,
        settings.operator,
        settings.door,
        settings.sources,
        settings.target,
        settings.inventory,
        settings.book,
        inventory.devices,
        inventory.hmac_keys,
        placed.book,
        settings.management,
        library,
        settings.relying,
        book_digest(settings.book, placed.book, placed.places),
        posting=settings.posting,
        hook=settings.hook,
        sealing=settings.sealing,
        plain_keys=inventory.plain_keys,
        doctor=settings.doctor,
        remotes=settings.remotes,
        agents=settings.agents,
        certificates=settings.certificates,
        clusters=settings.clusters,
    )


def _named(error: ConfigError, file: Path, place: str) -> ConfigError:
    """A file that cannot be read at all is a mistake of the line that names it."""
    return ConfigError(place, f"{error.where}: {error.what}", error.mend) if error.where == str(file) else error


def _check_together(settings: Settings, located: Located, placed: Placed) -> None:
    problems = Problems()
    devices = located.inventory.devices
    for finding in check_against(placed.book, devices):
        if finding.severity == "error" and not problems.full:
            where = placed.places.get(finding.subject, str(settings.book))
            name = finding.subject.removeprefix("device ")
            for number, device in enumerate(devices):
                if device.id == name:
                    where = located.where(number, "addresses")
            problems.add(where, f"{finding.subject}: {finding.what}", finding.mend)
    for finding in check_lockout(None, placed.book, links_of(settings)):
        where = placed.places.get(finding.subject, str(settings.book))
        problems.add(where, f"{finding.subject}: {finding.what}", finding.mend)
    others = [*(remote.name for remote in settings.remotes), *(cluster.name for cluster in settings.clusters)]
    known = [settings.target.name, *others]
    for name in placed.book.targets:
        if name not in known:
            what = f"the main file has no target {name!r}"
            problems.add(placed.places[f"target {name}"], what, did_you_mean(name, known))
    check_kinds(placed.book, placed.places, namespaces_of(settings.clusters), problems)
    hints = [str(source.hints) for source in settings.sources if source.feed is not None]
    hints += map(str, alert_sources(settings.target, settings.remotes).values())
    check_hints(placed, hints if settings.hook is None else [HOOK, *hints], problems)
    _check_relay(settings, placed, problems)
    _check_remotes(settings, placed, problems)
    _check_clusters(settings, placed, problems)
    check_relying(settings, placed.book, problems)
    problems.settle()


def _check_relay(settings: Settings, placed: Placed, problems: Problems) -> None:
    """Services that a relay cannot carry, or that are none."""
    services = {service.name: service for service in placed.book.services}
    for entry in settings.target.relay:
        where = settings.places[f"relay {entry.service}"]
        service = services.get(entry.service)
        if service is None:
            problems.add(where, f"the book has no service {entry.service!r}", "name one of the book's services")
        elif service.protocol != "tcp":
            problems.add(where, f"the relay carries TCP only, and {entry.service} is udp", "use path_gate: nft")


def _check_remotes(settings: Settings, placed: Placed, problems: Problems) -> None:
    """Services that are named for an agent's host and are none, and relayed ones that nobody could reach there."""
    services = {service.name: service for service in placed.book.services}
    for remote in settings.remotes:
        where = settings.places.get(f"services of {remote.name}", settings.places["targets"])
        for name in remote.services or ():
            if name not in services:
                problems.add(where, f"the book has no service {name!r}", did_you_mean(name, list(services)))
        here = services if remote.services is None else {name: services.get(name) for name in remote.services}
        relayed = [name for name, service in here.items() if service is not None and service.path == "relayed"]
        if relayed and not remote.relays:
            what = f"{', '.join(relayed)} is relayed, and target {remote.name} names no relay to admit"
            problems.add(where, what, "write relays: [address of the relaying host] at that target")
        if remote.relays and not relayed:
            what = f"target {remote.name} lets relays pass, and no service there is relayed"
            problems.add(where, what, "leave relays out, or write path: relayed at the service")


def _check_clusters(settings: Settings, placed: Placed, problems: Problems) -> None:
    """Services that are named for a cluster's nodes and are none."""
    services = [service.name for service in placed.book.services]
    for cluster in settings.clusters:
        for name in cluster.services or ():
            if name not in services:
                where = settings.places[f"services of {cluster.name}"]
                problems.add(where, f"the book has no service {name!r}", did_you_mean(name, services))
