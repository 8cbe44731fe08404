"""``python -m tests.mutation``: run all mutants, or those of some files, and say what survived.

Ends with 1 when a mutant survived that ``docs/mutants.md`` does not list, or when what it lists is killed or gone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.mutation.listed import LIST, Key, all_mutants, listed
from tests.mutation.operators import Mutant
from tests.mutation.run import Result, run, warm


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("part", nargs="*", help="only files and functions that contain one of these words")
    parser.add_argument("--jobs", type=int, default=2, help="children at a time (2)")
    parser.add_argument("--list", action="store_true", help="print the mutants and run none")
    parser.add_argument("--unlisted", action="store_true", help="leave out what the list has")
    given = parser.parse_args()
    known = listed()
    every = list(all_mutants())
    chosen = [
        mutant
        for mutant in every
        if not given.part or any(word in f"{mutant.module}:{mutant.function}" for word in given.part)
    ]
    if given.unlisted:
        chosen = [mutant for mutant in chosen if mutant.key not in known]
    if given.list:
        for mutant in chosen:
            print(f"{mutant.line:4} {mutant}")
        return 0
    warm()
    began = time.monotonic()
    results = run(chosen, given.jobs, _progress(len(chosen)))
    print(f"\n{time.monotonic() - began:.0f} s")
    gone = [] if given.part else sorted(set(known) - {mutant.key for mutant in every})
    return _told(results, known, gone)


def _progress(total: int) -> Callable[[Result], None]:
    done = Counter[bool]()

    def report(result: Result) -> None:
        done[result.killed] += 1
        if not result.killed:
            print(f"survived: line {result.mutant.line}: {result.mutant}", flush=True)
        if sum(done.values()) % 100 == 0:
            print(f"{sum(done.values())} of {total}, {done[False]} survived", file=sys.stderr, flush=True)

    return report


def _told(results: Sequence[Result], known: dict[Key, str], gone: Sequence[Key]) -> int:
    """Print the numbers and what is to be mended."""
    counts: dict[str, Counter[str]] = {}
    unexplained: list[Mutant] = []
    wrong: list[str] = []
    for mutant, killed, by in results:
        kind = "killed" if killed else "equivalent" if mutant.key in known else "unexplained"
        counts.setdefault(mutant.module, Counter())[kind] += 1
        if killed and mutant.key in known:
            wrong.append(f"listed as equivalent, and killed by {by}: {mutant}")
        if kind == "unexplained":
            unexplained.append(mutant)
    wrong += [f"listed as equivalent, and there is no such mutant: {key}" for key in gone]
    total: Counter[str] = sum(counts.values(), Counter())
    for name, count in [*sorted(counts.items()), ("all", total)]:
        numbers = ", ".join(f"{count[kind]} {kind}" for kind in ("killed", "equivalent", "unexplained"))
        print(f"{name:24} {count.total():5} mutants: {numbers}")
    print(f"{len(unexplained)} survived and are not in {LIST.name}", *map(str, unexplained), sep="\n  ")
    print(f"{len(wrong)} entries of {LIST.name} are wrong", *wrong, sep="\n  ")
    return 1 if unexplained or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
