"""What a question about a book needs: the main file and the devices, without any device's key.

Whoever plans a book need not be allowed to read keys, and 100,000 of them take a second to read.
What lives here: that part of a configuration, and a book judged on it. What must not: states, comparisons.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gateway.config.book import read_book
from gateway.config.book_links import links_of
from gateway.config.document import LARGE_FILE, Problems, read_text
from gateway.config.entries import read_entries
from gateway.config.inventory import read_devices
from gateway.config.settings import Settings, read_settings
from gateway.config.templates import check_library, document_targets, namespaces_of, read_library
from gateway.core.model import Device
from gateway.core.policy import Book, Finding, check, check_against, check_lockout
from gateway.kubearmor.render import Library


class Ground(NamedTuple):
    """The main file's settings, and the inventory's devices in file order."""

    settings: Settings
    devices: tuple[Device, ...]


class Candidate(NamedTuple):
    """A book that can be read, and what is to be said of it; an ``error`` keeps it from being used."""

    path: Path
    book: Book
    findings: tuple[Finding, ...]
    library: Library


def load_ground(path: Path) -> Ground:
    """Return what the main file and the inventory it names say. Raises ``ConfigError`` naming every mistake."""
    settings = read_settings(path)
    problems = Problems()
    written = read_entries(read_text(settings.inventory, LARGE_FILE), settings.inventory, problems)
    devices = read_devices(written, [each.name for each in settings.everyone], problems)
    problems.settle()
    return Ground(settings, devices)


def load_candidate(path: Path, ground: Ground, running: Book | None = None) -> Candidate:
    """Return a book and every finding about it on this ground: its own, the inventory's, and the links it may not
    cut. ``running``: the book that runs. Raises ``ConfigError`` for a book, or a document of its profiles, that is
    refused by itself."""
    book = read_book(path).book
    library = read_library(book)
    clusters = namespaces_of(ground.settings.clusters)
    targets = document_targets(book, ground.settings.target.name, clusters)
    check_library(library, targets, ground.devices, clusters)
    findings = (
        *check(book),
        *check_against(book, ground.devices),
        *check_lockout(running, book, links_of(ground.settings)),
    )
    return Candidate(path, book, findings, library)
