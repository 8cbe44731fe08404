"""The run: every mutant of the law against the law's own tests, each in a child of its own.

What lives here: children, limits, results. What must not: which mutants there are, which are excused.

A change inside a function is put into that function's code in a child forked behind the collection of the tests,
and the tests are called without ceremony: milliseconds. A change of a module's values is tried likewise. Where
nobody noticed and the code runs at import too, and for classes, all is imported anew: seconds. There the tests that
noticed other changes of the module come first, and properties last.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import time
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings

from tests.mutation.listed import CORE, ROOT
from tests.mutation.operators import Mutant


def _files(*patterns: str) -> tuple[str, ...]:
    found = {path for pattern in patterns for path in (ROOT / "tests" / "core").glob(pattern)}
    return tuple(sorted(path.relative_to(ROOT).as_posix() for path in found))


#: Tests by the folder of the law that they are of.
TESTS = {
    "lifecycle": _files("test_lifecycle*.py", "test_policy_marks.py"),
    "policy": _files("test_policy*.py"),
}
#: Seconds of processor time of one child; the tests need a tenth. A mutant that never ends is killed by it.
CPU_SECONDS = 120
#: Examples of a property for one mutant.
EXAMPLES = 30
#: Seconds of any time of one child: only a child that waits for ever comes so far.
WALL_SECONDS = 1_800
#: Bytes of memory of one child.
MEMORY = 4 << 30
PROFILE = "mutants"

#: What a child says when every test passed; it says the test that failed otherwise.
SURVIVED = "survived"
#: What stands for the test when none failed, but the code ran before the tests did.
EARLY = "early"
_SURVIVED, _KILLED, _BROKEN = 0, 1, 70


class Result(NamedTuple):
    """What became of a mutant. ``by``: the test that failed, or how the child ended."""

    mutant: Mutant
    killed: bool
    by: str


Report = Callable[[Result], None]


def run(chosen: Sequence[Mutant], jobs: int, report: Report) -> list[Result]:
    """Try every mutant and return what became of each. Raises ``RuntimeError`` when the tests fail without one."""
    os.environ["HYPOTHESIS_PROFILE"] = PROFILE
    os.environ.pop("CI", None)
    quick = [mutant for mutant in chosen if not mutant.at_import or not mutant.function]
    anew = [mutant for mutant in chosen if mutant.at_import and mutant.function]
    if (said := _by_itself()) != SURVIVED:
        msg = f"the tests of the law fail without a mutant: {said}"
        raise RuntimeError(msg)
    results: list[Result] = []
    for result in _quick(quick, jobs):
        if result.by == EARLY:
            anew.append(result.mutant)
        else:
            results.append(result)
            report(result)
    for result in _several(anew, jobs, lambda mutant: lambda: _anew(mutant, _likely(mutant, results))):
        results.append(result)
        report(result)
    return results


# --- children -----------------------------------------------------------------------------------------------------


class _Child(NamedTuple):
    mutant: Mutant
    pid: int
    pipe: int


def _several(chosen: Iterable[Mutant], jobs: int, work: Callable[[Mutant], Callable[[], str]]) -> Iterator[Result]:
    """Do the work of each mutant in a child, ``jobs`` at a time, and say what its text was."""
    waiting = deque(chosen)
    children: list[_Child] = []
    while waiting or children:
        while waiting and len(children) < jobs:
            mutant = waiting.popleft()
            children.append(_Child(mutant, *_forked(work(mutant))))
        child = children.pop(0)
        said = _read(child.pipe)
        _, status = os.waitpid(child.pid, 0)
        yield _result(child.mutant, said, status)


def _forked(work: Callable[[], str]) -> tuple[int, int]:
    """Do some work in a child with limits. Returns its pid, and the pipe on which its one text comes."""
    out, into = os.pipe()
    pid = os.fork()
    if pid:
        os.close(into)
        return pid, out
    os.close(out)
    code = _BROKEN
    try:
        _limit()
        said = work()
        os.write(into, said.encode())
        code = _SURVIVED if said == SURVIVED else _KILLED
    finally:
        os._exit(code)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(WALL_SECONDS)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)


def _read(pipe: int) -> str:
    with os.fdopen(pipe, "rb") as file:
        return file.read().decode()


def _result(mutant: Mutant, said: str, status: int) -> Result:
    if os.WIFSIGNALED(status):
        return Result(mutant, killed=True, by=f"signal {signal.Signals(os.WTERMSIG(status)).name}")
    code = os.waitstatus_to_exitcode(status)
    if code == _SURVIVED:
        return Result(mutant, killed=False, by="")
    return Result(mutant, killed=True, by=said or f"exit {code}")


def _changed(mutant: Mutant) -> types.CodeType:
    """The code of a module with this one change, which is for the life of this child."""
    return compile(mutant.apply(), str(CORE / mutant.module), "exec", dont_inherit=True)


# --- quick: inside functions, behind the collection ---------------------------------------------------------------


def _quick(chosen: Sequence[Mutant], jobs: int) -> Iterator[Result]:
    """Have a server collect the tests once and fork for each mutant; the main process stays without the law."""
    if not chosen:
        return
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        code = _BROKEN
        try:
            os.close(out)
            files = sorted({file for files in TESTS.values() for file in files})
            server = _Server(chosen, jobs, into)
            with server.calls:
                code = int(pytest.main(_options(files), plugins=[server]))
        except BaseException:  # noqa: BLE001 - a child must end here, whatever happened
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    os.close(into)
    by_number = dict(enumerate(chosen))
    with os.fdopen(out, encoding="utf-8") as lines:
        for line in lines:
            number, killed, by = json.loads(line)
            yield Result(by_number.pop(number), killed, by)
    _, status = os.waitpid(pid, 0)
    if status or by_number:
        msg = f"the server of the quick mutants ended with {os.waitstatus_to_exitcode(status)}"
        raise RuntimeError(msg)


def _options(files: Sequence[str]) -> list[str]:
    quiet = ["-q", "-x", "--no-header", "--no-summary", "--tb=native", "--assert=plain", "-p", "no:cacheprovider"]
    return [*quiet, "-o", "timeout=0", f"--rootdir={ROOT}", *(str(ROOT / file) for file in files)]


class _Calls:
    """Which functions of the law are called while this is entered, by file and dotted name."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()

    def __enter__(self) -> None:
        sys.setprofile(self._note)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: types.FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(CORE)):
            file = Path(code.co_filename).relative_to(CORE).as_posix()
            self.seen.add((file, code.co_qualname.partition(".<locals>")[0]))


class _Server:
    """Stands in for the loop that runs the collected tests."""

    def __init__(self, chosen: Sequence[Mutant], jobs: int, into: int) -> None:
        self._chosen = chosen
        self._jobs = jobs
        self._into = into
        self.calls = _Calls()
        #: By file and function, those likely to notice a change first.
        self._tests: dict[tuple[str, str], list[pytest.Item]] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        early = set(self.calls.seen)
        self._look(session.items)
        numbers = {id(mutant): number for number, mutant in enumerate(self._chosen)}
        for result in _several(self._chosen, self._jobs, lambda mutant: lambda: self._try(mutant)):
            mutant = result.mutant
            if result.killed:
                tests = self._tests.get((mutant.module, mutant.function), [])
                # What killed the last mutant of a function is likely to kill the next.
                tests.sort(key=lambda item: item.nodeid != result.by)
            ran_early = mutant.at_import or (mutant.module, mutant.function) in early
            by = EARLY if ran_early and not result.killed else result.by
            line = json.dumps([numbers[id(mutant)], result.killed, by]) + "\n"
            os.write(self._into, line.encode())
        return True

    def _look(self, items: Sequence[pytest.Item]) -> None:
        """Find out which tests call which functions of the law, and how long each takes."""
        times: dict[str, float] = {}
        for item in items:
            _fewer(item)
            self.calls.seen.clear()
            began = time.process_time()
            passed = _passes(item)
            if not passed:
                msg = f"{item.nodeid} fails without a mutant"
                raise RuntimeError(msg)
            times[item.nodeid] = time.process_time() - began
            for function in self.calls.seen | {(file, "") for file, _ in self.calls.seen}:
                self._tests.setdefault(function, []).append(item)
        sys.setprofile(None)
        for tests in self._tests.values():
            tests.sort(key=lambda item: times[item.nodeid])

    def _try(self, mutant: Mutant) -> str:
        try:
            _put(mutant)
        except BaseException as error:  # noqa: BLE001 - whatever a mutant raises, whoever imports it has noticed
            return f"at import: {error!r}"
        mine = self._tests.get((mutant.module, mutant.function), [])
        failing = (item.nodeid for item in mine if not _passes(item))
        return next(failing, SURVIVED)


def _fewer(item: pytest.Item) -> None:
    """Let a property try few examples: what it alone would find with many, an example of its own should show."""
    test: Any = getattr(item, "obj", None)
    if _is_property(item):
        given = test._hypothesis_internal_use_settings
        test._hypothesis_internal_use_settings = settings(given, max_examples=EXAMPLES)


def _is_property(item: pytest.Item) -> bool:
    return hasattr(getattr(item, "obj", None), "hypothesis")


def _passes(item: pytest.Item) -> bool:
    """Whether a test passes: called by itself where it wants nothing but its own parameters."""
    assert isinstance(item, pytest.Function)
    given = item.callspec.params if hasattr(item, "callspec") else {}
    if set(item._fixtureinfo.argnames) <= set(given):
        try:
            item.obj(**given)
        except BaseException:  # noqa: BLE001 - whatever a mutant raises, its test has noticed
            return False
        return True
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    return not item.session.testsfailed


def _put(mutant: Mutant) -> None:
    """Put a change into what everybody has imported already: a function's code, or a module's values."""
    code = _changed(mutant)
    if not mutant.function:
        module = sys.modules[_named(mutant.module)]
        made: dict[str, Any] = {"__name__": module.__name__}
        exec(code, made)
        defined = (type, types.FunctionType)
        vars(module).update({name: value for name, value in made.items() if not isinstance(value, defined)})
        return
    for part in mutant.function.split("."):
        code = next(each for each in code.co_consts if isinstance(each, types.CodeType) and each.co_name == part)
    found: object = sys.modules[_named(mutant.module)]
    for part in mutant.function.split("."):
        found = vars(found)[part]
        if hasattr(found, "cache_clear"):
            found.cache_clear()
        found = found.fget if isinstance(found, property) else getattr(found, "__wrapped__", found)
    assert isinstance(found, types.FunctionType)
    found.__code__ = code


def _named(file: str) -> str:
    return "gateway.core." + file.removesuffix(".py").replace("/", ".")


# --- anew: everything imported in the child -----------------------------------------------------------------------


def _by_itself() -> str:
    """What the tests say without a mutant."""
    _, pipe = _forked(lambda: _anew(None))
    return _read(pipe)


def _likely(mutant: Mutant, results: Sequence[Result]) -> list[str]:
    """The tests that noticed other changes of the module: of the same class or function first, then the latest."""
    noticed = [result for result in reversed(results) if result.killed and result.mutant.module == mutant.module]
    noticed.sort(key=lambda result: result.mutant.function != mutant.function)
    return list(dict.fromkeys(result.by for result in noticed))


def _anew(mutant: Mutant | None, likely: Sequence[str] = ()) -> str:
    sys.meta_path[:0] = [] if mutant is None else [_Mutated(_named(mutant.module), mutant)]
    folders = TESTS if mutant is None else [mutant.module.partition("/")[0]]
    files = sorted({file for folder in folders for file in TESTS[folder]})
    failed = _Failed(likely)
    code = pytest.main(_options(files), plugins=[failed])
    return SURVIVED if code == pytest.ExitCode.OK else failed.by or f"at import ({code!r})"


class _Failed:
    """Runs the tests in the order in which they are likely to fail, and remembers the first that did."""

    def __init__(self, likely: Sequence[str]) -> None:
        self._place = {nodeid: number for number, nodeid in enumerate(likely)}
        self.by = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            _fewer(item)
        items.sort(key=lambda item: (self._place.get(item.nodeid, len(self._place)), _is_property(item)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.by:
            self.by = report.nodeid


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module with the change in it."""

    def __init__(self, name: str, mutant: Mutant) -> None:
        self._name = name
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        place = CORE / self._mutant.module
        return importlib.util.spec_from_file_location(fullname, Path(place), loader=self)

    def exec_module(self, module: types.ModuleType) -> None:
        exec(_changed(self._mutant), module.__dict__)


def warm() -> None:
    """Import what children need and no mutant changes: a fork is quicker than an import."""
    for name in ("hypothesis.strategies", "gateway.core.model"):
        importlib.import_module(name)
    assert not any(name.startswith(("gateway.core.policy", "gateway.core.lifecycle")) for name in sys.modules)
