"""``ragate serve``: every part started in order, run, and stopped in order.

Order of start: memory, hands, standings restored, clockwork, windows, doors. Order of stop: doors, clockwork,
hands, memory; enforcement stays in the kernel with its leases. What must not live here: making parts.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import structlog
import uvloop

from gateway.app import link as linking
from gateway.app.assembly import Assembly
from gateway.app.logs import configure_logging
from gateway.app.process import SWITCH_SECONDS, collect_at_rest, settle_garbage
from gateway.app.readiness import health
from gateway.app.tasks import declared, ended, first
from gateway.app.windows import make_windows
from gateway.app.wiring import wire
from gateway.config import Config
from gateway.console.api import Console
from gateway.control.ports import Health

FLUSH_SECONDS = 2.0
"""At an orderly stop, how long verdicts already taken may need to become durable and reach the gates; what stands
there holds until its lease anyway."""

BUG = 70
"""Exit code after an undeclared error (``EX_SOFTWARE`` of ``sysexits.h``)."""


def serve(config: Config, *, console_fd: int | None = None) -> int:
    """Run the service until SIGTERM or SIGINT; returns the exit code.

    ``console_fd`` is a listening socket for the console, made in another network namespace, say. Raises
    ``ConfigError``, ``JournalError`` or ``BackendError`` when it cannot start.
    """
    configure_logging()
    # What is loaded at start stays: looking for garbage in it would double the time until the gate is kept again.
    gc.disable()
    sys.setswitchinterval(SWITCH_SECONDS)
    return uvloop.run(Service(config, console_fd).run())


class Service:
    """One service on the running loop. ``ready``: whether the doors are open."""

    def __init__(self, config: Config, console_fd: int | None) -> None:
        self.ready = False
        self._config = config
        self._console_fd = console_fd
        self._parts: Assembly | None = None
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
            await ended(work)
        error = None if work.cancelled() else work.exception()
        if error is not None:
            told = declared(error)
            if told is not None:
                raise told
            context = {"message": "a part of the service ended by a bug", "exception": error}
            stop_on_bug(asyncio.get_running_loop(), context)
        return BUG if bugs else 0

    def _hangup(self) -> None:
        if self._parts is not None:  # before that the book has only just been read
            self._parts.reloader.hangup()

    @property
    def parts(self) -> Assembly:
        """Its parts, from the first step of ``run`` on."""
        assert self._parts is not None, "nothing was made yet"
        return self._parts

    async def _run(self) -> None:
        parts = self._parts = Assembly(self._config)
        try:
            await parts.open(self._console_fd)
            await parts.restore()
            wire(parts)
            await self._work()
        finally:
            await parts.close()

    async def _work(self) -> None:
        """Windows, then everything else, until the signal or until a part ended; then all of it in order."""
        console, operator = make_windows(self.parts, self.health, self._hosts())
        settle_garbage()
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await console.start()
        await operator.start()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = _begin(group, self.parts)
                self.ready = True
                self._tell_ready(console)
                await first(stop.wait(), *tasks.every)
                self.ready = False
                await _end(tasks, self.parts)
        finally:
            await operator.stop()
            await console.stop()
        self._log.info("stopped; admissions end with their leases")

    def _tell_ready(self, console: Console) -> None:
        parts = self.parts
        addresses = [*parts.door.addresses, *(() if parts.relying is None else parts.relying.addresses)]
        places = {each.name: each.addresses for each in parts.posting}
        count = len(self._config.devices)
        self._log.info("ready", console=console.address, doors=addresses, devices=count, **places)

    def health(self) -> Sequence[Health]:
        """One line for each part."""
        return health(self.parts, ready=self.ready)

    def _hosts(self) -> Sequence[str]:
        """The names by which the console may be asked."""
        console = self._config.console
        return console.hosts if self._console_fd is not None else (*console.hosts, console.listen.host)


class _Tasks(NamedTuple):
    """What runs, by when it ends."""

    reload: asyncio.Task[None]
    hints: Sequence[asyncio.Task[None]]
    doors: Sequence[asyncio.Task[None]]
    clock: asyncio.Task[None]
    hands: Sequence[asyncio.Task[None]]

    @property
    def every(self) -> Sequence[asyncio.Task[None]]:
        return (*self.doors, self.clock, self.reload, *self.hands, *self.hints)


def _begin(group: asyncio.TaskGroup, parts: Assembly) -> _Tasks:
    """Start everything: hands first, so that what comes in by the doors is enforced."""
    hands = [
        group.create_task(parts.gate.run(), name="gate"),
        *(group.create_task(run(), name="link") for run in linking.runs(parts.link)),
        group.create_task(parts.watch.run(), name="watch"),
        *(group.create_task(each.run(), name=each.name) for each in parts.layers.values()),
    ]
    hands.append(group.create_task(collect_at_rest(lambda: _at_rest(parts)), name="garbage"))
    for name, part in (
        ("bypass", parts.bypass),
        ("documents", parts.documents),
        ("relying-forward", parts.forwarder),
    ):
        if part is not None:
            hands.append(group.create_task(part.run(), name=name))
    clock = group.create_task(parts.clockwork.run(), name="clockwork")
    doors = [group.create_task(each.run(), name=each.name) for each in parts.posting]
    doors.append(group.create_task(parts.door.run(), name="door"))
    if parts.relying is not None:
        doors.append(group.create_task(parts.relying.run(), name="relying"))
    reload = group.create_task(parts.reloader.run(), name="reload")
    hinting = (*parts.hinting.runs(), *parts.listening.runs())
    hints = [group.create_task(run(), name=name) for name, run in hinting]
    return _Tasks(reload, hints, doors, clock, hands)


def _at_rest(parts: Assembly) -> bool:
    return not parts.admit.depth and parts.devices.at_rest


async def _end(tasks: _Tasks, parts: Assembly) -> None:
    """End everything, those who bring verdicts first: what was taken is judged, kept and enforced."""
    await ended(tasks.reload)
    for task in (*tasks.hints, *tasks.doors):
        await ended(task)
    if parts.forwarder is not None:
        await parts.forwarder.finish()
    parts.admit.drain()
    parts.listening.finish()
    await ended(tasks.clock)
    with suppress(TimeoutError):
        async with asyncio.timeout(FLUSH_SECONDS):
            await parts.devices.flush()
            await parts.gate.flush()
            await linking.flush(parts.link)
    for task in tasks.hands:
        await ended(task)
