"""Metrics: a fold over facts, and numbers read at scrape time.

What lives here: every metric name, its labels, and the counters that facts move. What must not: deciding
anything, or a device in a label. Names follow the Prometheus conventions (base units, ``_total`` on counters).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway import __version__
from gateway.console.alerting import AlertCollector
from gateway.console.hinting import HintCollector
from gateway.console.host import HostCollector, HostView
from gateway.control.ports import Fact, Notice, SiteNow
from gateway.control.running import RESULTS, Books
from gateway.core.errors import Refusal
from gateway.core.model import Applied, Enforced, EventKind, Rejected, Standing, Transition

#: Seconds, 0.2 ms to 10 s; with bounds on the promised 1, 3, 5 and 20 ms, so that these can be read off exactly.
VERDICT_BUCKETS = (
    0.0002,
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
)

#: Seconds: a group commit is one fsync, 0.1 ms on fast flash to seconds on a failing disk.
COMMIT_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

#: Seconds: a loop that is late by 20 ms has used up the latency promise by itself.
LAG_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

#: Label value for a source or backend that was not configured: keeps the number of series bounded.
OTHER = "other"

#: (target, backend) pairs and backends learnt from facts; further ones count as ``other``. One gateway has one
#: or two of each, so reaching this means that something else than a name has got into a label.
LEARNT_PAIRS = 16

#: Samples above which the text is made on another thread: 500 take about 5 ms, the most the loop should wait.
SAMPLES_ON_LOOP = 500

#: What of an authenticated verdict reaches the lifecycle; other events are not verdicts.
VERDICT_KINDS = (
    EventKind.PASSED,
    EventKind.FAILED,
    EventKind.FAILED_LATE,
    EventKind.REQUESTED,
    EventKind.NOTED,
    EventKind.PASSPORT,
)

#: The closed list of ``Notice.kind``.
NOTICE_KINDS = (
    "drift",
    "backend-error",
    "journal",
    "withheld",
    "clock",
    "backlog",
    "conflict",
    "late-failure",
    "book",
    "bypass",
    "agent",
    "certificate",
    "override",
    "site",
    "resources",
    "asked",
    "tls",
    "descriptors",
    "alert",
    "alerts",
    "kubearmor",
)


# Read for every alert; a member read from its Enum costs fifteen times as much.
_FAILED, _VERIFIED = Applied.FAILED, Applied.VERIFIED

#: What an agent tells of its host, and what it means. NaN: not attached, or its host does not tell.
AGENT_RESOURCES = {
    "load1": "Load average of one minute of the agent's host.",
    "cpus": "CPUs of the agent's host.",
    "memory_total_bytes": "Memory of the agent's host.",
    "memory_available_bytes": "Memory of the agent's host that is available without swapping.",
    "disk_free_bytes": "Free bytes where the agent keeps its plan.",
    "open_files": "Open files on the agent's host.",
}

#: What became of a frame for SEDIMENT's own relying party.
FORWARD_RESULTS = ("forwarded", "failed", "dropped")


class RelyingCounts(NamedTuple):
    """What the relying party's port has counted: messages by (kind, case), messages for the app server by result,
    ended connections by reason, copies to the verifier by result."""

    messages: Mapping[tuple[str, str], int]
    carried: Mapping[str, int]
    ends: Mapping[str, int]
    copies: Mapping[str, int]


class Tally:
    """A histogram of one label set, moved on the loop's thread only, so without a lock."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Take one value; a bound is inclusive (``le``)."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts per upper bound, as the exposition wants them."""
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


class Metrics:
    """Implements the ``Observer`` port and renders the exposition.

    ``sources`` are the configured source names: their series exist from the start, so that zeros show and a
    rate over the first refusal is not lost. Everything but ``journal_committed`` is called on the loop's thread;
    what facts move is kept in plain numbers, because at 10,000 alerts/s every microsecond is a percent of a CPU.
    """

    def __init__(
        self, registry: CollectorRegistry, sources: Iterable[str] = (), version: str = __version__
    ) -> None:
        self._registry = registry
        self._facts = _FactCollector()
        self._live = _LiveCollector()
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
        for source in (*sources, OTHER):
            self.add_source(source)
        self.add_backend(OTHER)
        self._folds: dict[type, Callable[..., None]] = {
            Transition: self._transition,
            Rejected: self._rejected,
            Enforced: self._enforced,
            Notice: self._notice,
        }

    def add_source(self, source: str) -> None:
        """Make the series of one configured source."""
        for kind in VERDICT_KINDS:
            self._facts.verdicts.setdefault((source, kind), 0)
        for refusal in Refusal:
            self._facts.rejections.setdefault((source, refusal), 0)

    def add_backend(self, backend: str) -> None:
        """Make the error and repair series of one backend, so that zeros show."""
        self._facts.errors.setdefault(backend, 0)
        self._facts.repairs.setdefault(backend, 0)

    def add_target(self, target: str, backend: str) -> None:
        """Make the series of one backend at one target."""
        self.add_backend(backend)
        self._facts.latencies.setdefault((target, backend), (Tally(VERDICT_BUCKETS), Tally(VERDICT_BUCKETS)))

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

    def add_hints(self, source: str) -> None:
        """Make the refusals' series of one source of hints. Of refusals alone: a source that never has verdicts
        must not look like one that has fallen silent."""
        for refusal in Refusal:
            self._facts.rejections.setdefault((source, refusal), 0)

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

    def observe(self, fact: Fact) -> None:
        """Take one fact. Bare events move nothing: the transition that they cause does."""
        fold = self._folds.get(type(fact))
        if fold is not None:
            fold(fact)

    def _transition(self, fact: Transition) -> None:
        kind = fact.event.kind
        verdicts = self._facts.verdicts
        key = (fact.source, kind)
        if key in verdicts:
            verdicts[key] += 1
        elif kind in VERDICT_KINDS:
            verdicts[OTHER, kind] += 1

    def _rejected(self, fact: Rejected) -> None:
        rejections = self._facts.rejections
        key = (fact.source, fact.refusal)
        rejections[key if key in rejections else (OTHER, fact.refusal)] += 1

    def _enforced(self, fact: Enforced) -> None:
        if fact.received <= 0.0 or fact.state is _FAILED:
            return
        accepted, verified = self._facts.latencies.get((fact.target, fact.backend)) or self._learn(fact)
        # Boot seconds of one clock: a negative difference is a caller's mistake and must not undo the sum.
        accepted.observe(max(0.0, fact.accepted - fact.received))
        if fact.state is _VERIFIED:
            verified.observe(max(0.0, fact.verified - fact.received))

    def _learn(self, fact: Enforced) -> tuple[Tally, Tally]:
        full = len(self._facts.latencies) >= LEARNT_PAIRS
        pair = (OTHER, OTHER) if full else (fact.target, fact.backend)
        self.add_target(*pair)
        return self._facts.latencies[pair]

    def _notice(self, fact: Notice) -> None:
        facts = self._facts
        facts.notices[fact.kind if fact.kind in facts.notices else OTHER] += fact.times
        # A notice's subject may be a device, which must never become a label.
        backend = fact.subject if fact.subject in facts.errors else OTHER
        if fact.kind == "withheld":
            facts.withheld += fact.times
        elif fact.kind == "drift":
            facts.repairs[backend] += fact.times
        elif fact.kind == "backend-error":
            facts.errors[backend] += fact.times

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


class _FactCollector(Collector):
    """What facts have moved so far."""

    def __init__(self) -> None:
        self.verdicts: dict[tuple[str, EventKind], int] = {}
        self.rejections: dict[tuple[str, Refusal], int] = {}
        self.latencies: dict[tuple[str, str], tuple[Tally, Tally]] = {}
        self.errors: dict[str, int] = {}
        self.repairs: dict[str, int] = {}
        self.notices: dict[str, int] = dict.fromkeys((*NOTICE_KINDS, OTHER), 0)
        self.withheld = 0
        self.lag = Tally(LAG_BUCKETS)

    def describe(self) -> Sequence[Metric]:
        """No names up front: series are made after registering."""
        return ()

    def collect(self) -> Iterable[Metric]:
        yield _counters(
            "ragate_verdicts",
            "Authenticated verdicts that reached the lifecycle, by source and result.",
            ("source", "result"),
            (((source, kind.value), n) for (source, kind), n in self.verdicts.items()),
        )
        yield _counters(
            "ragate_rejections",
            "Refused input, by source and the name of the step that refused it.",
            ("source", "reason"),
            (((source, refusal.value), n) for (source, refusal), n in self.rejections.items()),
        )
        yield from self._latencies()
        for name, text, values in (
            ("ragate_reconcile_errors", "Batches that a backend could not take or answer.", self.errors),
            (
                "ragate_drift_repairs",
                "Differences between wanted and enforced state that read-back found and repaired.",
                self.repairs,
            ),
        ):
            yield _counters(name, text, ("backend",), (((backend,), n) for backend, n in values.items()))
        yield _counters(
            "ragate_withheld",
            "Devices not re-admitted at start because journal and kernel disagreed.",
            (),
            (((), self.withheld),),
        )
        yield _counters(
            "ragate_notices",
            "Facts about the service itself, by kind.",
            ("kind",),
            (((kind,), n) for kind, n in self.notices.items()),
        )
        lag = HistogramMetricFamily(
            "ragate_event_loop_lag_seconds", "How late the event loop woke a timer of ours."
        )
        lag.add_metric((), self.lag.buckets(), self.lag.total)
        yield lag

    def _latencies(self) -> Iterable[Metric]:
        told = ("accepted by", "read back at")
        for index, name in enumerate(("ragate_verdict_accepted_seconds", "ragate_verdict_verified_seconds")):
            text = f"From the last byte of a verdict to its change being {told[index]} the backend."
            family = HistogramMetricFamily(name, text, labels=("target", "backend"))
            for pair, tallies in self.latencies.items():
                family.add_metric(pair, tallies[index].buckets(), tallies[index].total)
            yield family


def _counters(name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], int]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


ADVISORY_PARTS = ("state", "host", "network", "documents")
"""What an advisory layer tells one word each of; ``state`` is the whole."""

ADVISORY_STATES = (
    "absent",
    "connecting",
    "idle",
    "waiting",
    "withheld",
    "disabled",
    "accepted",
    "verified",
    "failed",
    "withdrawn",
)


class _LiveCollector(Collector):
    """Numbers that live elsewhere and are read when asked for."""

    def __init__(self) -> None:
        self.queues: dict[str, Callable[[], float]] = {}
        self.bypasses: dict[str, Callable[[], int]] = {}
        self.spoofed: dict[str, Callable[[], int]] = {}
        self.advisories: dict[tuple[str, str], Callable[[], Mapping[str, str]]] = {}
        self.writable: Callable[[], bool] | None = None
        self.counts: Callable[[], Mapping[str, int]] | None = None
        self.forwarding: Callable[[], Mapping[str, int]] | None = None
        self.agents: Callable[[], Mapping[str, tuple[bool, Mapping[str, float]]]] | None = None
        self.clusters: Callable[[], Mapping[str, tuple[bool, Mapping[str, int]]]] | None = None
        self.certificates: Callable[[], Mapping[str, float]] | None = None
        self.relying: Callable[[], RelyingCounts] | None = None
        self.overrides: Callable[[], int] | None = None
        self.site: Callable[[], SiteNow] | None = None
        self.profiles: Callable[[], Sequence[str]] = tuple
        self.resources: tuple[str, ...] = ()
        self.books: Books | None = None

    def describe(self) -> Sequence[Metric]:
        """No names up front: registering must not read anything yet."""
        return ()

    def collect(self) -> Iterable[Metric]:
        devices = GaugeMetricFamily(
            "ragate_devices", "Devices by effective standing; every standing is present.", labels=("standing",)
        )
        counts = self.counts() if self.counts is not None else {}
        for standing in Standing:
            devices.add_metric((standing.label,), counts.get(standing.label, 0))
        depth = GaugeMetricFamily("ragate_queue_depth", "Entries waiting in each queue.", labels=("queue",))
        for name, read in self.queues.items():
            depth.add_metric((name,), read())
        families: list[Metric] = [devices, depth, *self._site()]
        if self.overrides is not None:
            text = "Devices under an operator's override."
            families.append(GaugeMetricFamily("ragate_overrides", text, value=self.overrides()))
        if self.bypasses:
            around = GaugeMetricFamily(
                "ragate_bypasses", "Ways around a target's path gate that were found.", labels=("target",)
            )
            for target, count in self.bypasses.items():
                around.add_metric((target,), count())
            families.append(around)
        if self.spoofed:
            families.append(
                _counters(
                    "ragate_spoofed_packets",
                    "Packets dropped because their source is a device's and they came from elsewhere.",
                    ("target",),
                    (((target,), count()) for target, count in self.spoofed.items()),
                )
            )
        families += self._advised()
        if self.forwarding is not None:
            forwarded = self.forwarding()
            families.append(
                _counters(
                    "ragate_forwarded",
                    "Alerts for SEDIMENT's own relying party, by what became of them: failed is given up after the "
                    "last attempt, dropped never tried to the end.",
                    ("result",),
                    (((result,), forwarded[result]) for result in FORWARD_RESULTS),
                )
            )
        if self.relying is not None:
            families.extend(_relying(self.relying()))
        if self.books is not None:
            families += _book(self.books)
        if self.writable is not None:
            families.append(
                GaugeMetricFamily(
                    "ragate_journal_writable",
                    "1 while the last journal commit succeeded, 0 while raising verdicts are refused.",
                    value=float(self.writable()),
                )
            )
        return [*families, *self._link()]

    def _link(self) -> Iterable[Metric]:
        """What is known of agents and of certificates, where there are any."""
        if self.agents is not None:
            states = self.agents()
            attached = GaugeMetricFamily(
                "ragate_agent_attached", "1 while the agent is attached to this gateway.", labels=("agent",)
            )
            for agent, (is_attached, _) in states.items():
                attached.add_metric((agent,), float(is_attached))
            yield attached
            for resource, text in AGENT_RESOURCES.items():
                family = GaugeMetricFamily(f"ragate_agent_{resource}", text, labels=("agent",))
                for agent, (_, resources) in states.items():
                    family.add_metric((agent,), resources.get(resource, float("nan")))
                yield family
        if self.clusters is not None:
            yield from _of_clusters(self.clusters())
        if self.certificates is not None:
            ends = GaugeMetricFamily(
                "ragate_certificate_not_after_timestamp_seconds",
                "When each certificate in use expires, UNIX time, by its holder.",
                labels=("holder",),
            )
            for holder, at in self.certificates().items():
                ends.add_metric((holder,), at)
            yield ends

    def _advised(self) -> Iterable[Metric]:
        """How far each part of each advisory layer got: 1 for its state, 0 for the others."""
        if not self.advisories:
            return
        family = GaugeMetricFamily(
            "ragate_advisory_state",
            "1 for the state that a part of an advisory layer is in; part state is the whole.",
            labels=("target", "backend", "part", "state"),
        )
        for (target, backend), read in self.advisories.items():
            told = read()
            for part in ADVISORY_PARTS:
                for state in ADVISORY_STATES:
                    family.add_metric((target, backend, part, state), float(told.get(part) == state))
        yield family

    def _site(self) -> Iterable[Metric]:
        if self.site is None:
            return
        site = self.site()
        profile = GaugeMetricFamily(
            "ragate_site_profile", "1 for the profile of the site that runs, 0 for the others.", labels=("profile",)
        )
        for name in dict.fromkeys((*self.profiles(), site.profile)):
            profile.add_metric((name,), float(name == site.profile))
        yield profile
        alarm = GaugeMetricFamily(
            "ragate_resource_alarm",
            "1 while a resource is above the book's threshold for as long as the book says.",
            labels=("resource",),
        )
        for name in self.resources:
            alarm.add_metric((name,), float(name in site.alarms))
        yield alarm


def _book(books: Books) -> Iterable[Metric]:
    yield _counters(
        "ragate_book_reloads",
        "Attempts to replace the running book, by what came of them.",
        ("result",),
        (((result,), books.ended[result]) for result in RESULTS),
    )
    yield GaugeMetricFamily(
        "ragate_book_loaded_timestamp_seconds",
        "When the running book was taken, UNIX seconds.",
        value=books.current.loaded_at,
    )
    yield GaugeMetricFamily(
        "ragate_book_last_reload_successful",
        "0 while the newest attempt to replace the book was refused or failed: the one before runs.",
        value=0.0 if books.refusal is not None else 1.0,
    )
    info = GaugeMetricFamily(
        "ragate_book_info", "1; the digest of the files of the running book.", labels=("digest",)
    )
    info.add_metric((books.current.digest[:12],), 1.0)
    yield info


def _relying(counts: RelyingCounts) -> Iterable[Metric]:
    yield _counters(
        "ragate_relying_messages",
        "Messages at the relying party's port that were judged, by kind and by what was true of them.",
        ("kind", "case"),
        counts.messages.items(),
    )
    for name, text, label, values in (
        (
            "carried",
            "DATA and KEY_CHANGE of admitted devices, by whether the other side took them.",
            "result",
            counts.carried,
        ),
        ("ends", "Connections at the relying party's port that ended, by reason.", "reason", counts.ends),
        (
            "copies",
            "Copies of PASSPORT_RESPONSE for the verifier, by what became of them.",
            "result",
            counts.copies,
        ),
    ):
        yield _counters(f"ragate_relying_{name}", text, (label,), (((value,), n) for value, n in values.items()))


def _of_clusters(states: Mapping[str, tuple[bool, Mapping[str, int]]]) -> Iterator[Metric]:
    followed = GaugeMetricFamily(
        "ragate_kubernetes_watching", "1 while the cluster tells its changes to this gateway.", labels=("target",)
    )
    objects = GaugeMetricFamily(
        "ragate_kubernetes_objects",
        "Objects wanted in the cluster, by how far they got. Accepted: stored; whether nodes enforce is not known.",
        labels=("target", "state"),
    )
    for target, (is_followed, counts) in states.items():
        followed.add_metric((target,), float(is_followed))
        for state, number in counts.items():
            objects.add_metric((target, state), float(number))
    yield followed
    yield objects
