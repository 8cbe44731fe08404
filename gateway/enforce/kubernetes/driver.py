"""Keeps a cluster's objects at the newest truth, and says honestly how far that got.

One task follows each kind: list, watch from there, list anew when that place in history is forgotten. One task
writes: one request at a time, newest wins, paced. What a failed request means decides what follows: soon again,
when the server says, when somebody may have mended it, or not for a long while.
What must not live here: documents and how a cluster takes them, requests, what differs.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from gateway.control.ports import Clock, Notice
from gateway.core.errors import BackendError
from gateway.core.model import Address
from gateway.enforce.kubernetes import objects
from gateway.enforce.kubernetes.access import Access
from gateway.enforce.kubernetes.client import Api, ApiError, Trouble
from gateway.enforce.kubernetes.ledger import Ledger, Stage, Step
from gateway.enforce.kubernetes.objects import Key, Kind, Object
from gateway.enforce.kubernetes.report import Report
from gateway.enforce.kubernetes.settings import NAME, KubernetesSettings
from gateway.enforce.kubernetes.truth import Truth
from gateway.kubearmor.documents import Document
from gateway.kubearmor.network import Scope

#: Seconds between two looks at what waits, whatever the reason.
_LOOK = 30.0

#: Troubles with one document, and not with the API server.
_OF_ONE = frozenset(
    {
        Trouble.FORBIDDEN,
        Trouble.MISSING,
        Trouble.CONFLICT,
        Trouble.GONE,
        Trouble.INVALID,
        Trouble.ODD,
        Trouble.BROKEN,  # perhaps over this very document: the others are not kept waiting
    }
)


class Outcome(NamedTuple):
    """How far the objects of one profile got at this cluster."""

    stage: Stage
    detail: str


class _Renew(Exception):
    """The API server does not know us any more: read anew who we are."""


class KubernetesAdvisory:
    """Implements the ``Advisory`` port against one cluster.

    ``access`` reads how the cluster is reached, at every (re)start of work: what it names is replaced now and then.
    ``scope`` is what our own network policy gates, where ``settings.nodes`` says on which nodes. ``tell`` takes
    notices on the loop.
    """

    def __init__(
        self,
        settings: KubernetesSettings,
        access: Callable[[], Access],
        clock: Clock,
        scope: Scope,
        tell: Callable[[Notice], None],
    ) -> None:
        self._settings = settings
        self._access = access
        self._clock = clock
        self._tell = tell
        self._ledger = Ledger(settings)
        self._report = Report(settings, clock, self._ledger)
        self._truth = Truth(settings, scope)
        self._admitted: frozenset[Address] | None = None
        self._documents: tuple[Document, ...] | None = None
        self._declared = 0
        self._wake = asyncio.Event()
        self._renew = asyncio.Event()
        self._told: dict[str, str] = {}
        self._withdrawn = False

    @property
    def name(self) -> str:
        """``kubernetes``: the ``backend`` label of metrics."""
        return NAME

    @property
    def target(self) -> str:
        """The name of the target."""
        return self._settings.target

    def declare(self, admitted: frozenset[Address]) -> None:
        """Take the newest truth: addresses admitted now."""
        if self._settings.nodes is not None and admitted != self._admitted:
            self._admitted = admitted
            self._changed()

    def declare_documents(self, documents: Sequence[Document], absent: frozenset[str] = frozenset()) -> None:  # noqa: ARG002 - of the port
        """Take the newest truth: the documents of profiles that stand now. ``absent`` is of no use here: what is
        ours is known by its labels."""
        self._documents = tuple(documents)
        self._changed()

    def _changed(self) -> None:
        self._declared += 1
        self._wake.set()

    def state(self) -> Mapping[str, str]:
        """``state`` connecting, absent, failed, waiting, accepted, idle or withdrawn; ``detail``; ``accepted``,
        ``pending``, ``failed``, ``repairs``, ``relists``; ``since`` (wall)."""
        return self._report.view()

    def counts(self) -> Mapping[str, int]:
        """How many objects got how far, by ``Stage``."""
        return self._report.counts()

    @property
    def watching(self) -> bool:
        """Whether changes of all kinds are being told to us now."""
        return self._report.watching

    def outcome(self, profile: str) -> Outcome | None:
        """How far the objects got that devices with ``profile`` have to do with; None: there are none here."""
        shown = list(self._ledger.shown(profile))
        if not shown:
            return None
        worst = next(
            stage
            for stage in (Stage.FAILED, Stage.PENDING, Stage.ACCEPTED)
            if any(each.stage is stage for each in shown)
        )
        of = [each for each in shown if each.stage is worst]
        more = f"; {len(of) - 1} more" if len(of) > 1 else ""
        return Outcome(worst, f"{of[0].key}: {of[0].detail}{more}{self._report.beyond()}")

    async def run(self) -> None:
        """Work until cancelled. Trouble with the API server is reported and tried again; only bugs escape."""
        attempt = 0
        while True:
            self._renew.clear()
            try:
                async with Api(self._access(), self._settings) as api:
                    await self._session(api)
            except BackendError as error:
                self._trouble("access", error.what)
                self._report.lost(error.what)
            attempt = 0 if self._report.reached else attempt + 1
            await asyncio.sleep(self._pause(attempt))

    async def withdraw(self) -> None:
        """Delete what is ours and declare nothing more; idempotent. Raises ``BackendError`` when that is not
        possible: what is left keeps standing."""
        self._withdrawn = True
        async with Api(self._access(), self._settings) as api:
            for kind in Kind:
                try:
                    listed = await api.list(kind)
                except ApiError as error:
                    if error.trouble is Trouble.MISSING:  # the cluster does not know the kind: there are none
                        continue
                    raise
                for key, thing in listed.objects.items():
                    await api.delete(key, objects.uid_of(thing))
        self._report.withdrawn()

    # --- one session ------------------------------------------------------------------------------------

    async def _session(self, api: Api) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for kind in Kind:
                    tasks.create_task(self._follow(api, kind), name=f"kubernetes-{kind.value}")
                tasks.create_task(self._write(api), name="kubernetes-write")
                await self._renew.wait()
                raise _Renew
        except* _Renew:
            pass

    async def _follow(self, api: Api, kind: Kind) -> None:
        """Know what stands of one kind, for as long as the session lasts."""
        loop = asyncio.get_running_loop()
        version, attempt = "", 0
        while True:
            began = loop.time()
            try:
                if not version:
                    listed = await api.list(kind)
                    version = listed.version
                    self._ledger.listed(kind, listed.objects)
                    self._report.following(kind)
                    self._mended(kind.value)
                    self._wake.set()
                async with contextlib.aclosing(api.watch(kind, version)) as changes:
                    async for change in changes:
                        version = change.version or version
                        attempt = 0
                        self._report.following(kind)
                        self._mended(kind.value)
                        self._ledger.saw(change)
                        self._wake.set()
                attempt = 0 if loop.time() - began > 1.0 else attempt + 1
                pause = self._pause(attempt) if attempt else 0.0
            except BackendError as error:
                pause = self._stumbled(kind, error, attempt)
                if isinstance(error, ApiError) and error.trouble is Trouble.GONE:
                    version = ""
                    self._report.relisted()
                attempt += 1
            await asyncio.sleep(pause)

    def _stumbled(self, kind: Kind, error: BackendError, attempt: int) -> float:
        """Take the trouble of a follower; return the seconds to wait."""
        trouble = error.trouble if isinstance(error, ApiError) else None
        if trouble is Trouble.GONE and not attempt:
            return 0.0  # an ordinary event in the life of a watch
        self._report.stumbled(kind, error.what, reached=trouble not in (None, Trouble.DOWN))
        if trouble is not Trouble.MISSING or self._ledger_wants(kind):
            self._trouble(kind.value, error.what)
        if trouble is Trouble.DENIED:
            self._renew.set()
        if trouble in (Trouble.FORBIDDEN, Trouble.MISSING):
            return self._settings.again * _jitter()
        return self._after(error, attempt)

    def _ledger_wants(self, kind: Kind) -> bool:
        return any(each.key.kind is kind for each in self._ledger.shown())

    # --- writing ----------------------------------------------------------------------------------------

    async def _write(self, api: Api) -> None:
        """Bring the cluster to what is wanted, again and again."""
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            self._wake.clear()
            began = loop.time()
            try:
                await self._turn(api)
            except BackendError as error:
                self._trouble("write", error.what)
                trouble = error.trouble if isinstance(error, ApiError) else None
                self._report.stumbled(None, error.what, reached=trouble not in (None, Trouble.DOWN))
                if trouble is Trouble.DENIED:
                    self._renew.set()
                await asyncio.sleep(self._after(error, attempt))
                attempt += 1
                continue
            attempt = 0
            spent = loop.time() - began
            await asyncio.sleep(max(self._settings.pace, spent * (1 / self._settings.share - 1)))
            due = self._ledger.due(loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK if due is None else min(_LOOK, due)):
                    await self._wake.wait()

    async def _turn(self, api: Api) -> None:
        """Make what is wanted, and do what follows. Raises ``BackendError`` for trouble with the server itself."""
        if self._withdrawn:
            self._report.withdrawn()
            return
        loop = asyncio.get_running_loop()
        number = self._declared
        made = await asyncio.to_thread(self._truth.make, self._documents, self._admitted)
        self._ledger.want(made.things, made.refused, made.keep)
        for key, why in made.refused.items():
            self._trouble(str(key), why)
        for step in list(self._ledger.steps(loop.time())):
            if number != self._declared or self._withdrawn:
                return  # there is a newer truth already; its declaration has set the alarm
            try:
                await self._take(api, step)
            except ApiError as error:
                if error.trouble not in _OF_ONE:
                    raise
                self._failed(step, error)
        self._report.wrote()
        self._mended("write")

    def _failed(self, step: Step, error: ApiError) -> None:
        waits = {Trouble.INVALID: self._settings.invalid, Trouble.ODD: self._settings.invalid}
        waits |= dict.fromkeys((Trouble.CONFLICT, Trouble.GONE), self._settings.pace)
        waits[Trouble.BROKEN] = 4 * self._settings.retry_min
        wait = waits.get(error.trouble, self._settings.again)
        self._give_up(step.key, step.thing, error.what, wait)

    def _give_up(self, key: Key, thing: Object | None, why: str, wait: float) -> None:
        if self._ledger.failed(key, thing, why, asyncio.get_running_loop().time() + wait):
            self._notice("backend-error", why)

    async def _take(self, api: Api, step: Step) -> None:
        key, thing = step.key, step.thing
        if thing is None:
            await api.delete(key, step.uid)
            self._ledger.gone(key)
            return
        force = bool(step.drift) and step.known
        if not step.known:
            found = await api.get(key)
            if found is not None and not objects.is_ours(found, self._settings.owner):
                why = f"{key} exists and is not ours: another gateway's, or somebody's own; it is left alone"
                self._give_up(key, thing, why, self._settings.again)
                return
            force = found is not None
        answer, seized = await self._apply(api, thing, force=force)
        answer, stripped = await self._alone(api, key, thing, answer)
        if not objects.covers(answer.get("spec"), thing["spec"]):
            why = f"{key}: the API server stored something else than was sent: its schema is another one"
            self._give_up(key, thing, why, self._settings.invalid)
            return
        self._ledger.stored(key, thing, answer)
        drift = step.drift or ("had been edited" if seized or stripped else "")
        if drift:
            self._repaired(key, drift)

    async def _apply(self, api: Api, thing: Object, *, force: bool) -> tuple[Object, bool]:
        """Apply; what others hold of an object that is ours is taken back. Returns also whether that was so."""
        if force:
            return await api.apply(thing, force=True), False
        try:
            return await api.apply(thing), False
        except ApiError as error:
            if error.trouble is not Trouble.CONFLICT or not error.fields:
                raise
        return await api.apply(thing, force=True), True

    async def _alone(self, api: Api, key: Key, thing: Object, answer: Object) -> tuple[Object, bool]:
        """Take away what others have added beside our fields: applying leaves that alone. What the server itself
        puts there (defaults of a schema) comes back and is left."""
        beside = objects.extras(answer["spec"], thing["spec"])
        if not beside:
            return answer, False
        stripped = await api.strip(key, beside, objects.version_of(answer))
        return stripped, stripped.get("spec") != answer.get("spec")

    def _repaired(self, key: Key, drift: str) -> None:
        self._report.repaired()
        self._notice("drift", f"{key} {drift}: put back")
        if self._ledger.repaired(key, asyncio.get_running_loop().time()):
            window = self._settings.storm_window
            what = (
                f"{key} was put back {self._settings.storm_free} times within {window:g} s: somebody fights over it"
            )
            self._notice("backend-error", f"{what}; repairs of it wait longer and longer from here on")

    # --- trouble ----------------------------------------------------------------------------------------

    def _after(self, error: BackendError, attempt: int) -> float:
        if isinstance(error, ApiError) and error.after:
            return min(error.after, self._settings.throttled_max) + secrets.randbelow(1000) / 1000
        return self._pause(attempt)

    def _pause(self, attempt: int) -> float:
        return min(self._settings.retry_max, self._settings.retry_min * 2.0 ** min(attempt, 16)) * _jitter()

    def _trouble(self, where: str, what: str) -> None:
        """Tell of trouble once, however long it lasts."""
        if self._told.get(where) != what:
            self._told[where] = what
            self._notice("backend-error", what)

    def _mended(self, where: str) -> None:
        self._told.pop(where, None)

    def _notice(self, kind: str, what: str) -> None:
        self._tell(Notice(kind, NAME, f"target {self._settings.target}: {what}", self._clock.now().wall))


def _jitter() -> float:
    """So that many gateways do not come back to one API server in step."""
    return 1 + secrets.randbelow(1000) / 4000
