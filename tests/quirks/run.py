"""The run: every edit in a copy of the project, against the tests of its row.

What lives here: copies, pytest in a process of its own, what its report says. What must not: edits and rows.

An edit is noticed when a test failed by its own judgement. A name that does not exist any more, a module that
cannot be imported and an error while a test is set up are no judgement: they say that the edit is a bad one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import NamedTuple
from xml.etree import ElementTree as ET

from tests.quirks.shape import Edit
from tests.quirks.table import ROOT, Row, edited

#: What the copies hold.
PARTS = ("gateway", "tests", "policies", "docs", "compose", "certs", "pyproject.toml", "Makefile", "README.md")
#: Seconds that a test waits for what must come: an ignored quirk is often noticed by a wait that ends in vain.
PATIENCE = 10.0
#: Seconds for one edit; only a test that hangs comes so far.
LIMIT = 600.0
#: How a report begins when the edit broke the program instead of its judgement.
BROKEN = ("NameError", "ImportError", "ModuleNotFoundError", "SyntaxError", "AttributeError", "UnboundLocalError")


class Result(NamedTuple):
    """What became of an edit: ``killers`` are the tests that failed, with the reason of each; ``wrong`` says why
    the run is no proof of anything, "" that it is."""

    row: Row
    edit: Edit
    killers: Mapping[str, str]
    wrong: str = ""


class Unsound(Exception):
    """The tests cannot judge edits: they fail without one."""


def run(
    chosen: Sequence[tuple[Row, Sequence[Edit]]],
    jobs: int,
    patience: float = PATIENCE,
    report: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Try every edit of the rows. Raises ``Unsound`` when their tests do not pass as they are."""
    work = [(row, edit) for row, edits in chosen for edit in edits]
    with TemporaryDirectory(prefix="ragate-quirks-") as folder:
        places: SimpleQueue[Path] = SimpleQueue()
        first = _copied(Path(folder) / "0")
        _check(first, sorted({test for row, _ in chosen for test in row.tests}), patience)
        places.put(first)
        for number in range(1, jobs):
            places.put(_copied(Path(folder) / str(number)))

        def tried(one: tuple[Row, Edit]) -> Result:
            place = places.get()
            try:
                result = _try(place, *one, patience)
            finally:
                places.put(place)
            report(result)
            return result

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(tried, work))


def _copied(place: Path) -> Path:
    for part in PARTS:
        found, into = ROOT / part, place / part
        into.parent.mkdir(parents=True, exist_ok=True)
        if found.is_dir():
            shutil.copytree(found, into, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(found, into)
    return place


def _check(place: Path, tests: Sequence[str], patience: float) -> None:
    code, found = _pytest(place, tests, patience)
    bad = [f"{test}: {why}" for test, why in found.items() if why]
    missing = [test for test in tests if test not in found]
    if code or bad or missing:
        msg = f"without an edit: exit {code}; failed: {bad}; did not run: {missing}"
        raise Unsound(msg)


def _try(place: Path, row: Row, edit: Edit, patience: float) -> Result:
    with _with(place, edit):
        code, found = _pytest(place, row.tests, patience)
    failed = {test: why for test, why in found.items() if why}
    broken = {test: why for test, why in failed.items() if why.startswith(("ERROR", *BROKEN))}
    killers = {test: why for test, why in failed.items() if test not in broken}
    if broken:
        return Result(row, edit, killers, f"broken, not ignorant: {next(iter(broken.items()))}")
    if code not in {0, 1} or set(found) != set(row.tests):
        return Result(row, edit, killers, f"pytest ended with {code} and told of {len(found)} tests")
    return Result(row, edit, killers)


@contextmanager
def _with(place: Path, edit: Edit) -> Iterator[None]:
    """The edit stands in this copy; what was compiled of the file before and meanwhile is thrown away."""
    file = place / edit.file
    genuine, ignorant = file.read_text(encoding="utf-8"), edited(edit, place)
    try:
        _write(file, ignorant)
        yield
    finally:
        _write(file, genuine)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
        compiled.unlink()


def _pytest(place: Path, tests: Sequence[str], patience: float) -> tuple[int, Mapping[str, str]]:
    """Run tests in a copy. Returns the exit code and, for each test that ran, why it failed: "" it did not."""
    told = place / "told.xml"
    told.unlink(missing_ok=True)
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "-p", "tests.quirks.once", "-m", ""]
    options += [f"--rootdir={place}", f"--junitxml={told}", "-o", "timeout_method=signal"]
    environment = {
        **{key: value for key, value in os.environ.items() if key not in {"CI", "PYTHONPATH"}},
        "HYPOTHESIS_PROFILE": "mutants",
        "RAGATE_TEST_PATIENCE": f"{patience:g}",
        "PYTHONPATH": str(place),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, {}
    return done.returncode, _read(told) if told.exists() else {}


def _read(told: Path) -> Mapping[str, str]:
    """Why each test failed; one that has parameters failed when one of its runs did, skipped ones did not run."""
    found: dict[str, str] = {}
    for case in ET.parse(told).getroot().iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '').partition('[')[0]}"
        if case.find("skipped") is not None:
            continue
        failure, error = case.find("failure"), case.find("error")
        why = ""
        if failure is not None:
            why = _first(failure) or "failed"
        elif error is not None:
            why = f"ERROR {_first(error)}"
        found[name] = found.get(name) or why
    return found


def _first(element: ET.Element) -> str:
    return (element.get("message") or element.text or "").strip().splitlines()[0][:200]
