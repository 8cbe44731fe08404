"""Reconciliation of a path gate on another host: the same clockwork, and a link that may be lost.

While the link is down nothing fails and nothing queues: only the newest wish of each address is kept. When it is
there again, what must be shut is shut at once, everything else is read back and brought to what is wanted. What
must not live here: the link itself, standings, verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gateway.control.followed import Cause, drift
from gateway.control.ports import Backend, Clock, Contact, Notice, Resync, Strayed
from gateway.control.reconcile import BATCH, Reconciler, Report
from gateway.core.errors import BackendError, Unreached
from gateway.core.model import DENY, Address, Change, ChangeKind, DeviceId, Rule, Stands

_OPENS = frozenset({ChangeKind.ADMIT, ChangeKind.REFRESH})


class _Found:
    """What is found at a host that can be reached again, against what had been read back there before.

    ``doubtful`` are addresses whose last change was never answered: whatever stands for them is nobody's fault.
    """

    def __init__(self, verified: Mapping[Address, Rule], doubtful: frozenset[Address]) -> None:
        self._verified = verified
        self._doubtful = doubtful
        self._stand = False
        self._missing: list[str] = []
        self._others: list[str] = []

    def judge(self, address: Address, seen: Stands, now: float) -> None:
        """Compare one address at boot time ``now``."""
        if address in self._doubtful:
            return
        self._stand = self._stand or bool(seen.profile) or seen.tombstone
        wrong = drift(self._verified.get(address), seen, now)
        if wrong:
            kind = self._others if seen.profile or seen.tombstone else self._missing
            kind.append(f"{address}: {wrong}, after the link was down")

    @property
    def wrongs(self) -> list[str]:
        """What somebody else changed meanwhile. A gate where nothing at all stands began anew, as after a boot of
        its host: what is missing there was taken by nobody."""
        return [*self._others, *(self._missing if self._stand else ())]


class RemoteReconciler(Reconciler):
    """Keeps a backend behind a link at what is wanted."""

    def __init__(
        self,
        backend: Backend,
        contact: Contact,
        *,
        target: str,
        clock: Clock,
        lease: float,
        report: Report,
        notice: Callable[[Notice], None],
        required: bool = True,
    ) -> None:
        super().__init__(
            backend, target=target, clock=clock, lease=lease, report=report, notice=notice, required=required
        )
        self._contact = contact
        #: What stood when it was last known, for as long as it is not: how long a cut may be pending at the most.
        self._before: dict[Address, Rule] = {}
        self._looked = self._adopting = False
        #: Told of an address that is to be opened though a tombstone of before our start stands for it.
        self.on_tombstone: Callable[[Address], None] = lambda _address: None

    @property
    def unreachable(self) -> str:
        """Why the target cannot be reached now; "" when it can."""
        return self._contact.why

    def lease_until(self, address: Address) -> float | None:
        """Boot time at which the admission that stands, or was last known to stand, ends by itself."""
        until = super().lease_until(address)
        if until is None and address not in self._have and address in self._before:
            return self._before[address].until
        return until

    async def _reached(self) -> None:
        await self._contact.reached()

    def _lost(self, rule: Rule | None, until: float | None, now: float) -> bool:
        return rule is not None and rule.profile != DENY and (until or 0.0) <= now

    def _remember(self, address: Address, rule: Rule) -> None:
        self._before.pop(address, None)
        super()._remember(address, rule)

    def _forget(self, address: Address, rule: Rule | None) -> None:
        self._before.pop(address, None)
        super()._forget(address, rule)

    def _put_back(
        self, batch: Sequence[Address], changes: Sequence[Change], causes: dict[Address, list[Cause]]
    ) -> None:
        for change in changes:
            address = change.address
            have = self._have.pop(address, None) or self._before.get(address)
            if change.kind in _OPENS:
                until = max(change.until, 0.0 if have is None else have.until)
                have = Rule(DeviceId("") if have is None else have.device, change.profile, until)
            if have is not None and have.profile != DENY:
                self._before[address] = have
        super()._put_back(batch, changes, causes)

    async def _watch(self) -> None:
        async for sentence in self.backend.damages():
            if isinstance(sentence, Resync):
                self._adopting = True
                try:
                    await self._look_again()
                finally:
                    self._adopting = False
            elif isinstance(sentence, Strayed):
                self.drifts.strayed(sentence)
            else:
                await self._laid_again(sentence)

    async def look(self, addresses: Sequence[Address]) -> Sequence[Address]:
        """As ever, but not while what stands is being adopted: until then all of it would seem strange."""
        if self._adopting:
            raise Unreached(self.backend.name, "what stands is being read back")
        return await super().look(addresses)

    async def _look_again(self) -> None:
        """The link is there again: shut at once what must be shut, then read back and bring to what is wanted."""
        first, self._looked = not self._looked, True
        found = None if first else _Found(dict(self._have), frozenset(self._before))
        self._before |= {address: rule for address, rule in self._have.items() if rule.profile != DENY}
        self._have.clear()
        others: list[Address] = []
        for address, rule in list(self._want.items()):
            if rule is not None and rule.tombstone:
                self.want(address, rule)
            else:
                others.append(address)
        for start in range(0, len(others), BATCH):
            chunk = others[start : start + BATCH]
            try:
                stands = await self.backend.observe(chunk)
            except BackendError as error:
                if not self.unreachable:  # otherwise it is looked at again when the link is back
                    self._notice(Notice("backend-error", self.backend.name, error.what, self._clock.now().wall))
                stands = {}
            if found is not None:
                now = self._clock.now().boot
                for address in chunk:
                    if address in stands and address not in self._have and not self._under_way(address):
                        found.judge(address, stands[address], now)
            self._adopt(chunk, stands, first=first)
        if found is not None:
            self.drifts.tell(found.wrongs)

    def _adopt(self, addresses: Sequence[Address], stands: Mapping[Address, Stands], *, first: bool) -> None:
        """Take what was read back as what stands, and wish again what is wished."""
        now = self._clock.now().boot
        for address in addresses:
            rule, seen = self._want.get(address), stands.get(address)
            if seen is not None and address not in self._have and not self._under_way(address):
                device = DeviceId("") if rule is None else rule.device
                if seen.tombstone:
                    self.adopt(address, Rule(device, DENY, 0.0, tombstone=True))
                elif seen.profile:
                    left = self.lease if seen.remaining is None else seen.remaining
                    self.adopt(address, Rule(device, seen.profile, now + left))
            if first and seen is not None and seen.tombstone and rule is not None and rule.profile != DENY:
                self.on_tombstone(address)
            self.want(address, self._want.get(address))

    def _under_way(self, address: Address) -> bool:
        return address in self._cutting or address in self._applying
