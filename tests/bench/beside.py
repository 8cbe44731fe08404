"""What works beside the gateway in the same kernel: a program that rebuilds its rules again and again.

KubeArmor keeps its network rules in a table of its own and makes it anew at each update. Both programs then want
the same lock of the kernel (one transaction at a time in a network namespace).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from gateway.simulate.child import command
from tests.bench.site import CLIENT_CPU, BenchError

ADDRESSES = 10_000
_FIRST = int(IPv4Address("172.16.0.1"))


@contextmanager
def rebuilding(folder: Path, namespace: int) -> Iterator[None]:
    """A loop that deletes and makes a table of 10,000 addresses, in one transaction each time."""
    elements = ", ".join(str(IPv4Address(_FIRST + n)) for n in range(ADDRESSES))
    script = folder / "rebuild.nft"
    script.write_text(
        "table inet other\ndelete table inet other\n"
        "table inet other {\n"
        f" set peers {{ type ipv4_addr; elements = {{ {elements} }} }}\n"
        " chain input { type filter hook input priority 10; policy accept; ip saddr @peers accept; }\n"
        "}\n"
    )
    rounds = folder / "rounds"
    rounds.write_text("")
    loop = f"export PATH=$PATH:/usr/sbin:/sbin; while nft -f {script}; do echo >> {rounds}; done"
    process = subprocess.Popen(command(["/bin/sh", "-c", loop], namespace), pass_fds=(namespace,))
    os.sched_setaffinity(process.pid, CLIENT_CPU)
    try:
        yield
        if process.poll() is not None or not rounds.stat().st_size:
            raise BenchError("the program beside could not rebuild its table")
    finally:
        process.kill()
        process.wait()
