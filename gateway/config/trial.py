"""A book held against a service that runs: everything that a start would find, and a trial for every device.

What lives here: judging, from files to a verdict of mistakes. What must not: changing the running service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gateway.config.book import Placed, check_hints, read_book
from gateway.config.digest import book_digest
from gateway.config.document import Problems, did_you_mean
from gateway.config.templates import check_kinds, check_library, document_targets, read_library
from gateway.core.errors import ConfigError
from gateway.core.model import Device, Standing
from gateway.core.policy import (
    Book,
    Finding,
    Links,
    check,
    check_against,
    check_lockout,
    compile_book,
    decide,
    zone_of,
)
from gateway.kubearmor.render import Library

_DEADLINE = 1.0
"""Some deadline: which one changes no profile."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a running service gives to judge a book by.

    ``running`` is its book, of which the links to verifiers are kept; ``target`` its one target, ``relayed`` the
    services that its relay listens for, ``hints`` the sources of hints, ``remotes`` the targets that agents enforce
    on, ``clusters`` those that are clusters, with their namespaces.
    """

    path: Path
    running: Book
    links: Links
    target: str
    relayed: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    remotes: tuple[str, ...] = ()
    clusters: Mapping[str, str] = field(default_factory=dict)


class Fit(NamedTuple):
    """A book that may run: with its templates, the digest of its files, and what is worth a warning."""

    book: Book
    library: Library
    digest: str
    warnings: tuple[Finding, ...]


def try_book(ground: Ground, devices: Sequence[Device]) -> Fit:
    """Read and judge the book at ``ground.path`` for these devices; every one of them is decided under it.

    Raises ``ConfigError`` naming every mistake with its place.
    """
    placed = read_book(ground.path)
    first = book_digest(ground.path, placed.book, placed.places)
    found = (
        *check(placed.book),
        *check_against(placed.book, devices),
        *check_lockout(ground.running, placed.book, ground.links),
    )
    _settle(ground, placed, found)
    library = read_library(placed.book)
    check_library(
        library, document_targets(placed.book, ground.target, ground.clusters), tuple(devices), ground.clusters
    )
    _decide_all(placed.book, devices)
    if book_digest(ground.path, placed.book, placed.places) != first:
        what = "the book or one of its profiles was written while it was read"
        raise ConfigError(str(ground.path), what, "reload again when it is complete")
    return Fit(placed.book, library, first, tuple(each for each in found if each.severity == "warning"))


def _settle(ground: Ground, placed: Placed, found: Sequence[Finding]) -> None:
    problems = Problems()
    for finding in found:
        if finding.severity == "error":
            where = placed.places.get(finding.subject, str(ground.path))
            problems.add(where, f"{finding.subject}: {finding.what}", finding.mend)
    for name in placed.book.targets:
        known = [ground.target, *ground.remotes, *ground.clusters]
        if name not in known:
            what = f"the main file has no target {name!r}"
            problems.add(placed.places[f"target {name}"], what, did_you_mean(name, known))
    check_kinds(placed.book, placed.places, ground.clusters, problems)
    check_hints(placed, ground.hints, problems)
    services = {service.name: service for service in placed.book.services}
    for name in ground.relayed:
        if name not in services:
            problems.add(
                str(ground.path), f"the relay listens for {name}, and the book has no such service", "keep it"
            )
        elif services[name].protocol != "tcp":
            where = placed.places[f"service {name}"]
            problems.add(where, f"the relay carries TCP only, and {name} is udp", "keep it as it was")
    problems.settle()


def _decide_all(book: Book, devices: Sequence[Device]) -> None:
    """Decide every device in every standing: what it may get has a place at the path gate, or admits nothing."""
    compiled = compile_book(book, devices)
    reaches = zone_of(book).reaches
    problems = Problems()
    for device in devices:
        for standing in Standing:
            decision = decide(device, standing, _DEADLINE, compiled)
            if decision.until is not None and decision.profile not in reaches:
                what = (
                    f"{device.id} {standing.label} would get {decision.profile}, for which the path gate has no set"
                )
                problems.add(f"device {device.id}", what, "give it a profile that reaches services, or deny")
    problems.settle()
