"""``python -m tests.soak``: soak a real service in namespaces of its own.

Reads ``SECONDS`` (default 300) and ``SEED`` from the environment. Ends with 0 when nothing was wrong.
"""

from __future__ import annotations

import os
import resource
import secrets
import sys
import tempfile
from pathlib import Path

from tests.netns import enter_private_namespaces, run
from tests.soak.run import Soak

TMPFS = "256m"
"""Memory for the journal; a full disk is part of the soak, so the log lies elsewhere."""


def main() -> int:
    """Soak; print the summary."""
    seconds = float(os.environ.get("SECONDS") or 300)
    seed = int(os.environ.get("SEED") or secrets.randbits(32))
    print(f"soak of {seconds:g} s, SEED={seed}", flush=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    with tempfile.TemporaryDirectory(prefix="ragate-soak.") as scratch:
        enter_private_namespaces()
        folder = Path(scratch) / "site"
        folder.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={TMPFS},mode=0700", "none", str(folder))
        soak = Soak(folder, Path(scratch) / "ragate.log", seconds, seed)
        try:
            soak.run()
        finally:
            print(soak.summary(), flush=True)
            run("umount", "-l", str(folder))
    return 1 if soak.judge.violations else 0


if __name__ == "__main__":
    sys.exit(main())
