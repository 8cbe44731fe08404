"""``python -m tests.chaos``: random verdicts and kills against real processes, in namespaces of its own.

Reads ``VERDICTS`` (default 5000) and ``SEED`` from the environment. Ends with 0 when nothing was wrong.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.run import LONG, Chaos
from tests.netns import enter_private_namespaces

KEPT = Path("var")
"""Where the files of a run are kept in which something was wrong."""
_SOCKETS = shutil.ignore_patterns("*.sock")


def main() -> int:
    """Run; print the summary."""
    verdicts = int(os.environ.get("VERDICTS") or LONG.verdicts)
    size = LONG._replace(verdicts=verdicts, kills=max(3, LONG.kills * verdicts // LONG.verdicts))
    seed = int(os.environ.get("SEED") or secrets.randbits(32))
    print(f"chaos of {verdicts} verdicts and {size.kills} kills, SEED={seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ragate-chaos.") as scratch:
        enter_private_namespaces()
        chaos = Chaos(Path(scratch), seed, size)
        try:
            chaos.run()
        finally:
            print(chaos.summary(), flush=True)
            if chaos.ledger.violations:
                shutil.copytree(scratch, KEPT / f"chaos-{seed}", ignore_dangling_symlinks=True, ignore=_SOCKETS)
                print(f"  files are kept in {KEPT}/chaos-{seed}")
            print(f"  {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    return 1 if chaos.ledger.violations else 0


if __name__ == "__main__":
    sys.exit(main())
