"""Reading files that others must not read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gateway.core.errors import ConfigError


def read_secret(path: Path, limit: int) -> bytes:
    """Return a file's bytes. Raises ``ConfigError`` when it cannot be read, is larger than ``limit`` bytes, or when
    others may read it or its group write it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(str(path), "is no regular file", "name the key file")
            if mode & (stat.S_IRWXO | stat.S_IWGRP):
                what = f"others may use this key file (mode {stat.S_IMODE(mode):04o})"
                raise ConfigError(str(path), what, f"chmod 640 {path.name}, or 600, and make a new key")
            data = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be read: {error.strerror}", "check the path and its rights"
        ) from error
    if len(data) > limit:
        raise ConfigError(str(path), f"is larger than {limit} bytes", "is this the right file?")
    return data
