"""Reading files that others must not read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gateway.config.document import read_bytes
from gateway.core.errors import ConfigError


def read_secret(path: Path, limit: int) -> bytes:
    """Return a file's bytes. Raises ``ConfigError`` when it cannot be read, is larger than ``limit`` bytes, or when
    others may read it or its group write it."""
    return read_bytes(path, limit, _secret)


def _secret(path: Path, found: os.stat_result) -> None:
    """Refuse a key file that is none, or that others may read."""
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(str(path), "is no regular file", "name the key file")
    if found.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        what = f"others may use this key file (mode {stat.S_IMODE(found.st_mode):04o})"
        raise ConfigError(str(path), what, f"chmod 640 {path.name}, or 600, and make a new key")
