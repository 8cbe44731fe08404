"""Ports for tests, which nobody else on this machine is given while the tests run."""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack

from gateway.simulate.ground import reserved_port

#: A loopback address of this process's own: what other processes do on theirs does not matter here.
OWN = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255 | 1}"

_HELD = ExitStack()
atexit.register(_HELD.close)


def free_place(host: str = OWN) -> tuple[str, int]:
    """Where nobody listens, kept until this process ends for whoever listens there with ``SO_REUSEADDR``."""
    host, port = _HELD.enter_context(reserved_port(host))
    return host, port


def free_port(host: str = "127.0.0.1") -> int:
    """The port of such a place."""
    return free_place(host)[1]
