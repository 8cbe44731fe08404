"""The list of equivalent mutants in ``docs/mutants.md``: each with the reason why it changes no decision.

What lives here: reading the list and holding it against what there is. What must not: running anything.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.mutation.operators import Mutant, mutants

ROOT = Path(__file__).parents[2]
LIST = ROOT / "docs" / "mutants.md"
CORE = ROOT / "gateway" / "core"

#: Modules that only name what others have, or tell people of a decision and make none.
LEFT_OUT = frozenset({"__init__.py", "explain.py"})
#: What is mutated: the law.
FILES = tuple(
    path.relative_to(CORE).as_posix()
    for folder in ("lifecycle", "policy")
    for path in sorted((CORE / folder).glob("*.py"))
    if path.name not in LEFT_OUT
)

_ENTRY = re.compile(r"- `(\S+)` `(\S+)`: `(.+?)` → `(.+?)`(?: \((\d+)\))?: (.+)\Z")

Key = tuple[str, str, str, str, int]


def all_mutants() -> Iterator[Mutant]:
    """Every mutant of the law."""
    for file in FILES:
        yield from mutants(file, ast.parse((CORE / file).read_text(encoding="utf-8"), file))


def listed() -> dict[Key, str]:
    """The listed mutants and their reasons. Raises ``ValueError`` for an entry that is none, or stands twice."""
    found: dict[Key, str] = {}
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if not line.startswith("- "):
            continue
        entry = _ENTRY.match(line)
        if entry is None:
            msg = f"{LIST.name}: no entry: {line}"
            raise ValueError(msg)
        file, function, before, after, number, reason = entry.groups()
        key = (file, "" if function == "import" else function, before, after, int(number or 1))
        if key in found:
            msg = f"{LIST.name}: listed twice: {line}"
            raise ValueError(msg)
        found[key] = reason
    return found
