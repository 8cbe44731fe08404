"""The few Linux system calls that the standard library of Python 3.11 does not offer.

What lives here: thin, typed wrappers that raise ``OSError``. What must not: any idea of what they are used for.
Sources: unshare(2), setns(2), mount(2), prctl(2), PR_SET_PDEATHSIG(2const).
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000

_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MS_NOSUID = 0x2
_MS_NODEV = 0x4
_MNT_DETACH = 0x2
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave shared namespaces: ``CLONE_NEWNET`` moves the calling thread alone, ``CLONE_NEWNS`` likewise."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """Move the calling thread into the namespace behind ``descriptor``."""
    _check(_libc.setns(descriptor, flags), "setns")


def make_mounts_private() -> None:
    """Stop mount events of this mount namespace from reaching any other."""
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount --make-rprivate /")


def mount_tmpfs(folder: Path, *, mode: int, size: str) -> None:
    """Mount an empty tmpfs on ``folder``, in this mount namespace."""
    options = f"mode={mode:o},size={size}".encode()
    target = os.fsencode(folder)
    _check(_libc.mount(b"ragate", target, b"tmpfs", _MS_NOSUID | _MS_NODEV, options), f"mount tmpfs {folder}")


def detach_mount(folder: Path) -> None:
    """Unmount ``folder`` as soon as nobody uses it (MNT_DETACH)."""
    _check(_libc.umount2(os.fsencode(folder), _MNT_DETACH), f"umount {folder}")


def die_with_parent() -> None:
    """Ask the kernel to kill this process as soon as the thread that started it has ended."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl PR_SET_PDEATHSIG")
