"""A gateway of real parts around a manual clock, fed with recordings, and what recording and design demand of it.

The expectation is worked out from the recorded fields alone, not by asking our lifecycle.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from gateway.console.metrics import Metrics
from gateway.control.admit import Admit
from gateway.control.clockwork import Clockwork
from gateway.control.devices import Devices
from gateway.control.ports import Answered, Fact, Observer, Step
from gateway.control.reconcile import Reconciler
from gateway.control.start import restore
from gateway.core.lifecycle import Rules
from gateway.core.model import (
    Address,
    AnchorKind,
    Binding,
    Device,
    DeviceId,
    Record,
    Rejected,
)
from gateway.core.policy import Book
from gateway.intake.sediment import DoorSettings, SedimentDoor, open_listeners
from gateway.journal import SqliteJournal
from gateway.sediment.authenticate import SedimentAuthenticator, SedimentSource
from tests.fakes.backend import FakeBackend
from tests.fakes.clock import ManualClock
from tests.sediment.recorded import SOURCE, VERIFIER_ID, Message, messages, published_hmac_keys, published_key

MAX_AGE = 900
LEASE = 3_600.0  # beyond every deadline here: what ends an admission in these tests is its deadline alone
VERIFIER = "127.0.0.2"
RULES = {SOURCE: Rules(max_age=MAX_AGE)}
BEFORE = 1_795_283_400.0

#: Which devices the recordings speak of; each gets an address, none of which any alert names.
INVENTORY = tuple(
    Device(name, SOURCE, Binding(name, (Address.parse(f"10.77.1.{n}"),), AnchorKind.UPSTREAM))
    for n, name in enumerate(sorted(published_hmac_keys()), 11)
)


def alerts() -> list[Message]:
    """Every recorded ALERT, in the order in which it arrived."""
    files = ("pass", "full-session", "failed-record-altered-on-demand", "requested", "synthetic")
    found = [message for file in files for message in messages(file) if message.kind == "ALERT"]
    return sorted(found, key=lambda message: float(message.about["captured_at"]))


# --- what design and recording together demand -------------------------------------------------------------------


@dataclass
class Expected:
    """One device as its recorded alerts alone make it: newest pass, newest failure, and what they mean."""

    passed: int = 0
    failed: int = 0
    seen: set[str] = field(default_factory=set)

    def take(self, alert: Mapping[str, Any], now: float) -> None:
        issued, reason = alert["timestamp"], alert["fields"]["reason"]
        if reason in ("FAILED_ATTEST", "FAILED_AUTH", "USER_REJECT"):
            self.failed = max(self.failed, issued)
        elif reason == "PASS" and now - 120 <= issued <= now + 2 and issued > max(self.passed, self.failed):
            assert not self.failed, "the recordings hold no recovery; the rule for it is not written down here"
            self.passed = issued

    def standing(self, now: float) -> str:
        if self.failed:
            return "distrusted"
        if not self.passed:
            return "unknown"
        return "trusted" if now < self.passed + MAX_AGE else "lapsed"

    def deadline(self, now: float) -> float | None:
        return self.passed + MAX_AGE if self.standing(now) == "trusted" else None


# --- a gateway of real parts -------------------------------------------------------------------------------------


class Seen:
    """An observer that counts messages judged (a verdict, or a refusal), and transitions under way."""

    def __init__(self) -> None:
        self.judged = 0
        self.under_way = 0

    def stepped(self, steps: Sequence[Step]) -> None:
        self.under_way += len(steps)
        self.judged += sum(transition.event.issued_at > 0 for transition, _, _ in steps)

    def enforced(self, outcomes: Sequence[Answered]) -> None:
        self.under_way -= len(outcomes)

    def observe(self, fact: Fact) -> None:
        self.judged += isinstance(fact, Rejected)


class Gate:
    """The parts as ``serve`` puts them together, around a manual clock."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        loop = asyncio.get_running_loop()
        self.clock = clock
        self.journal = SqliteJournal(path, loop=loop, clock=clock, boot_id="one boot")
        self.loaded = self.journal.load()
        self.metrics = Metrics(CollectorRegistry(), [SOURCE])
        book = Book(node_default="admitted", suspect="deny")
        self.seen = Seen()
        observers: Sequence[Observer] = (self.metrics, self.seen)
        self.devices = Devices(INVENTORY, book, RULES, self.journal, clock, observers)
        self.backend = FakeBackend(clock)
        self.reconciler = Reconciler(
            self.backend,
            target="gateway",
            clock=clock,
            lease=LEASE,
            report=self.devices.enforced,
            notice=self.devices.notice,
        )
        self.devices.add_gate(self.reconciler)
        # The published key is refused by the configuration; these parts are handed it directly.
        source = SedimentSource(SOURCE, published_key(), VERIFIER_ID)
        authenticator = SedimentAuthenticator(source, published_hmac_keys())
        self.admit = Admit({SOURCE: authenticator}, self.devices, self.journal, observers, clock)
        self.clockwork = Clockwork(self.devices, [self.reconciler], self.journal, clock)
        settings = DoorSettings(peers=(), verifiers={ipaddress.ip_network(VERIFIER): SOURCE}, frame_seconds=0.5)
        self.door = SedimentDoor(open_listeners(["127.0.0.1:0"]), self.admit, clock, settings, self.devices.notice)
        self.handled = 0

    async def rejected(self) -> Counter[str]:
        """Refusals so far, by named reason, as a scrape of the metrics shows them."""
        text = (await self.metrics.exposition()).decode()
        found: Counter[str] = Counter()
        for sample in re.finditer(r"^ragate_rejections_total\{(.+)\} (\S+)$", text, re.MULTILINE):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', sample[1]))
            if labels["source"] == SOURCE and float(sample[2]):
                found[labels["reason"]] = int(float(sample[2]))
        return found

    def set_clock(self, wall: float) -> None:
        """Both clocks move on; setting the clock back is ``ManualClock.jump``."""
        self.clock.advance(wall - self.clock.wall)
        self.clockwork.turn()

    async def feed(self, frame: bytes, peer: str = VERIFIER) -> None:
        """One connection, one message; returns when it is judged, and what it changed journalled and enforced."""
        await self.send(frame, peer)
        self.handled += 1
        async with asyncio.timeout(60):
            while self.seen.judged < self.handled:
                await asyncio.sleep(0.001)
        await self.settled()

    async def send(self, frame: bytes, peer: str = VERIFIER) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            connection.bind((peer, 0))
            loop = asyncio.get_running_loop()
            await loop.sock_connect(connection, self.door.addresses[0])
            await loop.sock_sendall(connection, frame)

    async def settled(self) -> None:
        async with asyncio.timeout(60):
            while self.seen.under_way:
                await asyncio.sleep(0.001)

    def standings(self) -> dict[str, str]:
        return {view.device.id: view.decision.standing.label for view in self.devices.views()}

    def records(self) -> dict[DeviceId, Record]:
        return {view.device.id: view.records[SOURCE] for view in self.devices.views()}

    def admitted(self) -> set[str]:
        inside = self.backend
        return {d.id for d in INVENTORY if inside.stands(d.binding.addresses[0]).profile}

    async def facts(self) -> Sequence[Mapping[str, Any]]:
        return await self.journal.history.facts(0, 10_000)


@asynccontextmanager
async def gate(path: Path, clock: ManualClock) -> AsyncIterator[Gate]:
    made = Gate(path, clock)
    await restore(
        made.devices, made.loaded, [made.reconciler], made.journal, clock, RULES, made.loaded.boot_id or "one boot"
    )
    tasks = [asyncio.create_task(made.reconciler.run()), asyncio.create_task(made.door.run())]
    await asyncio.sleep(0)
    try:
        yield made
        assert not any(task.done() for task in tasks), "door and gate still run"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await made.journal.close()


async def replay(inside: Gate) -> dict[str, Expected]:
    """Everything at its time, every standing checked after every message; returns what is expected."""
    expected = {device.id: Expected() for device in INVENTORY}
    for alert in alerts():
        now = float(alert.about["captured_at"])
        inside.set_clock(now)
        await inside.feed(alert.frame)
        about = alert.about["decoded"]
        if about["device_id"] in expected:
            expected[DeviceId(about["device_id"])].take(about, now)
        demanded = {name: one.standing(now) for name, one in expected.items()}
        assert inside.standings() == demanded, alert.name
        assert inside.admitted() == {name for name, standing in demanded.items() if standing == "trusted"}
    return {str(name): one for name, one in expected.items()}
