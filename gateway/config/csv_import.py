"""A table of devices (CSV, RFC 4180) as an inventory to be.

What lives here: reading rows, and saying of each what is wrong with it. What must not: writing any file, or judging
values otherwise than the inventory does. A row that cannot be used is a finding, never a silence.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from gateway.config.document import LARGE_FILE, Problems, did_you_mean, read_text
from gateway.config.entries import Entries, Entry
from gateway.config.imports import KEYS_NAME, Import, changes_between, inventory_text
from gateway.config.inventory import read_devices
from gateway.config.keyfiles import refusal_of
from gateway.config.posters import Poster
from gateway.config.values import Inventory, Source
from gateway.core.errors import ConfigError
from gateway.core.model import Device, DeviceId, SourceName
from gateway.core.policy import Finding
from gateway.sediment.keys import parse_hmac_key

#: The columns, in any order; the first row names them. Several addresses, sources or labels stand in one field,
#: with spaces or semicolons between them.
COLUMNS = (
    "id",
    "addresses",
    "source",
    "anchor",
    "interface",
    "mac",
    "labels",
    "max_age",
    "recovery_passes",
    "hmac_key",
)
_NEEDED = COLUMNS[:2]
#: Characters of a field: sixteen IPv6 addresses, or sixteen labels of twice sixty-four.
FIELD = 4_096


class _Row(NamedTuple):
    """One row: the device as it shall be, its entry and key; or None, and why."""

    device: Device | None
    entry: Entry
    key: bytes
    told: tuple[str, ...]
    published: bool = False


def import_csv(
    path: Path, sources: Sequence[Source | Poster], source: SourceName | None, present: Inventory
) -> Import:
    """Propose what a table lists as the inventory. ``source`` is that of rows without one (None: each needs its
    own).

    A row without a key keeps the one that the present inventory has; devices of which SEDIMENT does not speak need
    none. Raises ``ConfigError`` for a file that is no
    table of devices.
    """
    rows = [_row(line, values, path, sources, source, present) for line, values in _read(path)]
    findings: list[Finding] = []
    left_out: list[str] = []
    first: dict[str, int] = {}
    devices: list[Device] = []
    entries: list[Entry] = []
    keys: list[str] = []
    refused_key = False
    for number, row in enumerate(rows, 2):
        subject = f"row {number} ({row.entry.id[:64]})"
        told = list(row.told)
        earlier = first.setdefault(row.entry.id, number)
        if earlier != number:
            told.append(f"the id stands in row {earlier} already; keep one of the two")
        refused_key |= row.published
        if told or row.device is None:
            what, _, mend = "; ".join(told).rpartition("; ")
            findings.append(Finding("error", subject, what or mend, mend if what else "correct the row"))
            left_out.append(f"{subject}: {'; '.join(told)}")
            continue
        devices.append(row.device)
        entries.append(row.entry)
        if row.key:
            keys.append(f"{row.device.id} {row.key.hex()}\n")
    text = inventory_text(entries, KEYS_NAME if keys else "", left_out)
    changes = changes_between(devices, present.devices)
    return Import(text, "".join(keys), tuple(findings), changes, len(devices), refused_key)


def _read(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Each row's line and its values by column."""
    text = read_text(path, LARGE_FILE).removeprefix("\ufeff")
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        head = [column.strip() for column in next(reader, [])]
        _check_head(head, path)
        for values in reader:
            if not values:
                continue
            if len(values) != len(head):
                what = f"{len(values)} fields, and the first line names {len(head)} columns"
                raise ConfigError(f"{path}:{reader.line_num}", what, "put a field with commas in double quotes")
            if any(len(value) > FIELD for value in values):
                raise ConfigError(f"{path}:{reader.line_num}", f"a field has more than {FIELD} characters", "")
            yield reader.line_num, dict(zip(head, map(str.strip, values), strict=True))
    except csv.Error as error:
        raise ConfigError(f"{path}:{reader.line_num}", f"is no CSV: {error}", "correct the line") from error


def _check_head(head: Sequence[str], path: Path) -> None:
    where = f"{path}:1"
    for column in head:
        if column not in COLUMNS:
            raise ConfigError(where, f"column {column[:64]!r} is not known", did_you_mean(column, COLUMNS))
        if head.count(column) > 1:
            raise ConfigError(where, f"column {column!r} stands here twice", "keep one of the two")
    for column in _NEEDED:
        if column not in head:
            mend = f"the first line names the columns, some of: {','.join(COLUMNS)}"
            raise ConfigError(where, f"there is no column {column!r}", mend)


def _row(
    line: int,
    values: Mapping[str, str],
    path: Path,
    sources: Sequence[Source | Poster],
    source: SourceName | None,
    present: Inventory,
) -> _Row:
    where = f"{path}:{line}"
    told: list[str] = []
    named, *also = _several(values.get("source") or source or "") or ("",)
    if not named:
        told.append("the row names no source; fill the column, or give --source")
    entry = Entry(
        values["id"],
        named,
        _several(values["addresses"]),
        values.get("anchor") or "none",
        "",
        _labels(values.get("labels", ""), told),
        tuple(also),
        max_age=values.get("max_age", ""),
        recovery_passes=values.get("recovery_passes", ""),
        interface=values.get("interface", ""),
        mac=values.get("mac", ""),
    )
    problems = Problems()
    device: Device | None = None
    if named:
        written = Entries("", "", (entry,), lambda _number, _key: where)
        found = read_devices(written, [each.name for each in sources], problems)
        device = found[0] if found else None
    try:
        problems.settle()
    except ConfigError as error:
        told.append(f"{error.what}; {error.mend}" if error.mend else error.what)
    key, published = _key(values.get("hmac_key", ""), entry, sources, present, told)
    return _Row(device, entry, key, tuple(told), published)


def _several(field: str) -> tuple[str, ...]:
    return tuple(field.replace(";", " ").split())


def _labels(field: str, told: list[str]) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for word in _several(field):
        name, equals, value = word.partition("=")
        if not equals or name in dict(pairs):
            told.append(f"label {word[:64]!r} is no new NAME=VALUE; write class=camera;hall=3")
        pairs.append((name, value))
    return tuple(pairs)


def _key(
    field: str, entry: Entry, sources: Sequence[Source | Poster], present: Inventory, told: list[str]
) -> tuple[bytes, bool]:
    """The row's key, or the one known of the device; and whether it is one that everybody has and may not be
    used."""
    device = DeviceId(entry.id)
    if not field:
        known = present.hmac_keys.get(device)
        named = {entry.source, *entry.also}
        keyless = named <= {each.name for each in sources if isinstance(each, Poster)}
        if known is None and not keyless:
            told.append("it has no key here and none in the inventory; fill the column hmac_key")
        return known or b"", False
    try:
        key = parse_hmac_key(field.encode("ascii", "replace"))
    except ValueError as error:
        told.append(f"hmac_key: {error}")
        return b"", False
    refusal = refusal_of(device, key)
    named = {entry.source, *entry.also}
    allowed = any(each.allow_published for each in sources if isinstance(each, Source) and each.name in named)
    if refusal is None or allowed:
        return key, False
    told.append("; ".join(refusal))
    return key, True
