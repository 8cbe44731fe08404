"""Random verdicts, random kills of gateway, agent and KubeArmor, and what must stand when the dust has settled.

What lives here: sending, killing, starting again, the last comparison. What must not: judging samples.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from gateway.core.model import DeviceId, Standing
from gateway.journal import SqliteJournal
from gateway.sediment.compose import compose_message, evidence_endpoint, sign_alert_body
from gateway.sediment.wire import MessageId, Reason
from gateway.simulate.child import command
from tests.bench.alerts import percentile
from tests.chaos.watch import Connections, Elements, Ledger, Word, sampling
from tests.e2e.hosts import Hosts, attached
from tests.e2e.installed import PATIENCE, PORT, SERVERS, VERIFIER, Running, clean_environment, until
from tests.e2e.kernel import tombstones
from tests.netns import KernelClock, Site, Space
from tests.soak.model import Kind, Sent
from tests.soak.site import Kernel

MAX_AGE = 130.0
"""Seconds: ten more than the clock window, so that a pass dated back lapses while we look."""
GATEWAY_LEASE, APP_LEASE = 16, 12
"""Seconds: a restart takes two to four here, and admissions shall live through some and end in others."""
PER_SECOND = 40.0
STRANGER = "10.77.1.99"
FIRST = 100
"""Last part of the first device's address."""
MOST_DEVICES = 150
WATCH_PAUSE = 0.02
BOUNDARY = 2.0
"""Seconds around a deadline in which the last comparison leaves a device out."""
_TOMBSTONED = frozenset({Standing.DISTRUSTED, Standing.SUSPECT, Standing.HELD})
_KINDS = {
    Reason.PASS: Kind.PASS,
    Reason.FAILED_ATTEST: Kind.FAIL,
    Reason.USER_REJECT: Kind.FAIL,
    Reason.REQUESTED: Kind.NOTE,
    Reason.TIME_OUT: Kind.NOTE,
}


class Size(NamedTuple):
    """How much of everything. ``strangers``: devices of the inventory that never attest; ``kubearmor``: whether its
    policy is compared at the end, too, for which its pauses after a crash have to be waited out."""

    verdicts: int
    devices: int
    kills: int
    strangers: int
    kubearmor: bool


LONG = Size(5_000, 120, 60, 4, kubearmor=True)
SHORT = Size(200, 24, 3, 2, kubearmor=False)


def places(count: int) -> dict[str, tuple[str, ...]]:
    """Devices and their addresses: IPv4; every fourth IPv6; every tenth both."""
    found: dict[str, tuple[str, ...]] = {}
    for number in range(count):
        four, six = f"10.77.1.{FIRST + number}", f"fd77:1::{FIRST + number:x}"
        addresses = (four, six) if number % 10 == 0 else ((six,) if number % 4 == 3 else (four,))
        found[f"cam-{number:03d}"] = addresses
    return found


class Victims:
    """The three processes: killed with SIGKILL, started again. ``stack`` ends what is left at the end."""

    def __init__(self, hosts: Hosts, space: Space, folder: Path, ledger: Ledger, stack: ExitStack) -> None:
        self.hosts = hosts
        self.kubearmor_folder = folder
        self._space = space
        self._ledger = ledger
        self._stack = stack
        self._kubearmor: subprocess.Popen[bytes] | None = None
        self.service: Running | None = None
        self.killed_at = 0.0
        folder.mkdir()

    def start_kubearmor(self) -> None:
        """The fake daemon, on the app server."""
        program = [sys.executable, "-m", "tests.chaos.kubearmor", str(self.kubearmor_folder)]
        with (self.kubearmor_folder / "log").open("ab") as log, self._space.entered():
            self._kubearmor = subprocess.Popen(
                command(program), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment()
            )

    def kill_kubearmor(self) -> None:
        process, self._kubearmor = self._kubearmor, None
        assert process is not None
        process.send_signal(signal.SIGKILL)
        process.wait()

    def start_agent(self) -> None:
        self.hosts.start_agent_in(self._space)

    def kill_agent(self) -> None:
        self.hosts.agent.kill()

    def start_gateway(self) -> None:
        """Returns when it answers; the model is told of the start."""
        began = self.killed_at or time.time()
        service = self._stack.enter_context(self.hosts.gateway.running(ready=False))
        until(lambda: self._answers(service), lambda: service.log)
        with self._ledger.lock:
            self.service = service
            self._ledger.started(began)

    @staticmethod
    def _answers(service: Running) -> bool:
        assert service.process.poll() is None, f"ended with {service.process.returncode}:\n{service.log}"
        return service.answers("cam-000")

    def kill_gateway(self) -> None:
        """At this moment, whatever it is doing; what was under way may be kept or not."""
        with self._ledger.lock:
            assert self.service is not None
            self.service.kill()
            self.killed_at = time.time()
            self.service = None
            self._ledger.killed()

    def end(self) -> None:
        """Kill whatever runs."""
        if self.hosts.agent.process is not None:
            self.hosts.agent.kill()
        if self._kubearmor is not None:
            self.kill_kubearmor()


class Chaos:
    """One run in private network namespaces; the calling thread's is the gateway's."""

    def __init__(self, folder: Path, seed: int, size: Size) -> None:
        assert size.devices <= MOST_DEVICES
        self.size = size
        self.places = places(size.devices)
        self.names = list(self.places)
        self.ledger = Ledger(self.names, MAX_AGE)
        self.site = Site()
        lines = [
            f"addr add {one}/{64 if ':' in one else 24} dev eth0{' nodad' if ':' in one else ''}"
            for addresses in self.places.values()
            for one in addresses
        ]
        self.site.client.ip("\n".join(lines) + "\n")
        self.hosts = Hosts(
            folder,
            lease=APP_LEASE,
            agent={"kubearmor": {"tables": "trust"}},
            devices=self.places,
            target={"lease": GATEWAY_LEASE},
            source={"max_age": int(MAX_AGE)},
        )
        self._folder = folder
        self._dice = random.Random(seed)
        self._kill_dice = random.Random(seed + 1)
        self._speakers = self.names[size.strangers :]
        self._sent = 0
        self._used: dict[str, set[int]] = {name: set() for name in self.names}
        self._bodies: dict[tuple[str, Reason], bytes] = {}
        self._threads: list[threading.Thread] = []
        self._all_killed = threading.Event()
        self.demanded: dict[str, int] = {}

    def run(self) -> None:
        """Everything; what was wrong is in the ledger."""
        with ExitStack() as stack:
            self.victims = Victims(self.hosts, self.site.server, self._folder / "kubearmor", self.ledger, stack)
            stack.callback(self._stop_sampling)
            stack.callback(self.victims.end)
            self._listen(stack)
            self.victims.start_kubearmor()
            self.victims.start_agent()
            self.victims.start_gateway()
            self._start_sampling()
            killer = threading.Thread(target=self._guarded, args=(self._kill,), name="killer", daemon=True)
            killer.start()
            self._send_all()
            while not self._all_killed.is_set() and not self.ledger.over.wait(0.05):
                pass
            if not self.ledger.over.is_set():
                self._settle_down()

    def _guarded(self, work: Any) -> None:
        try:
            work()
        except BaseException as error:
            self.ledger.wrong(f"{threading.current_thread().name} stopped: {error!r}"[:2_000])
            self.ledger.over.set()
            raise

    # --- who looks

    def _listen(self, stack: ExitStack) -> None:
        """Somebody answers at the gated service."""
        for address in SERVERS:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = stack.enter_context(self.site.server.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, PORT))
            listener.listen(4_096)
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        listener.settimeout(1.0)
        while not self.ledger.over.is_set():
            with suppress(OSError):
                listener.accept()[0].close()

    def _start_sampling(self) -> None:
        ledger, places_of = self.ledger, self.places
        servers = [(address, PORT) for address in SERVERS]
        server = self.site.server
        for name, space, make, pause in (
            ("connections", self.site.client, lambda: Connections(ledger, places_of, servers, STRANGER).look, 0.0),
            ("gateway", None, lambda: Elements(ledger, "gateway", places_of, 0.0).look, WATCH_PAUSE),
            ("server", server, lambda: Elements(ledger, "app server", places_of, APP_LEASE).look, WATCH_PAUSE),
            ("word", None, lambda: Word(ledger, self._listed).look, 0.25),
        ):
            thread = threading.Thread(target=sampling, args=(ledger, space, make, pause), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _stop_sampling(self) -> None:
        self.ledger.over.set()
        for thread in self._threads:
            thread.join(30.0)

    def _listed(self) -> list[dict[str, Any]]:
        service = self.victims.service
        if service is None:
            return []
        answer = service.get("/v1/devices?limit=1000")
        return list(answer.json["devices"])

    # --- what is sent

    def _send_all(self) -> None:
        ledger = self.ledger
        last, progress = -1, time.monotonic()
        while self._sent < self.size.verdicts and not ledger.over.is_set():
            if self._sent != last:
                last, progress = self._sent, time.monotonic()
            elif time.monotonic() - progress > 2 * PATIENCE:
                ledger.wrong(f"nothing could be sent for {2 * PATIENCE:g} s")
                ledger.over.set()
            if not ledger.healthy_since or not self._send_one():
                ledger.over.wait(0.01)
                continue
            self._sent += 1
            ledger.over.wait(self._dice.expovariate(PER_SECOND))

    def _send_one(self) -> bool:
        """Hand one verdict to the gateway as its verifier does. False: it cannot be, or not this one."""
        ledger = self.ledger
        name = self._dice.choice(self._speakers)
        with ledger.lock:
            if not ledger.healthy_since:
                return False
            reason, issued = self._verdict(name)
            if issued in self._used[name]:
                return False
            frame = self._alert(name, reason, issued)
            try:
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
                    connection.settimeout(10.0)
                    connection.bind((VERIFIER, 0))
                    connection.connect(self.hosts.gateway.door)
                    ledger.sent(name, Sent(_KINDS[reason], issued))
                    connection.sendall(frame)
            except OSError as error:
                ledger.counts[f"not sent: {type(error).__name__}"] += 1
                return False
            self._used[name].add(issued)
            ledger.counts[f"verdicts: {reason.name}"] += 1
            return True

    def _verdict(self, name: str) -> tuple[Reason, int]:
        dice, now = self._dice.random(), int(time.time())
        newest = max(state.newest for state in self.ledger.model.devices[name].states)
        if dice < 0.64:
            soon = now + self._dice.randint(8, 25) - int(MAX_AGE)
            return Reason.PASS, soon if dice < 0.16 and soon > newest else now
        if dice < 0.92:
            return Reason.FAILED_ATTEST, now
        if dice < 0.95:
            return Reason.USER_REJECT, now
        if dice < 0.97:
            return Reason.FAILED_ATTEST, now - 300
        return self._dice.choice((Reason.REQUESTED, Reason.TIME_OUT)), now

    def _alert(self, name: str, reason: Reason, issued: int) -> bytes:
        keys = self.hosts.gateway.keys
        if (name, reason) not in self._bodies:
            self._bodies[name, reason] = sign_alert_body(
                device=name.encode(),
                verifier_id=b"RAP_Server",
                reason=reason,
                endpoint=evidence_endpoint(b"192.0.2.7", 35_940),
                signing_key=keys.signing,
            )
        return compose_message(
            message_id=MessageId.ALERT,
            timestamp=issued,
            nonce=secrets.token_bytes(32),
            tail=self._bodies[name, reason],
            hmac_key=keys.hmac[name],
        )

    # --- what is killed

    def _kill(self) -> None:
        """Kill at random moments, spread over all verdicts; each of the three at least once."""
        dice = self._kill_dice
        moments = sorted(dice.sample(range(10, max(11, self.size.verdicts - 10)), self.size.kills))
        first = [("gateway",), ("agent",), ("kubearmor",)]
        dice.shuffle(first)
        for moment in moments:
            while self._sent < moment:
                if self.ledger.over.wait(0.002):
                    return  # the processes end with the run
            self.ledger.over.wait(dice.uniform(0.0, 0.1))
            victims = first.pop() if first else self._choose()
            for victim in victims:
                getattr(self.victims, f"kill_{victim}")()
                self.ledger.counts[f"killed: {victim}"] += 1
            self.ledger.over.wait(dice.choice((0.0, 0.2, 1.0, 2.0)))
            for victim in self._shuffled(victims):
                getattr(self.victims, f"start_{victim}")()
        self._all_killed.set()
        self.ledger.over.wait()  # what this thread has started ends with it

    def _choose(self) -> tuple[str, ...]:
        dice = self._kill_dice
        every = ("gateway", "agent", "kubearmor")
        return dice.choices(
            [("gateway",), ("agent",), ("kubearmor",), ("gateway", "agent"), ("agent", "gateway"), every],
            (8, 8, 4, 3, 3, 2),
        )[0]

    def _shuffled(self, victims: Sequence[str]) -> list[str]:
        return self._kill_dice.sample(victims, len(victims))

    # --- what must stand at the end

    def _settle_down(self) -> None:
        """Nothing is sent any more: everything converges, and is what the journal demands."""
        service = self.victims.service
        assert service is not None
        until(lambda: self._nothing_waits(service), lambda: service.log[-3_000:])
        until(lambda: attached(service), lambda: f"{self.hosts.agent.log[-3_000:]}\n{service.log[-3_000:]}")
        until(self._converged, lambda: self._unsettled()[:10])
        if self.size.kubearmor:
            self._compare_kubearmor()
        self.victims.kill_gateway()
        now = time.time()
        found = {
            "gateway": (Kernel.dumped(), tombstones()),
            "app server": self._on_server(),
        }
        demanded = self._demanded(now)
        for host, (inside, cut) in found.items():
            self._compare(host, inside, cut, demanded)

    def _on_server(self) -> tuple[set[str], set[str]]:
        with self.site.server.entered():
            return Kernel.dumped(), tombstones()

    def _unsettled(self) -> list[dict[str, Any]]:
        return [
            device
            for device in self._listed()
            if any(
                (target["wanted"], target["state"]) != (device["profile"], "verified")
                for target in device["targets"]
            )
        ]

    @staticmethod
    def _nothing_waits(service: Running) -> bool:
        return all(
            service.metric("ragate_queue_depth", queue=one) == 0 for one in ("backlog", "connections", "admission")
        )

    def _converged(self) -> bool:
        return not self._unsettled()

    def _demanded(self, now: float) -> Mapping[str, Standing | None]:
        """What a copy of the journal demands of each device, read by nobody who enforces; None: at its deadline."""
        aside = self._folder / "copy"
        aside.mkdir()
        journal = self.hosts.gateway.journal
        for file in journal.parent.glob(f"{journal.name}*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, aside / file.name)
        loaded = asyncio.run(_load(aside / journal.name))
        found: dict[str, Standing | None] = {}
        for name in self.names:
            record = loaded.get(name)
            if record is None:
                found[name] = Standing.UNKNOWN
                continue
            standing, deadline = record
            if standing is Standing.TRUSTED and deadline is not None:
                if abs(deadline - now) < BOUNDARY:
                    found[name] = None
                    continue
                standing = standing if deadline > now else Standing.LAPSED
            found[name] = standing
        for each in found.values():
            label = "at its deadline" if each is None else each.label
            self.demanded[label] = self.demanded.get(label, 0) + 1
        return found

    def _compare(self, host: str, inside: set[str], cut: set[str], demanded: Mapping[str, Standing | None]) -> None:
        for name, standing in demanded.items():
            if standing is None:
                continue
            mine = set(self.places[name])
            wanted = mine if standing is Standing.TRUSTED else set()
            if mine & inside != wanted:
                self.ledger.wrong(f"{host}: the journal says {name} is {standing.label}; in: {mine & inside}")
            if standing in _TOMBSTONED and not mine <= cut:
                self.ledger.wrong(f"{host}: {name} is {standing.label} and has no tombstone for {mine - cut}")
            if standing is Standing.TRUSTED and mine & cut:
                self.ledger.wrong(f"{host}: {name} is trusted and has a tombstone")
        strangers = inside - {one for addresses in self.places.values() for one in addresses}
        if strangers:
            self.ledger.wrong(f"{host}: {strangers} are no device's")

    def _compare_kubearmor(self) -> None:
        """Its network policy comes to admit exactly the trusted devices, after its own restarts and pauses."""
        until(self._kubearmor_agrees, lambda: f"{self._declared()}\n{self.hosts.agent.log[-2_000:]}")

    def _kubearmor_agrees(self) -> bool:
        trusted = {device["id"] for device in self._listed() if device["standing"] == "trusted"}
        declared = self._declared()
        if declared is None:
            return False
        wanted = {one for name in trusted for one in self.places[name]}
        every = {one for addresses in self.places.values() for one in addresses}
        return {one for one in every if any(ipaddress.ip_address(one) in net for net in declared)} == wanted

    def _declared(self) -> list[Any] | None:
        """Networks that the daemon's newest network policy admits to the gated port."""
        try:
            stored = json.loads((self.victims.kubearmor_folder / "state.json").read_text())
        except OSError:
            return None
        if not stored["network"]:
            return None
        return [
            ipaddress.ip_network(peer["ipBlock"]["cidr"])
            for spec in stored["network"].values()
            for entry in spec.get("ingress", [])
            if entry.get("action") != "Block" and any(port["port"] == str(PORT) for port in entry.get("ports", []))
            for peer in entry.get("from", [])
            if "ipBlock" in peer
        ]

    def summary(self) -> str:
        """Counts of everything."""
        ledger = self.ledger
        ordered = sorted(ledger.cut_ms)
        told = partial(percentile, ordered)
        times = f"p50 {told(50):.0f}, p99 {told(99):.0f}, most {ordered[-1]:.0f}" if ordered else "none"
        lines = [f"  {name:<58} {count:>10,}" for name, count in sorted(ledger.counts.items())]
        return "\n".join(
            [
                "chaos:",
                *lines,
                f"  milliseconds from a failure to its tombstones being read, of {len(ordered)}: {times}",
                f"  compared with the journal at the end: {self.demanded}",
                f"  violations: {len(ledger.violations)}",
                *(f"    {one}" for one in ledger.violations),
            ]
        )


async def _load(path: Path) -> dict[str, tuple[Standing, float | None]]:
    journal = SqliteJournal(path, loop=asyncio.get_running_loop(), clock=KernelClock(), boot_id="another")
    try:
        records = journal.load().records
    finally:
        await journal.close()
    return {str(DeviceId(device)): (record.standing, record.deadline) for (device, _), record in records.items()}
