"""Judging a soaked service: what the kernel, the windows, the metrics and the log say, against the model.

What lives here: comparing. What must not: sending anything, or doing anything to the service.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import traceback
from collections import Counter

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.soak.model import Model
from tests.soak.site import Kernel, Service

SETTLE = 3.0
"""Seconds after which whatever was sent to a healthy service has been judged, kept and enforced, on a machine that
many share; on an idle one it takes milliseconds."""
SLACK = 1.0
"""Seconds around a deadline in which a device may be seen on either side of it."""
RESIDENT_MOST = 400 << 20
VIOLATIONS_MOST = 20
FLUSH_SECONDS = 6.0
"""Seconds after a flush in which the log may tell of what it broke."""
STARVED = "it would end"
"""Of a backend's error: between reading the clock and committing, its thread had to wait for a CPU. Tried again."""
CHUNK = 250
"""Devices compared at a time: the lock is held for a millisecond."""

_EVENTS = frozenset({"ready", "standing", "notice", "not enforced", "refused", "lines left out"})
_NOTICES = frozenset({"drift", "backend-error", "journal", "withheld", "backlog", "late-failure"})


class Judge:
    """Collects violations. ``calm`` is False while raising may be refused (the disk is full)."""

    def __init__(self, service: Service, model: Model, lock: threading.RLock) -> None:
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.over = threading.Event()
        self.calm = True
        self.resident: list[int] = []
        self.largest = 0
        self.verified: dict[str, float] = {}
        self._service = service
        self._model = model
        self._lock = lock
        self._addresses = service.files.addresses
        self._accused: set[str] = set()
        self._flushed = 0.0
        self._odd: list[tuple[float, float]] = []  # from, to: when drift and errors are to be expected
        self._local = threading.local()

    def flushed(self, began: float) -> None:
        """The ruleset is being flushed since ``began``, or has been."""
        self._flushed = time.time()
        self._odd.append((began - 0.5, began + FLUSH_SECONDS))

    def expect_drift(self, began: float) -> None:
        """Between ``began`` and a while from now the kernel lost admissions for a known reason."""
        self._odd.append((began, time.time() + FLUSH_SECONDS))

    def wrong(self, what: str) -> None:
        """Note a violation; too many end the soak."""
        self.violations.append(f"{time.strftime('%H:%M:%S')} {what}")
        if len(self.violations) >= VIOLATIONS_MOST:
            self.over.set()

    def _accuse(self, name: str, what: str) -> None:
        """Once per device: the first is what matters."""
        if name not in self._accused:
            self._accused.add(name)
            states = "; ".join(
                f"{one.word.value} ends {one.ends:.0f} newest {one.newest} epoch {one.epoch} debt {one.debt} "
                f"suspected {one.suspected:.1f}"
                for one in self._model.devices[name].states
            )
            self.wrong(f"{name} {what}; possible at {time.time():.1f}: {states}")

    def recently_flushed(self) -> bool:
        """Whether a flush may still be under repair."""
        return time.time() - self._flushed < SETTLE + 2.0

    def kernel(self) -> None:
        """Read every device's addresses from the kernel and compare with the model."""
        kernel = self._kernel_of_thread()
        names = list(self._model.devices)
        for start in range(0, len(names), CHUNK):
            part = names[start : start + CHUNK]
            with self._lock:
                now = time.time()
                healthy = self._service.healthy_since
                if healthy:
                    self._model.settled(now, healthy)
                versions = [self._model.devices[name].version for name in part]
            addresses = [address for name in part for address in self._addresses[name]]
            before = time.time()
            stands = iter(kernel.admitted(addresses))
            found = {name: [next(stands) for _ in self._addresses[name]] for name in part}
            with self._lock:
                same = [n for n, v in zip(part, versions, strict=True) if self._model.devices[n].version == v]
                self._compare(same, found, before)

    def _kernel_of_thread(self) -> Kernel:
        if not hasattr(self._local, "kernel"):
            self._local.kernel = Kernel()
        kernel: Kernel = self._local.kernel
        return kernel

    def _compare(self, names: list[str], found: dict[str, list[bool]], before: float) -> None:
        now = time.time()
        healthy = self._service.healthy_since
        calm = bool(healthy) and now - healthy > SETTLE and not self.recently_flushed() and self.calm
        for name in names:
            self.counts["comparisons"] += 1
            if any(found[name]):
                if self._model.must_not(name, before - SLACK):
                    self._accuse(name, "is admitted and must not be")
            elif calm and self._model.must(name, before - SETTLE) and self._model.must(name, now + SLACK):
                self._accuse(name, "is not admitted and must be")
            if calm and self._model.must(name, now + SLACK):
                self.counts["must be admitted"] += 1
            elif self._model.must_not(name, before - SLACK):
                self.counts["must not be admitted"] += 1

    def dump(self) -> None:
        """Nobody but known devices that may be admitted is in what nft prints."""
        with self._lock:
            versions = {name: device.version for name, device in self._model.devices.items()}
        before = time.time()
        dumped = Kernel.dumped()
        owner = {str(one).partition("/")[0]: name for name, found in self._addresses.items() for one in found}
        with self._lock:
            for text in dumped:
                name = owner.get(text)
                if name is None:
                    self.wrong(f"{text} is in a profile's set and is no device's")
                elif self._model.devices[name].version == versions[name] and self._model.must_not(
                    name, before - SLACK
                ):
                    self._accuse(name, "is admitted, as nft prints it, and must not be")
        self.counts["dumps"] += 1

    def windows(self) -> None:
        """What the console says of every settled device must be possible."""
        with self._lock:
            healthy, starts = self._service.healthy_since, self._service.starts
            if not healthy or time.time() - healthy < SETTLE or not self.calm:
                return
            self._model.settled(time.time(), healthy)
            versions = {n: d.version for n, d in self._model.devices.items() if not d.unsettled}
        before = time.time()
        try:
            listed = self._service.listed()
        except (OSError, http.client.HTTPException):
            self._unless_killed(starts, "/v1/devices did not answer")
            return
        with self._lock:
            for name, version in versions.items():
                if self._model.devices[name].version != version:
                    continue
                self.counts["standings compared"] += 1
                if not self._model.seen(name, listed[name], before - SLACK, time.time() + SLACK):
                    self._accuse(name, f"is called {listed[name]}")

    def scrape(self) -> None:
        """Metrics always answer, and count every device once."""
        with self._lock:
            starts = self._service.starts
            if not self._service.healthy_since:
                return
        try:
            status, body = self._service.ask("/metrics")
            resident = self._service.resident()
        except (OSError, http.client.HTTPException, AssertionError):
            self._unless_killed(starts, "/metrics did not answer")
            return
        if status != http.client.OK:
            self.wrong(f"/metrics answered {status}")
            return
        self.counts["scrapes"] += 1
        self.resident.append(resident)
        self.largest = max(self.largest, resident)
        if resident > RESIDENT_MOST:
            self.wrong(f"{resident / 2**20:.0f} MiB are resident")
        families = {family.name: family for family in text_string_to_metric_families(body.decode())}
        devices = sum(sample.value for sample in families["ragate_devices"].samples)
        if devices != len(self._addresses):
            self.wrong(f"ragate_devices adds up to {devices:g}")
        self._check_notices(families)
        self.verified = {
            sample.labels["le"]: sample.value
            for sample in families["ragate_verdict_verified_seconds"].samples
            if sample.name.endswith("_bucket") and sample.labels["backend"] == "nft"
        }

    def _check_notices(self, families: dict[str, Metric]) -> None:
        """Nothing here touches clocks, and the inventory is without conflict."""
        counts = {one.labels["kind"]: one.value for one in families["ragate_notices"].samples}
        wrong = {kind: counts[kind] for kind in ("clock", "conflict", "other") if counts[kind]}
        if wrong:
            self.wrong(f"notices that nobody caused: {wrong}")

    def _unless_killed(self, starts: int, what: str) -> None:
        with self._lock:
            if self._service.starts == starts and self._service.healthy_since:
                self.wrong(f"{what}: {traceback.format_exc(limit=0).strip()}")

    def read_log(self) -> None:
        """No line but the known ones."""
        for line in self._service.log.read_text(errors="replace").splitlines():
            try:
                told = json.loads(line)
                event = told["event"]
            except (ValueError, KeyError, TypeError):
                self.wrong(f"log: {line[:300]}")
                continue
            self.counts[f"log: {event}{' ' + told['kind'] if event == 'notice' else ''}"] += 1
            unknown = event not in _EVENTS and not event.startswith("stopped")
            if unknown or (event == "notice" and told["kind"] not in _NOTICES):
                self.wrong(f"log: {line[:300]}")

    def read_troubles(self, troubles: list[tuple[float, str, str]]) -> None:
        """No drift and no failing backend that nobody caused."""
        for at, kind, body in troubles:
            if STARVED in body:
                self.counts["ends read back late"] += 1
            elif not any(lo <= at <= hi for lo, hi in self._odd):
                self.wrong(f"nobody caused this at {at:.1f}: {kind}: {body[:300]}")
