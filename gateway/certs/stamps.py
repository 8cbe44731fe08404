"""Whether files have changed: one look at each, cheap enough for every handshake."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

Stamp = tuple[tuple[int, int, int], ...]


def stamp_of(paths: Iterable[Path | None]) -> Stamp:
    """What changes when any of the files is replaced or written: inode, time, size; zeros for what is not there."""
    found = []
    for path in paths:
        try:
            seen = None if path is None else os.stat(path)  # noqa: PTH116 - Path.stat: the same with twice the work
        except OSError:
            seen = None
        found.append((0, 0, 0) if seen is None else (seen.st_ino, seen.st_mtime_ns, seen.st_size))
    return tuple(found)
