"""What an engine does between making a container and running its command, as far as these tests can: mounts, user,
capabilities. ``python -m tests.composed.container JSON`` becomes the command.

Runs in the container's network namespace, as root of its user namespace. Not done: image layers (the machine's own
files are the root file system, read-only), limits, seccomp.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gateway.simulate import linux
from tests.netns import tool

MS_RDONLY, MS_REMOUNT, MS_BIND = 0x1, 0x20, 0x1000  # linux/mount.h

#: Where volumes and memory-backed folders of a container may lie: these are replaced, everything else is as it is.
MASKED = ("/srv", "/run")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Container:
    """One container: what the compose file says of it, paths and user resolved. ``user`` None: stay who we are."""

    command: Sequence[str]
    capabilities: Sequence[str] = ()
    user: Sequence[int] | None = None
    groups: Sequence[int] = ()
    binds: Sequence[tuple[str, str, bool]] = ()
    tmpfs: Sequence[tuple[str, str]] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        """How to run it."""
        return [sys.executable, "-m", "tests.composed.container", json.dumps(asdict(self))]

    def confined(self, command: Sequence[str]) -> list[str]:
        """A command with this container's user and capabilities, and no way to more."""
        bounding = ",".join(["-all", *(f"+{name.lower()}" for name in self.capabilities)])
        who: list[str] = []
        if self.user is not None:
            groups = ",".join(map(str, self.groups))
            who = [f"--reuid={self.user[0]}", f"--regid={self.user[1]}"]
            who += [f"--groups={groups}"] if groups else ["--clear-groups"]
        least = ["--inh-caps=-all", f"--bounding-set={bounding}", "--no-new-privs", "--pdeathsig=KILL"]
        return [tool("setpriv"), *who, *least, "--", *command]


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    done = _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode())
    if done:
        code = ctypes.get_errno()
        raise OSError(code, f"mount {source} at {target}: {os.strerror(code)}")


def _arrange(container: Container) -> None:
    linux.unshare(linux.CLONE_NEWNS)
    linux.make_mounts_private()
    held = [(os.open(source, os.O_PATH), target, readonly) for source, target, readonly in container.binds]
    for masked in MASKED:
        _mount("masked", masked, "tmpfs", 0, "mode=755")
    for descriptor, target, readonly in held:
        Path(target).mkdir(parents=True)
        _mount(f"/proc/self/fd/{descriptor}", target, "none", MS_BIND)
        if readonly:
            _mount("none", target, "none", MS_BIND | MS_REMOUNT | MS_RDONLY)
        os.close(descriptor)
    for target, options in container.tmpfs:
        Path(target).mkdir(parents=True)
        _mount("tmpfs", target, "tmpfs", 0, options)
    for readonly_at in (*MASKED, "/"):
        _mount("none", readonly_at, "none", MS_BIND | MS_REMOUNT | MS_RDONLY)


def main(text: str) -> None:
    """Become the container's command. Does not return."""
    container = Container(**json.loads(text))
    _arrange(container)
    os.chdir("/srv")
    os.environ.update(container.environment)
    program = container.confined(container.command)
    os.execv(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1])
