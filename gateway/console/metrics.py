"""Metrics: a fold over facts, and numbers read at scrape time.

What lives here: where the parts of a service say what is to be read of them, and the exposition. What must not:
deciding anything, and the families, which stand by subject in modules of their own. Names follow the Prometheus
conventions (base units, ``_total`` on counters).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric

from gateway import __version__
from gateway.console.alerting import AlertCollector
from gateway.console.facts import OTHER, FactCollector
from gateway.console.hinting import HintCollector
from gateway.console.host import HostCollector, HostView
from gateway.console.live import LiveCollector
from gateway.console.relaying import RelyingCounts
from gateway.control.ports import Answered, Fact, SiteNow, Step
from gateway.control.running import Books

#: Seconds: a group commit is one fsync, 0.1 ms on fast flash to seconds on a failing disk.
COMMIT_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


#: Samples above which the text is made on another thread: 500 take about 5 ms, the most the loop should wait.
SAMPLES_ON_LOOP = 500


class Metrics:
    """Implements the ``Observer`` port and renders the exposition.

    ``sources`` are the configured source names: their series exist from the start, so that zeros show and a
    rate over the first refusal is not lost. Everything but ``journal_committed`` is called on the loop's thread.
    """

    def __init__(
        self, registry: CollectorRegistry, sources: Iterable[str] = (), version: str = __version__
    ) -> None:
        self._registry = registry
        self._facts = FactCollector()
        self._live = LiveCollector()
        self._host = HostCollector()
        #: Hints, feeds and inquiries; whoever runs them sets what it reads.
        self.hinted = HintCollector()
        self.alerted = AlertCollector()
        for collector in (self._facts, self._live, self._host, self.hinted, self.alerted):
            registry.register(collector)
        ProcessCollector(registry=registry)
        commit = Histogram(
            "ragate_journal_commit_seconds",
            "Duration of one journal commit group, to stable storage.",
            buckets=COMMIT_BUCKETS,
            registry=registry,
        )
        build = Gauge("ragate_build_info", "Version of this program.", ("version",), registry=registry)
        build.labels(version).set(1)
        #: Take the duration of one commit group in seconds; may be called on any thread.
        self.journal_committed: Callable[[float], None] = commit.observe
        #: Take the lateness of one wake-up in seconds.
        self.loop_lagged: Callable[[float], None] = self._facts.lag.observe
        #: Take facts: the fold's own, because these are called for every verdict.
        self.stepped: Callable[[Sequence[Step]], None] = self._facts.stepped
        self.enforced: Callable[[Sequence[Answered]], None] = self._facts.enforced
        self.observe: Callable[[Fact], None] = self._facts.observe
        for source in (*sources, OTHER):
            self.add_source(source)
        self.add_backend(OTHER)

    def add_source(self, source: str) -> None:
        """Make the series of one configured source."""
        self._facts.add_source(source)

    def add_hints(self, source: str) -> None:
        """Make the refusals' series of one source of hints. Of refusals alone: a source that never has verdicts
        must not look like one that has fallen silent."""
        self._facts.add_rejections(source)

    def add_backend(self, backend: str) -> None:
        """Make the error and repair series of one backend, so that zeros show."""
        self._facts.add_backend(backend)

    def add_target(self, target: str, backend: str) -> None:
        """Make the series of one backend at one target."""
        self._facts.add_target(target, backend)

    def add_queue(self, name: str, depth: Callable[[], float]) -> None:
        """Read ``ragate_queue_depth{queue=name}`` from ``depth`` at every scrape."""
        self._live.queues[name] = depth

    def set_bypasses(self, target: str, count: Callable[[], int]) -> None:
        """Read ``ragate_bypasses{target}`` from ``count`` at every scrape."""
        self._live.bypasses[target] = count

    def set_spoofed(self, target: str, count: Callable[[], int]) -> None:
        """Read ``ragate_spoofed_packets_total{target}`` from ``count`` at every scrape."""
        self._live.spoofed[target] = count

    def set_advisory(self, target: str, name: str, state: Callable[[], Mapping[str, str]]) -> None:
        """Read ``ragate_advisory_state{target,backend,part,state}`` from ``state`` (a word for each of
        ``ADVISORY_PARTS``, and ``repairs`` and ``restarts``) at every scrape."""
        self.add_backend(name)
        self._live.advisories[target, name] = state

    def set_journal(self, writable: Callable[[], bool]) -> None:
        """Read ``ragate_journal_writable`` from ``writable`` at every scrape."""
        self._live.writable = writable

    def set_forwarding(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Read ``ragate_forwarded_total`` from ``counts`` (a number for each of ``FORWARD_RESULTS``) at every
        scrape."""
        self._live.forwarding = counts

    def set_agents(self, states: Callable[[], Mapping[str, tuple[bool, Mapping[str, float]]]]) -> None:
        """Read ``ragate_agent_*`` from ``states`` (by agent: attached or not, newest numbers of its host) at every
        scrape."""
        self._live.agents = states

    def set_clusters(self, states: Callable[[], Mapping[str, tuple[bool, Mapping[str, int]]]]) -> None:
        """Read ``ragate_kubernetes_*`` from ``states`` (by target: followed or not, objects by how far they got) at
        every scrape."""
        self._live.clusters = states

    def set_certificates(self, ends: Callable[[], Mapping[str, float]]) -> None:
        """Read ``ragate_certificate_not_after_timestamp_seconds`` from ``ends`` (by holder) at every scrape."""
        self._live.certificates = ends

    def set_relying(self, counts: Callable[[], RelyingCounts]) -> None:
        """Read ``ragate_relying_*`` from ``counts`` at every scrape."""
        self._live.relying = counts

    def set_devices(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Read ``ragate_devices`` from ``counts`` (``Directory.counts``) at every scrape."""
        self._live.counts = counts

    def set_overrides(self, count: Callable[[], int]) -> None:
        """Read ``ragate_overrides`` from ``count`` at every scrape."""
        self._live.overrides = count

    def set_site(
        self, now: Callable[[], SiteNow], known: Callable[[], Sequence[str]], resources: Sequence[str]
    ) -> None:
        """Read ``ragate_site_profile`` (one series for each of ``known``) and ``ragate_resource_alarm`` (one for
        each of ``resources``) from ``now`` at every scrape."""
        self._live.site, self._live.profiles, self._live.resources = now, known, tuple(resources)

    def set_book(self, books: Books) -> None:
        """Read ``ragate_book_*`` from the running book at every scrape."""
        self._live.books = books

    def set_resources(self, current: Callable[[], HostView | None]) -> None:
        """Read ``ragate_host_*`` and the further ``process_*`` from the newest sample at every scrape."""
        self._host.current = current

    async def exposition(self) -> bytes:
        """Everything in the Prometheus text format 0.0.4.

        Values are read here, on the loop's thread, because what they are read from belongs to it; the text is
        made elsewhere when it is long.
        """
        families = _Collected(self._registry)
        if families.samples <= SAMPLES_ON_LOOP:
            return generate_latest(families)
        return await asyncio.to_thread(generate_latest, families)


class _Collected(CollectorRegistry):
    """Values of one moment, without the ``_created`` samples that only double the text."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._families: list[Metric] = []
        self.samples = 0
        for family in registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            self.samples += len(family.samples)
            self._families.append(family)

    def collect(self) -> Iterable[Metric]:
        return self._families
