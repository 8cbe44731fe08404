"""The Backend port over nftables: two lanes for elements, a guard for the static part.

What must not live here: rules, messages, decisions.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence

from gateway.control.ports import Clock, Proof, Strayed
from gateway.core.errors import BackendError
from gateway.core.model import Address, Change, ChangeKind, ChangeOutcome, Stands
from gateway.enforce.nft.commit import Committer
from gateway.enforce.nft.elements import DeviceSets
from gateway.enforce.nft.events import Events
from gateway.enforce.nft.fence import Fence
from gateway.enforce.nft.guard import Guard, Order
from gateway.enforce.nft.lanes import CutLane, Job, Lane, OrdinaryLane, Result
from gateway.enforce.nft.libnftables import run_commands
from gateway.enforce.nft.netlink import NetlinkSocket
from gateway.enforce.nft.ruleset import Baseline, Endpoint, render_uninstall
from gateway.enforce.nft.sockets import SocketSweeper
from gateway.enforce.nft.sources import Anchor

#: Seconds in which the static part must be settled at start: 100,000 addresses take about half a second.
START_SECONDS = 30.0
#: Seconds in which a lane must answer: a hundred times the longest wait for the kernel's lock that was seen.
LANE_SECONDS = 15.0
#: Seconds in which each thread must end once told to.
STOP_SECONDS = 5.0
#: Reports of damage kept for a listener that is slow: each asks for the same, a complete resynchronisation.
MAX_REPORTS = 16
#: Characters of what several reports say together; beyond that the newest speaks for all.
REPORT_LENGTH = 300

_LOWERING = frozenset({ChangeKind.CUT, ChangeKind.WITHDRAW, ChangeKind.FORGET})


class NftBackend:
    """The path gate in nftables.

    ``known`` are the inventory's addresses: traffic between them and hosts with a gated service is judged.
    ``anchors`` say where packets from them come from, for the sets of sources that the baseline has.
    Threads and sockets belong to the network namespace of the thread that calls ``start``.
    """

    def __init__(
        self, baseline: Baseline, known: Sequence[Address], clock: Clock, anchors: Sequence[Anchor] = ()
    ) -> None:
        self._baseline = baseline
        self._known = tuple(dict.fromkeys(known))
        self._anchors = tuple(anchors)
        self._clock = clock
        self._fence = Fence()
        self._sockets: list[NetlinkSocket] = []
        self._cuts: Lane | None = None
        self._ordinary: Lane | None = None
        self._guard: Guard | None = None
        self._sweeper: SocketSweeper | None = None
        self._reports: asyncio.Queue[str | BaseException] = asyncio.Queue()
        self._strayed: Strayed | None = None  # what is to be told with the mark for it in the queue

    @property
    def name(self) -> str:
        """The ``backend`` label of metrics."""
        return "nft"

    @property
    def remark(self) -> str:
        """What an operator should know though nothing has failed; "" mostly."""
        return "" if self._sweeper is None else self._sweeper.trouble

    @property
    def spoofed(self) -> int:
        """Packets dropped because their source is a device's and they come from elsewhere, since the table was
        laid; a second old at the most."""
        return 0 if self._guard is None else self._guard.spoofed

    async def start(self) -> bool:
        """Adopt what stands, mend its static part, or lay it; then start the lanes.

        True: a table in use was found and its device elements kept. False: there was none, or it was only loaded
        from the baseline file; everything begins shut. Raises ``BackendError``.
        """
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[bool] = loop.create_future()

        def on_settled(result: bool | BaseException) -> None:
            loop.call_soon_threadsafe(_resolve, settled, result)

        def on_damage(report: str | BaseException) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._report, report)

        def on_stray(stray: Strayed) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._stray, stray)

        self._guard = Guard(self._baseline, self._known, self._anchors, on_settled, on_damage, on_stray)
        self._guard.start()
        try:
            async with asyncio.timeout(START_SECONDS):
                found = await settled
            self._sweeper = SocketSweeper(self._endpoints)
            self._sweeper.start()
            self._cuts = self._lane("cut", CutLane, loop)
            self._ordinary = self._lane("apply", OrdinaryLane, loop)
            self._guard.listen(Events([self._guard.port, *(each.port for each in self._sockets)]))
        except TimeoutError as error:
            await self.stop()
            raise BackendError("nft", f"not settled within {START_SECONDS:g} s", transient=True) from error
        except BackendError:
            await self.stop()
            raise
        return found

    def _lane(
        self, name: str, kind: type[CutLane | OrdinaryLane], loop: asyncio.AbstractEventLoop
    ) -> CutLane | OrdinaryLane:
        netlink = NetlinkSocket()
        self._sockets.append(netlink)
        committer = Committer(netlink, DeviceSets(self._baseline.profiles), self._clock)
        lane = kind(name, loop, committer, self._fence)
        lane.start()
        return lane

    async def cut(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        """Take CUT, WITHDRAW and FORGET changes now, on the cut lane.

        Whatever the ordinary lane was asked before for the same addresses cannot win any more. Raises
        ``BackendError``; ``ValueError`` for other kinds of change.
        """
        lane = self._running(self._cuts)
        if not changes:
            return []
        if any(change.kind not in _LOWERING for change in changes):
            msg = "the cut lane takes CUT, WITHDRAW and FORGET only"
            raise ValueError(msg)
        changes = tuple(changes)
        self._fence.lower(changes)
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        lane.submit(Job(changes, (), 0, done))
        outcomes = [outcome for outcome in await _answer(done) if isinstance(outcome, ChangeOutcome)]
        if self._sweeper is not None:
            self._sweeper.sweep([change.address for change in changes])
        return outcomes

    def _endpoints(self) -> Sequence[Endpoint]:
        return [service.endpoint for service in self._baseline.services]

    async def apply(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        """Take any changes, in order, on the ordinary lane. Raises ``BackendError``."""
        lane = self._running(self._ordinary)
        if not changes:
            return []
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        lane.submit(Job(tuple(changes), (), self._fence.open_job(), done))
        return [outcome for outcome in await _answer(done) if isinstance(outcome, ChangeOutcome)]

    async def observe(self, addresses: Sequence[Address]) -> Mapping[Address, Stands]:
        """Read back these addresses, one by one, on the ordinary lane. Raises ``BackendError``."""
        lane = self._running(self._ordinary)
        if not addresses:
            return {}
        addresses = tuple(addresses)
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        lane.submit(Job((), addresses, 0, done))
        stands = [one for one in await _answer(done) if isinstance(one, Stands)]
        return dict(zip(addresses, stands, strict=True))

    async def prove(self, addresses: Sequence[Address]) -> Proof:
        """Read these addresses back, and name the elements as ``nft`` does. Raises ``BackendError``."""
        stands = await self.observe(addresses)
        at = self._clock.now().boot
        sets = DeviceSets(self._baseline.profiles)
        return Proof(at, stands, {address: sets.named(address, one) for address, one in stands.items()}, {})

    async def move(self, baseline: Baseline) -> None:
        """Make the static part another baseline's, in one transaction, and read it back; device elements stay.

        Whoever calls this has taken every device out of the profiles that the new baseline does not have. Raises
        ``BackendError``: the static part is then as before, or being laid again as before by the guard.
        """
        guard, before = self._guard, self._baseline
        if guard is None:
            raise BackendError("nft", "not started, or stopped", transient=False)
        if baseline == before:
            return
        # A lane never works on a set that does not stand: fewer before, more behind.
        kept = tuple(name for name in before.profiles if name in baseline.profiles)
        await self._adopt(kept)
        loop = asyncio.get_running_loop()
        laid: asyncio.Future[bool] = loop.create_future()

        def on_laid(error: BaseException | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, laid, True if error is None else error)

        order = Order(baseline, on_laid, threading.Event())
        guard.move(order)
        try:
            async with asyncio.timeout(START_SECONDS):
                await laid
        except TimeoutError as error:
            order.withdrawn.set()
            raise BackendError("nft", f"not laid within {START_SECONDS:g} s", transient=True) from error
        self._baseline = baseline
        await self._adopt(baseline.profiles)

    async def _adopt(self, profiles: Sequence[str]) -> None:
        sets = DeviceSets(profiles)
        for lane in (self._running(self._cuts), self._running(self._ordinary)):
            done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            lane.submit(Job((), (), 0, done, sets))
            await _answer(done)

    async def damages(self) -> AsyncIterator[str]:
        """Yield a sentence each time the static part was found damaged and laid again, shut and empty; also,
        once per run of failures, when it could not be looked after. A ``Strayed`` tells of elements that somebody
        else changed; several that wait are told as one."""
        while True:
            report = await self._reports.get()
            if isinstance(report, BaseException):
                raise report
            if isinstance(report, Strayed):
                report, self._strayed = self._strayed or report, None
            yield report

    async def stop(self) -> None:
        """Finish what was handed in, end the threads, close the sockets; what is enforced stays with its ends.

        Raises ``BackendError`` when a thread does not end.
        """
        everyone = (self._guard, self._cuts, self._ordinary, self._sweeper)
        workers = [worker for worker in everyone if worker is not None]
        self._guard = self._cuts = self._ordinary = self._sweeper = None
        ended = [await asyncio.to_thread(worker.stop, STOP_SECONDS) for worker in workers]
        if not all(ended):
            raise BackendError("nft", f"a thread did not end within {STOP_SECONDS:g} s", transient=False)
        for netlink in self._sockets:
            netlink.close()
        self._sockets.clear()

    def _running(self, lane: Lane | None) -> Lane:
        if lane is None:
            raise BackendError("nft", "not started, or stopped", transient=False)
        return lane

    def _report(self, report: str | BaseException) -> None:
        if isinstance(report, BaseException) or self._reports.qsize() < MAX_REPORTS:
            self._reports.put_nowait(report)

    def _stray(self, stray: Strayed) -> None:
        before = self._strayed
        if before is None:
            self._strayed = stray
            self._reports.put_nowait(stray)
            return
        everything = before.everything or stray.everything
        told = before if stray in before else f"{before}; {stray}"
        if len(told) > REPORT_LENGTH:
            told = stray
        self._strayed = Strayed(told, before.addresses | stray.addresses, everything=everything)


def _resolve(settled: asyncio.Future[bool], result: bool | BaseException) -> None:
    if settled.done():
        return
    if isinstance(result, BaseException):
        settled.set_exception(result)
    else:
        settled.set_result(result)


async def _answer(done: asyncio.Future[Result]) -> Result:
    try:
        async with asyncio.timeout(LANE_SECONDS):
            return await done
    except TimeoutError as error:
        raise BackendError("nft", f"no answer within {LANE_SECONDS:g} s", transient=True) from error


def uninstall() -> None:
    """Remove every trace of the path gate from this network namespace. Raises ``BackendError``."""
    run_commands(render_uninstall())
