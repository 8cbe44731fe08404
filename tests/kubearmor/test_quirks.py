"""The guide's table of quirks: every row has tests, edits that ignore it, and these fit the source as it is now.

``make quirks`` shows that each test notices; here nothing is run.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.quirks.table import EDITS, GUIDE, ROOT, edited, rows

#: Where docstrings cite the guide's list of facts.
ROOMS = ("kubearmor", "enforce/kubearmor", "enforce/kubernetes", "watch/kubearmor")
CITED = re.compile(r"\binterface ((?:\d+(?:\.\d+)?)(?:,\s+\d+(?:\.\d+)?)*)[);]")


def test_every_quirk_has_tests_that_exist() -> None:
    found = rows()
    assert len(found) >= 40
    for row in found:
        for test in row.tests:
            file, _, name = test.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{row.quirk}: {test}"


def test_every_quirk_has_an_edit_that_ignores_it() -> None:
    assert [row.quirk for row in rows()] == list(dict.fromkeys(row.quirk for row in rows()))
    assert {row.quirk for row in rows()} == set(EDITS)
    for quirk, edits in EDITS.items():
        assert edits, quirk
        assert max(Counter(edit.name for edit in edits).values()) == 1, quirk


@pytest.mark.parametrize("quirk", EDITS)
def test_every_edit_fits_the_source(quirk: str) -> None:
    """What it replaces is there exactly once, and what it makes is a program."""
    for edit in EDITS[quirk]:
        assert edit.file.startswith("gateway/")
        assert edit.new != edit.old
        compile(edited(edit), edit.file, "exec")


def test_every_cited_fact_is_in_the_guide() -> None:
    known = set(re.findall(r"^\| (\d+(?:\.\d+)?) \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE))
    cited: set[str] = set()
    for room in ROOMS:
        for path in sorted((ROOT / "gateway" / room).glob("*.py")):
            for group in CITED.findall(path.read_text(encoding="utf-8")):
                cited |= set(re.split(r",\s+", group))
    assert "4.3" in cited
    assert cited <= known
    assert known - cited <= {"2"}  # cited by a test alone
