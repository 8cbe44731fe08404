"""Metrics of enforcement: ways around the path gate, spoofed packets, advisory layers, clusters.

What lives here: their names and labels. What must not: counting, or a device in a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from gateway.console.families import counters

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


def bypasses(counts: Mapping[str, Callable[[], int]]) -> Iterator[Metric]:
    """Ways around each target's path gate, where any target has one."""
    if not counts:
        return
    around = GaugeMetricFamily(
        "ragate_bypasses", "Ways around a target's path gate that were found.", labels=("target",)
    )
    for target, count in counts.items():
        around.add_metric((target,), count())
    yield around


def spoofed(counts: Mapping[str, Callable[[], int]]) -> Iterator[Metric]:
    """Packets that a path gate dropped for their source."""
    if counts:
        yield counters(
            "ragate_spoofed_packets",
            "Packets dropped because their source is a device's and they came from elsewhere.",
            ("target",),
            (((target,), count()) for target, count in counts.items()),
        )


def advised(advisories: Mapping[tuple[str, str], Callable[[], Mapping[str, str]]]) -> Iterator[Metric]:
    """How far each part of each advisory layer got: 1 for its state, 0 for the others."""
    if not advisories:
        return
    family = GaugeMetricFamily(
        "ragate_advisory_state",
        "1 for the state that a part of an advisory layer is in; part state is the whole.",
        labels=("target", "backend", "part", "state"),
    )
    for (target, backend), read in advisories.items():
        told = read()
        for part in ADVISORY_PARTS:
            for state in ADVISORY_STATES:
                family.add_metric((target, backend, part, state), float(told.get(part) == state))
    yield family


def of_clusters(states: Mapping[str, tuple[bool, Mapping[str, int]]]) -> Iterator[Metric]:
    """``states`` by target: followed or not, objects by how far they got."""
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
