"""The table of attacks names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMED = re.compile(r"`(tests/[a-z0-9_/]+\.py)::([a-z0-9_]+)`")


def test_every_test_that_the_table_names_exists() -> None:
    named = NAMED.findall((ROOT / "docs" / "attacks.md").read_text())
    assert len(named) > 40
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_every_one_of_the_eleven_has_a_line_and_every_line_a_test() -> None:
    text = (ROOT / "docs" / "attacks.md").read_text()
    table = text[text.index("## SEDIMENT doors") :].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if re.match(r"\| \d+\. ", line)]
    assert sorted({int(line.split(".")[0][2:]) for line in lines}) == [*range(1, 12)]
    assert all(NAMED.search(line) for line in lines)
