"""``ragate devices import``: replacing the inventory by what another file lists.

What lives here: the difference shown before, and the two files written after. What must not: understanding the
other file (the configuration does). Keys are compared, and never printed.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import typer
import yaml

from gateway import config as configuration
from gateway.cli.terminal import EXIT_NO, end, setting
from gateway.console import text
from gateway.core.errors import ConfigError

_INVENTORY_DEFAULT = "devices.yaml"
_KEYS_DEFAULT = "devices.keys"

#: First bytes of an SQLite file (file format, section 1.3).
_SQLITE_MAGIC = b"SQLite format 3\x00"

#: The inventory says what protects a site, the keys make verdicts believed.
_INVENTORY_MODE = 0o640
_KEYS_MODE = 0o600

#: What YAML means by nothing.
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})

#: Names shown when many devices are concerned; the difference above names them all.
_NAMED = 10


def import_inventory(file: Path, config: Path, *, dry_run: bool, drop: bool) -> None:
    """Show the difference and, unless ``dry_run``, write it. Ends with code 1 when devices would be dropped and
    ``drop`` was not given, or when the file has errors. Raises ``ConfigError``."""
    inventory = setting(config, ("inventory",), _INVENTORY_DEFAULT)
    reader = configuration.import_sediment_db if _is_sqlite(file) else configuration.import_yaml
    new, keys, findings = reader(file)
    for finding in findings:
        typer.echo(text.clean(f"{finding.level}: {finding.where}: {finding.what}"), err=True)
    old = _read(inventory)
    before, after = _listed(old, inventory), _listed(new, file)
    old_keys, new_keys = _keys(_read(_keys_file(old, inventory))), _keys(keys)
    names = (f"{inventory} (now)", f"{inventory} (new)")
    for line in difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm=""):
        typer.echo(text.clean(line))
    for line in _key_changes(old_keys, new_keys):
        typer.echo(text.clean(line))
    gone = [device for device in before if device not in after]
    added = sum(device not in before for device in after)
    typer.echo(f"{len(after)} devices: {added} new, {len(after) - added} kept, {len(gone)} dropped")
    if any(finding.level == "error" for finding in findings):
        end(f"{file} has errors; nothing was written", EXIT_NO)
    if gone and not drop:
        named = ", ".join(gone[:_NAMED]) + (" …" if len(gone) > _NAMED else "")
        end(f"{file} lacks {named}; nothing was written; add them to it, or drop them with --drop", EXIT_NO)
    if dry_run:
        typer.echo("dry run: nothing was written")
        return
    # Keys first: an inventory must never name a device whose key is not there yet.
    if keys:
        write_whole(_keys_file(new, inventory), keys, _KEYS_MODE)
    write_whole(inventory, new, _INVENTORY_MODE)
    typer.echo(f"written: {inventory}; restart the service to take it up")


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


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigError(str(path), error.strerror or "cannot be read") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"is no UTF-8 text: {error.reason}") from error


def _document(content: str, where: Path) -> dict[str, object]:
    try:
        # Every scalar as the text that stands there: a device may well be called 0123 or no.
        found = yaml.load(content, Loader=yaml.CBaseLoader)  # noqa: S506 - makes text only
    except yaml.YAMLError as error:
        raise ConfigError(str(where), f"is no YAML: {error}") from error
    return found if isinstance(found, dict) else {}


def _listed(content: str, where: Path) -> dict[str, None]:
    """Device ids in order."""
    devices = _document(content, where).get("devices")
    entries = devices if isinstance(devices, list) else []
    return {str(entry["id"]): None for entry in entries if isinstance(entry, dict) and "id" in entry}


def _keys_file(content: str, inventory: Path) -> Path:
    named = _document(content, inventory).get("hmac_keys")
    given = isinstance(named, str) and named not in _NULLS
    return inventory.parent / (str(named) if given else _KEYS_DEFAULT)


def _keys(content: str) -> dict[str, str]:
    """Key per device from lines ``DEVICE 64-hex``."""
    lines = (line.split() for line in content.splitlines() if line.strip() and not line.startswith("#"))
    return {words[0]: words[1] for words in lines if len(words) == 2}


def _key_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for device in new:
        if device not in old:
            yield f"+ key of {device}"
        elif old[device].lower() != new[device].lower():
            yield f"~ key of {device} changes"
    for device in old:
        if device not in new:
            yield f"- key of {device}"
