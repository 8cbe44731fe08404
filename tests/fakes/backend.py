"""A path gate in memory that keeps the promises of the ``Backend`` port and can be told to fail or to wait."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from gateway.control.ports import Clock, Proof
from gateway.core.errors import BackendError
from gateway.core.model import Address, Applied, Change, ChangeKind, ChangeOutcome, Stands

_LOWERING = (ChangeKind.CUT, ChangeKind.WITHDRAW, ChangeKind.FORGET)


class FakeBackend:
    """Admissions end when the clock passes their end; nothing else happens by itself.

    ``refused``            addresses whose changes come back FAILED.
    ``fail_next(error)``   the next call of ``cut``, ``apply`` or ``observe`` raises it, having changed nothing.
    ``hold_cut``, ``hold_apply``  events; while cleared, the lane waits before it changes anything.
    ``damage(sentence)``   empties everything, as a laid-again baseline is, and reports it.
    ``lose(address)``      drift: whatever the address had is gone, silently.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        name: str = "nft",
        found: bool = False,
        profiles: Iterable[str] = ("admitted", "probation"),
    ) -> None:
        self._clock = clock
        self._name = name
        self._found = found
        self._profiles = frozenset(profiles)
        self._admitted: dict[Address, tuple[str, float]] = {}
        self._tombstones: set[Address] = set()
        self._serial = 0
        self._lowered: dict[Address, tuple[int, ChangeKind]] = {}
        self._errors: list[BackendError] = []
        self._reports: asyncio.Queue[str] = asyncio.Queue()
        self.refused: set[Address] = set()
        self.hold_cut = asyncio.Event()
        self.hold_cut.set()
        self.hold_apply = asyncio.Event()
        self.hold_apply.set()
        self.running = False

    @property
    def name(self) -> str:
        return self._name

    def fail_next(self, error: BackendError) -> None:
        self._errors.append(error)

    def damage(self, sentence: str) -> None:
        self._admitted.clear()
        self._tombstones.clear()
        self._reports.put_nowait(sentence)

    def lose(self, address: Address) -> None:
        self._admitted.pop(address, None)
        self._tombstones.discard(address)

    def stands(self, address: Address) -> Stands:
        """What an address has now; the same answer as ``observe``, without waiting."""
        profile, until = self._admitted.get(address, ("", 0.0))
        remaining = until - self._clock.now().boot
        if not profile or remaining <= 0:
            return Stands("", None, address in self._tombstones)
        return Stands(profile, remaining, address in self._tombstones)

    async def start(self) -> bool:
        self._raise_if_told()
        self.running = True
        return self._found

    async def cut(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        self._check()
        if any(change.kind not in _LOWERING for change in changes):
            msg = "the cut lane takes CUT, WITHDRAW and FORGET only"
            raise ValueError(msg)
        self._serial += 1
        for change in changes:
            self._lowered[change.address] = (self._serial, change.kind)
        await self.hold_cut.wait()
        self._raise_if_told()
        return [self._take(change) for change in changes]

    async def apply(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        self._check()
        serial = self._serial
        await self.hold_apply.wait()
        self._raise_if_told()
        return [
            ChangeOutcome(change, Applied.FAILED, "superseded by a later cut")
            if self._superseded(change, serial)
            else self._take(change)
            for change in changes
        ]

    async def observe(self, addresses: Sequence[Address]) -> Mapping[Address, Stands]:
        self._check()
        self._raise_if_told()
        return {address: self.stands(address) for address in addresses}

    async def prove(self, addresses: Sequence[Address]) -> Proof:
        stands = await self.observe(addresses)
        elements = {
            address: [*(["cut"] if one.tombstone else []), *([one.profile] if one.profile else [])]
            for address, one in stands.items()
        }
        return Proof(self._clock.now().boot, stands, elements, {})

    async def damages(self) -> AsyncIterator[str]:
        while True:
            yield await self._reports.get()

    async def stop(self) -> None:
        self.running = False

    def _check(self) -> None:
        if not self.running:
            raise BackendError(self._name, "not started, or stopped", transient=False)

    def _raise_if_told(self) -> None:
        if self._errors:
            raise self._errors.pop(0)

    def _superseded(self, change: Change, serial: int) -> bool:
        later, kind = self._lowered.get(change.address, (0, ChangeKind.WITHDRAW))
        if later <= serial or change.kind is ChangeKind.WITHDRAW:
            return False
        return change.kind is not ChangeKind.CUT or kind is ChangeKind.FORGET

    def _take(self, change: Change) -> ChangeOutcome:
        address = change.address
        if address in self.refused:
            return ChangeOutcome(change, Applied.FAILED, "told to refuse this address")
        if change.kind in _LOWERING:
            self._admitted.pop(address, None)
            if change.kind is ChangeKind.CUT:
                self._tombstones.add(address)
            elif change.kind is ChangeKind.FORGET:
                self._tombstones.discard(address)
            return ChangeOutcome(change, Applied.VERIFIED)
        if change.profile not in self._profiles:
            return ChangeOutcome(change, Applied.FAILED, f"the path gate has no profile {change.profile}")
        if change.kind is ChangeKind.REFRESH and address in self._tombstones:
            return ChangeOutcome(change, Applied.FAILED, "a tombstone stands")
        # a kernel counts whole milliseconds, rounded down; below 1 ms nothing is admitted
        if math.floor((change.until - self._clock.now().boot) * 1_000) < 1:
            self._admitted.pop(address, None)
            return ChangeOutcome(change, Applied.VERIFIED)
        self._tombstones.discard(address)
        self._admitted[address] = (change.profile, change.until)
        return ChangeOutcome(change, Applied.VERIFIED)
