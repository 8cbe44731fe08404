"""``python -m tests.fuzz.guided.child SECONDS FOLDER NAME ...``: fuzz decoders of one room, one after the other.

atheris counts which edges of our code an input reaches, and libFuzzer keeps and mutates those that reach new ones.
The room's modules must be loaded under its eyes: nothing of the product is imported above. Each decoder has a
process forked from this one, since libFuzzer ends its own; what it prints is in ``FOLDER/NAME/log``.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.fuzz.decoders.shape import Target, scratch

#: Bytes of the longest input: nothing here needs more to say everything, and short ones are quicker.
LONGEST = 8_192
#: Seconds after which one input counts as hung, on a machine that many share.
HUNG = 120
MEMORY_MIB = 2_048


def main() -> None:
    """Fuzz each for so many seconds, or until something is found."""
    seconds, folder, names = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    (room,) = {name.partition(".")[0] for name in names}
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["gateway"]):
        targets = importlib.import_module(f"tests.fuzz.decoders.{room}").TARGETS
    for target in targets:
        if target.name in names:
            child = os.fork()
            if child == 0:
                _fuzz(atheris, target, seconds, folder / target.name)
            os.waitpid(child, 0)
            shutil.rmtree(scratch(child), ignore_errors=True)


def _fuzz(atheris: Any, target: Target, seconds: int, folder: Path) -> None:
    """Never returns."""
    corpus, seeds, found = folder / "corpus", folder / "seeds", folder / "found"
    for each in (corpus, seeds, found):
        each.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    attempt = target.make()
    for number, seed in enumerate(target.seeds()):
        (seeds / f"{number:03}").write_bytes(seed)
    words = folder / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    atheris.Setup(
        [
            target.name,
            f"-max_total_time={seconds}",
            f"-max_len={LONGEST}",
            f"-timeout={HUNG}",
            f"-rss_limit_mb={MEMORY_MIB}",
            f"-artifact_prefix={found}/",
            *([f"-dict={words}"] if target.words else []),  # libFuzzer takes no empty one
            "-print_final_stats=1",
            "-len_control=20",
            str(corpus),
            str(seeds),
        ],
        attempt,
    )
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    """As libFuzzer's dictionaries write bytes."""
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
