"""Whether KubeArmor has a Linux security module at work on this host, by its own record.

Without one it still answers Applied to every host and container policy and enforces none (interface 1.4), and no
call tells. It writes ``/tmp/karmorProbeData.cfg`` once at each start (``core/karmorprobedata.go:39-76``). The
kernel's own list of modules proves nothing: a kernel that lists ``bpf`` may refuse every program of it (seen with
the daemon itself).
What must not live here: what follows from it.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import NamedTuple

#: Where KubeArmor writes it; the place is fixed.
RECORD = Path("/tmp/karmorProbeData.cfg")  # noqa: S108 - read only when root owns it and nobody else may write it
#: Bytes; the record has about 400.
_MOST = 64 * 1024

NO_ENFORCER = "no LSM enforcer"


class Lsm(NamedTuple):
    """``enforcer``: the security module at work ("" none is), None when that is not known; ``why`` says why not."""

    enforcer: str | None
    why: str = ""


def read_record(path: Path = RECORD) -> Lsm:
    """Return what KubeArmor's record says. Never raises: whatever keeps it from being believed is told as
    unknown."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Lsm(None, f"KubeArmor's record {path} cannot be read: {error.strerror}")
    try:
        found = os.fstat(file)
        # Everybody may write into the folder: only what root wrote (or a copy of our own user), and nobody else may
        # change, is KubeArmor's.
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            return Lsm(None, f"{path} is not a file that only root can write: it is not KubeArmor's record")
        data = os.read(file, _MOST)
    except OSError as error:
        return Lsm(None, f"KubeArmor's record {path} cannot be read: {error.strerror}")
    finally:
        os.close(file)
    return _judged(data, path)


def _judged(data: bytes, path: Path) -> Lsm:
    try:
        record = json.loads(data)
    except ValueError:
        return Lsm(None, f"{path} is no JSON: KubeArmor may be writing it")
    enforcer = record.get("ActiveLSM") if isinstance(record, dict) else None
    if not isinstance(enforcer, str):
        return Lsm(None, f"{path} does not tell the active LSM")
    if enforcer:
        return Lsm(enforcer)
    what = (
        "KubeArmor works without a Linux security module on this host: it accepts such policies and enforces none"
    )
    return Lsm("", f"{NO_ENFORCER}: {what}")
