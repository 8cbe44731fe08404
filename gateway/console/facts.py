"""Metrics that facts move: the fold over verdicts, refusals, outcomes and notices.

What lives here: their names, labels and counters. What must not: deciding anything, or a device in a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.console.families import Tally, counters
from gateway.control.ports import Answered, Fact, Notice, Step
from gateway.core.errors import Refusal
from gateway.core.model import Applied, Enforced, EventKind, Rejected

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


#: Seconds: a loop that is late by 20 ms has used up the latency promise by itself.
LAG_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

#: Label value for a source or backend that was not configured: keeps the number of series bounded.
OTHER = "other"

#: (target, backend) pairs and backends learnt from facts; further ones count as ``other``. One gateway has one
#: or two of each, so reaching this means that something else than a name has got into a label.
LEARNT_PAIRS = 16


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


class FactCollector(Collector):
    """What facts have moved so far.

    On the loop's thread alone, and in plain numbers: at 10,000 alerts/s every microsecond is a percent of a CPU.
    """

    def __init__(self) -> None:
        self.verdicts: dict[tuple[str, EventKind], int] = {}
        self.rejections: dict[tuple[str, Refusal], int] = {}
        self.latencies: dict[tuple[str, str], tuple[Tally, Tally]] = {}
        self.errors: dict[str, int] = {}
        self.repairs: dict[str, int] = {}
        self.notices: dict[str, int] = dict.fromkeys((*NOTICE_KINDS, OTHER), 0)
        self.withheld = 0
        self.lag = Tally(LAG_BUCKETS)

    # --- series ---------------------------------------------------------------------------------------------------

    def add_source(self, source: str) -> None:
        """Make the series of one configured source."""
        for kind in VERDICT_KINDS:
            self.verdicts.setdefault((source, kind), 0)
        self.add_rejections(source)

    def add_rejections(self, source: str) -> None:
        """Make the refusals' series of one source."""
        for refusal in Refusal:
            self.rejections.setdefault((source, refusal), 0)

    def add_backend(self, backend: str) -> None:
        """Make the error and repair series of one backend."""
        self.errors.setdefault(backend, 0)
        self.repairs.setdefault(backend, 0)

    def add_target(self, target: str, backend: str) -> None:
        """Make the series of one backend at one target."""
        self.add_backend(backend)
        self.latencies.setdefault((target, backend), (Tally(VERDICT_BUCKETS), Tally(VERDICT_BUCKETS)))

    # --- the fold -------------------------------------------------------------------------------------------------

    def stepped(self, steps: Sequence[Step]) -> None:
        """Count verdicts; what no verdict caused is counted elsewhere."""
        verdicts = self.verdicts
        for key, count in Counter([(step[0].source, step[0].event.kind) for step in steps]).items():
            if key in verdicts:
                verdicts[key] += count
            elif key[1] in VERDICT_KINDS:
                verdicts[OTHER, key[1]] += count

    def enforced(self, outcomes: Sequence[Answered]) -> None:
        """Measure how long it took, where a message caused it and something came of it."""
        timed: dict[tuple[str, str], list[Enforced]] = {}
        for _, fact in outcomes:
            if fact.received > 0.0 and fact.state is not _FAILED:
                timed.setdefault((fact.target, fact.backend), []).append(fact)
        for pair, facts in timed.items():
            accepted, verified = self.latencies.get(pair) or self._learn(*pair)
            accepted.observe_all(_waits([fact.accepted - fact.received for fact in facts]))
            verified.observe_all(
                _waits([fact.verified - fact.received for fact in facts if fact.state is _VERIFIED])
            )

    def observe(self, fact: Fact) -> None:
        """Count a refusal or a notice."""
        if isinstance(fact, Rejected):
            self._rejected(fact)
        else:
            self._notice(fact)

    def _rejected(self, fact: Rejected) -> None:
        rejections = self.rejections
        key = (fact.source, fact.refusal)
        rejections[key if key in rejections else (OTHER, fact.refusal)] += 1

    def _learn(self, target: str, backend: str) -> tuple[Tally, Tally]:
        full = len(self.latencies) >= LEARNT_PAIRS
        pair = (OTHER, OTHER) if full else (target, backend)
        self.add_target(*pair)
        return self.latencies[pair]

    def _notice(self, fact: Notice) -> None:
        self.notices[fact.kind if fact.kind in self.notices else OTHER] += fact.times
        # A notice's subject may be a device, which must never become a label.
        backend = fact.subject if fact.subject in self.errors else OTHER
        if fact.kind == "withheld":
            self.withheld += fact.times
        elif fact.kind == "drift":
            self.repairs[backend] += fact.times
        elif fact.kind == "backend-error":
            self.errors[backend] += fact.times

    # --- the scrape -----------------------------------------------------------------------------------------------

    def describe(self) -> Sequence[Metric]:
        """No names up front: series are made after registering."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Every family, zeros included."""
        yield counters(
            "ragate_verdicts",
            "Authenticated verdicts that reached the lifecycle, by source and result.",
            ("source", "result"),
            (((source, kind.value), n) for (source, kind), n in self.verdicts.items()),
        )
        yield counters(
            "ragate_rejections",
            "Refused input, by source and the name of the step that refused it.",
            ("source", "reason"),
            (((source, refusal.value), n) for (source, refusal), n in self.rejections.items()),
        )
        yield from self._latencies()
        yield from self._of_backends()
        yield counters(
            "ragate_withheld",
            "Devices not re-admitted at start because journal and kernel disagreed.",
            (),
            (((), self.withheld),),
        )
        yield counters(
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

    def _of_backends(self) -> Iterable[Metric]:
        for name, text, values in (
            ("ragate_reconcile_errors", "Batches that a backend could not take or answer.", self.errors),
            (
                "ragate_drift_repairs",
                "Differences between wanted and enforced state that read-back found and repaired.",
                self.repairs,
            ),
        ):
            yield counters(name, text, ("backend",), (((backend,), n) for backend, n in values.items()))

    def _latencies(self) -> Iterable[Metric]:
        told = ("accepted by", "read back at")
        for index, name in enumerate(("ragate_verdict_accepted_seconds", "ragate_verdict_verified_seconds")):
            text = f"From the last byte of a verdict to its change being {told[index]} the backend."
            family = HistogramMetricFamily(name, text, labels=("target", "backend"))
            for pair, tallies in self.latencies.items():
                family.add_metric(pair, tallies[index].buckets(), tallies[index].total)
            yield family


def _waits(seconds: list[float]) -> Sequence[float]:
    """Boot seconds of one clock: a negative difference is a caller's mistake and must not undo the sum."""
    return seconds if not seconds or min(seconds) >= 0.0 else [max(each, 0.0) for each in seconds]
