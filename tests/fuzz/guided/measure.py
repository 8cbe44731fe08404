"""``python -m tests.fuzz.guided.measure FOLDER NAME ...``: which share of each decoder what was found reaches.

Everything that the fuzzer kept is given to the decoder once more, under coverage; one line of JSON for each says
its name, and how many lines and branches of its modules ran, of how many.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import coverage

from tests.fuzz.decoders.shape import Target, scratch

ROOT = Path(__file__).parents[3]


def main() -> None:
    """Measure each in a process forked from this one, which has imported what all of them need."""
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    (room,) = {name.partition(".")[0] for name in names}
    meter = coverage.Coverage(branch=True, include=[str(ROOT / "gateway" / "*")], data_file=None, config_file=False)
    meter.start()
    targets = importlib.import_module(f"tests.fuzz.decoders.{room}").TARGETS
    for target in targets:
        if target.name in names:
            child = os.fork()
            if child == 0:
                print(json.dumps([target.name, *_measured(meter, target, folder / target.name)]), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            shutil.rmtree(scratch(child), ignore_errors=True)


def _measured(meter: coverage.Coverage, target: Target, folder: Path) -> tuple[int, int]:
    attempt = target.make()
    for path in sorted([*(folder / "corpus").iterdir(), *(folder / "seeds").iterdir()]):
        with suppress(Exception):  # what was found is told by the fuzzer; here only the way counts
            attempt(path.read_bytes())
    meter.stop()
    reached = every = 0
    for module in target.modules:
        numbers = meter._analyze(sys.modules[module].__file__ or "").numbers
        reached += numbers.n_executed + numbers.n_executed_branches
        every += numbers.n_statements + numbers.n_branches
    return reached, every


if __name__ == "__main__":
    main()
