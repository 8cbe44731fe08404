"""What the newest sample of the host and of this process looks like as metrics.

What lives here: the shape that a sample must have, and its names. What must not: reading any file (the eyes do).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector


class HostView(Protocol):
    """One sample. Bytes and seconds; ``None`` or empty: this machine does not tell."""

    @property
    def cpu_seconds(self) -> Mapping[str, float]:
        """Seconds per mode (user, nice, system, idle, iowait, irq, softirq, steal), all CPUs together."""
        ...

    @property
    def cpus(self) -> int | None:
        """CPUs online."""
        ...

    @property
    def load(self) -> tuple[float, float, float] | None:
        """Run queue averages of 1, 5 and 15 minutes."""
        ...

    @property
    def memory_total(self) -> int | None:
        """Physical memory."""
        ...

    @property
    def memory_available(self) -> int | None:
        """What can still be given out without swapping."""
        ...

    @property
    def memory_limit(self) -> int | None:
        """The lowest limit that holds for this process: a control group's, else physical memory."""
        ...

    @property
    def memory_usage(self) -> int | None:
        """Use counted against ``memory_limit``."""
        ...

    @property
    def memory_limit_source(self) -> str:
        """``cgroup2``, ``cgroup1`` or ``host``."""
        ...

    @property
    def disk_total(self) -> int | None:
        """Size of the journal's file system."""
        ...

    @property
    def disk_free(self) -> int | None:
        """Bytes there that an unprivileged process may still use."""
        ...

    @property
    def open_files(self) -> int | None:
        """Open file handles, host-wide."""
        ...

    @property
    def open_files_limit(self) -> int | None:
        """Most file handles that the kernel gives out."""
        ...

    @property
    def process_threads(self) -> int | None:
        """Threads of this process."""
        ...

    @property
    def process_memory_limit(self) -> int | None:
        """Address space limit of this process; -1 as in other exporters: none."""
        ...

    @property
    def process_peak_resident(self) -> int | None:
        """Most memory that this process has had resident."""
        ...

    @property
    def process_switches(self) -> Mapping[str, int]:
        """Context switches of the main thread by kind (voluntary, nonvoluntary)."""
        ...


#: (metric name, attribute of the sample, help)
_GAUGES = (
    ("ragate_host_cpus", "cpus", "CPUs online."),
    ("ragate_host_memory_total_bytes", "memory_total", "Physical memory."),
    ("ragate_host_memory_available_bytes", "memory_available", "Memory that can be given out without swapping."),
    (
        "ragate_host_memory_limit_bytes",
        "memory_limit",
        "Lowest memory limit that holds for this process: its control groups', else physical memory.",
    ),
    (
        "ragate_host_memory_usage_bytes",
        "memory_usage",
        "Memory counted against ragate_host_memory_limit_bytes.",
    ),
    ("ragate_host_disk_total_bytes", "disk_total", "Size of the journal's file system."),
    ("ragate_host_disk_free_bytes", "disk_free", "Space on the journal's file system that we may still use."),
    ("ragate_host_open_files", "open_files", "Open file handles, host-wide."),
    ("ragate_host_open_files_limit", "open_files_limit", "Most file handles that the kernel gives out."),
    ("process_threads", "process_threads", "Number of threads of the process."),
    (
        "process_virtual_memory_max_bytes",
        "process_memory_limit",
        "Maximum amount of virtual memory available in bytes; -1: no limit.",
    ),
    (
        "process_resident_memory_peak_bytes",
        "process_peak_resident",
        "Largest resident memory size so far in bytes.",
    ),
)


class HostCollector(Collector):
    """Turns the newest sample into metrics; exports nothing before there is one."""

    def __init__(self) -> None:
        self.current: Callable[[], HostView | None] | None = None

    def describe(self) -> Sequence[Metric]:
        """No names up front: registering must not read anything yet."""
        return ()

    def collect(self) -> Iterable[Metric]:
        view = self.current() if self.current is not None else None
        if view is None:
            return
        for name, attribute, text in _GAUGES:
            value = getattr(view, attribute)
            if value is not None:
                yield GaugeMetricFamily(name, text, value=float(value))
        if view.load is not None:
            for minutes, load in zip((1, 5, 15), view.load, strict=True):
                yield GaugeMetricFamily(
                    f"ragate_host_load{minutes}", f"Run queue average of {minutes} min.", value=load
                )
        yield from _by_label(
            "ragate_host_cpu_seconds", "CPU time by mode, all CPUs together.", "mode", view.cpu_seconds
        )
        yield from _by_label(
            "process_context_switches", "Context switches of the main thread.", "kind", view.process_switches
        )
        if view.memory_limit is not None:
            yield InfoMetricFamily(
                "ragate_host_memory_limit",
                "Where ragate_host_memory_limit_bytes comes from.",
                value={"source": view.memory_limit_source},
            )


def _by_label(name: str, text: str, label: str, values: Mapping[str, float]) -> Iterable[Metric]:
    if not values:
        return
    family = CounterMetricFamily(name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    yield family
