"""The story: devices attest, one is tampered with, repaired and let back in, one falls silent and lapses.

What lives here: the steps, each checked twice: against what the gateway says and against what the app server
heard. What must not: any way to make a step pass that did not happen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.simulate.device import Link, SurrogateDevice
from gateway.simulate.screen import Screen
from gateway.simulate.service import Api, Seen
from gateway.simulate.site import MAX_AGE, Site
from gateway.simulate.verifier import Attestation

ATTEST_PERIOD = 1.5
"""Seconds between two attestations of a healthy device: four of them fit into the maximum age."""

STEP_SECONDS = 20.0
"""The longest one step may take; on an idle machine each takes a few milliseconds."""

STILL_SECONDS = 0.4
"""For so long a shut path is watched: twenty messages would have come through in that time."""

CUT_SECONDS = 1.0
"""Data that arrives later than this after the verdict was not cut. Generous, so that a busy machine does not
spoil the story; what was really seen is printed."""

EARLY_SECONDS = 2.0
"""A device that may send and has not been heard for so long is cut: a hundred messages are missing."""

_POLL_SECONDS = 0.01


class StepFailedError(Exception):
    """A step did not happen. ``step`` names it, ``instead`` says what was seen."""

    def __init__(self, step: str, instead: str) -> None:
        super().__init__(f"{step}; instead: {instead}")
        self.step = step
        self.instead = instead


@dataclass
class Story:
    """Tells the story on ``screen``; ``tampered`` and ``silent`` name the devices that it happens to."""

    site: Site
    api: Api
    screen: Screen
    tampered: str = "cam-1"
    silent: str = "sensor-2"
    _paused: set[str] = field(default_factory=set)
    _connects: dict[str, list[int]] = field(default_factory=dict)
    _measured: dict[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._attesting = asyncio.Event()

    async def tell(self) -> None:
        """Tell it once. Raises ``StepFailedError`` or ``ServiceError``."""
        await self._shut_at_first()
        await self._everybody_attests()
        victim, silent = self.site.devices[self.tampered], self.site.devices[self.silent]
        silent.go_silent()
        # Silent since its only pass: from here on its deadline does not move.
        deadline = (await self.api.device(silent.id)).deadline
        if deadline is None:
            raise StepFailedError(f"a trusted {silent.id} has a deadline", "it has none")
        self._paused.add(victim.id)
        self._attesting.set()
        failure = await self._tamper(victim)
        await self._repair(victim, failure)
        self._paused.discard(victim.id)
        await self._lapse(silent, deadline)
        await self._others_untouched()

    async def keep_attesting(self) -> None:
        """Once everybody has attested, attest each device every ``ATTEST_PERIOD`` seconds, until cancelled."""
        devices = list(self.site.devices.values())
        await self._attesting.wait()
        while True:
            for device in devices:
                await asyncio.sleep(ATTEST_PERIOD / len(devices))
                if device.id not in self._paused:
                    await self.site.verifier.attest(device)

    async def _shut_at_first(self) -> None:
        step = "before the first attestation nothing gets through"
        await asyncio.sleep(STILL_SECONDS)
        heard = [name for name in self.site.devices if self.site.appserver.of(name).count]
        if heard:
            raise StepFailedError(step, f"DATA arrived from {', '.join(heard)}")
        for name in self.site.devices:
            seen = await self.api.device(name)
            if seen.standing != "unknown":
                raise StepFailedError(step, f"{name} is {seen}")
        tried = sum(max(link.sent, 1) for device in self.site.devices.values() for link in device.links)
        self.screen.event("all", "unknown", "-", None, f"nothing gets through: {tried} attempts, 0 arrived")

    async def _everybody_attests(self) -> None:
        devices = list(self.site.devices.values())
        made = [await self._attest(device) for device in devices]
        for device, attestation in zip(devices, made, strict=True):
            seen = await self._until(device, attestation, "trusted")
            await self._flows(device, f"data of {device.id} reaches the app server", attestation.sent_at)
            self._connects[device.id] = [link.connects for link in device.links]
            what = f"data arrives over {_ways(device.links)}"
            self._line(device, seen, attestation, what)

    async def _tamper(self, device: SurrogateDevice) -> Attestation:
        live = device.links
        await self._happens(
            f"{device.id} has live connections before it is tampered with",
            lambda: all(link.connected for link in live if not link.route.udp),
            lambda: f"not connected: {', '.join(str(link.route) for link in live if not link.connected)}",
        )
        device.tamper()
        attestation = await self._attest(device)
        seen = await self._until(device, attestation, "distrusted")
        last = await self._stays_shut(device, attestation.sent_at, f"the live flows of {device.id} stop")
        step = f"the live connections of {device.id} die"
        await self._happens(
            step,
            lambda: all(link.died_at > attestation.sent_at for link in live if not link.route.udp),
            lambda: f"still alive: {', '.join(str(link.route) for link in live if link.connected)}",
        )
        what = (
            f"tampered with: live {_ways(live)} dead, last DATA {_relative(last - attestation.sent_at)} the verdict"
        )
        self._line(device, seen, attestation, what)
        return attestation

    async def _repair(self, device: SurrogateDevice, failure: Attestation) -> None:
        device.repair()
        await _next_second_after(failure.issued_at)
        first = await self._attest(device)
        seen = await self._until(device, first, "distrusted", enforced=False)
        await self._stays_shut(device, first.sent_at, f"{device.id} stays shut after one pass")
        what = "repaired; first of two passes: still shut, nothing arrives"
        self._line(device, seen, first, what)
        await _next_second_after(first.issued_at)
        second = await self._attest(device)
        seen = await self._until(device, second, "trusted")
        arrived = await self._flows(device, f"data of {device.id} flows again", second.sent_at)
        what = f"second pass: let back in, data again {1000 * (arrived - second.sent_at):.0f} ms after it"
        self._line(device, seen, second, what)

    async def _lapse(self, device: SurrogateDevice, deadline: float) -> None:
        step = f"{device.id} lapses at its deadline"
        await asyncio.sleep(max(0.0, deadline - time.time()))
        seen = await self._seen(device, step, lambda seen: seen.standing == "lapsed")
        # Wall and monotonic clock are read together: the deadline is wall time, arrivals are not.
        deadline_at = deadline - time.time() + time.monotonic()
        last = await self._stays_shut(device, deadline_at, f"the live flow of {device.id} stops")
        if last < deadline_at - EARLY_SECONDS:
            instead = f"the last DATA arrived {_relative(last - deadline_at)} it"
            raise StepFailedError(f"data of {device.id} flows until its deadline", instead)
        await self._happens(
            f"the live connection of {device.id} dies",
            lambda: all(link.died_at > deadline_at - EARLY_SECONDS for link in device.links if not link.route.udp),
            lambda: f"still alive: {', '.join(str(link.route) for link in device.links if link.connected)}",
        )
        what = f"silent, no pass for {MAX_AGE} s: cut at its deadline, last DATA {_relative(last - deadline_at)} it"
        self.screen.event(device.id, seen.standing, "deadline", None, what)

    async def _others_untouched(self) -> None:
        for device in self.site.devices.values():
            if device.id in {self.tampered, self.silent}:
                continue
            seen = await self.api.device(device.id)
            age = time.monotonic() - self.site.appserver.of(device.id).last_at
            died = _died(device.links, self._connects[device.id])
            if seen.standing != "trusted" or age > EARLY_SECONDS or died:
                instead = f"{device.id} is {seen}; last DATA {age:.1f} s ago; died: {', '.join(died) or 'none'}"
                raise StepFailedError("the other devices are never interrupted", instead)

    async def _attest(self, device: SurrogateDevice) -> Attestation:
        attestation = await self.site.verifier.attest(device)
        if attestation is None or attestation.lost:
            lost = "the device is silent" if attestation is None else attestation.lost
            raise StepFailedError(f"the verifier's alert about {device.id} is sent", lost)
        return attestation

    async def _until(
        self, device: SurrogateDevice, verdict: Attestation, standing: str, *, enforced: bool = True
    ) -> Seen:
        """Wait until this verdict was taken, led to ``standing`` and was verified everywhere.

        ``enforced``: it had something to enforce, so the gateway must also have measured how long that took.
        """
        before = self._measured.get(device.id)

        def happened(seen: Seen) -> bool:
            measured = not enforced or seen.verified_ms not in (None, before)
            return seen.standing == standing and seen.verified and seen.issued_at == verdict.issued_at and measured

        return await self._seen(
            device, f"{device.id} becomes {standing} on {verdict.reason.name}, verified", happened
        )

    async def _seen(self, device: SurrogateDevice, step: str, happened: Callable[[Seen], bool]) -> Seen:
        end = time.monotonic() + STEP_SECONDS
        while not happened(seen := await self.api.device(device.id)):
            if time.monotonic() > end:
                raise StepFailedError(step, f"after {STEP_SECONDS:.0f} s {device.id} is {seen}")
            await asyncio.sleep(_POLL_SECONDS)
        return seen

    async def _happens(self, step: str, happened: Callable[[], bool], instead: Callable[[], str]) -> None:
        end = time.monotonic() + STEP_SECONDS
        while not happened():
            if time.monotonic() > end:
                raise StepFailedError(step, f"after {STEP_SECONDS:.0f} s {instead()}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _flows(self, device: SurrogateDevice, step: str, since: float) -> float:
        """Wait until every stream of ``device`` has been heard after ``since``; when the first one was."""
        first: dict[int, float] = {}

        def heard() -> bool:
            for number, link in enumerate(device.links):
                if (at := self.site.appserver.on(device.id, str(link.route)).last_at) > since:
                    first.setdefault(number, at)
            return len(first) == len(device.links)

        def missing() -> str:
            silent = [str(link.route) for n, link in enumerate(device.links) if n not in first]
            return f"nothing heard over {', '.join(silent)} of {device.id}"

        await self._happens(step, heard, missing)
        return min(first.values())

    async def _stays_shut(self, device: SurrogateDevice, since: float, step: str) -> float:
        """Watch that nothing arrives once ``CUT_SECONDS`` have passed since ``since``; when the last arrived."""
        await asyncio.sleep(max(0.0, since + CUT_SECONDS - time.monotonic()) + STILL_SECONDS)
        last = self.site.appserver.of(device.id).last_at
        if last > since + CUT_SECONDS:
            raise StepFailedError(step, f"DATA arrived {1000 * (last - since):.0f} ms after")
        return last

    def _line(self, device: SurrogateDevice, seen: Seen, verdict: Attestation, what: str) -> None:
        # The gateway keeps the figure of the last verdict that had something to enforce: unchanged, not this one.
        taken = seen.verified_ms if seen.verified_ms != self._measured.get(device.id) else None
        self._measured[device.id] = seen.verified_ms
        self.screen.event(device.id, seen.standing, verdict.reason.name, taken, what)


async def _next_second_after(issued_at: int) -> None:
    """Alerts carry whole seconds, and only a later second outranks what was issued in this one."""
    await asyncio.sleep(max(0.0, issued_at + 1 - time.time()) + _POLL_SECONDS)


def _relative(seconds: float) -> str:
    return f"{abs(1000 * seconds):.0f} ms {'before' if seconds < 0 else 'after'}"


def _ways(links: Sequence[Link]) -> str:
    ways = [link.route.way for link in links]
    return " and ".join([", ".join(ways[:-1]), ways[-1]] if ways[1:] else ways)


def _died(links: Sequence[Link], before: Sequence[int]) -> list[str]:
    return [str(link.route) for link, connects in zip(links, before, strict=True) if link.connects > connects]
