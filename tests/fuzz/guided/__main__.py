"""``python -m tests.fuzz.guided [--seconds N] [--jobs N] [PART ...]``: fuzz every decoder, or those of some names.

The seconds are shared out evenly. What was found stays in ``.fuzz/NAME/found``, the inputs that reach new code in
``.fuzz/NAME/corpus``, where the next run goes on. Ends with 1 when anything was found.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / ".fuzz"
#: Seconds for one decoder at the least.
LEAST = 5
#: Decoders that share one import of their room.
TOGETHER = 5
#: Seconds beyond their share after which a process is given up: imports and last inputs, on a starved machine.
PATIENCE = 900

_UNITS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_EDGES = re.compile(r"cov: (\d+)")
#: What stands in libFuzzer's output before the first input.
_RUNNING = "INITED"


class Result(NamedTuple):
    """What came of one decoder. ``edges``: places in our code that libFuzzer saw reached; ``reached`` of ``every``
    line and branch of the decoder's own modules; ``found``: files with what broke it; ``said``: how it ended."""

    name: str
    executions: int
    edges: int
    reached: int
    every: int
    found: tuple[str, ...]
    said: str


def share(seconds: int, decoders: int) -> int:
    """Seconds for each of so many decoders."""
    return max(LEAST, seconds // decoders)


def groups(names: Sequence[str]) -> list[list[str]]:
    """Names of one room, a few at a time."""
    found = []
    for _, same in groupby(names, lambda name: name.partition(".")[0]):
        listed = list(same)
        found += [listed[at : at + TOGETHER] for at in range(0, len(listed), TOGETHER)]
    return found


def result_of(name: str, output: str, measured: tuple[int, int], found: Sequence[str]) -> Result:
    """Read what libFuzzer printed. A decoder that was never run is a finding, too."""
    units = int((_UNITS.findall(output) or ["0"])[-1])
    wrong = tuple(found) if units or found else ("it did not run",)
    edges = max(map(int, _EDGES.findall(output)), default=0)
    return Result(name, units, edges, *measured, wrong, output[output.find(_RUNNING) :][-4_000:])


def fuzz(names: Sequence[str], seconds: int) -> list[Result]:
    """Fuzz a group in a process of its own, then measure what was reached."""
    before = {path for name in names for path in (FOLDER / name / "found").glob("*")}
    _child(["tests.fuzz.guided.child", str(seconds), str(FOLDER), *names], len(names) * seconds + PATIENCE)
    told = _child(["tests.fuzz.guided.measure", str(FOLDER), *names], PATIENCE)
    measured = {name: (reached, every) for name, reached, every in _lines(told)}
    results = []
    for name in names:
        new = sorted(set((FOLDER / name / "found").glob("*")) - before)
        log = FOLDER / name / "log"
        output = log.read_text(errors="replace") if log.is_file() else ""
        files = [str(path.relative_to(ROOT)) for path in new]
        results.append(result_of(name, output, measured.get(name, (0, 0)), files))
    return results


def _lines(told: str) -> Iterator[tuple[str, int, int]]:
    for line in told.splitlines():
        if line.startswith("["):
            name, reached, every = json.loads(line)
            yield name, reached, every


def _child(arguments: Sequence[str], seconds: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )
    if done.returncode:
        print(done.stderr[-4_000:], file=sys.stderr)
    return done.stdout


def row(result: Result) -> str:
    """One line of the table."""
    part = f"{100 * result.reached / result.every:.0f} %" if result.every else "-"
    wrong = ", ".join(result.found) or "-"
    return f"{result.name:<24} {result.executions:>10} {result.edges:>6} {part:>7}  {wrong}"


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for all decoders together (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (%(default)s)")
    parser.add_argument("part", nargs="*", help="only decoders whose name contains one of these words")
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        mend = "`make fuzz` installs it, where it is built: x86-64, Python 3.11 to 3.13"
        print(f"atheris is not installed; {mend}", file=sys.stderr)
        return 2
    from tests.fuzz.decoders.table import TARGETS

    names = [name for name in TARGETS if not options.part or any(word in name for word in options.part)]
    if not names:
        print(f"no such decoder; there are {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    return run(names, share(options.seconds, len(names)), options.jobs)


def run(names: Sequence[str], seconds: int, jobs: int) -> int:
    """Fuzz these and print the table; returns the exit code."""
    print(f"{len(names)} decoders, {seconds} s each, {jobs} at a time")
    print(f"{'DECODER':<24} {'RUNS':>10} {'EDGES':>6} {'REACHED':>7}  FOUND", flush=True)
    results: list[Result] = []
    with ThreadPoolExecutor(jobs) as pool:
        for some in pool.map(lambda group: fuzz(group, seconds), groups(names)):
            results += some
            print("\n".join(map(row, some)), flush=True)
    print(f"{sum(each.executions for each in results)} runs in all")
    wrong = [each for each in results if each.found]
    for each in wrong:
        print(f"\n--- {each.name}\n{each.said}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
