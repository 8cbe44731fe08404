"""Metrics that are numbers of other parts, read at every scrape.

What lives here: which of them there are, and their order in the exposition. What must not: counting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.console.enforcing import advised, bypasses, of_clusters, spoofed
from gateway.console.families import counters
from gateway.console.linked import of_agents, of_certificates
from gateway.console.relaying import RelyingCounts, forwarded, relying
from gateway.control.ports import SiteNow
from gateway.control.running import RESULTS, Books
from gateway.core.model import Standing


class LiveCollector(Collector):
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
        """Every family that somebody set a reader for."""
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
        families += bypasses(self.bypasses)
        families += spoofed(self.spoofed)
        families += advised(self.advisories)
        if self.forwarding is not None:
            families.append(forwarded(self.forwarding()))
        if self.relying is not None:
            families += relying(self.relying())
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
        if self.agents is not None:
            families += of_agents(self.agents())
        if self.clusters is not None:
            families += of_clusters(self.clusters())
        if self.certificates is not None:
            families.append(of_certificates(self.certificates()))
        return families

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
    yield counters(
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
