"""Unauthenticated refusals, added up: anyone can send them, so they must never grow the file one by one.

What lives here: the addition per (peer prefix, refusal, 10 s). What must not: SQL, files, threads.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import NamedTuple

from gateway.core.model import Rejected

WINDOW = 10
"""Seconds that one aggregated row covers."""

MOST_WAITING = 20_000
"""Different aggregates kept in memory while the journal cannot be written (about 10 MB); what comes beyond is
added up under ``OTHERS``, whoever sent it and whenever."""

OTHERS = "others"
"""Stands for the peer prefix where there were too many."""

SAMPLE = 200
"""Characters of one refusal's detail kept as the sample."""

CLAIMED = 64
"""Characters of the device id that it claims, kept with the sample."""


class RefusalKey(NamedTuple):
    """``slot`` is the UNIX second at which the window begins."""

    slot: int
    peer: str
    refusal: str


class RefusalRow(NamedTuple):
    """One aggregate. ``first`` and ``last`` in UNIX seconds; ``sample`` is the detail of the first one, and the
    device id that it claims, if it got that far."""

    slot: int
    peer: str
    refusal: str
    source: str
    times: int
    first: float
    last: float
    sample: str


@lru_cache(maxsize=4_096)
def peer_prefix(peer: str) -> str:
    """The /24 (IPv4) or /64 (IPv6) of a textual address: what one sender can vary freely. Other text as it is."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer.encode("utf-8", "backslashreplace").decode()[:64]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if isinstance(address, ipaddress.IPv4Address):
        return str(ipaddress.ip_network((address, 24), strict=False))
    return str(ipaddress.ip_network((int(address), 64), strict=False))


def _sample(fact: Rejected) -> str:
    """Anyone can send these: the claimed id is cut, and shows what is not printable by its code."""
    detail = fact.detail[:SAMPLE]
    if not fact.device:
        return detail
    claimed = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in fact.device[:CLAIMED])
    return f"{detail} (claimed {claimed})"


class Tally:
    """Aggregates not yet written. ``count`` refusals went in."""

    def __init__(self) -> None:
        self._rows: dict[RefusalKey, RefusalRow] = {}
        self.count = 0
        self._others = 0  # the window under which those beyond the bound are added up

    def __bool__(self) -> bool:
        return bool(self.count)

    def add(self, fact: Rejected) -> None:
        """Count one refusal."""
        self.count += 1
        at = float(fact.at)
        key = RefusalKey(int(at) // WINDOW * WINDOW, peer_prefix(fact.peer), fact.refusal.value)
        if key not in self._rows and len(self._rows) >= MOST_WAITING:
            self._others = self._others or key.slot
            key = RefusalKey(self._others, OTHERS, key.refusal)
        row = self._rows.get(key)
        if row is not None:
            self._rows[key] = row._replace(times=row.times + 1, first=min(row.first, at), last=max(row.last, at))
        else:
            sample = _sample(fact).encode("utf-8", "backslashreplace").decode()
            source = fact.source.encode("utf-8", "backslashreplace").decode()
            self._rows[key] = RefusalRow(*key, source, 1, at, at, sample)

    def rows(self) -> list[RefusalRow]:
        """The aggregates, oldest window first."""
        return sorted(self._rows.values())
