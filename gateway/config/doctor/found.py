"""What a check found, and how settings and lists are read and told.

What lives here: what every check uses. What must not: checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.config.doctor.evidence import Listening

#: Devices named in one diagnosis; the rest are counted.
NAMED = 5

TRUE = frozenset({"true", "1", "yes", "on"})


class Found(NamedTuple):
    """Something that a check found: what it is about, and what it is."""

    subject: str
    what: str


def truth(value: object) -> bool:
    """Whether a setting says yes, as SEDIMENT and KubeArmor read it."""
    return str(value).lower() in TRUE


def shown(socket: Listening) -> str:
    """Where a socket listens."""
    return "every address" if socket.address.is_unspecified else str(socket.address)


def listed(names: Sequence[str]) -> str:
    """Names, the first of many."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
