"""What an edit is."""

from __future__ import annotations

from typing import NamedTuple


class Edit(NamedTuple):
    """One way to ignore a quirk: ``name`` ``file`` from the root, what stands there and what instead."""

    name: str
    file: str
    old: str
    new: str
