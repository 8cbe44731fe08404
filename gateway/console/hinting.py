"""Metrics of hints and of what verifiers are asked: read at every scrape from the parts that count.

What lives here: their names and labels. What must not: counting, or a device in a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.control.admit import HINT_RESULTS
from gateway.control.inquiries import RESULTS
from gateway.core.model import SourceName

Counts = Callable[[], Mapping[tuple[SourceName, str], int]]
Asked = Callable[[], Mapping[tuple[str, str], int]]


class HintCollector(Collector):
    """``sources`` of hints, what was taken of each (``hints``), which ``feeds`` are connected, what each source's
    verifier was ``asked``, and how many of its devices are ``replayable``."""

    def __init__(self) -> None:
        self.sources: Sequence[str] = ()
        self.hints: Counts = dict
        self.feeds: Callable[[], Mapping[SourceName, bool]] = dict
        self.asked: Mapping[SourceName, Asked] = {}
        self.replayable: Callable[[], Mapping[SourceName, int]] = dict

    def describe(self) -> Sequence[Metric]:
        """No names up front: registering must not read anything yet."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Every family, zeros included."""
        taken = CounterMetricFamily(
            "ragate_hints",
            "Hints that were taken, by source and by what came of them; refused ones are rejections.",
            labels=("source", "result"),
        )
        counts = self.hints()
        for source in self.sources:
            for result in HINT_RESULTS:
                taken.add_metric((source, result), counts.get((SourceName(source), result), 0))
        yield taken
        feeds = GaugeMetricFamily(
            "ragate_feed_connected", "1 while the feed of a verifier is connected.", labels=("source",)
        )
        for source, connected in self.feeds().items():
            feeds.add_metric((source,), float(connected))
        yield feeds
        yield self._inquiries()
        replayable = GaugeMetricFamily(
            "ragate_replayable_devices",
            "Devices whose old evidence could be sent to their verifier again.",
            labels=("source",),
        )
        for name, number in self.replayable().items():
            replayable.add_metric((name,), number)
        yield replayable

    def _inquiries(self) -> Metric:
        family = CounterMetricFamily(
            "ragate_inquiries",
            "What verifiers were asked, by inquiry and by what became of it.",
            labels=("source", "inquiry", "result"),
        )
        for source, read in self.asked.items():
            counts = read()
            for inquiry, results in RESULTS.items():
                for result in results:
                    family.add_metric((source, inquiry, result), counts.get((inquiry, result), 0))
        return family
