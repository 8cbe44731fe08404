"""``python -m tests.bench``: measure what is promised. Root, or a user who may make user and network namespaces.

Everything happens in namespaces of its own and in scratch folders on a disk; the host's rules are never touched.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from gateway.simulate.namespaces import NamespacesUnavailableError
from tests.bench.measures import FULL, PARTS, QUICK, Bench
from tests.bench.report import Machine, missed, table, write
from tests.bench.site import BenchError, disk_folder, network
from tests.netns import enter_private_namespaces


def main() -> int:
    """Run the parts asked for; 0 when nothing is below its minimum, 1 otherwise, 2 when it cannot run here."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short version, for development")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="this part alone; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("var"), help="folder for the JSON (default: var)")
    arguments = parser.parse_args()
    machine = Machine()
    failed = False
    try:
        enter_private_namespaces()
        with tempfile.TemporaryDirectory(prefix="ragate-bench-", dir=disk_folder()) as scratch, network() as net:
            bench = Bench(net, Path(scratch), QUICK if arguments.quick else FULL, machine)
            for name in arguments.only or PARTS:
                machine.sample(Path(scratch))
                began = time.monotonic()
                try:
                    PARTS[name](bench)
                except BenchError as error:
                    failed = True
                    print(f"{name}: {error}", file=sys.stderr, flush=True)
                print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            machine.sample(Path(scratch))
    except (BenchError, NamespacesUnavailableError, OSError) as error:
        print(f"cannot measure here: {error}", file=sys.stderr)
        return 2
    path = write(arguments.out, bench.rows, bench.raw, machine, quick=arguments.quick)
    print(f"\n{machine}\n\n{table(bench.rows)}\n\n{path}")
    return 1 if failed or missed(bench.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
