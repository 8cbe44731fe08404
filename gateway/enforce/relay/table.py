"""Who may reach what until when: the relay's counterpart of the kernel's sets. No sockets, no clock."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from types import MappingProxyType
from typing import NamedTuple

from gateway.core.model import Address, Change, ChangeKind, Stands
from gateway.enforce.relay.rate import Buckets, ConnectionRate
from gateway.enforce.relay.settings import Network

SHORTEST = 0.001  #: seconds; an admission that ends sooner admits nothing
ROWS = 1_048_576  #: admissions; ten times the largest inventory. Tombstones are never refused
STALE_ENDS = 1024  #: replaced entries that the heap may hold beyond the number of rows
FOR_EVER = float("inf")


_NOTHING: frozenset[str] = frozenset()


class _Row(NamedTuple):
    profile: str
    until: float


def _keys(packed: bytes) -> tuple[Address, Address]:
    """The address itself, and the /64 that it lies in (IPv4: itself)."""
    whole = Address(packed, len(packed) * 8)
    return whole, Address(packed[:8] + bytes(8), 64) if len(packed) == 16 else whole


class Table:
    """Tombstones and admissions by address. Ends are boot seconds; the caller tells the time."""

    def __init__(
        self,
        profiles: Mapping[str, frozenset[str]],
        always_allowed: Sequence[Network] = (),
        rows: int = ROWS,
        rates: Mapping[str, ConnectionRate] = MappingProxyType({}),
    ) -> None:
        self._profiles = profiles
        self._limit = rows
        self._buckets = Buckets(rates)
        self._always_allowed = tuple(always_allowed)
        self._tombstones: set[Address] = set()
        self._rows: dict[Address, _Row] = {}
        self._ends: list[tuple[float, Address]] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def tombstones(self) -> int:
        """Addresses that are cut."""
        return len(self._tombstones)

    def rewrite(
        self,
        profiles: Mapping[str, frozenset[str]],
        always_allowed: Sequence[Network],
        rates: Mapping[str, ConnectionRate],
    ) -> None:
        """Let profiles mean something else from here on. An admission under one that is gone reaches nothing."""
        self._profiles = profiles
        self._always_allowed = tuple(always_allowed)
        self._buckets.rewrite(rates)

    def take(self, change: Change, now: float) -> str:
        """Make one change; returns why it could not be made, or ``""``."""
        address, kind = change.address, change.kind
        if kind is ChangeKind.CUT:
            self._tombstones.add(address)
        elif kind is ChangeKind.FORGET:
            self._tombstones.discard(address)
        if kind not in (ChangeKind.ADMIT, ChangeKind.REFRESH):
            self._rows.pop(address, None)
            return ""
        if change.profile not in self._profiles:
            return f"the relay has no profile {change.profile!r}"
        if change.until - now < SHORTEST:
            self._rows.pop(address, None)
            return ""
        if len(self._rows) >= self._limit and address not in self._rows:
            return f"{self._limit} addresses are admitted already"
        if kind is ChangeKind.ADMIT:
            self._tombstones.discard(address)
        self._rows[address] = _Row(change.profile, change.until)
        heapq.heappush(self._ends, (change.until, address))
        self._drop_stale_ends()
        return "" if address not in self._tombstones else "a tombstone stands: only an admission removes it"

    def stands(self, address: Address, now: float) -> Stands:
        """What stands for exactly this address."""
        row = self._rows.get(address)
        tombstone = address in self._tombstones
        if row is None or row.until <= now:
            return Stands("", None, tombstone)
        return Stands(row.profile, row.until - now, tombstone)

    def shows(self, change: Change, now: float) -> bool:
        """Whether the table, read back, is what ``change`` should have made of it."""
        stands = self.stands(change.address, now)
        if change.kind is ChangeKind.CUT:
            return stands.tombstone and not stands.profile
        if change.kind is ChangeKind.FORGET:
            return not stands.tombstone and not stands.profile
        if change.kind is ChangeKind.WITHDRAW or change.until - now < SHORTEST:
            return not stands.profile
        row = self._rows.get(change.address)
        return row is not None and (row.profile, row.until, stands.tombstone) == (
            change.profile,
            change.until,
            False,
        )

    def judge(self, packed: bytes, service: str, now: float) -> float | None:
        """Until when the address may reach the service (boot seconds); ``None``: it may not.

        A tombstone of the address or of its /64 outranks everything. Of two admissions the address's own counts.
        """
        whole, wide = _keys(packed)
        if whole in self._tombstones or wide in self._tombstones:
            return None
        row = self._rows.get(self._admission(whole, wide, now))
        if row is not None and row.until > now and service in self._profiles.get(row.profile, _NOTHING):
            return row.until
        if self._always_allowed:
            ip = ip_address(packed)
            if any(ip in network for network in self._always_allowed):
                return FOR_EVER
        return None

    def _admission(self, whole: Address, wide: Address, now: float) -> Address:
        row = self._rows.get(whole)
        return wide if row is None or row.until <= now else whole

    def opens(self, packed: bytes, now: float) -> bool:
        """Whether the address is within the rate of its profile; one new connection of it is counted then.

        All addresses of an admitted /64 share one bucket. Clients that are no devices have no rate.
        """
        address = self._admission(*_keys(packed), now)
        row = self._rows.get(address)
        return row is None or self._buckets.take(address, row.profile, now, len(self._rows))

    @property
    def pending_ends(self) -> int:
        """Ends that are still to be looked at, replaced ones included."""
        return len(self._ends)

    @property
    def next_end(self) -> float | None:
        """When the next admission may end (boot seconds); it may have been renewed meanwhile."""
        return self._ends[0][0] if self._ends else None

    def expire(self, now: float) -> list[Address]:
        """Remove and return the admissions that have ended."""
        ended: list[Address] = []
        while self._ends and self._ends[0][0] <= now:
            _, address = heapq.heappop(self._ends)
            row = self._rows.get(address)
            if row is not None and row.until <= now:
                del self._rows[address]
                ended.append(address)
        return ended

    def _drop_stale_ends(self) -> None:
        if len(self._ends) > 2 * len(self._rows) + STALE_ENDS:
            self._ends = [(row.until, address) for address, row in self._rows.items()]
            heapq.heapify(self._ends)
