"""``ragate serve``: every part made once, started in order, stopped in order.

Order of start: memory, hands, standings restored, clockwork, windows, doors. Order of stop: doors, clockwork,
hands, memory; enforcement stays in the kernel with its leases.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from gateway.app import build, descriptors
from gateway.app import clusters as clustering
from gateway.app import link as linking
from gateway.app.build import PostingDoor
from gateway.app.clock import SystemClock, boot_id
from gateway.app.hinting import Hinting
from gateway.app.hinting import inquiries as build_inquiries
from gateway.app.link import Link
from gateway.app.listening import Listening
from gateway.app.logs import configure_logging
from gateway.app.process import SWITCH_SECONDS, settle_garbage
from gateway.app.reload import Reloader
from gateway.config import Config
from gateway.console.api import Console, Windows, bind
from gateway.console.log import Log
from gateway.console.metrics import Metrics
from gateway.console.operator import OperatorWindow
from gateway.control.admit import AdmissionLimits, Admit
from gateway.control.alarms import RESOURCES, Alarms
from gateway.control.clockwork import Clockwork
from gateway.control.devices import Devices
from gateway.control.documents import Documents, TakesDocuments
from gateway.control.explained import Explainer
from gateway.control.overrides import Overrides
from gateway.control.ports import Advisory, Health, Loaded, Notice, Observer, StandingsFollower
from gateway.control.reconcile import Reconciler
from gateway.control.running import Books, RunningBook
from gateway.control.shown import advised
from gateway.control.site import Site
from gateway.control.start import restore
from gateway.core.errors import JournalError, RagateError
from gateway.enforce.kubearmor import KubeArmorAdvisory
from gateway.enforce.nft import NftBackend
from gateway.intake.sediment import Forwarder, SedimentDoor
from gateway.journal import SqliteJournal
from gateway.relying import RelyingDoor
from gateway.watch.bypass import BypassWatch
from gateway.watch.resources import ResourceWatch, Sampler

KEPT_SECONDS = 5.0
"""Seconds that an operator's act may take to become durable before the answer says that it is not."""
FLUSH_SECONDS = 2.0
"""At an orderly stop, how long verdicts already taken may need to become durable and reach the gates; what stands
there holds until its lease anyway."""


def serve(config: Config, *, console_fd: int | None = None) -> int:
    """Run the service until SIGTERM or SIGINT; returns the exit code.

    ``console_fd`` is a listening socket for the console, made in another network namespace, say. Raises
    ``ConfigError``, ``JournalError`` or ``BackendError`` when it cannot start.
    """
    configure_logging()
    # What is loaded at start stays: looking for garbage in it would double the time until the gate is kept again.
    gc.disable()
    sys.setswitchinterval(SWITCH_SECONDS)
    return uvloop.run(_Service(config, console_fd).run())


BUG = 70
"""Exit code after an undeclared error (``EX_SOFTWARE`` of ``sysexits.h``)."""


class _Service:
    def __init__(self, config: Config, console_fd: int | None) -> None:
        self._config = config
        self._console_fd = console_fd
        self._posting: Sequence[PostingDoor] = ()
        self._clock = SystemClock()
        self._ready = False
        self._link: Link | None = None
        self._clusters: clustering.Clusters = {}
        self._relying: RelyingDoor | None = None
        self._forwarder: Forwarder | None = None
        self._reloader: Reloader | None = None
        self._bypass: BypassWatch | None = None
        self._log = structlog.get_logger("ragate")

    async def run(self) -> int:
        """Work until told to stop. A bug stops the process; the kernel's deadlines outlive it."""
        work = asyncio.ensure_future(self._run())
        bugs: list[dict[str, Any]] = []

        def stop_on_bug(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            loop.default_exception_handler(context)
            bugs.append(context)
            if len(bugs) == 1:  # a second one must not keep the parts from ending in order
                work.cancel()

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(stop_on_bug)
        # Its default would end a service that is still starting.
        loop.add_signal_handler(signal.SIGHUP, self._hangup)
        try:
            await asyncio.wait((work,))
        finally:
            await _ended(work)
        error = None if work.cancelled() else work.exception()
        if error is not None:
            declared = _declared(error)
            if declared is not None:
                raise declared
            context = {"message": "a part of the service ended by a bug", "exception": error}
            stop_on_bug(asyncio.get_running_loop(), context)
        return BUG if bugs else 0

    def _hangup(self) -> None:
        if self._reloader is not None:  # before that the book has only just been read
            self._reloader.hangup()

    async def _run(self) -> None:
        config, clock, boot, rules = self._config, self._clock, boot_id(), build.rules(self._config)
        self.metrics = Metrics(CollectorRegistry(), [*rules])
        journal = SqliteJournal(
            config.journal,
            loop=asyncio.get_running_loop(),
            clock=clock,
            boot_id=boot,
            on_commit=self.metrics.journal_committed,
        )
        loaded = journal.load()
        inquiries = build_inquiries(config, clock)
        observers: Sequence[Observer] = (self.metrics, Log(clock), inquiries)
        devices = Devices(config.devices, config.book, rules, journal, clock, observers)
        gate = self._local_gate(devices)
        watch = ResourceWatch(Sampler(config.journal.parent), self.metrics.loop_lagged)
        overrides = Overrides(devices, self._gates, journal, clock, observers)
        alarms = Alarms(devices, watch.usage)
        site = Site(devices, alarms)
        reloader = self._reloading(devices, gate, journal)
        admit = Admit(
            build.authenticators(config),
            devices,
            journal,
            observers,
            clock,
            AdmissionLimits(queue=config.door.limits.queue),
            openers=build.openers(config),
        )
        door: SedimentDoor | None = None
        hinting: Hinting | None = None
        console: socket.socket | None = None
        try:
            # What the operator has to mend is found before anything is enforced. Nothing is read at the door yet.
            layers = self._layers(devices)
            listening = self._listening = Listening(config, admit, devices, layers, clock)
            door = build.door(config, admit, clock, devices.notice)
            self._posting = self._open_posting(admit, devices)
            hinting = self._hinting = Hinting(config, inquiries, admit, devices, clock)
            console = await self._console_socket()
            self._parts = (journal, devices, gate, admit, door)
            self._link = linking.make_link(config, devices, self._gates, clock, devices.notice, listening.inboxes)
            standings = self._open_relying(loaded)
            self._levels = (overrides, site)
            overrides.remember(loaded)
            await restore(devices, loaded, [gate], journal, clock, rules, boot)
            await linking.start(self._link, devices)
            devices.tell_standings(standings)
            advisories: Sequence[Advisory] = tuple(layers.values())
            site.turn(clock.now())
            clockwork = Clockwork(
                devices,
                [gate],
                journal,
                clock,
                advisories,
                loaded.highest_wall,
                (overrides, site, alarms, listening.alerts),
            )
            documents = self._documents({**listening.layers, **linking.layers(self._link)})
            self._follow_books(documents)
            self._wire_metrics(watch, layers)
            await self._work(clockwork, watch, advisories, reloader, documents, console)
        finally:
            _close(console, door, self._relying, hinting, *self._posting)
            devices.stop()
            await linking.stop(self._link)
            overrides.stop()
            try:
                await gate.backend.stop()
            finally:
                await journal.close()

    def _open_posting(self, admit: Admit, devices: Devices) -> Sequence[PostingDoor]:
        """The doors for posted documents, and descriptors enough for the connections of all doors."""
        short = descriptors.make_room(descriptors.wanted(self._config))
        if short:
            devices.notice(Notice("descriptors", "descriptors", short, self._clock.now().wall))
        return build.posting(self._config, admit, self._clock, devices.notice)

    def _open_relying(self, loaded: Loaded) -> StandingsFollower | None:
        """Open the relying party's port, where it is ours; returns who must be told of standings."""
        relying, (_, devices, _, admit, _) = self._config.relying, self._parts
        if relying is None:
            return None
        standings = build.standings(devices, self._clock, self.books)
        standings.remember(build.still_wanted(self._config, loaded))
        self._forwarder = build.relying_forwarder(self._config, self._clock, devices.notice)
        self._relying = build.relying_door(
            self._config, relying, standings, admit, self._clock, self._forwarder, loaded.highest_wall
        )
        return standings

    def _local_gate(self, devices: Devices) -> Reconciler:
        """The path gate of this host; those of other hosts join later."""
        target = self._config.target
        gate = Reconciler(
            build.path_gate(self._config, self._clock),
            target=target.name,
            clock=self._clock,
            lease=target.lease,
            report=devices.enforced,
            notice=devices.notice,
            required=target.required,
        )
        devices.add_gate(gate)
        self._gates = [gate]
        return gate

    def _reloading(self, devices: Devices, gate: Reconciler, journal: SqliteJournal) -> Reloader:
        """Who has the book read again, and the book that runs."""
        config, clock = self._config, self._clock
        first = RunningBook(devices.book, config.library, config.digest, str(config.book_path), clock.now().wall)
        self.books = Books(first)
        lay = build.layer(config, gate.backend)
        self._reloader = Reloader(config, self.books, devices, [gate], journal, clock, lay)
        return self._reloader

    def _layers(self, devices: Devices) -> Mapping[str, Advisory]:
        """The layers that never count for admission, by the target that each is at. Raises ``ConfigError``."""
        config = self._config

        def told(notice: Notice) -> None:
            _told(devices, notice)

        here = build.kubearmor(config, self._clock, told)
        self._clusters = clustering.make(config, self._clock, told)
        devices.beside += [] if here is None else [advised(config.target.name, here)]
        devices.beside += [clustering.beside(each) for each in self._clusters.values()]
        return {**({} if here is None else {config.target.name: here}), **self._clusters}

    def _documents(self, layers: Mapping[str, TakesDocuments]) -> Documents | None:
        """Who keeps the documents of profiles at KubeArmor: here, in clusters, and at agents' hosts."""
        if not layers:
            return None
        _, devices, _, _, _ = self._parts
        _, site = self._levels
        config, target = self._config, self._config.target.name
        made = build.renderer(config.library, config.book, target, self._clusters)
        documents = Documents(devices, made, layers, self._clock, lambda: site.profile)
        site.watch(lambda _: documents.wake())
        return documents

    def _follow_books(self, documents: Documents | None) -> None:
        """Tell the parts that keep something of the book when another one runs."""
        bypass = self._bypass = build.bypass_watch(self._config, self._around)
        if bypass is not None:
            self.books.followers.append(lambda running: bypass.aim(build.routed(running.book)))
        if documents is not None:
            target = self._config.target.name
            self.books.followers.append(
                lambda running: documents.use(build.renderer(running.library, running.book, target, self._clusters))
            )

    def _wire_metrics(self, watch: ResourceWatch, layers: Mapping[str, Advisory]) -> None:
        for target, each in layers.items():
            if target in self._clusters:
                self.metrics.add_backend(each.name)  # its objects are counted by set_clusters
            else:
                self.metrics.set_advisory(target, each.name, each.state)
        for target, taker in linking.layers(self._link).items():
            self.metrics.set_advisory(target, taker.name, taker.state)
        journal, devices, gate, admit, door = self._parts
        metrics = self.metrics
        metrics.add_target(gate.target, gate.backend.name)
        metrics.set_journal(lambda: journal.writable)
        metrics.set_devices(devices.counts)
        metrics.set_resources(watch.current)
        overrides, site = self._levels
        metrics.set_overrides(lambda: overrides.count)
        metrics.set_site(site.now, site.known, RESOURCES)
        metrics.set_book(self.books)
        bypass = self._bypass
        metrics.set_bypasses(gate.target, lambda: 0 if bypass is None else len(bypass.found))
        backend = gate.backend
        metrics.set_spoofed(gate.target, lambda: backend.spoofed if isinstance(backend, NftBackend) else 0)
        metrics.add_queue("admission", lambda: admit.depth)
        metrics.add_queue("journal", lambda: journal.pending)
        metrics.add_queue("cut", lambda: gate.cut_depth)
        metrics.add_queue("apply", lambda: gate.depth)
        metrics.add_queue("strays", lambda: gate.drifts.depth)
        metrics.add_queue("backlog", door.backlog)
        metrics.add_queue("connections", lambda: door.open_connections)
        for posted in self._posting:
            metrics.add_queue(posted.name, posted.depth)
        self._hinting.wire(metrics)
        self._listening.wire(metrics)
        forwarder = door.forwarder
        if forwarder is not None:
            metrics.add_queue("forward", lambda: forwarder.queued)
            metrics.set_forwarding(forwarder.counts)
        link = self._link
        if link is not None:
            for remote in link.gates:
                metrics.add_target(remote.target, remote.backend.name)
                metrics.set_bypasses(remote.target, linking.bypasses(remote))
            hub = link.hub
            metrics.add_queue("waiting", lambda: gate.parked)
            metrics.set_agents(lambda: {name: (one.attached, one.resources) for name, one in hub.states().items()})
        if link is not None or self._posting:
            metrics.set_certificates(self._certificate_ends)
        if self._clusters:
            metrics.set_clusters(lambda: clustering.counted(self._clusters))
        relying = self._relying
        if relying is not None:
            metrics.add_queue("relying_connections", lambda: relying.open_connections)
            metrics.add_queue("relying_unsent_bytes", lambda: relying.unsent)
            metrics.set_relying(lambda: build.relying_counts(relying))

    async def _work(
        self,
        clockwork: Clockwork,
        watch: ResourceWatch,
        advisories: Sequence[Advisory],
        reloader: Reloader,
        documents: Documents | None,
        listen: socket.socket,
    ) -> None:
        _, devices, gate, admit, door = self._parts
        console, operator = self._windows(advisories, reloader, listen)
        settle_garbage()
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await console.start()
        await operator.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                hands = [
                    tasks.create_task(gate.run(), name="gate"),
                    *(tasks.create_task(run(), name="link") for run in linking.runs(self._link)),
                    tasks.create_task(watch.run(), name="watch"),
                    *([] if self._bypass is None else [tasks.create_task(self._bypass.run(), name="bypass")]),
                    *(tasks.create_task(each.run(), name=each.name) for each in advisories),
                ]
                if documents is not None:
                    hands.append(tasks.create_task(documents.run(), name="documents"))
                clock_task = tasks.create_task(clockwork.run(), name="clockwork")
                door_tasks = [tasks.create_task(each.run(), name=each.name) for each in self._posting]
                door_tasks.append(tasks.create_task(door.run(), name="door"))
                addresses = door.addresses
                if self._relying is not None:
                    addresses = [*addresses, *self._relying.addresses]
                    door_tasks.append(tasks.create_task(self._relying.run(), name="relying"))
                if self._forwarder is not None:
                    hands.append(tasks.create_task(self._forwarder.run(), name="relying-forward"))
                reload_task = tasks.create_task(reloader.run(), name="reload")
                hinting = (*self._hinting.runs(), *self._listening.runs())
                hint_tasks = [tasks.create_task(run(), name=name) for name, run in hinting]
                self._ready = True
                places = {each.name: each.addresses for each in self._posting}
                count = len(self._config.devices)
                self._log.info("ready", console=console.address, doors=addresses, devices=count, **places)
                await _first(stop.wait(), *door_tasks, clock_task, reload_task, *hands, *hint_tasks)
                self._ready = False
                await _ended(reload_task)
                for task in (*hint_tasks, *door_tasks):
                    await _ended(task)
                if self._forwarder is not None:
                    await self._forwarder.finish()
                admit.drain()
                self._listening.finish()
                await _ended(clock_task)
                with suppress(TimeoutError):
                    async with asyncio.timeout(FLUSH_SECONDS):
                        await devices.flush()
                        await gate.flush()
                        await linking.flush(self._link)
                for task in hands:
                    await _ended(task)
        finally:
            await operator.stop()
            await console.stop()
        self._log.info("stopped; admissions end with their leases")

    def _windows(
        self, advisories: Sequence[Advisory], reloader: Reloader, listen: socket.socket
    ) -> tuple[Console, OperatorWindow]:
        """Where people and programs look in, and where operators act."""
        journal, devices, _, _, _ = self._parts
        overrides, site = self._levels
        layers = {each.name: each.prove for each in advisories if isinstance(each, KubeArmorAdvisory)}
        explainer = Explainer(devices, self._gates, self._clock, layers)
        inventory = tuple(device.id for device in self._config.devices)
        windows = Windows(
            directory=devices,
            history=journal.history,
            inventory=lambda: inventory,
            health=lambda: [*self._health(advisories), reloader.health()],
            exposition=self.metrics.exposition,
            explained=explainer.explained,
            proven=explainer.proven,
            site=site.now,
            book=reloader.view,
        )
        console = Console(windows, listen, self._console_hosts())
        place = self._config.operator
        asking = (self._hinting.asking,)
        operator = OperatorWindow(
            windows,
            devices,
            overrides,
            place.socket,
            place.group,
            reload=reloader.ask,
            further=asking,
            kept=self._kept,
        )
        return console, operator

    async def _kept(self) -> str:
        """Wait until the journal has what was handed to it so far; why it has not, "" when it has."""
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def settled(error: JournalError | None) -> None:
            if not done.done():
                done.set_result("" if error is None else str(error))

        try:
            self._parts[0].record((), settled)
            async with asyncio.timeout(KEPT_SECONDS):
                return await done
        except TimeoutError:
            return f"the journal has not answered for {KEPT_SECONDS:g} s"
        except JournalError as error:
            return str(error)

    async def _console_socket(self) -> socket.socket:
        """Bound from here on, and listened on later. Raises ``ConfigError`` when it cannot be."""
        if self._console_fd is None:
            return await bind(self._config.console.listen)
        return socket.socket(fileno=self._console_fd)

    def _console_hosts(self) -> Sequence[str]:
        console = self._config.console
        return console.hosts if self._console_fd is not None else (*console.hosts, console.listen.host)

    def _health(self, advisories: Sequence[Advisory]) -> Sequence[Health]:
        journal, devices, gate, _, door = self._parts
        _, site = self._levels
        lines = [
            Health("journal", journal.writable, "written" if journal.writable else "cannot be written"),
            Health("doors", self._ready and not door.paused, "taking alerts" if self._ready else "not open"),
            Health("standings", devices.may_raise, devices.why_not if not devices.may_raise else "restored"),
            Health(f"gate {gate.target}", gate.failing == 0, _of_the_gate(gate)),
        ]
        lines += [Health(f"door {each.name}", each.serving, each.state()) for each in self._posting]
        if self._link is not None:
            lines += linking.health(self._link, self._config)
        # A site in lockdown does what it is meant to do: that is no reason to take it out of service.
        lines.append(Health("site", True, f"{site.profile}: {site.chain[-1]}"))
        lines += [Health(f"resource {name}", True, said) for name, said in site.now().alarms.items()]
        if self._bypass is not None:
            state = self._bypass.state
            lines.append(Health("bypass", not state, state or "no way around the path gate is known"))
        if door.forwarder is not None:
            # Somebody else's relying party being away is no reason to take ours out of service.
            lines.append(Health("forwarding", True, door.forwarder.state()))
        if self._relying is not None:
            detail = f"{self._relying.open_connections} connections of devices"
            lines.append(Health("relying party", self._ready, detail if self._ready else "not open"))
        if self._forwarder is not None:
            lines.append(Health("relying forwarding", True, self._forwarder.state()))
        lines.extend(self._hinting.health())
        lines.extend(self._listening.health())
        for each in advisories:
            told = each.state()
            # An advisory layer never makes the service unready: it does not count for admission.
            part = clustering.part_of(each, self._clusters)
            lines.append(Health(part, True, f"{told.get('state')}: {told.get('detail', '')}"))
        return lines

    def _certificate_ends(self) -> Mapping[str, float]:
        """Until when each certificate in use lasts, UNIX seconds: those of the doors, and those of the link."""
        ends = {f"door {each.name}": each.tls.current.not_after for each in self._posting}
        return ends if self._link is None else {**ends, **linking.certificate_ends(self._link)}

    def _around(self, sentence: str) -> None:
        """A way around the path gate opened or closed: from here on every device is shown accordingly."""
        _, devices, gate, _, _ = self._parts
        gate.obstacle = "" if self._bypass is None else self._bypass.state
        devices.notice(Notice("bypass", gate.target, sentence, self._clock.now().wall))
        devices.commit()


def _told(devices: Devices, notice: Notice) -> None:
    """Journal and show at once what a layer says of itself: no verdict need come along."""
    devices.notice(notice)
    devices.commit()


def _of_the_gate(gate: Reconciler) -> str:
    remark = ""
    if isinstance(gate.backend, NftBackend):
        spoofed = gate.backend.spoofed
        told = f"{spoofed:,} packets with a device's source came from elsewhere and were dropped" if spoofed else ""
        remark = "; ".join(filter(None, (gate.backend.remark, told)))
    if gate.drifts.storming:
        told = "somebody keeps changing what is enforced; it is repaired every few seconds"
        remark = "; ".join(filter(None, (remark, told)))
    return f"{gate.backend.name}: {gate.failing} addresses failing" + (f"; {remark}" if remark else "")


def _close(*parts: socket.socket | SedimentDoor | RelyingDoor | PostingDoor | Hinting | None) -> None:
    """Close what was opened."""
    for part in parts:
        if part is not None:
            part.close()


def _declared(error: BaseException) -> RagateError | None:
    """The declared error that ended the parts, when no other did."""
    if isinstance(error, RagateError):
        return error
    if isinstance(error, BaseExceptionGroup) and error.split(RagateError)[1] is None:
        return _declared(error.exceptions[0])
    return None


async def _first(stopped: Awaitable[Any], *tasks: asyncio.Task[None]) -> None:
    """Wait for the signal, or for a part that ended though nobody asked it to."""
    waiting = asyncio.ensure_future(stopped)
    await asyncio.wait((waiting, *tasks), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it has put its things in order; its own failure is the group's matter."""
    task.cancel()
    await asyncio.wait((task,))
