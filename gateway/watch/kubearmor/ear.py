"""Listens to one KubeArmor daemon: connect, read, tell on; on any trouble, later again.

The streams have no history, no numbers and no cursor: what was said while nobody listened is gone, and nothing
follows from silence (interface 1.8). A subscriber that reads slower than the daemon speaks loses what does not fit
into the daemon's queue of 1,000, in silence; so the ear reads up to its budget whatever the rest of the service
does, and counts what it lets go. What must not live here: policies, whom an alert is about, what follows from one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from gateway.control.ports import Clock
from gateway.core.errors import BackendError
from gateway.core.model import Instant
from gateway.kubearmor.alerts import AlertRefused, RuntimeAlert
from gateway.watch.kubearmor.limits import Budget, SourceLimit, Tally
from gateway.watch.kubearmor.streams import STREAMS, Stream

#: Bytes of one message: an alert quotes arguments and paths, kilobytes at most. A larger one ends its stream.
MESSAGE_BYTES = 1 << 20

#: Seconds for a connection; a daemon that starts takes connections long before it serves.
CONNECT_SECONDS = 15.0
#: Seconds between attempts, doubled after each that failed, each shortened at random by up to half: daemons that
#: restart together are not met by everybody at once.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: Seconds; a connection that stood for so long begins the pauses anew.
STEADY_SECONDS = 30.0
#: Characters of the library's own text.
DETAIL_MOST = 240

Hear = Callable[[RuntimeAlert, Instant], None]


@dataclass(frozen=True, slots=True)
class EarSettings:
    """``streams`` by name. ``most``: alerts read in a second, ``most_beside`` logs and as many messages; what they
    cost the loop is measured in ``docs/bench.md``. ``per_source``: alerts of one address, container or host told on
    in a second, so that one that is loud leaves room for the others. Times in seconds."""

    streams: tuple[str, ...] = tuple(STREAMS)
    most: int = 500
    most_beside: int = 100
    per_source: int = 200
    first_pause: float = FIRST_PAUSE
    longest_pause: float = LONGEST_PAUSE


class _Lost(Exception):
    """The connection to the daemon is gone; the text says how."""


class Ear:
    """One daemon's listener; ``run`` until cancelled. ``tally`` counts, ``state`` is for people."""

    def __init__(
        self,
        settings: EarSettings,
        clock: Clock,
        connect: Callable[[], grpc.aio.Channel],
        hear: Hear,
        lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``connect`` makes a channel (``BackendError``: not now); ``hear`` takes each alert at the moment at which
        it was read; ``lost`` is told when streams that stood ended with their connection."""
        self._settings = settings
        self._clock = clock
        self._connect = connect
        self._hear = hear
        self._lost = lost
        self._limit = SourceLimit(settings.per_source)
        self._trouble = "not connected yet"
        self._ailing: dict[str, str] = {}
        self.tally = Tally(settings.streams)

    def state(self) -> str:
        """One sentence for people."""
        tally = self.tally
        heard = ", ".join(f"{tally.heard[name]} {name}" for name in tally.streams)
        gone = ", ".join(f"{number} {reason}" for reason, number in tally.lost.items() if number)
        said = f"heard {heard}" + (f"; lost {gone}" if gone else "")
        if not tally.up:
            return f"not listening: {self._trouble}; {said}"
        ailing = "".join(f"; {name}: {why}" for name, why in self._ailing.items())
        return f"listening to {', '.join(name for name in tally.streams if name in tally.up)}; {said}{ailing}"

    async def run(self) -> None:
        """Listen until cancelled."""
        pause = self._settings.first_pause
        while True:
            began = self._clock.now().boot
            try:
                channel = self._connect()
            except BackendError as error:
                self._trouble = error.what
            else:
                try:
                    await self._session(channel)
                except _Lost as lost:
                    self._trouble = str(lost)
                finally:
                    await channel.close()
            if self._clock.now().boot - began >= STEADY_SECONDS:
                pause = self._settings.first_pause
            await _rest(pause)
            pause = min(pause * 2, self._settings.longest_pause)

    async def _session(self, channel: grpc.aio.Channel) -> None:
        """Listen on one connection until it is gone. Raises ``_Lost``.

        Whether a stream was taken cannot be seen of the stream itself: the daemon sends the answer's headers with
        the first message (seen with the daemon), so it counts as open while the connection stands and it has not
        ended.
        """
        await _connected(channel)
        streams = [STREAMS[name] for name in self._settings.streams]
        tasks: list[asyncio.Task[None]] = []
        try:
            tasks += [asyncio.create_task(self._follow(channel, each), name=f"ear-{each.name}") for each in streams]
            tasks.append(asyncio.create_task(_gone(channel), name="ear-connection"))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stood = set(self.tally.up)
            self._ailing.clear()
            self.tally.up.clear()
            await _ended(tasks)
        self._told_of_loss(stood, tasks)

    def _told_of_loss(self, stood: set[str], tasks: Sequence[asyncio.Task[None]]) -> None:
        for name in stood:
            self.tally.breaks[name] += 1
        failures = [task.exception() for task in tasks if task.done() and not task.cancelled()]
        why = next((failure for failure in failures if failure is not None), None)
        if why is not None and not isinstance(why, _Lost):
            raise why
        said = str(why or "the connection was closed")
        self._lost(f"KubeArmor's streams ended ({said})")
        raise _Lost(said)

    async def _follow(self, channel: grpc.aio.Channel, stream: Stream) -> None:
        """Keep one stream open on a connection that stands. Raises ``_Lost`` with the connection."""
        pause = self._settings.first_pause
        while True:
            began = self._clock.now().boot
            self.tally.up.add(stream.name)
            try:
                await self._read(channel, stream)
                why = "the daemon ended it"
            except grpc.aio.AioRpcError as error:
                why = f"{error.code().name}: {(error.details() or '').strip()[:DETAIL_MOST]}"
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    raise _Lost(why) from error
            self.tally.up.discard(stream.name)
            self.tally.breaks[stream.name] += 1
            self._ailing[stream.name] = why
            if self._clock.now().boot - began >= STEADY_SECONDS:
                pause = self._settings.first_pause
            await _rest(pause)
            pause = min(pause * 2, self._settings.longest_pause)

    async def _read(self, channel: grpc.aio.Channel, stream: Stream) -> None:
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(stream.method)
        call = method(stream.request)
        budget = Budget(self._settings.most if stream.name == "alerts" else self._settings.most_beside)
        try:
            while isinstance(data := await call.read(), bytes):
                self._ailing.pop(stream.name, None)
                now = self._clock.now()
                self._take(stream, data, now)
                wait = budget.take(now.boot)
                if wait:
                    self.tally.pauses[stream.name] += 1
                    await asyncio.sleep(wait)
        finally:
            call.cancel()

    def _take(self, stream: Stream, data: bytes, now: Instant) -> None:
        tally = self.tally
        tally.heard[stream.name] += 1
        try:
            alert = stream.read(data)
        except AlertRefused:
            tally.lost["malformed"] += 1
            return
        if alert is None:
            return
        if alert.what == "throttled":
            tally.lost["throttled"] += 1
        if not self._limit.takes(alert.source or alert.subject, now.boot):
            tally.lost["source"] += 1
            return
        self._hear(alert, now)


async def _connected(channel: grpc.aio.Channel) -> None:
    """Wait until a connection stands. Raises ``_Lost``."""
    ready, failed = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            while (state := channel.get_state(try_to_connect=True)) is not ready:
                if state is failed:
                    raise _Lost(await _why(channel))
                await channel.wait_for_state_change(state)
    except TimeoutError as error:
        msg = f"no connection within {CONNECT_SECONDS:g} s"
        raise _Lost(msg) from error


async def _why(channel: grpc.aio.Channel) -> str:
    """Why a channel cannot connect: only a call is told."""
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(STREAMS["messages"].method)
    call = method(STREAMS["messages"].request)
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {(error.details() or '').strip()[:DETAIL_MOST]}"
    finally:
        call.cancel()
    return "the connection stands by now"


async def _gone(channel: grpc.aio.Channel) -> None:
    """Raise ``_Lost`` once a connection that stood is gone."""
    while (state := channel.get_state()) is grpc.ChannelConnectivity.READY:
        await channel.wait_for_state_change(state)
    msg = "the connection was closed"
    raise _Lost(msg)


async def _rest(pause: float) -> None:
    await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, hides nothing


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
