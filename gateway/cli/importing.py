"""``ragate devices import``: making the inventory what another file lists.

What lives here: the difference shown before, and the two files written after. What must not: understanding the
other file (the configuration does). Keys are compared, and never printed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import typer

from gateway.cli.terminal import EXIT_CONFIG, EXIT_NO, end
from gateway.config import (
    Consent,
    Import,
    Inventory,
    Poster,
    Source,
    import_sediment_db,
    import_yaml,
    load_inventory,
)
from gateway.config.csv_import import import_csv
from gateway.config.document import LARGE_FILE, Problems, read_text
from gateway.config.entries import read_entries
from gateway.config.imports import KEYS_NAME, inventory_text
from gateway.config.sealing import Sealing, seal
from gateway.config.settings import read_settings
from gateway.console import text
from gateway.core.errors import ConfigError
from gateway.core.model import DeviceId

#: First bytes of an SQLite file (file format, section 1.3).
_SQLITE_MAGIC = b"SQLite format 3\x00"

#: The inventory says what protects a site, the keys make verdicts believed.
_INVENTORY_MODE = 0o640
_KEYS_MODE = 0o600

_Any = TypeVar("_Any", bound=Source | Poster)


class Proposal(NamedTuple):
    """What would be written (``found`` with all keys), and whether ``overwrite`` must be given for it."""

    found: Import
    overwrites: bool


class Wishes(NamedTuple):
    """The options of the command, as its help tells them."""

    source: str | None
    dry_run: bool
    overwrite: bool
    partial: bool
    rebind: bool
    unseen: bool


def import_inventory(file: Path, config: Path, wishes: Wishes) -> None:
    """Show the difference and, unless it is a dry run, write it. A dry run ends as the real one would.

    Ends with code 1 and nothing written when an inventory file changes or drops a known device and ``overwrite``
    was not given, or when devices cannot be taken over and ``partial`` was not given; with 2 when one of them has a
    key that everybody has. Raises ``ConfigError`` when what would be written could not be used.
    """
    settings = read_settings(config)
    inventory = settings.inventory
    everyone, sealing = settings.everyone, settings.sealing
    present = load_inventory(inventory, everyone, sealing) if inventory.exists() else Inventory((), {})
    proposal, overwrites = propose(file, everyone, wishes, present, sealing)
    for finding in proposal.findings:
        typer.echo(text.clean(f"{finding.severity}: {finding.subject}: {finding.what}; {finding.mend}"), err=True)
    for line in proposal.changes:
        typer.echo(text.clean(line))
    _sum_up(proposal.changes)
    if any(finding.severity == "error" for finding in proposal.findings) and not wishes.partial:
        what = f"{file} lists devices that cannot be taken over; nothing was written; mend them, or --partial"
        end(what, EXIT_CONFIG if proposal.refused_key else EXIT_NO)
    if not proposal.taken:
        raise ConfigError(str(file), "has no device that can be taken over; nothing was written")
    if overwrites and not wishes.overwrite:
        end("devices of the inventory would change or go; nothing was written; --overwrite lets them", EXIT_NO)
    if sealing is not None:
        proposal = proposal._replace(keys=seal(proposal.keys.encode("ascii"), sealing))
    rehearse(inventory, proposal, everyone, sealing)
    if wishes.dry_run:
        typer.echo("dry run: nothing was written")
        return
    # Keys first: the inventory must never name a device whose key is not there yet.
    write_whole(inventory.with_name(KEYS_NAME), proposal.keys, _KEYS_MODE)
    write_whole(inventory, proposal.inventory, _INVENTORY_MODE)
    typer.echo(f"written: {inventory} and {inventory.parent / KEYS_NAME}; restart the service to take them up")


def propose(
    file: Path,
    sources: Sequence[Source | Poster],
    wishes: Wishes,
    present: Inventory,
    sealing: Sealing | None = None,
) -> Proposal:
    """Read a SEDIMENT database, a table or an inventory file, with its keys. Raises ``ConfigError``."""
    if _is_sqlite(file):
        source = _source(wishes.source, [each for each in sources if isinstance(each, Source)])
        consent = Consent(wishes.rebind, wishes.overwrite, wishes.unseen, source.allow_published)
        found = import_sediment_db(file, source.name, present, consent)
        changed = _key_changes(present.hmac_keys, _keys(found.keys))
        return Proposal(found._replace(changes=(*found.changes, *changed)), overwrites=False)
    if file.suffix.lower() == ".csv":
        only = sources[0].name if len(sources) == 1 else None
        source_name = only if wishes.source is None else _source(wishes.source, sources).name
        found = import_csv(file, sources, source_name, present)
        changes = (*found.changes, *_key_changes(present.hmac_keys, _keys(found.keys)))
        overwrites = any(not line.startswith("+") for line in changes)
        return Proposal(found._replace(changes=changes), overwrites)
    found = import_yaml(file, [each.name for each in sources], present.devices)
    inventory, keys = _with_keys_beside(file, sources, sealing)
    changes = (*found.changes, *_key_changes(present.hmac_keys, _keys(keys)))
    whole = found._replace(inventory=inventory, keys=keys, changes=changes)
    return Proposal(whole, overwrites=any(not line.startswith("+") for line in changes))


def rehearse(
    inventory: Path, proposal: Import, sources: Sequence[Source | Poster], sealing: Sealing | None = None
) -> None:
    """Load the proposed inventory and keys from a folder aside: what could not be loaded is never put in place.
    Raises ``ConfigError``."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=".import.", dir=inventory.parent)
    except OSError as error:
        raise ConfigError(str(inventory.parent), f"cannot be written: {error.strerror}") from error
    with folder as aside:
        staged = Path(aside) / inventory.name
        write_whole(staged.with_name(KEYS_NAME), proposal.keys, _KEYS_MODE)
        write_whole(staged, proposal.inventory, _INVENTORY_MODE)
        try:
            load_inventory(staged, sources, sealing)
        except ConfigError as error:
            # The folder aside will be gone when the message is read.
            said = (part.replace(aside, str(inventory.parent)) for part in (error.where, error.what, error.mend))
            raise ConfigError(*said) from error


def write_whole(path: Path, content: str, mode: int) -> None:
    """Replace a file by ``content`` in one step, durably: a reader, or a crash, sees the old or the new one.

    The new file belongs to whom the old one, or else the folder, belongs to, so that an import as root does not
    take the file away from the service. Raises ``ConfigError``.
    """
    folder = path.parent
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            like = path.stat() if path.exists() else folder.stat()
            if os.geteuid() == 0:
                os.fchown(handle, like.st_uid, like.st_gid)
            os.fchmod(handle, mode)
            file.write(content)
            file.flush()
            os.fsync(handle)
        Path(name).replace(path)
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(at)
        finally:
            os.close(at)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise ConfigError(str(path), f"cannot be written: {error.strerror}") from error


def _is_sqlite(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    except OSError as error:
        raise ConfigError(str(file), error.strerror or "cannot be read", "name a readable file") from error


def _source(named: str | None, sources: Sequence[_Any]) -> _Any:
    """The source of devices that come without one."""
    if named is None and len(sources) == 1:
        return sources[0]
    for source in sources:
        if source.name == named:
            return source
    names = ", ".join(source.name for source in sources)
    raise ConfigError("--source", f"{named or 'nothing'} is no single source", f"name one of {names}")


def _with_keys_beside(file: Path, sources: Sequence[Source | Poster], sealing: Sealing | None) -> tuple[str, str]:
    """An inventory file and all its keys, wherever it keeps them, as one inventory with one key file beside it."""
    problems = Problems()
    written = read_entries(read_text(file, LARGE_FILE), file, problems)
    problems.settle()
    keys = load_inventory(file, sources, sealing).hmac_keys
    entries = [entry._replace(key_file="") for entry in written.entries]
    lines = [f"{device} {key.hex()}\n" for device, key in keys.items()]
    return inventory_text(entries, KEYS_NAME), "".join(lines)


def _keys(content: str) -> dict[DeviceId, bytes]:
    pairs = (line.split() for line in content.splitlines())
    return {DeviceId(device): bytes.fromhex(key) for device, key in pairs}


def _key_changes(old: Mapping[DeviceId, bytes], new: Mapping[DeviceId, bytes]) -> Iterator[str]:
    for device, key in new.items():
        if device in old and old[device] != key:
            yield f"~ {device} another key"


def _sum_up(changes: Sequence[str]) -> None:
    marks = {mark: {line.split(" ")[1] for line in changes if line.startswith(mark)} for mark in "+~-"}
    told = ", ".join(f"{len(marks[mark])} {word}" for mark, word in (("+", "new"), ("~", "changed"), ("-", "gone")))
    typer.echo(f"devices: {told}")
