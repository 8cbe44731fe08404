"""The soak itself: threads that send, threads that judge, and one that kills.

What lives here: the order of events, the judging, the summary. What must not: how anything is sent or asked.
"""

from __future__ import annotations

import json
import random
import signal
import statistics
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.soak.judge import SETTLE, SLACK, Judge
from tests.soak.load import Traffic
from tests.soak.model import Model
from tests.soak.site import FRAME_SECONDS, LEASE, MAX_AGE, Files, Kernel, Service, flush, troubles, verify_journal

DEVICES = 2_000
ALERTS_PER_SECOND = 250
HOSTILE_PER_SECOND = 60
DOWN_MOST = LEASE / 2 - 4.0
"""Seconds of being down after which leases may have run out: half of one, less the slowest renewal and a second."""
STEADY = 0.4
"""Share of the time at the end in which nothing is killed, so that growth can be seen."""
GROWTH_BYTES = 24 << 20
GROWTH_DESCRIPTORS = 4


class Soak:
    """One run of ``seconds``."""

    def __init__(self, folder: Path, log: Path, seconds: float, seed: int) -> None:
        self.files = Files(folder, DEVICES)
        self.service = Service(self.files, log)
        self.model = Model(self.files.devices, MAX_AGE, SETTLE)
        self.lock = threading.RLock()
        self.traffic = Traffic(self.service, self.model, self.lock, seed)
        self.judge = Judge(self.service, self.model, self.lock)
        self._aside = folder / "journal-copy"
        self._random = random.Random(seed + 2)
        self._seconds = seconds
        self._resting = threading.Event()

    # --- running

    def run(self) -> None:
        """Soak until the time is over, or until too much was found wrong."""
        workers = [
            self._every(1.0 / ALERTS_PER_SECOND, self.traffic.one, resting=True),
            self._every(1.0 / HOSTILE_PER_SECOND, self.traffic.hostile, resting=True),
            self._every(0.25, self.traffic.slow, resting=True),
            self._every(9.0, self.traffic.flood, resting=True),
            self._every(0.5, self.traffic.operate, resting=True),
            self._every(0.5, self.judge.kernel),
            self._every(5.0, self.judge.windows),
            self._every(11.0, self.judge.dump),
            self._every(1.0, self.judge.scrape),
        ]
        self._start()
        for worker in workers:
            worker.start()
        try:
            self._turmoil(time.time() + self._seconds * (1.0 - STEADY))
            self._steady(self._seconds * STEADY)
        finally:
            self.judge.over.set()
            for worker in workers:
                worker.join(30.0)
            self.traffic.let_go()
        self._stop_in_order()
        self.judge.read_log()
        self.judge.read_troubles(troubles(self.files.journal))

    def _every(self, seconds: float, work: Callable[[], None], *, resting: bool = False) -> threading.Thread:
        def loop() -> None:
            due = time.monotonic()
            while not self.judge.over.is_set():
                due = max(due + seconds, time.monotonic() - 1.0)
                self.judge.over.wait(max(0.0, due - time.monotonic()))
                if resting and self._resting.is_set():
                    continue
                try:
                    work()
                except BaseException:  # noqa: BLE001 - whatever it was, the soak has failed and says so
                    self.judge.wrong(f"{work.__name__} stopped:\n{traceback.format_exc()}")
                    return

        return threading.Thread(target=loop, name=work.__name__, daemon=True)

    def _turmoil(self, until: float) -> None:
        episodes: list[tuple[Callable[[], None], int]] = [
            (self._kill, 8),
            (self._kill_while_starting, 2),
            (self._stop_and_start, 3),
            (self._flush, 6),
            (self._kill_and_flush, 2),
            (self._flush_and_kill, 2),
            (self._disk_full, 2),
            (self._stay_down, 1),
        ]
        # Each at least once when there is time for it, then at random.
        order = [work for work, _ in episodes]
        self._random.shuffle(order)
        while time.time() < until and not self.judge.over.wait(self._random.uniform(2.0, 11.0)):
            if self.service.died is not None:
                self.judge.wrong(f"the service ended by itself with {self.service.died}:\n{self.service.tail()}")
                self.judge.over.set()
                return
            work = order.pop() if order else self._random.choices(*zip(*episodes, strict=True))[0]
            print(f"{time.strftime('%H:%M:%S')} {work.__name__.strip('_').replace('_', ' ')}", flush=True)
            self.judge.counts[work.__name__.strip("_").replace("_", " ")] += 1
            work()

    def _steady(self, seconds: float) -> None:
        """No kills: growth shows. Descriptors are compared between two moments at which nothing is sent."""
        first = self._rest()
        began = time.time()
        self.judge.resident.clear()
        while time.time() - began < seconds - 2 * FRAME_SECONDS and not self.judge.over.wait(
            self._random.uniform(8, 15)
        ):
            self._flush()
            self.judge.counts["flush"] += 1
        last = self._rest()
        print(f"descriptors at rest: {first}, then {last}")
        if last > first + GROWTH_DESCRIPTORS:
            self.judge.wrong(f"open descriptors grew from {first} to {last}")
        sizes = list(self.judge.resident)
        if len(sizes) >= 20:
            early = statistics.median(sizes[len(sizes) // 4 : len(sizes) // 2])
            late = statistics.median(sizes[-len(sizes) // 4 :])
            print(f"resident in the steady part: {early / 2**20:.1f} MiB, later {late / 2**20:.1f} MiB")
            if late > early + GROWTH_BYTES:
                self.judge.wrong(f"resident memory grew from {early / 2**20:.0f} to {late / 2**20:.0f} MiB")

    def _rest(self) -> int:
        """Open descriptors once nothing has been sent for a while."""
        self._resting.set()
        self.judge.over.wait(0.6)
        self.traffic.let_go()
        self.judge.over.wait(FRAME_SECONDS + 1.0)
        found = self.service.descriptors()
        self._resting.clear()
        return found

    # --- what happens to the service

    def _start(self, *, doubtful: bool = False, emptied: bool = False, down_since: float | None = None) -> None:
        began = time.time()
        self.service.start()
        self.service.wait_ready()
        with self.lock:
            now = time.time()
            leases_gone = down_since is not None and now - down_since > DOWN_MOST
            self.model.started(began, now, doubtful=doubtful or leases_gone)
            if emptied:
                self.model.emptied()
            self.service.healthy_since = time.time()

    def _end(self, number: int) -> int:
        with self.lock:
            self.service.healthy_since = 0.0
            code = self.service.end(number)
            self.model.killed()
        self.judge.counts["restarts"] += 1
        return code

    def _kill(self) -> None:
        doubtful = self.judge.recently_flushed()
        self._end(signal.SIGKILL)
        at = time.time()
        self._check_journal()
        self.judge.over.wait(self._random.choice((0.0, 0.0, 1.0)))
        self._start(doubtful=doubtful, down_since=at)

    def _kill_while_starting(self) -> None:
        doubtful = self.judge.recently_flushed()
        self._end(signal.SIGKILL)
        at = time.time()
        for _ in range(2):
            self.service.start()
            time.sleep(self._random.uniform(0.2, 1.2))
            self.service.end(signal.SIGKILL)
            self.judge.counts["restarts"] += 1
        with self.lock:
            # A start that was killed may have withheld what the next one finds in order.
            self.model.started(at, time.time(), doubtful=True)
        self._start(doubtful=doubtful, down_since=at)

    def _stop_and_start(self) -> None:
        doubtful = self.judge.recently_flushed()
        at = time.time()
        self._stop_in_order()
        self._start(doubtful=doubtful, down_since=at)

    def _stop_in_order(self) -> None:
        code = self._end(signal.SIGTERM)
        if code != 0:
            self.judge.wrong(f"SIGTERM ended it with {code}:\n{self.service.tail()}")
        self._check_journal()

    def _flush(self) -> None:
        began = time.time()
        with self.lock:
            self.judge.flushed(began)  # before, so that nobody judges what is under repair; and after, for its time
        flush()
        with self.lock:
            self.judge.flushed(began)

    def _flush_and_kill(self) -> None:
        self._flush()
        self.judge.over.wait(self._random.uniform(0.0, 0.05))
        self._kill()

    def _kill_and_flush(self) -> None:
        self._end(signal.SIGKILL)
        self._check_journal()
        flush()
        self._start(emptied=True)

    def _stay_down(self) -> None:
        """Killed for good: whatever stood ends with its lease."""
        self._end(signal.SIGKILL)
        self._check_journal()
        at = time.time()
        self.judge.over.wait(LEASE + SLACK)
        kernel = Kernel()
        every = [address for found in self.files.addresses.values() for address in found]
        left = sum(kernel.admitted(every))
        if left:
            self.judge.wrong(f"{left} addresses are admitted {LEASE + SLACK:g} s after the service was killed")
        self.judge.expect_drift(at)
        self._start(doubtful=True)

    def _disk_full(self) -> None:
        """The journal's file system is full for a while: lowering still acts, raising may be refused."""
        ballast = self.files.folder / "ballast"
        with self.lock:
            self.traffic.sure = self.judge.calm = False
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                self.judge.counts["disk filled"] += 1
        self.judge.over.wait(SETTLE + 1.0)
        parts = {part["part"]: part["ready"] for part in json.loads(self.service.ask("/readyz")[1])["parts"]}
        self.judge.counts["journal told unwritable"] += not parts["journal"]
        ballast.unlink()
        until = time.time() + 15.0
        while not json.loads(self.service.ask("/readyz")[1])["ready"]:
            if time.time() > until:
                self.judge.wrong("not ready 15 s after the disk had room again")
                break
            time.sleep(0.1)
        with self.lock:
            self.traffic.sure = self.judge.calm = True

    def _check_journal(self) -> None:
        self.judge.counts["journals verified"] += 1
        for finding in verify_journal(self.files.journal, self._aside)[:3]:
            self.judge.wrong(f"journal: {finding}")

    # --- telling

    def summary(self) -> str:
        """Counts of everything."""
        lines = [
            f"  {name:<34} {count:>9,}" for name, count in sorted((self.judge.counts + self.traffic.counts).items())
        ]
        total = self.judge.verified.get("+Inf", 0.0)
        shares = [
            f"{100 * self.judge.verified[le] / total:.1f} % within {float(le) * 1e3:g} ms"
            for le in ("0.005", "0.02", "0.1", "1.0")
            if total
        ]
        return "\n".join(
            [
                "soak:",
                *lines,
                f"  largest resident memory {self.judge.largest / 2**20:.1f} MiB",
                f"  slowest start {self.service.slowest_start:.1f} s",
                f"  verdict to read-back in the last life ({total:,.0f}): {', '.join(shares)}",
                f"  violations: {len(self.judge.violations)}",
                *(f"    {one}" for one in self.judge.violations),
            ]
        )
