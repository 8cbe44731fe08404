"""What went wrong on the network, in the system's words."""

from __future__ import annotations

import os
import socket


def what(error: OSError, seconds: float) -> str:
    """The reason without the address: an event loop names it once more. ``seconds``: the time limit that ran
    out."""
    if isinstance(error, socket.gaierror):  # its numbers are not those of the system
        return error.strerror or "the name cannot be looked up"
    if error.errno is None:
        return f"no answer within {seconds:g} s" if isinstance(error, TimeoutError) else str(error)
    return os.strerror(error.errno)
