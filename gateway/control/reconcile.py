"""Reconciliation of one path gate: want, have, diff, apply, look again.

One reconciler serves one backend at one target. Cuts have their own lane and never wait behind anything; the
ordinary lane takes admissions and renewals; in each lane one batch is in flight, the newest wish wins and nothing
queues per device. What must not live here: standings, verdicts, or how a backend does its work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from gateway.control.drifts import Drifts
from gateway.control.followed import Cause, drift
from gateway.control.ports import Backend, Clock, Notice, Strayed, TargetState
from gateway.core import plan
from gateway.core.errors import BackendError, Unreached
from gateway.core.model import (
    DENY,
    Address,
    Applied,
    Change,
    ChangeKind,
    ChangeOutcome,
    DeviceId,
    Rule,
    Stands,
)

BATCH = 1_000
"""Addresses per batch: a resync of this size holds the kernel's transaction lock for about 2 ms."""

FIRST_RETRY = 0.01
LONGEST_RETRY = 1.0
"""Seconds between attempts of a failing lane; a cut is worth many attempts, a dead backend is not worth a core."""

RENEWAL_SLACK = 2.0
"""Seconds before half of its lease is over in which an admission may be renewed: looks are up to a second apart."""

# Read for every alert; a member read from its Enum costs fifteen times as much.
_FAILED = Applied.FAILED
_VERIFIED = Applied.VERIFIED
_OPENS = frozenset({ChangeKind.ADMIT, ChangeKind.REFRESH})

UNDER_WAY = Rule(DeviceId(""), "under-way", 0.0)
"""Stands for an admission that may or may not have reached the backend."""


class Report(Protocol):
    """Told when a cause has been enforced (or has failed) at this gate, on every address, and journalled."""

    def __call__(self, gate: Reconciler, cause: Cause, state: Applied, now: float) -> None: ...


WaitsFor = Callable[[Address, Rule, Rule | None, float], str]
"""Why opening an address has to wait for another target (rule, what stands, boot time); "" when it need not."""

Lane = Callable[[Sequence[Change]], Awaitable[Sequence[ChangeOutcome]]]


class Reconciler:
    """Keeps one backend at what is wanted. All methods run on the loop's thread."""

    def __init__(
        self,
        backend: Backend,
        *,
        target: str,
        clock: Clock,
        lease: float,
        report: Report,
        notice: Callable[[Notice], None],
        required: bool = True,
    ) -> None:
        self.backend = backend
        self.target = target
        self.lease = lease
        self.required = required
        self._clock = clock
        self._report = report
        self._notice = notice
        self._want: dict[Address, Rule | None] = {}
        self._have: dict[Address, Rule] = {}
        self._causes: dict[Address, list[Cause]] = {}
        self._cuts: dict[Address, None] = {}
        self._dirty: dict[Address, None] = {}
        self._cutting: set[Address] = set()
        self._applying: set[Address] = set()
        self._last_cut: dict[Address, int] = {}
        self._cut_serial = 0
        self._failing: dict[Address, str] = {}
        self._renewals: dict[int, list[Address]] = {}
        self._cut_wake = asyncio.Event()
        self._wake = asyncio.Event()
        self._admitted: set[Address] = set()
        self._parked: dict[Address, str] = {}
        self._verified_at: dict[Address, float] = {}
        #: Set where the order between targets matters: asked before an opening, told after one.
        self.waits_for: WaitsFor | None = None
        self.on_opened: Callable[[Address], None] | None = None
        self.admitted_version = 0
        self.drifts = Drifts(self, backend.name, self._want, clock, notice)
        #: Why nothing that stands here can be relied on; "" while it can. Every device is then shown as failed.
        self.obstacle = ""

    # --- wishes -----------------------------------------------------------------------------------------

    def want(self, address: Address, rule: Rule | None, cause: Cause | None = None) -> None:
        """Wish ``rule`` for an address (None: no trace of it). Takes effect soon; newest wins."""
        self._want[address] = rule
        if cause is not None:
            waiting = self._causes.get(address)
            if waiting is None:
                self._causes[address] = [cause]
            else:
                waiting.append(cause)
        if self._parked:
            self._parked.pop(address, None)
        if rule is None or rule.profile == DENY:
            self._dirty.pop(address, None)
            self._cuts[address] = None
            self._cut_wake.set()
        else:
            self._cuts.pop(address, None)
            self._dirty[address] = None
            self._wake.set()

    def adopt(self, address: Address, rule: Rule) -> None:
        """What was observed to stand at start; no wish."""
        self._remember(address, rule)

    @property
    def admitted(self) -> frozenset[Address]:
        """Addresses verified as admitted; ``admitted_version`` tells whether this changed."""
        return frozenset(self._admitted)

    @property
    def cut_depth(self) -> int:
        """Addresses waiting in the cut lane."""
        return len(self._cuts)

    @property
    def depth(self) -> int:
        """Addresses waiting in the ordinary lane."""
        return len(self._dirty)

    @property
    def unreachable(self) -> str:
        """Why the target cannot be reached now; "" when it can. A backend of this process always can."""
        return ""

    @property
    def parked(self) -> int:
        """Addresses whose opening waits for another target."""
        return len(self._parked)

    def wished(self, address: Address) -> Rule | None:
        """The newest wish for an address; None: no trace of it."""
        return self._want.get(address)

    def stands(self, address: Address) -> Rule | None:
        """What was verified to stand for an address; None: nothing, or not known."""
        return self._have.get(address)

    def recheck(self, address: Address) -> None:
        """Another target has verified this address: what waited for it may go on."""
        if self._parked.pop(address, None) is not None:
            self._dirty[address] = None
            self._wake.set()

    def lease_until(self, address: Address) -> float | None:
        """Boot time at which the admission that stands for ``address`` ends by itself."""
        have = self._have.get(address)
        return None if have is None or have.profile == DENY else have.until

    def state(self, addresses: Iterable[Address], to_wall: float) -> TargetState:
        """What this gate has of a device. ``to_wall`` turns boot seconds into UNIX seconds when added."""
        state, detail, wanted, end, verified = "verified", "", DENY, None, None
        now = self._clock.now().boot
        for address in addresses:
            rule = self._want.get(address)
            if rule is not None:
                wanted = rule.profile
            until = self.lease_until(address)
            if address in self._failing:
                state, detail = "failed", self._failing[address]
            elif state != "failed" and (self._moving(address) or self._lost(rule, until, now)):
                state, detail = "pending", self._parked.get(address, "") or self.unreachable
            if until is not None and until > now:
                end = max(end or 0.0, until + to_wall)
            at = self._verified_at.get(address)
            if at is not None:
                verified = at + to_wall if verified is None else min(verified, at + to_wall)
        if self.obstacle:
            state, detail = "failed", self.obstacle
        return TargetState(self.target, self.backend.name, self.required, wanted, state, detail, end, verified)

    def _lost(self, _rule: Rule | None, _until: float | None, _now: float) -> bool:
        """Whether an admission ended though it is still wanted, because it could not be renewed."""
        return False

    def _moving(self, address: Address) -> bool:
        return (
            address in self._cuts
            or address in self._dirty
            or address in self._cutting
            or address in self._applying
            or address in self._parked
        )

    def unsettled(self, address: Address) -> bool:
        """Whether something wished for ``address`` has not been read back yet. An opening that waits for another
        target does not count: nothing is to be done here."""
        return (self._moving(address) and address not in self._parked) or address in self._failing

    # --- lanes ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled. An undeclared error of a backend ends it: a bug must not go on half."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._cut_lane(), name=f"{self.target}-cut")
            tasks.create_task(self._ordinary_lane(), name=f"{self.target}-apply")
            tasks.create_task(self._renew(), name=f"{self.target}-renew")
            tasks.create_task(self.drifts.run(), name=f"{self.target}-drifts")
            tasks.create_task(self._watch(), name=f"{self.target}-watch")

    @property
    def busy(self) -> bool:
        """Whether a batch is on its way to the backend."""
        return bool(self._cutting or self._applying)

    @property
    def failing(self) -> int:
        """Addresses whose last attempt failed."""
        return len(self._failing)

    async def flush(self) -> None:
        """Wait until nothing is wished that does not stand (orderly stop). The caller sets the time limit."""
        while self._cuts or self._dirty or self._cutting or self._applying:  # noqa: ASYNC110 - only at stop
            await asyncio.sleep(0.005)

    async def _cut_lane(self) -> None:
        retry = FIRST_RETRY
        while True:
            await self._cut_wake.wait()
            self._cut_wake.clear()
            while self._cuts:
                if self.unreachable:
                    await self._reached()
                    continue
                batch = self._take(self._cuts)
                self._cutting.update(batch)
                self._cut_serial += 1
                for address in batch:
                    self._last_cut[address] = self._cut_serial
                    if address in self._applying:
                        have = self._have.get(address)
                        if have is None or have.profile == DENY:
                            # An opening is under way: whatever it leaves must be taken out again. It takes a
                            # tombstone away, too, so one that was seen before proves nothing.
                            self._have[address] = UNDER_WAY
                ok = await self._attempt(batch, self.backend.cut)
                self._cutting.difference_update(batch)
                if self._dirty:
                    self._wake.set()
                retry = FIRST_RETRY if ok else min(retry * 2, LONGEST_RETRY)
                if not ok:
                    await asyncio.sleep(retry)

    async def _ordinary_lane(self) -> None:
        retry = FIRST_RETRY
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                if self.unreachable:
                    await self._reached()
                    continue
                batch = self._take(self._dirty, self._cutting)
                if not batch:
                    break
                if self.waits_for is not None:
                    batch = self._may_open(batch, self.waits_for)
                self._applying.update(batch)
                ok = await self._attempt(batch, self.backend.apply)
                self._applying.difference_update(batch)
                retry = FIRST_RETRY if ok else min(retry * 2, LONGEST_RETRY)
                if not ok:
                    await asyncio.sleep(retry)

    async def _reached(self) -> None:
        """Wait until the target can be reached: meanwhile the newest wish of each address is all that is kept."""

    def _may_open(self, batch: Sequence[Address], waits_for: WaitsFor) -> list[Address]:
        """Those of a batch that need not wait for another target; the others are parked until it has verified."""
        now = self._clock.now().boot
        ready: list[Address] = []
        for address in batch:
            rule = self._want.get(address)
            why = "" if rule is None else waits_for(address, rule, self._have.get(address), now)
            if why:
                self._parked[address] = why
            else:
                ready.append(address)
        return ready

    @staticmethod
    def _take(queue: dict[Address, None], without: set[Address] | None = None) -> list[Address]:
        taken: list[Address] = []
        for address in queue:
            if without and address in without:
                continue
            taken.append(address)
            if len(taken) == BATCH:
                break
        for address in taken:
            del queue[address]
        return taken

    async def _attempt(self, batch: Sequence[Address], lane: Lane) -> bool:
        """Bring one batch to what is wanted now; False when something has to be tried again."""
        want = {address: self._want.get(address) for address in batch}
        causes = {address: self._causes.pop(address) for address in batch if address in self._causes}
        serial = self._cut_serial
        started = self._clock.now().boot
        changes = plan.diff(want, self._have, started + self.lease, started + self.lease / 2 + RENEWAL_SLACK)
        outcomes: Sequence[ChangeOutcome] = ()
        if changes:
            try:
                outcomes = await lane(changes)
            except Unreached:
                self._put_back(batch, changes, causes)
                return True
            except BackendError as error:
                outcomes = [ChangeOutcome(change, _FAILED, error.what) for change in changes]
        now = self._clock.now().boot
        ok = True
        changed: set[Address] = set()
        for outcome in outcomes:
            address = outcome.change.address
            changed.add(address)
            ok = self._settle(outcome, want[address], causes.get(address, ()), serial, now) and ok
        for address, waiting in causes.items():
            if address not in changed:
                self._done(waiting, _VERIFIED, "stood already", now)
        return ok

    def _put_back(
        self, batch: Sequence[Address], _changes: Sequence[Change], causes: dict[Address, list[Cause]]
    ) -> None:
        """The target could not be reached: nothing failed, and the newest wishes are told once it can."""
        for address in batch:
            if address in causes:
                self._causes.setdefault(address, [])[:0] = causes[address]
            rule = self._want.get(address)
            queue = self._cuts if rule is None or rule.profile == DENY else self._dirty
            queue[address] = None

    def _settle(
        self, outcome: ChangeOutcome, rule: Rule | None, causes: Sequence[Cause], serial: int, now: float
    ) -> bool:
        change = outcome.change
        address = change.address
        opens = change.kind in _OPENS
        if opens and self._last_cut.get(address, 0) > serial:
            # A cut of this address started while we were opening it: the cut's own outcome tells what stands.
            self._done(causes, _FAILED, "overtaken by a cut", now)
            return True
        if outcome.state is _VERIFIED:
            self._failing.pop(address, None)
            self._verified_at[address] = now
            after = plan.after(change, rule.device if rule is not None else DeviceId(""))
            if after is None:
                self._forget(address, rule)
            else:
                self._remember(address, after)
            for cause in causes:
                cause.accepted = max(cause.accepted, outcome.accepted)
            self._done(causes, _VERIFIED, outcome.detail, now)
            return True
        self._failing[address] = outcome.detail
        self._have.pop(address, None)  # unknown: the next diff tells everything again
        self._notice(Notice("backend-error", self.backend.name, outcome.detail, self._clock.now().wall))
        if self._want.get(address) == rule:
            self._causes.setdefault(address, [])[:0] = causes
            queue = self._dirty if opens else self._cuts
            queue[address] = None
        else:
            self._done(causes, _FAILED, outcome.detail, now)
        return False

    def _done(self, causes: Sequence[Cause], state: Applied, detail: str, now: float) -> None:
        for cause in causes:
            if state is _FAILED:
                cause.failed = True
            else:
                cause.verified = now
            if detail:
                cause.detail = detail
            self.count_down(cause, now)

    def count_down(self, cause: Cause, now: float) -> None:
        """One part of a cause is done; the last one makes the report."""
        cause.left -= 1
        if cause.left <= 0:
            self._report(self, cause, _FAILED if cause.failed else _VERIFIED, now)

    def _remember(self, address: Address, rule: Rule) -> None:
        self._have[address] = rule
        if rule.profile == DENY:
            if address in self._admitted:
                self._admitted.discard(address)
                self.admitted_version += 1
            return
        self._last_cut.pop(address, None)
        if address not in self._admitted:
            self._admitted.add(address)
            self.admitted_version += 1
        due = int(rule.until - self.lease / 2)
        self._renewals.setdefault(due, []).append(address)
        if self.on_opened is not None:
            self.on_opened(address)

    def _forget(self, address: Address, rule: Rule | None) -> None:
        self._have.pop(address, None)
        if address in self._admitted:
            self._admitted.discard(address)
            self.admitted_version += 1
        if rule is None and self._want.get(address) is None:
            self._want.pop(address, None)
            self._last_cut.pop(address, None)
            self._verified_at.pop(address, None)

    # --- leases, read-back, repair ----------------------------------------------------------------------

    async def _renew(self) -> None:
        """Renew leases that are half over, as long as the deadline lies beyond them."""
        while True:
            await asyncio.sleep(min(1.0, self.lease / 8))
            now = self._clock.now().boot
            for due in [second for second in self._renewals if second <= now]:
                for address in self._renewals.pop(due):
                    have, rule = self._have.get(address), self._want.get(address)
                    if have is None or rule is None or DENY in (have.profile, rule.profile):
                        continue
                    if rule.until > have.until and have.until - now <= self.lease / 2 + RENEWAL_SLACK:
                        self._dirty[address] = None
                self._wake.set()
                await asyncio.sleep(0)

    async def look(self, addresses: Sequence[Address]) -> Sequence[Address]:
        """Read addresses back and repair them; returns those that are being changed, which cannot be judged now.

        Raises ``BackendError``: then none was.
        """
        if self.unreachable:
            raise Unreached(self.backend.name, self.unreachable)
        asked = {a: self._have.get(a) for a in addresses if not self._moving(a)}
        stands = await self.backend.observe(list(asked))
        now = self._clock.now()
        moved = [address for address in addresses if address not in asked]
        wrongs: list[str] = []
        for address, expected in asked.items():
            if self._have.get(address) is not expected or self._moving(address):
                moved.append(address)  # it moved while we looked
                continue
            wrong = drift(expected, stands[address], now.boot)
            if not wrong:
                self._verified_at[address] = now.boot
            if wrong:
                wrongs.append(f"{address}: {wrong}")
                self._repair(address, stands[address], now.boot)
        self.drifts.tell(wrongs)
        return moved

    @property
    def repairs(self) -> int:
        """How many differences were found and repaired."""
        return self.drifts.repairs

    def waiting(self) -> int:
        """Addresses whose change has not been begun."""
        return len(self._cuts) + len(self._dirty)

    def _repair(self, address: Address, stands: Stands, now: float) -> None:
        rule = self._want.get(address)
        device = rule.device if rule is not None else DeviceId("")
        self._have.pop(address, None)
        if stands.profile and not stands.tombstone:
            remaining = now + (stands.remaining if stands.remaining is not None else self.lease)
            self._have[address] = Rule(device, stands.profile, remaining)
        self.want(address, rule)

    async def _watch(self) -> None:
        """The static part was damaged and has been laid again, shut and empty: tell everything again. Or somebody
        else changed elements: look at them."""
        async for sentence in self.backend.damages():
            if isinstance(sentence, Strayed):
                self.drifts.strayed(sentence)
            else:
                await self._laid_again(sentence)

    async def _laid_again(self, sentence: str) -> None:
        self.drifts.tell([sentence])
        self._have.clear()
        tombstones = [a for a, r in self._want.items() if r is not None and r.profile == DENY]
        others = [a for a, r in self._want.items() if r is not None and r.profile != DENY]
        for queue in (tombstones, others):
            for start in range(0, len(queue), BATCH):
                for address in queue[start : start + BATCH]:
                    self.want(address, self._want.get(address))
                await asyncio.sleep(0)
