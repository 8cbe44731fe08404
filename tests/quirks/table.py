"""The table of quirks in the guide, and the edits that belong to its rows.

What lives here: reading the table, holding edits against sources. What must not: running anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.quirks import daemon, documents
from tests.quirks.shape import Edit

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "kubearmor.md"

_HEAD = "| quirk of KubeArmor | what the driver does | test |"
_TEST = re.compile(r"`(tests/[a-z_/]+\.py::test_[a-z0-9_]+)`")


class Row(NamedTuple):
    """One quirk: what KubeArmor does, what the driver does about it, the tests that hold it."""

    quirk: str
    does: str
    tests: tuple[str, ...]


def rows() -> tuple[Row, ...]:
    """The rows of the table, from top to bottom. Raises ``ValueError`` for one that names no test."""
    lines = GUIDE.read_text(encoding="utf-8").partition(_HEAD)[2].splitlines()[2:]
    found: list[Row] = []
    for line in lines:
        if not line.startswith("| "):
            break
        quirk, does, cell = (part.strip() for part in line.strip("|").split(" | "))
        tests = tuple(_TEST.findall(cell))
        if not tests or ", ".join(f"`{test}`" for test in tests) != cell:
            msg = f"{GUIDE.name}: tests are named `tests/FILE.py::NAME`, with commas between: {line}"
            raise ValueError(msg)
        found.append(Row(quirk, does, tests))
    return tuple(found)


#: Edits by quirk, in the words of the guide.
EDITS: Mapping[str, tuple[Edit, ...]] = {**daemon.EDITS, **documents.EDITS}


def edited(edit: Edit, root: Path = ROOT) -> str:
    """The source with one edit. Raises ``ValueError`` when what it replaces is not there exactly once."""
    source = (root / edit.file).read_text(encoding="utf-8")
    if source.count(edit.old) != 1:
        msg = f"{edit.name}: {edit.file} has this {source.count(edit.old)} times: {edit.old}"
        raise ValueError(msg)
    return source.replace(edit.old, edit.new)
