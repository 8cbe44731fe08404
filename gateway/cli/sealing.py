"""``ragate devices seal`` and ``make-key``: from plain key files to a sealed one.

What lives here: what is written, in which order, and what is left for the operator to remove. What must not: the
cipher (the configuration has it). Keys are never printed.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import typer

from gateway.cli.importing import rehearse, write_whole
from gateway.config import Import, load_inventory
from gateway.config.document import LARGE_FILE, Problems, read_text
from gateway.config.entries import read_entries
from gateway.config.imports import KEYS_NAME, inventory_text
from gateway.config.sealing import KEY_SIZE, Sealing, seal
from gateway.config.settings import read_settings
from gateway.console import text
from gateway.core.errors import ConfigError

_INVENTORY_MODE, _KEYS_MODE = 0o640, 0o600


def make_key(file: Path) -> None:
    """Write a new sealing key. Raises ``ConfigError`` when the file exists or cannot be written."""
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as opened:
            opened.write(secrets.token_hex(KEY_SIZE) + "\n")
            opened.flush()
            os.fsync(handle)
    except OSError as error:
        mend = "choose another name: a sealing key is never overwritten" if file.exists() else "check the folder"
        raise ConfigError(str(file), f"cannot be made: {error.strerror}", mend) from error
    typer.echo(
        f"written: {file}; name it in the main file (sealing: {{file: {file.name}}}) and keep a copy elsewhere"
    )


def seal_keys(config: Path, new_key: Path | None, *, dry_run: bool) -> None:
    """Write all keys sealed into one file beside the inventory, with ``new_key`` instead where given. Raises
    ``ConfigError`` when what would be written could not be used."""
    settings = read_settings(config)
    inventory, sealing = settings.inventory, settings.sealing
    if sealing is None and new_key is None:
        mend = "ragate devices make-key sealing.key, then write sealing: {file: sealing.key}"
        raise ConfigError(str(config), "names no key to seal with", mend)
    keys = load_inventory(inventory, settings.sources, sealing).hmac_keys
    problems = Problems()
    written = read_entries(read_text(inventory, LARGE_FILE), inventory, problems)
    problems.settle()
    own = sorted({entry.key_file for entry in written.entries if entry.key_file})
    left = [
        name
        for name in (written.hmac_keys, *own)
        if name and inventory.parent / name != inventory.parent / KEYS_NAME
    ]
    plain = "".join(f"{device} {key.hex()}\n" for device, key in keys.items())
    sealing = sealing if new_key is None else Sealing(new_key.absolute())
    assert sealing is not None
    found = seal(plain.encode("ascii"), sealing)
    moves = bool(own) or written.hmac_keys != KEYS_NAME
    listed = inventory_text([entry._replace(key_file="") for entry in written.entries], KEYS_NAME)
    proposed = listed if moves else read_text(inventory, LARGE_FILE)
    rehearse(inventory, Import(proposed, found, (), (), len(keys)), settings.sources, sealing)
    typer.echo(f"{len(keys)} keys for {inventory.parent / KEYS_NAME}, sealed with {sealing.path}")
    if dry_run:
        typer.echo("dry run: nothing was written")
        return
    write_whole(inventory.parent / KEYS_NAME, found, _KEYS_MODE)
    if moves:
        write_whole(inventory, proposed, _INVENTORY_MODE)
        typer.echo(f"written: {inventory}, in the common form: comments are gone")
    typer.echo(f"written: {inventory.parent / KEYS_NAME}; the service reads it at its next start")
    if new_key is not None:
        typer.echo(f"before that, name the new key in {config}: sealing: {{file: {new_key}}}")
    for name in left:
        typer.echo(text.clean(f"not used any more, remove it: shred -u {inventory.parent / name}"))
