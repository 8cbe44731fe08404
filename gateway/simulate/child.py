"""The step between starting a child and its program: ``python -m gateway.simulate.child PARENT NETNS COMMAND…``.

Binds the child's life to its parent's, enters a network namespace handed over as a descriptor (-1: none), and
becomes the command. What must not live here: anything that runs after that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from gateway.simulate.linux import CLONE_NEWNET, die_with_parent, setns

NO_NAMESPACE = -1


def command(program: Sequence[str], namespace: int = NO_NAMESPACE) -> list[str]:
    """The argument vector that runs ``program`` as a child of the calling process; pass ``namespace`` on."""
    return [sys.executable, "-m", "gateway.simulate.child", str(os.getpid()), str(namespace), *program]


def main(argv: Sequence[str]) -> None:
    """Become ``argv[2:]``. Does not return."""
    parent, namespace, program = int(argv[0]), int(argv[1]), list(argv[2:])
    die_with_parent()
    # The parent may have died before the kernel was asked: then no signal will ever come.
    if os.getppid() != parent:
        sys.exit("the parent has ended")
    if namespace != NO_NAMESPACE:
        setns(namespace, CLONE_NEWNET)
        os.close(namespace)
    os.execv(program[0], program)  # noqa: S606 - an argument vector of our own, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
