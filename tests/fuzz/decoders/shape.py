"""What a fuzzer needs to know of one decoder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

Attempt = Callable[[bytes], None]


class Target(NamedTuple):
    """One decoder, or a few that read the same bytes.

    ``make`` returns what takes any bytes and raises nothing: errors that the decoder declares are its answer, an
    assertion says what must hold of what it accepts. ``seeds`` are genuine inputs, ``words`` what to put together.
    ``modules`` are the decoder's own, whose coverage is reported.
    """

    name: str
    modules: tuple[str, ...]
    make: Callable[[], Attempt]
    seeds: Callable[[], Sequence[bytes]]
    words: tuple[bytes, ...] = ()


def scratch(process: int) -> Path:
    """Where a process may keep files for its attempts: in memory where the machine has such a place."""
    within = Path("/dev/shm")
    return (within if within.is_dir() else Path(tempfile.gettempdir())) / f"ragate-fuzz-{process}"


def pieces(data: bytes, most: int = 64) -> list[bytes]:
    """Cut bytes as a stream might arrive: two bytes, big-endian, say how long each piece is."""
    found: list[bytes] = []
    at = 0
    while at + 2 <= len(data) and len(found) < most:
        length = int.from_bytes(data[at : at + 2], "big")
        found.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return found


def joined(*parts: bytes) -> bytes:
    """The reverse of ``pieces``."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)
