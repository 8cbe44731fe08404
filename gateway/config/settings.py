"""The main settings file as a whole. Paths in it are relative to its own folder.

What lives here: its keys, the order in which they are read, and the keys that are single values or windows. What
must not: the keys of doors, sources and targets.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gateway.certs.material import MaterialFiles
from gateway.config.common import read_networks
from gateway.config.document import SMALL_FILE, Problems, Section, Value, compose, read_text
from gateway.config.doors import DOOR_EXAMPLE, check_alerts, read_doors, read_posting, read_relying_port
from gateway.config.endpoint import Endpoint
from gateway.config.parsing import parse_endpoint, parse_name
from gateway.config.posters import Poster
from gateway.config.posting import check_posters
from gateway.config.remotes import read_certificates
from gateway.config.sealing import Sealing, read_sealing
from gateway.config.sources import Listed, read_sources
from gateway.config.targets import check_link, read_agents, read_targets
from gateway.config.values import (
    ClusterTarget,
    Console,
    Door,
    Hook,
    Network,
    OperatorSocket,
    Places,
    Posting,
    Relying,
    RemoteTarget,
    Source,
    Target,
)

KEYS = (
    "journal",
    "console",
    "operator",
    "doors",
    "sources",
    "targets",
    "inventory",
    "book",
    "management",
    "agents",
    "certificates",
    "sealing",
    "doctor",
)
NEEDED = {
    "doors": DOOR_EXAMPLE,
    "sources": "a list of verifiers",
    "targets": "[{name: gateway}]",
    "inventory": "devices.yaml",
    "book": "policies/book.yaml",
}
"""Keys that the file cannot do without, each with an example."""


class Settings(NamedTuple):
    """What the main file says. ``places``: where ``inventory``, ``book`` and relay entries stand."""

    journal: Path
    console: Console
    operator: OperatorSocket
    door: Door
    sources: tuple[Source, ...]
    target: Target
    inventory: Path
    book: Path
    places: dict[str, str]
    management: tuple[Network, ...] = ()
    relying: Relying | None = None
    hook: Hook | None = None
    sealing: Sealing | None = None
    doctor: Places = Places()
    remotes: tuple[RemoteTarget, ...] = ()
    agents: Endpoint | None = None
    certificates: MaterialFiles | None = None
    posting: Posting = Posting()
    clusters: tuple[ClusterTarget, ...] = ()

    @property
    def posters(self) -> tuple[Poster, ...]:
        """The sources that post their results."""
        return self.posting.posters

    @property
    def everyone(self) -> tuple[Source | Poster, ...]:
        """Every source of whatever kind."""
        return (*self.sources, *self.posters)


def read_settings(path: Path) -> Settings:
    """Return what the file says. Raises ``ConfigError`` naming every mistake."""
    problems = Problems()
    base = path.absolute().parent
    top = compose(read_text(path, SMALL_FILE), path, problems)
    top.known(*KEYS)
    places: dict[str, str] = {}
    listed = top.take("sources", lambda value: read_sources(value, base), Listed())
    check_posters(listed.posters, listed.where, problems)
    targets = top.take("targets", lambda value: read_targets(value, base, places), None)
    agents = top.take("agents", read_agents, None)
    certificates = top.take("certificates", lambda value: read_certificates(value, base), None)
    doors = _read_doors(top, base, listed, places)
    own = _read_own(top, base)
    if targets is not None:
        check_link(top, targets.remotes, agents, certificates)
    problems.settle()
    assert targets is not None
    return Settings(
        own.journal,
        own.console,
        own.operator,
        doors.sediment,
        listed.sources,
        targets.own,
        own.inventory,
        own.book,
        places,
        own.management,
        doors.relying,
        doors.hook,
        own.sealing,
        own.doctor,
        targets.remotes,
        agents,
        certificates,
        doors.posting,
        targets.clusters,
    )


# --- the doors, and what the file cannot do without ---------------------------------------------------------------


class _Doors(NamedTuple):
    sediment: Door
    hook: Hook | None
    relying: Relying | None
    posting: Posting


def _read_doors(top: Section, base: Path, listed: Listed, places: dict[str, str]) -> _Doors:
    sediment, hook = top.take("doors", lambda value: read_doors(value, base), None) or (Door(), None)
    relying = top.take("doors", lambda value: read_relying_port(value, places), None)
    _find_places(top, places)
    posting = top.take(
        "doors",
        lambda value: read_posting(value, base, listed.posters, listed.where),
        Posting(listed.posters),
    )
    check_alerts(sediment, relying, listed.sources, places["doors"], top.problems)
    return _Doors(sediment, hook, relying, posting)


def _find_places(top: Section, places: dict[str, str]) -> None:
    """Remember where each key that must be there stands, and which of them are missing."""
    for key, example in NEEDED.items():
        value = top.get(key)
        places[key] = top.where if value is None else value.where
        if value is None:
            top.problems.add(top.where, f"the file needs {key!r}", f"write {key}: {example}")


# --- windows and files --------------------------------------------------------------------------------------------


class _Own(NamedTuple):
    journal: Path
    console: Console
    operator: OperatorSocket
    inventory: Path
    book: Path
    management: tuple[Network, ...]
    sealing: Sealing | None
    doctor: Places


def _read_own(top: Section, base: Path) -> _Own:
    no_networks: tuple[Network, ...] = ()
    return _Own(
        top.take("journal", lambda value: base / value.text(), base / "var/journal.db"),
        top.take("console", _console, Console()),
        top.take("operator", lambda value: _operator(value, base), OperatorSocket(base / "var/operator.sock")),
        top.take("inventory", lambda value: base / value.text(), base),
        top.take("book", lambda value: base / value.text(), base),
        top.take("management", read_networks, no_networks),
        top.take("sealing", lambda value: read_sealing(value.section(), base), None),
        top.take("doctor", lambda value: _doctor(value.section(), base), Places()),
    )


def _console(value: Value) -> Console:
    section = value.section()
    section.known("listen", "hosts")
    return Console(
        section.take("listen", lambda item: item.parsed(parse_endpoint), Console().listen),
        section.take("hosts", lambda item: item.gather(Value.text), ()),
    )


def _operator(value: Value, base: Path) -> OperatorSocket:
    section = value.section()
    section.known("socket", "group")
    return OperatorSocket(
        section.take("socket", lambda item: base / item.text(), base / "var/operator.sock"),
        section.take("group", lambda item: item.parsed(parse_name), None),
    )


def _doctor(section: Section, base: Path) -> Places:
    section.known(*Places._fields)
    no_paths: tuple[Path, ...] = ()
    found = (
        section.take(name, lambda value: value.gather(lambda item: base / item.text()), no_paths)
        for name in Places._fields
    )
    return Places(*found)
