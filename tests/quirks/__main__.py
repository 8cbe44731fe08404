"""``python -m tests.quirks``: have the driver ignore each quirk in turn, and say which tests notice.

Ends with 1 when an ignored quirk is noticed by none of the tests of its row, or when a test of a row notices none.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.quirks.run import PATIENCE, Result, Unsound, run
from tests.quirks.table import EDITS, rows


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.quirks", description=__doc__)
    parser.add_argument("word", nargs="*", help="only rows and edits that contain one of these words")
    parser.add_argument("--jobs", type=int, default=2, help="copies at a time (2)")
    parser.add_argument("--patience", type=float, default=PATIENCE, help=f"seconds of a wait ({PATIENCE:g})")
    parser.add_argument("--list", action="store_true", help="print the edits and try none")
    given = parser.parse_args()
    chosen = [
        (row, edits)
        for row in rows()
        if (edits := [one for one in EDITS[row.quirk] if _wanted(given.word, row.quirk, one.name)])
    ]
    if given.list:
        for row, edits in chosen:
            print(row.quirk, *(f"{edit.name} ({edit.file})" for edit in edits), sep="\n    ")
        return 0
    began = time.monotonic()
    try:
        results = run(chosen, given.jobs, given.patience, _progress)
    except Unsound as error:
        print(error, file=sys.stderr)
        return 1
    print()
    code = _told(results)
    print(f"{time.monotonic() - began:.0f} s")
    return code


def _wanted(words: Sequence[str], *texts: str) -> bool:
    return not words or any(word in text for word in words for text in texts)


def _progress(result: Result) -> None:
    said = "noticed" if result.killers and not result.wrong else "NOT NOTICED"
    print(f"{said}: {result.row.quirk}: {result.edit.name}", file=sys.stderr, flush=True)


def _told(results: Sequence[Result]) -> int:
    """Print what came of each row, and what is to be mended."""
    wrong: list[str] = []
    for row in dict.fromkeys(result.row for result in results):
        mine = [result for result in results if result.row is row]
        print(f"\n{row.quirk}")
        for result in mine:
            print(f"  {result.edit.name}")
            for test, why in result.killers.items():
                print(f"    {test.rpartition('::')[2]}: {why[:120]}")
            if result.wrong:
                wrong.append(f"{row.quirk}: {result.edit.name}: {result.wrong}")
            elif not result.killers:
                wrong.append(f"{row.quirk}: {result.edit.name}: no test of the row noticed it")
        idle = set(row.tests) - {test for result in mine for test in result.killers}
        if len(mine) == len(EDITS[row.quirk]):
            wrong += [f"{row.quirk}: {test} notices none of the edits" for test in sorted(idle)]
    number = len({result.row for result in results})
    noticed = sum(bool(result.killers) and not result.wrong for result in results)
    print(f"\n{number} quirks, {len(results)} ways to ignore one, {noticed} noticed")
    print(f"{len(wrong)} to be mended", *wrong, sep="\n  ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
