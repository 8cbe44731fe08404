"""How quickly devices open connections: one bucket an address. No sockets, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.core.model import Address

STALE_BUCKETS = 1024  #: buckets that may stand beyond the number of admissions before full ones are dropped


class ConnectionRate(NamedTuple):
    """At most so many new connections: a bucket of ``number``, filled by as many in ``seconds``, full at first."""

    number: int
    seconds: float


class _Bucket(NamedTuple):
    left: float
    at: float


class Buckets:
    """The buckets of the profiles that have a rate. Times are boot seconds; the caller tells the time."""

    def __init__(self, rates: Mapping[str, ConnectionRate]) -> None:
        self._rates = rates
        self._of: dict[tuple[Address, str], _Bucket] = {}

    def __len__(self) -> int:
        return len(self._of)

    def rewrite(self, rates: Mapping[str, ConnectionRate]) -> None:
        """Let other rates hold; nobody gets a fuller bucket by that."""
        if any(profile not in rates for profile in self._rates):
            self._of = {key: bucket for key, bucket in self._of.items() if key[1] in rates}
        self._rates = rates

    def take(self, address: Address, profile: str, now: float, rows: int) -> bool:
        """Whether one more connection may be opened, which is then counted. ``rows``: admissions that stand."""
        rate = self._rates.get(profile)
        if rate is None:
            return True
        left = self._left(address, profile, rate, now)
        if left < 1.0:
            return False
        self._of[address, profile] = _Bucket(left - 1.0, now)
        if len(self._of) > rows + STALE_BUCKETS:
            self._of = {
                key: bucket for key, bucket in self._of.items() if now - bucket.at < self._rates[key[1]].seconds
            }
        return True

    def _left(self, address: Address, profile: str, rate: ConnectionRate, now: float) -> float:
        bucket = self._of.get((address, profile))
        if bucket is None:
            return rate.number
        return min(rate.number, bucket.left + (now - bucket.at) * rate.number / rate.seconds)
