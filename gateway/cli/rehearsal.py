"""What stands behind ``ragate plan`` and ``ragate what-if``: the files, the devices' states, the questions asked.

What lives here: where books and states come from, and putting them together. What must not: printing, exit codes,
comparing or deciding.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gateway.cli.rehearsed_documents import budgets_of, standing_documents
from gateway.cli.terminal import client
from gateway.config.book import load_book
from gateway.config.ground import Ground, load_candidate, load_ground
from gateway.config.parsing import parse_duration
from gateway.config.templates import read_library
from gateway.console.client import Client, NotRunning, Refused
from gateway.control.collecting import no_collection
from gateway.core import lifecycle
from gateway.core.binding import AddressBook
from gateway.core.errors import ConfigError, JournalError
from gateway.core.model import Device, DeviceId, Record, SourceName, Standing
from gateway.core.policy import (
    Book,
    Deployment,
    DeviceClass,
    Override,
    check,
    compile_book,
    decide,
    quorum_for,
    rules_for,
)
from gateway.core.rehearsal import (
    Comparison,
    Differences,
    Hypothesis,
    State,
    compare,
    compare_documents,
    hypothetical,
    imagine,
    lowest_sharer,
    replay,
    starting,
)
from gateway.journal import JournalReader

LONGEST_REPLAY = 366 * 86_400.0
"""Seconds: a journal is kept for 30 days unless somebody keeps copies."""

_STANDINGS = {standing.label: standing for standing in Standing}

Records = Mapping[tuple[DeviceId, SourceName], Record]

_NO_OVERRIDES: Mapping[DeviceId, Override] = {}


class Planned(NamedTuple):
    """What a plan found. ``strays``: devices to which the service gives another profile than ``before`` does."""

    before: str
    after: str
    states: str
    strays: int
    comparison: Comparison
    differences: Differences | None


class Supposed(NamedTuple):
    """What a supposed event would do, under which book, and where the state comes from."""

    book: str
    states: str
    hypothesis: Hypothesis


class States(NamedTuple):
    """What every device is now, and where that comes from in words. ``profiles``: what the running service says
    that each has; empty when it was not asked. ``records``: empty when the journal was not read. ``overrides``:
    those that run now."""

    told: str
    records: Records
    known: Mapping[DeviceId, State]
    profiles: Mapping[DeviceId, str]
    overrides: Mapping[DeviceId, Override] = _NO_OVERRIDES


def make_plan(
    new_book: Path, config: Path, against: Path | None, replayed: str | None, socket: Path | None
) -> Planned:
    """Compare, and replay the journal of the last ``replayed`` (a duration) if given.

    Raises ``ConfigError`` and ``NotRunning``.
    """
    span = None if replayed is None else _span(replayed)
    with no_collection():
        ground = load_ground(config)
        if against is None and new_book.exists() and new_book.resolve() == ground.settings.book.resolve():
            mend = "write the new book beside it, or name the old one with --against"
            raise ConfigError(str(new_book), "is the configuration's own book: nothing to compare it with", mend)
        old_book = against or ground.settings.book
        old = load_book(old_book)
        new = load_candidate(new_book, ground, old)
        states = _states(ground, config, socket, need_journal=span is not None)
        before, after = compile_book(old, ground.devices), compile_book(new.book, ground.devices)
        was, would = _folded(ground.devices, before, after, states)
        known = check(before)
        addresses = AddressBook(ground.devices)
        now = time.time()
        words = (states.overrides, now)
        standing = standing_documents(ground, before, was, addresses, read_library(before), words)
        meant = standing_documents(ground, after, would, addresses, new.library, words)
        found = compare(
            ground.devices,
            was,
            before,
            after,
            compare_documents({**_parts(old), **standing.texts()}, {**_parts(new.book), **meant.texts()}),
            budgets_of(standing, meant),
            [each for each in new.findings if each.severity == "error" or each not in known],
            would,
            states.overrides,
            now,
            addresses,
        )
        differences = None if span is None else _replay(ground, states, before, after, span)
        strays = 0 if against is not None else _strays(ground.devices, before, states)
    return Planned(str(old_book), str(new.path), states.told, strays, found, differences)


def suppose(device: str, event: str, config: Path, book: Path | None, socket: Path | None) -> Supposed | None:
    """Ask what one event would do now; None when the inventory does not list the device.

    Raises ``ConfigError``, ``NotRunning`` and ``Refused``, and ``ValueError`` for a word that is no event.
    """
    with no_collection():
        ground = load_ground(config)
        named = next((each for each in ground.devices if each.id == device), None)
        if named is None:
            return None
        candidate = load_candidate(book or ground.settings.book, ground)
        records, word, told = _records(ground, named, config, socket)
        own = {source: records.get((named.id, source), Record()) for source in named.sources}
        rules = {source: rules_for(named, _rules(ground)[source], candidate.book) for source in own}
        supposed = imagine(event, time.time(), own)
        conflict = _conflict(ground, named, candidate.book, records)
        found = hypothetical(named, own, supposed, candidate.book, rules, conflict, word, time.time())
    return Supposed(str(candidate.path), told, found)


# --- states -----------------------------------------------------------------------------------------------------


def _states(ground: Ground, config: Path, socket: Path | None, *, need_journal: bool) -> States:
    """The journal's states; the service's, where the journal may not be read; none, where there is neither."""
    journal = ground.settings.journal
    if socket is None or need_journal:
        try:
            with JournalReader(journal) as reader:
                words = _in_force(reader.overrides())
                return States(f"states from {journal}", reader.states(), {}, {}, words)
        except JournalError as error:
            if need_journal:
                mend = "name the configuration of a site that has run, as a user who may read its journal"
                raise ConfigError(str(journal), f"cannot be replayed: {error}", mend) from error
            unread = error
        try:
            return _asked(client(config, None))
        except NotRunning:
            if journal.exists():
                raise ConfigError(str(journal), str(unread), "run as the service's user, or --socket") from unread
            return States("no journal and no service: every device is taken as unknown", {}, {}, {})
    return _asked(client(config, socket))


def _asked(service: Client) -> States:
    try:
        rows = list(service.devices())
    except Refused as error:
        raise NotRunning(f"the service does not tell its devices: {error}") from error
    known = {DeviceId(row["id"]): State(_STANDINGS[row["standing"]], _deadline(row)) for row in rows}
    profiles = {DeviceId(row["id"]): row["profile"] for row in rows}
    words = {DeviceId(row["id"]): word for row in rows if (word := _word(row)) is not None}
    return States("states from the running service", {}, known, profiles, words)


def _word(row: Mapping[str, Any]) -> Override | None:
    """The override that a device's row tells of."""
    word = row["override"]
    if word is None:
        return None
    return Override(DeviceId(row["id"]), word["profile"], word["until"], word["actor"], word["reason"])


def _in_force(words: Mapping[DeviceId, Override]) -> Mapping[DeviceId, Override]:
    """Those that have not ended yet."""
    now = time.time()
    return {device: word for device, word in words.items() if now < word.until}


def _deadline(row: Mapping[str, object]) -> float | None:
    """A deadline that the book makes nothing of is not told: a trusted device has one all the same."""
    deadline = row["deadline"]
    if isinstance(deadline, int | float):
        return float(deadline)
    return 0.0 if row["standing"] == Standing.TRUSTED.label else None


def _folded(
    devices: Sequence[Device], before: Book, after: Book, states: States
) -> tuple[Mapping[DeviceId, State], Mapping[DeviceId, State]]:
    """Every device's state by each book: they differ where the books' quorums do."""
    if not states.records:
        return states.known, states.known
    was: dict[DeviceId, State] = {}
    would: dict[DeviceId, State] = {}
    known, fold = states.records.get, lifecycle.fold
    quorums = any(_has_quorums(book) for book in (before, after))
    for device in devices:
        name = device.id
        found = [known((name, source)) for source in device.sources]
        if any(found):
            records = tuple(record or Record() for record in found)
            old, new = (quorum_for(device, before), quorum_for(device, after)) if quorums else (None, None)
            state = was[name] = State(*fold(records, old))
            would[name] = state if old == new else State(*fold(records, new))
    return was, would


def _has_quorums(book: Book) -> bool:
    rules: tuple[Deployment | DeviceClass, ...] = (*book.deployments, *book.classes)
    levels = [
        *(rule.level for rule in rules),
        *(each for each in book.devices.values() if not isinstance(each, str)),
    ]
    return any(level.quorum is not None for level in levels)


def _strays(devices: Sequence[Device], book: Book, states: States) -> int:
    """Devices to which the running service gives another profile than the book's file: it runs another book."""
    strays = 0
    for device in devices:
        profile = states.profiles.get(device.id)
        if profile is not None:
            state = states.known[device.id]
            word = states.overrides.get(device.id)
            given = decide(device, state.standing, state.deadline, book, None, word, time.time())
            strays += given.profile != profile
    return strays


def _records(
    ground: Ground, device: Device, config: Path, socket: Path | None
) -> tuple[Records, Override | None, str]:
    """Every record from the journal, or what the running service tells of this one device; and its override."""
    journal = ground.settings.journal
    if socket is None:
        try:
            with JournalReader(journal) as reader:
                word = _in_force(reader.overrides()).get(device.id)
                return reader.states(), word, f"state from {journal}"
        except JournalError as error:
            unread = error
    try:
        row = client(config, socket).device(device.id)
    except NotRunning:
        if socket is not None:
            raise
        if journal.exists():
            raise ConfigError(str(journal), str(unread), "run as the service's user, or --socket") from unread
        return {}, None, "no journal and no service: the device is taken as unknown"
    told = {SourceName(name): _told(record) for name, record in row["records"].items()}
    records = {(device.id, source): record for source, record in told.items()}
    return records, _word(row), "state from the running service"


def _told(record: Mapping[str, object]) -> Record:
    """A record as the service tells it: without the nonces of the newest second, which one new event needs not."""
    kept = {key: value for key, value in record.items() if key in Record._fields and key != "standing"}
    return Record(_STANDINGS[str(record["standing"])], **kept)  # type: ignore[arg-type]


def _conflict(ground: Ground, device: Device, book: Book, records: Records) -> tuple[DeviceId, Standing] | None:
    sharers = AddressBook(ground.devices).sharers(device.id)
    others = {each.id: each for each in ground.devices if each.id in sharers}

    def standing_of(name: DeviceId) -> Standing:
        other = others[name]
        theirs = tuple(records.get((name, source), Record()) for source in other.sources)
        return lifecycle.fold(theirs, quorum_for(other, book))[0]

    return lowest_sharer(Standing.TRUSTED, sharers, standing_of)


# --- the rest ---------------------------------------------------------------------------------------------------


def _rules(ground: Ground) -> Mapping[SourceName, lifecycle.Rules]:
    return {each.name: each.rules for each in ground.settings.everyone}


def _replay(ground: Ground, states: States, before: Book, after: Book, span: float) -> Differences:
    rules, now = _rules(ground), time.time()
    try:
        with JournalReader(ground.settings.journal) as reader:
            several = any(len(device.sources) > 1 for device in ground.devices)
            starts = starting(reader.since(now - span), ground.devices) if several else {}
            return replay(
                reader.since(now - span),
                ground.devices,
                states.records,
                before,
                after,
                lambda device, source: rules_for(device, rules[source], after),
                now - span,
                now,
                starts,
            )
    except JournalError as error:
        raise ConfigError(str(ground.settings.journal), f"cannot be replayed: {error}") from error


def _span(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise ConfigError("--replay", str(error), "write 12h or 7d") from error
    if not 0 < seconds <= LONGEST_REPLAY:
        raise ConfigError("--replay", f"{text} is out of range", "write 12h or 7d, at most 366d")
    return seconds


def _parts(book: Book) -> dict[str, str]:
    """What the book has beside profiles of devices and documents, by a name for people."""
    found = {f"service {each.name}": repr(each) for each in book.services}
    found |= {f"corridor entry {each.name}": repr(each) for each in book.corridor}
    found |= {f"always allowed {network}": "" for network in book.always_allowed}
    return found | {f"site profile {rule.name}": repr(rule.when) for rule in book.site}
