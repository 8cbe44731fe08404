"""The sample of the host as metrics."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from gateway.console.host import HostCollector
from gateway.watch.resources import Resources, Sampler


def text_of(sample: Resources | None) -> str:
    collector = HostCollector()
    collector.current = lambda: sample
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def test_a_full_sample() -> None:
    sample = Resources(
        cpu_seconds={"user": 1.5, "idle": 9.0},
        cpus=2,
        load=(0.5, 0.25, 0.125),
        memory_total=100,
        memory_available=60,
        memory_limit=80,
        memory_usage=30,
        memory_limit_source="cgroup2",
        disk_total=1_000,
        disk_free=400,
        open_files=12,
        open_files_limit=99,
        process_threads=3,
        process_memory_limit=-1,
        process_peak_resident=50,
        process_switches={"voluntary": 7},
    )
    lines = set(text_of(sample).splitlines())
    assert {
        'ragate_host_cpu_seconds_total{mode="user"} 1.5',
        'ragate_host_cpu_seconds_total{mode="idle"} 9.0',
        "ragate_host_cpus 2.0",
        "ragate_host_load1 0.5",
        "ragate_host_load5 0.25",
        "ragate_host_load15 0.125",
        "ragate_host_memory_total_bytes 100.0",
        "ragate_host_memory_available_bytes 60.0",
        "ragate_host_memory_limit_bytes 80.0",
        "ragate_host_memory_usage_bytes 30.0",
        'ragate_host_memory_limit_info{source="cgroup2"} 1.0',
        "ragate_host_disk_total_bytes 1000.0",
        "ragate_host_disk_free_bytes 400.0",
        "ragate_host_open_files 12.0",
        "ragate_host_open_files_limit 99.0",
        "process_threads 3.0",
        "process_virtual_memory_max_bytes -1.0",
        "process_resident_memory_peak_bytes 50.0",
        'process_context_switches_total{kind="voluntary"} 7.0',
    } <= lines


def test_gaps_are_left_out_and_nothing_comes_before_the_first_sample() -> None:
    assert text_of(None) == ""
    assert text_of(Resources()) == ""


def test_a_real_sample_fits(tmp_path: Path) -> None:
    assert "ragate_host_disk_free_bytes" in text_of(Sampler(tmp_path).sample())
