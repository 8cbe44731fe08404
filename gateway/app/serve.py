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
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from gateway.app import build
from gateway.app import link as linking
from gateway.app.clock import SystemClock, boot_id
from gateway.app.link import Link
from gateway.app.logs import configure_logging
from gateway.app.reload import Reloader
from gateway.config import Config
from gateway.console.api import Console, Windows
from gateway.console.log import Log
from gateway.console.metrics import Metrics
from gateway.console.operator import OperatorWindow
from gateway.control.admit import AdmissionLimits, Admit
from gateway.control.alarms import RESOURCES, Alarms
from gateway.control.clockwork import Clockwork
from gateway.control.devices import Devices
from gateway.control.explained import Explainer
from gateway.control.overrides import Overrides
from gateway.control.ports import Advisory, Health, Notice, Observer
from gateway.control.reconcile import Reconciler
from gateway.control.running import Books, RunningBook
from gateway.control.site import Site
from gateway.control.start import restore
from gateway.core.errors import RagateError
from gateway.enforce.nft import NftBackend
from gateway.intake.sediment import SedimentDoor
from gateway.journal import SqliteJournal
from gateway.watch.bypass import BypassWatch
from gateway.watch.resources import ResourceWatch, Sampler

FLUSH_SECONDS = 2.0
"""At an orderly stop, how long verdicts already taken may need to become durable and reach the gates; what stands
there holds until its lease anyway."""

YOUNG_OBJECTS = 50_000
"""Allocations between collections of the youngest generation: at 10,000 alerts a second the default of 700 would
collect every millisecond and, now and then, walk every device."""


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


SWITCH_SECONDS = 0.0005
"""How long a busy thread may keep the interpreter from another that has work: a verdict changes threads four times
(journal and lane, there and back), and Python's 5 ms each time would be the whole latency under load."""

BUG = 70
"""Exit code after an undeclared error (``EX_SOFTWARE`` of ``sysexits.h``)."""


class _Service:
    def __init__(self, config: Config, console_fd: int | None) -> None:
        self._config = config
        self._console_fd = console_fd
        self._clock = SystemClock()
        self._ready = False
        self._link: Link | None = None
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
        config, clock = self._config, self._clock
        boot = boot_id()
        self.metrics = Metrics(CollectorRegistry(), [source.name for source in config.sources])
        journal = SqliteJournal(
            config.journal,
            loop=asyncio.get_running_loop(),
            clock=clock,
            boot_id=boot,
            on_commit=self.metrics.journal_committed,
        )
        loaded = journal.load()
        observers: Sequence[Observer] = (self.metrics, Log(clock))
        devices = Devices(config.devices, config.book, rules := build.rules(config), journal, clock, observers)
        gate = Reconciler(
            build.path_gate(config, clock),
            target=config.target.name,
            clock=clock,
            lease=config.target.lease,
            report=devices.enforced,
            notice=devices.notice,
            required=config.target.required,
        )
        devices.add_gate(gate)
        watch = ResourceWatch(Sampler(config.journal.parent), self.metrics.loop_lagged)
        gates = [gate]  # those of other hosts join below
        overrides = Overrides(devices, gates, journal, clock, observers)
        alarms = Alarms(devices, watch.usage)
        site = Site(devices, alarms)
        first = RunningBook(devices.book, config.library, config.digest, str(config.book_path), clock.now().wall)
        self.books = Books(first)
        reloader = self._reloader = Reloader(
            config, self.books, devices, [gate], journal, clock, build.layer(config, gate.backend)
        )
        admit = Admit(
            build.authenticators(config),
            devices,
            journal,
            observers,
            clock,
            AdmissionLimits(queue=config.door.limits.queue),
        )
        door: SedimentDoor | None = None
        try:
            # What the operator has to mend is found before anything is enforced. Nothing is read at the door yet.
            layer = build.kubearmor(config, clock)
            door = build.door(config, admit, clock, devices.notice)
            self._parts = (journal, devices, gate, admit, door)
            self._link = linking.make_link(config, devices, gates, clock, devices.notice)
            self._levels = (overrides, site)
            overrides.remember(loaded)
            await restore(devices, loaded, [gate], journal, clock, rules, boot)
            await linking.start(self._link, devices)
            advisories: Sequence[Advisory] = () if layer is None else (layer,)
            site.turn(clock.now())
            clockwork = Clockwork(
                devices, [gate], journal, clock, advisories, loaded.highest_wall, (overrides, site, alarms)
            )
            bypass = self._bypass = build.bypass_watch(config, self._around)
            if bypass is not None:
                self.books.followers.append(lambda running: bypass.aim(build.routed(running.book)))
            self._wire_metrics(watch)
            for each in advisories:
                self.metrics.add_backend(each.name)
            await self._work(clockwork, watch, advisories, reloader)
        finally:
            if door is not None:
                door.close()
            devices.stop()
            await linking.stop(self._link)
            overrides.stop()
            try:
                await gate.backend.stop()
            finally:
                await journal.close()

    def _wire_metrics(self, watch: ResourceWatch) -> None:
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
        metrics.add_queue("admission", lambda: admit.depth)
        metrics.add_queue("journal", lambda: journal.pending)
        metrics.add_queue("cut", lambda: gate.cut_depth)
        metrics.add_queue("apply", lambda: gate.depth)
        metrics.add_queue("backlog", door.backlog)
        metrics.add_queue("connections", lambda: door.open_connections)
        forwarder = door.forwarder
        if forwarder is not None:
            metrics.add_queue("forward", lambda: forwarder.queued)
            metrics.set_forwarding(forwarder.counts)
        link = self._link
        if link is not None:
            for remote in link.gates:
                metrics.add_target(remote.target, remote.backend.name)
            hub = link.hub
            metrics.add_queue("waiting", lambda: gate.parked)
            metrics.set_agents(lambda: {name: (one.attached, one.resources) for name, one in hub.states().items()})
            metrics.set_certificates(lambda: linking.certificate_ends(link))

    async def _work(
        self, clockwork: Clockwork, watch: ResourceWatch, advisories: Sequence[Advisory], reloader: Reloader
    ) -> None:
        journal, devices, gate, admit, door = self._parts
        overrides, site = self._levels
        behind = () if self._link is None else self._link.gates
        explainer = Explainer(devices, (gate, *behind), self._clock)
        inventory = tuple(device.id for device in self._config.devices)
        windows = Windows(
            directory=devices,
            history=journal.history,
            inventory=lambda: inventory,
            health=lambda: [*self._health(advisories), reloader.health()],
            exposition=self.metrics.exposition,
            explained=explainer.explained,
            site=site.now,
            book=reloader.view,
        )
        console = Console(windows, self._console_listen(), self._config.console.hosts)
        place = self._config.operator
        operator = OperatorWindow(windows, devices, overrides, place.socket, place.group, reload=reloader.ask)
        _settle_garbage()
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await console.start()
        await operator.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                link = self._link
                parts = (
                    () if link is None else (link.material.run, link.hub.run, *(each.run for each in link.gates))
                )
                hands = [
                    tasks.create_task(gate.run(), name="gate"),
                    *(tasks.create_task(run(), name="link") for run in parts),
                    tasks.create_task(watch.run(), name="watch"),
                    *([] if self._bypass is None else [tasks.create_task(self._bypass.run(), name="bypass")]),
                    *(tasks.create_task(each.run(), name=each.name) for each in advisories),
                ]
                clock_task = tasks.create_task(clockwork.run(), name="clockwork")
                door_task = tasks.create_task(door.run(), name="door")
                reload_task = tasks.create_task(reloader.run(), name="reload")
                self._ready = True
                self._log.info("ready", console=console.address, doors=door.addresses, devices=len(inventory))
                await _first(stop.wait(), door_task, clock_task, reload_task, *hands)
                self._ready = False
                await _ended(reload_task)
                await _ended(door_task)
                admit.drain()
                await _ended(clock_task)
                with suppress(TimeoutError):
                    async with asyncio.timeout(FLUSH_SECONDS):
                        await devices.flush()
                        await gate.flush()
                        for remote in () if link is None else link.gates:
                            if not remote.unreachable:
                                await remote.flush()
                for task in hands:
                    await _ended(task)
        finally:
            await operator.stop()
            await console.stop()
        self._log.info("stopped; admissions end with their leases")

    def _console_listen(self) -> tuple[str, int] | socket.socket:
        if self._console_fd is None:
            return self._config.console.listen
        return socket.socket(fileno=self._console_fd)

    def _health(self, advisories: Sequence[Advisory]) -> Sequence[Health]:
        journal, devices, gate, _, door = self._parts
        _, site = self._levels
        lines = [
            Health("journal", journal.writable, "written" if journal.writable else "cannot be written"),
            Health("doors", self._ready and not door.paused, "taking alerts" if self._ready else "not open"),
            Health("standings", devices.may_raise, devices.why_not if not devices.may_raise else "restored"),
            Health(f"gate {gate.target}", gate.failing == 0, _of_the_gate(gate)),
        ]
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
        for each in advisories:
            told = each.state()
            # An advisory layer never makes the service unready: it does not count for admission.
            lines.append(Health(f"advisory {each.name}", True, f"{told.get('state')}: {told.get('detail', '')}"))
        return lines

    def _around(self, sentence: str) -> None:
        """A way around the path gate opened or closed: from here on every device is shown accordingly."""
        _, devices, gate, _, _ = self._parts
        gate.obstacle = "" if self._bypass is None else self._bypass.state
        devices.notice(Notice("bypass", gate.target, sentence, self._clock.now().wall))
        devices.commit()


def _of_the_gate(gate: Reconciler) -> str:
    remark = gate.backend.remark if isinstance(gate.backend, NftBackend) else ""
    return f"{gate.backend.name}: {gate.failing} addresses failing" + (f"; {remark}" if remark else "")


def _settle_garbage() -> None:
    """What was loaded stays for good: never walk it again looking for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 100)
    gc.enable()


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
