"""Keeps a KubeArmor daemon at the newest truth, and says honestly how far that got.

Rules of the coupling (interface 1.4, 1.6, 1.7, 4.3, 9), each visible below: wait for SERVING and a quiet, settled
probe; upsert by ADDED; one call at a time; newest wins, paced; a call that fails may have ended the daemon, so
wait, look again and send everything with a new generation; "Applied" is *accepted*, only a read-back *verified*,
and of host and container policies only where a security module is known to enforce them; what vanishes or changes
behind our back is mended, told and counted, more and more seldom if it does not stop.
What must not live here: documents, their rendering and comparison; the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from gateway.control.ports import Clock, Notice, Showing
from gateway.core.errors import BackendError
from gateway.core.model import Address
from gateway.enforce.kubearmor.client import NAME, Daemon, DaemonError, Trouble
from gateway.enforce.kubearmor.documents import GONE, TAKEN, Post, ProfileDocuments, judged, same, word
from gateway.enforce.kubearmor.drift import Drift
from gateway.enforce.kubearmor.evidence import Evidence
from gateway.enforce.kubearmor.lane import MAX_UNANSWERED, Lane
from gateway.enforce.kubearmor.lookup import RuleLookup
from gateway.enforce.kubearmor.lsm import Lsm, read_record
from gateway.enforce.kubearmor.own import OwnPolicies
from gateway.enforce.kubearmor.parts import NetworkParts, Wire
from gateway.enforce.kubearmor.proof import show
from gateway.enforce.kubearmor.report import Part, Report, Stage
from gateway.enforce.kubearmor.settings import KubeArmorSettings, Tables
from gateway.enforce.kubearmor.tables import NftTables, TableReader
from gateway.kubearmor.documents import Document
from gateway.kubearmor.host import Hardening
from gateway.kubearmor.names import DocumentRefused, Kind
from gateway.kubearmor.network import Scope
from gateway.kubearmor.pb.policy_pb2 import PolicyStatus
from gateway.kubearmor.policies import EventType, HostPolicy, Policy, Sendable, render_event
from gateway.kubearmor.readback import Shown, read_shown, shown_policies

T = TypeVar("T")


def _nobody(_: Notice) -> None:
    """Where nobody listens to notices: the reports tell the same."""


class KubeArmorAdvisory:
    """Implements the ``Advisory`` port against one daemon on this host.

    ``scope`` says what the network policy gates, ``hardening`` what the host policy protects, ``lsm`` what
    KubeArmor has recorded of its security module; ``notice`` takes drift and trouble, on the loop. Raises
    ``DocumentRefused`` at once when the host policy cannot be built, so that a wrong path is found at start.
    """

    def __init__(
        self,
        settings: KubeArmorSettings,
        clock: Clock,
        scope: Scope,
        hardening: Hardening,
        tables: TableReader | None = None,
        lsm: Callable[[], Lsm] = read_record,
        notice: Callable[[Notice], None] = _nobody,
    ) -> None:
        self._settings = settings
        self._own = OwnPolicies(settings, scope, hardening)
        self._tables = tables or NftTables(settings.nft_timeout, settings.nft_output)
        self._drift = Drift(NAME, notice, clock.now)
        self._report = Report(clock, lambda what: self._drift.tell("backend-error", what))
        self._evidence = Evidence(settings.tables, self._tables, lsm, self._aside)
        self._documents = ProfileDocuments(self._report, self._own.names[Kind.NETWORK], self._next_generation)
        self._lookup = RuleLookup(self._tables, self._aside)
        self._wake = asyncio.Event()
        self._lane = Lane(settings.shun)
        self._working = asyncio.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._admitted: frozenset[Address] | None = None
        self._host: HostPolicy | None = None
        self._network = NetworkParts(self._own.names[Kind.NETWORK])
        self._declared: frozenset[Address] | None = None
        # Generations only have to differ from those a daemon may still hold from an earlier run of ours.
        self._generation = int(clock.now().wall * 1000)
        self._why_not = self._refused = ""
        self._withdrawn = False
        self._settled = False
        self._fallen = ""
        self._host_seen = False
        self._verified = False
        self._disturbed = ""
        self._own.host(self._generation)

    @property
    def name(self) -> str:
        """``kubearmor``: the ``backend`` label of metrics."""
        return NAME

    def declare(self, admitted: frozenset[Address]) -> None:
        """Take the newest truth: addresses admitted now."""
        self._admitted = admitted
        self._wake.set()

    def declare_documents(self, documents: Sequence[Document], absent: frozenset[str] = frozenset()) -> None:
        """Take the newest truth: the documents of profiles that stand now, judged as a whole."""
        self._documents.declare(documents, absent)
        self._wake.set()

    def disturbed(self, why: str) -> None:
        """Somebody else's connection to the daemon was lost: it may have restarted. What stands is not known any
        more; everything is sent again once it has settled. While it is not settled this says nothing new."""
        if self._settled:
            self._disturbed = why
            self._wake.set()

    def state(self) -> Mapping[str, str]:
        """``state`` absent, connecting, accepted, verified, failed, withdrawn or idle; ``detail``; the same for
        ``host``, ``network`` and ``documents``; ``generation``, ``addresses``, ``restarts``, ``repairs``, ``since``
        (wall)."""
        return self._report.view()

    async def prove(self, addresses: Sequence[Address]) -> Mapping[str, Showing]:
        """What the daemon and its tables show at this moment, over a connection of its own. Never raises."""
        daemon = Daemon(self._settings)
        sent = {} if self._host is None else {self._host.name: self._host.generation}
        tables = self._tables if self._settings.tables is Tables.READ else None
        try:
            return await show(partial(self._shown, daemon), tables, sent, addresses)
        finally:
            await daemon.close()

    async def run(self) -> None:
        """Work until cancelled. Trouble with the daemon is reported and tried again; only bugs escape."""
        attempt = 0
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=NAME)
        try:
            while True:
                self._settled, self._disturbed = False, ""
                daemon = Daemon(self._settings)
                try:
                    await self._session(daemon)
                except BackendError as error:
                    attempt = 0 if self._settled else attempt + 1
                    pause = self._fell(error, attempt)
                finally:
                    await daemon.close()
                await asyncio.sleep(pause)
        finally:
            # Waiting here would stop the loop for the rest of a job; the thread ends by itself after it.
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    async def withdraw(self) -> None:
        """Delete our policies and declare nothing more; idempotent. Raises ``BackendError`` when the daemon cannot
        be asked or refuses: its policies then stand, also after its restart."""
        self._withdrawn = True
        daemon = Daemon(self._settings)
        try:
            waiting = await daemon.serving()
            if waiting:
                raise BackendError(NAME, f"cannot withdraw: {waiting}", transient=True)
            async with self._working:
                await self._withdraw(daemon)
        finally:
            await daemon.close()
        self._report.withdrawn()

    async def _withdraw(self, daemon: Daemon) -> None:
        why_not = await self._evidence.nft()
        shown = await self._shown(daemon)
        documents = await self._aside(lambda: read_shown(shown))
        left = await self._documents.withdraw(self._post(daemon), documents, why_not)
        if self._own.gates and not why_not:
            await self._network.remove(self._wire(daemon), every=True)
        await self._delete(daemon, Kind.HOST, self._host or self._own.host(0))
        if left:
            raise BackendError(NAME, f"KubeArmor did not delete {', '.join(left)}", transient=True)

    async def _aside(self, work: Callable[[], T]) -> T:
        """Do pure work in the own thread while there is one: 100,000 addresses take seconds."""
        if self._pool is None:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    # One session: from SERVING to the loss of the connection

    async def _session(self, daemon: Daemon) -> None:
        shown = await self._ready(daemon)
        self._documents.begin(await self._aside(lambda: read_shown(shown)))
        self._host = self._declared = None
        self._network.forget()
        self._refused = ""
        self._host_seen = self._verified = False
        self._evidence.begin()
        self._why_not = await self._evidence.nft()
        async with contextlib.AsyncExitStack() as stack:
            lost = asyncio.create_task(daemon.lost(), name="kubearmor-connection")
            stack.push_async_callback(_end, lost)
            if not self._withdrawn:
                await self._push_host(daemon)
            while True:
                self._wake.clear()
                rest = await self._cycle(daemon)
                await self._rest(rest, lost)

    async def _ready(self, daemon: Daemon) -> Mapping[str, Shown]:
        """Wait until the daemon serves and has stopped restoring: two equal probes, a quiet period apart; returns
        what they show."""
        seen: object = None
        while True:
            waiting = await daemon.serving()
            shown = None if waiting else await self._shown(daemon)
            if shown is not None and shown == seen:
                return shown
            seen = shown
            self._report.stage(Stage.CONNECTING, waiting or "serving; waiting until its restore is quiet")
            await asyncio.sleep(self._settings.quiet)

    async def _shown(self, daemon: Daemon) -> Mapping[str, Shown]:
        reply = await self._lane.probe(daemon)
        try:
            return await self._aside(lambda: shown_policies(reply))
        except DocumentRefused as error:
            raise BackendError(NAME, str(error), transient=True) from error

    async def _cycle(self, daemon: Daemon) -> float:
        """Send what changed, read back, return the seconds to rest before the next change is sent."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        sent = False
        if self._withdrawn:
            self._report.withdrawn()
            return self._settings.pace
        if self._why_not:
            self._why_not = await self._evidence.nft()
        if self._why_not:
            self._report.part(Part.NETWORK, Stage.WITHHELD, self._why_not)
        elif await self._changed():
            sent = await self._push_network(daemon)
        if self._host is None and self._host_seen and not self._drift.waiting:
            await self._push_host(daemon)
        async with self._working:
            await self._turn_documents(daemon)
        await self._check_shown(daemon)
        if self._refused:
            self._report.part(Part.NETWORK, Stage.FAILED, self._refused)
        elif self._network.standing and self._settings.tables is Tables.READ:
            await self._check_network(again=not sent)
        self._settle()
        spent = loop.time() - began
        return max(self._settings.pace, spent * (1 / self._settings.share - 1))

    async def _rest(self, least: float, lost: asyncio.Task[None]) -> None:
        """Rest at least ``least`` seconds, then until something changes or the next read-back is due."""
        await asyncio.wait({lost}, timeout=least)
        look = max(0.0, self._settings.check - least)
        if not lost.done():
            wake = asyncio.create_task(self._wake.wait(), name="kubearmor-wake")
            try:
                await asyncio.wait({lost, wake}, timeout=look, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end(wake)
        if lost.done() or self._disturbed:
            why = self._disturbed or "the connection was lost"
            raise BackendError(NAME, f"{why}: stopped or restarted", transient=True)

    # Sending

    def _post(self, daemon: Daemon) -> Post:
        return Post(partial(self._lane.send, daemon), self._aside, partial(self._again, daemon))

    async def _turn_documents(self, daemon: Daemon) -> None:
        if not self._withdrawn and await self._documents.turn(
            self._post(daemon), self._why_not, mend=not self._drift.waiting
        ):
            self._wake.set()

    def _next_generation(self) -> int:
        self._generation += 1
        return self._generation

    async def _push_host(self, daemon: Daemon) -> None:
        policy = self._own.host(self._next_generation())
        if policy is None:
            self._report.part(Part.HOST, Stage.IDLE, "nothing to protect is configured")
            return
        self._host = policy if await self._push(daemon, policy) else None

    async def _changed(self) -> bool:
        """Whether the newest truth is another one than was sent last."""
        admitted, declared = self._admitted, self._declared
        if admitted is None or admitted is declared:
            return False
        return declared is None or await self._aside(lambda: admitted != declared)

    async def _push_network(self, daemon: Daemon) -> bool:
        """Send the network policy for the newest truth; False when there was nothing to send."""
        admitted = self._admitted or frozenset()
        generation = self._next_generation()
        self._declared, self._refused = admitted, ""
        try:
            policy = await self._aside(lambda: self._own.network(admitted, generation))
            if policy is None:
                self._report.part(Part.NETWORK, Stage.IDLE, "nothing is gated on this host itself")
                return False
            taken = await self._network.put(policy, self._wire(daemon))
        except DocumentRefused as error:
            # The older policy keeps standing: what it admits too much, the path gate has cut already.
            self._refused = f"generation {generation} was not sent, an older one may stand: {error}"
            return False
        if taken:
            self._documents.own_stands(True, last=self._network.moved_back)
            self._report.sent(generation, len(admitted))
        return True

    async def _again(self, daemon: Daemon, event: EventType) -> None:
        """Delete our network policy, or send it once more: a document had to come before it."""
        if event is EventType.DELETED:
            await self._network.remove(self._wire(daemon), every=False)
            self._documents.own_stands(False)
        else:
            await self._push_network(daemon)

    async def _push(self, daemon: Daemon, policy: Policy) -> bool:
        part = Part(policy.kind.value)
        event = await self._aside(lambda: render_event(EventType.ADDED, policy))
        if self._withdrawn:
            return False
        status = await self._lane.send(daemon, policy.kind.value, policy.kind, event)
        if status is None:
            self._report.part(part, Stage.FAILED, f"not sent for a while: {MAX_UNANSWERED} sendings had no answer")
        elif status in TAKEN:
            self._report.part(part, Stage.ACCEPTED, f"accepted, generation {policy.generation}")
            return True
        elif status == PolicyStatus.NotEnabled:
            self._report.part(part, Stage.DISABLED, "KubeArmor's configuration disables this kind")
        else:
            detail = f"KubeArmor answered {word(status)} to generation {policy.generation}"
            self._report.part(part, Stage.FAILED, detail)
        return False

    def _wire(self, daemon: Daemon) -> Wire:
        seen = self._lookup.blocking if self._settings.tables is Tables.READ else _every
        return Wire(partial(self._push, daemon), partial(self._delete, daemon, Kind.NETWORK), seen, self._aside)

    async def _delete(self, daemon: Daemon, kind: Kind, policy: Sendable | None) -> None:
        if policy is None:
            return
        event = await self._aside(lambda: render_event(EventType.DELETED, policy))
        status = await self._lane.delete(daemon, kind, event)
        if status not in GONE:
            what = f"KubeArmor answered {word(status)} to the deletion of {policy.name}"
            raise BackendError(NAME, what, transient=True)

    # Reading back

    async def _check_shown(self, daemon: Daemon) -> None:
        """Verified when the probe shows our generations with what they said, and a security module enforces
        them."""
        if self._host is None and not self._documents.known:
            return
        shown = await self._shown(daemon)
        if self._withdrawn:
            return
        lsm = await self._evidence.lsm()
        if self._host is not None:
            self._check_host(self._host, shown.get(self._host.name), lsm)
        sent = self._documents.networks() if self._settings.tables is Tables.READ else ()
        lost = self._documents.check(shown, await self._lookup.documents(sent), lsm)
        if lost:
            self._drift.found(f"{lost} behind our back")
            self._wake.set()
        self._documents.tell(self._drift.waiting)

    def _check_host(self, policy: HostPolicy, found: Shown | None, lsm: Lsm) -> None:
        stands = found is not None and found.generation == policy.generation and same(policy, found)
        if stands:
            self._host_seen = True
            stage, detail = judged(lsm, f"the probe shows generation {policy.generation}")
            self._report.part(Part.HOST, stage, detail)
            return
        how = (
            "no longer shows"
            if found is None or found.generation != policy.generation
            else "shows another text for"
        )
        what = f"the probe {how} generation {policy.generation} of {policy.name}"
        self._report.part(Part.HOST, Stage.FAILED, what)
        if self._host_seen:
            self._host = None  # sent anew by the next turn
            self._report.repaired()
            self._drift.found(f"{what}: deleted or edited behind our back")
            self._wake.set()

    async def _check_network(self, *, again: bool) -> None:
        """Verified when both families' chains hold our rules. When they do not and nothing was sent just now, they
        are sent ``again`` with a new generation (KubeArmor skips what is identical); once per check, so that a
        rule set frozen by somebody's bad policy is not rebuilt in a loop."""
        parts = self._network.standing
        try:
            wrong = await self._lookup.deviation(*parts, absent=self._network.names[: len(parts) - 1])
        except (BackendError, DocumentRefused) as error:
            detail = f"accepted, generation {max(part.generation for part in parts)}; not read back: {error}"
            self._report.part(Part.NETWORK, Stage.ACCEPTED, detail)
            return
        if not wrong:
            self._verified = True
            self._report.part(Part.NETWORK, Stage.VERIFIED, f"nftables holds the rules of {self._network}")
            return
        if again and self._verified:
            self._verified = False
            self._report.repaired()
            self._drift.found(wrong)
        waits = self._drift.waiting
        later = f"; changed again and again: sent anew in {waits:.0f} s" if waits else ""
        self._report.part(Part.NETWORK, Stage.FAILED, wrong + later)
        if again and not waits:
            self._declared = None
            self._network.forget()
            self._wake.set()

    def _settle(self) -> None:
        """A whole turn went well."""
        if self._fallen:
            self._drift.tell("drift", f"everything was sent again after KubeArmor had gone away: {self._fallen}")
            self._fallen = ""
        self._settled = True

    def _fell(self, error: BackendError, attempt: int) -> float:
        """Report the trouble; return the seconds to wait, jittered so that restarts do not march in step."""
        trouble = error.trouble if isinstance(error, DaemonError) else None
        absent = trouble in {Trouble.ABSENT, Trouble.CRASHED}
        stage = Stage.ABSENT if absent else Stage.FAILED if trouble is Trouble.KUBERNETES else Stage.CONNECTING
        self._report.stage(stage, error.what)
        settings = self._settings
        pause: float = min(settings.retry_max, settings.retry_min * 2 ** min(attempt, 16))
        if self._settled or trouble is Trouble.CRASHED:
            self._report.restarted()
            self._fallen = error.what
            self._drift.tell("backend-error", f"KubeArmor stopped, restarted or crashed: {error.what}")
        if trouble is Trouble.CRASHED:
            pause = max(pause, settings.crash_backoff)
        return pause * (1 + secrets.randbelow(1000) / 4000)


async def _every(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(names)


async def _end(task: asyncio.Task[object]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
