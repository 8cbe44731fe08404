"""The table of quirks in the guide names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[a-z_/]+\.py)(?:::(test_[a-z0-9_]+))?`")


def test_every_quirk_has_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "kubearmor.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and " | `tests/" in line]
    assert len(rows) >= 25
    for row in rows:
        for file, name in NAMED.findall(row):
            written = (ROOT / file).read_text()
            assert not name or f"def {name}(" in written, f"{row}: {file} has no {name}"
