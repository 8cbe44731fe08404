"""Metrics of the link to agents and of certificates.

What lives here: their names and labels. What must not: counting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

#: What an agent tells of its host, and what it means. NaN: not attached, or its host does not tell.
AGENT_RESOURCES = {
    "load1": "Load average of one minute of the agent's host.",
    "cpus": "CPUs of the agent's host.",
    "memory_total_bytes": "Memory of the agent's host.",
    "memory_available_bytes": "Memory of the agent's host that is available without swapping.",
    "disk_free_bytes": "Free bytes where the agent keeps its plan.",
    "open_files": "Open files on the agent's host.",
}


def of_agents(states: Mapping[str, tuple[bool, Mapping[str, float]]]) -> Iterator[Metric]:
    """``states`` by agent: attached or not, newest numbers of its host."""
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


def of_certificates(until: Mapping[str, float]) -> Metric:
    """``until`` when, UNIX seconds, by holder."""
    ends = GaugeMetricFamily(
        "ragate_certificate_not_after_timestamp_seconds",
        "When each certificate in use expires, UNIX time, by its holder.",
        labels=("holder",),
    )
    for holder, at in until.items():
        ends.add_metric((holder,), at)
    return ends
