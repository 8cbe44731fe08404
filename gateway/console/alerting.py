"""Metrics of runtime alerts: read at every scrape from the parts that count.

What lives here: their names and labels. What must not: counting, or a device, an address or a policy in a label.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Listened(NamedTuple):
    """What was counted at one target: open streams; messages, ends and pauses by stream; losses by reason."""

    up: Collection[str]
    heard: Mapping[str, int]
    lost: Mapping[str, int]
    breaks: Mapping[str, int]
    pauses: Mapping[str, int]


class AlertCollector(Collector):
    """Nothing until ``wire`` says where to read."""

    def __init__(self) -> None:
        self._listened: Mapping[str, Callable[[], Listened]] = {}
        self._counts: Callable[[], Mapping[tuple[str, str, str], int]] = dict
        self._raised: Callable[[], Collection[str]] = tuple

    def wire(
        self,
        listened: Mapping[str, Callable[[], Listened]],
        counts: Callable[[], Mapping[tuple[str, str, str], int]],
        raised: Callable[[], Collection[str]],
    ) -> None:
        """``listened`` by target; ``counts`` of alerts by (target, what, act); ``raised`` targets."""
        self._listened, self._counts, self._raised = listened, counts, raised

    def describe(self) -> Sequence[Metric]:
        """No names up front: registering must not read anything yet."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Every family, zeros included."""
        alerts = CounterMetricFamily(
            "ragate_alerts",
            "Runtime alerts taken, by target, by what they are about and by what was done.",
            labels=("target", "what", "act"),
        )
        for labels, number in self._counts().items():
            alerts.add_metric(labels, number)
        yield alerts
        yield from self._of_streams({target: read() for target, read in self._listened.items()})
        alarm = GaugeMetricFamily(
            "ragate_alert_alarm",
            "1 while a target has more alerts than the book's threshold for an alarm.",
            labels=("target",),
        )
        raised = self._raised()
        for target in self._listened:
            alarm.add_metric((target,), float(target in raised))
        yield alarm

    @staticmethod
    def _of_streams(listened: Mapping[str, Listened]) -> Iterable[Metric]:
        up = GaugeMetricFamily(
            "ragate_alert_stream_up", "1 while a stream of KubeArmor's is listened to.", labels=("target", "stream")
        )
        heard = CounterMetricFamily(
            "ragate_alert_stream_messages", "Messages read, by stream.", labels=("target", "stream")
        )
        breaks = CounterMetricFamily(
            "ragate_alert_stream_breaks", "Times that a stream ended.", labels=("target", "stream")
        )
        pauses = CounterMetricFamily(
            "ragate_alert_stream_pauses",
            "Times that reading stood still because a second's worth had been read.",
            labels=("target", "stream"),
        )
        lost = CounterMetricFamily(
            "ragate_alerts_lost", "What was said and did not get on, by reason.", labels=("target", "reason")
        )
        for target, each in listened.items():
            for stream, number in each.heard.items():
                up.add_metric((target, stream), float(stream in each.up))
                heard.add_metric((target, stream), number)
                breaks.add_metric((target, stream), each.breaks.get(stream, 0))
            for stream, number in each.pauses.items():
                pauses.add_metric((target, stream), number)
            for reason, number in each.lost.items():
                lost.add_metric((target, reason), number)
        return up, heard, breaks, pauses, lost
