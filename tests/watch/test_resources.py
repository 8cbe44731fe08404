"""Parsers on captured texts, the sampler on a made-up tree and on this machine, and the watch on a real loop."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.ports import Usage
from gateway.watch import resources
from gateway.watch.resources import (
    CgroupPaths,
    MemoryLimit,
    Resources,
    ResourceWatch,
    Sampler,
    lowest_limit,
    parse_cgroup,
    parse_counts,
    parse_file_nr,
    parse_kib_lines,
    parse_limit,
    parse_loadavg,
    parse_stat_cpu,
)

STAT = """cpu  11218 19475 5303 245975 1254 0 324 2821 0 0
cpu0 5600 9700 2600 122900 600 0 160 1400 0 0
intr 1234567 0 9 0
btime 1795280000
"""

MEMINFO = """MemTotal:       24684096 kB
MemFree:        23077440 kB
MemAvailable:   24065544 kB
HugePages_Total:       0
Hugepagesize:       2048 kB
"""

STATUS = """Name:\tragate
Umask:\t0022
VmPeak:\t    3896 kB
VmHWM:\t    2080 kB
Threads:\t3
voluntary_ctxt_switches:\t41
nonvoluntary_ctxt_switches:\t7
"""

CGROUP_1 = """9:name=systemd:/
4:memory:/docker/f1c0d5ed
2:cpuacct,cpu:/
0::/
"""

CGROUP_2 = "0::/system.slice/ragate.service\n"


def test_stat() -> None:
    modes = parse_stat_cpu(STAT, 100.0)
    assert modes == {
        "user": 112.18,
        "nice": 194.75,
        "system": 53.03,
        "idle": 2459.75,
        "iowait": 12.54,
        "irq": 0.0,
        "softirq": 3.24,
        "steal": 28.21,
    }


@pytest.mark.parametrize("text", ["", "cpu", "cpu a b c d", "intr 1 2 3 4 5", "cpu -1 2 3 4 5"])
def test_stat_that_is_none(text: str) -> None:
    assert parse_stat_cpu(text, 100.0) == {}


def test_small_files() -> None:
    assert parse_loadavg("1.67 0.80 0.34 2/106 11173\n") == (1.67, 0.80, 0.34)
    assert parse_loadavg("1.67 x") is None
    assert parse_kib_lines(MEMINFO)["MemAvailable"] == 24_065_544 * 1024
    assert "HugePages_Total" not in parse_kib_lines(MEMINFO)
    assert parse_counts(STATUS)["Threads"] == 3
    assert parse_file_nr("624\t24\t2466183\n") == (600, 2_466_183)
    assert parse_file_nr("624 0") is None
    # Kernels since 2022 say "no limit" by the largest long.
    assert parse_file_nr("1 0 9223372036854775807") == (1, 9_223_372_036_854_775_807)


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        (CGROUP_1, CgroupPaths("/", "/docker/f1c0d5ed")),
        (CGROUP_2, CgroupPaths("/system.slice/ragate.service", None)),
        ("0::/../../other\n", CgroupPaths("/", None)),
        ("4:memory:relative\n", CgroupPaths(None, None)),
        ("0::/a:b\n", CgroupPaths("/a:b", None)),
        ("", CgroupPaths(None, None)),
        ("nonsense", CgroupPaths(None, None)),
    ],
)
def test_cgroup(text: str, paths: CgroupPaths) -> None:
    assert parse_cgroup(text) == paths


@pytest.mark.parametrize(
    ("text", "limit"),
    [("536870912\n", 536_870_912), ("max\n", None), ("9223372036854771712\n", None), ("", None), ("-1", None)],
)
def test_limit(text: str, limit: int | None) -> None:
    assert parse_limit(text) == limit


def test_the_lowest_of_all_ancestors_holds() -> None:
    levels = [("max", "10"), ("500", "20"), ("400", "30"), ("900", "40")]
    assert lowest_limit(levels) == MemoryLimit(400, 30)
    assert lowest_limit([("max", "10"), ("", "")]) is None


@given(st.text())
def test_no_text_breaks_a_parser(text: str) -> None:
    parse_stat_cpu(text, 100.0)
    parse_loadavg(text)
    parse_kib_lines(text)
    parse_counts(text)
    parse_file_nr(text)
    parse_cgroup(text)
    parse_limit(text)


def put(root: Path, path: str, text: str) -> None:
    at = root / path
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    put(tmp_path, "proc/stat", STAT)
    put(tmp_path, "proc/meminfo", MEMINFO)
    put(tmp_path, "proc/loadavg", "1.0 2.0 3.0 1/2 3\n")
    put(tmp_path, "proc/self/status", STATUS)
    put(tmp_path, "proc/sys/fs/file-nr", "624 0 1000\n")
    return tmp_path


def test_a_whole_sample(tree: Path) -> None:
    put(tree, "proc/self/cgroup", CGROUP_2)
    put(tree, "sys/fs/cgroup/system.slice/ragate.service/memory.max", "1048576\n")
    put(tree, "sys/fs/cgroup/system.slice/ragate.service/memory.current", "4096\n")
    put(tree, "sys/fs/cgroup/system.slice/memory.max", "max\n")
    sample = Sampler(tree, tree).sample()
    assert (sample.memory_limit_source, sample.memory_limit, sample.memory_usage) == ("cgroup2", 1_048_576, 4_096)
    assert sample.load == (1.0, 2.0, 3.0)
    assert sample.cpu_seconds["idle"] > 0
    assert (sample.open_files, sample.open_files_limit) == (624, 1_000)
    assert sample.process_threads == 3
    assert sample.process_peak_resident == 2_080 * 1_024
    assert sample.process_switches == {"voluntary": 41, "nonvoluntary": 7}
    assert sample.disk_total is not None
    assert sample.disk_free is not None
    assert 0 < sample.disk_free <= sample.disk_total


def test_cgroup_1_whose_own_folder_is_not_mounted(tree: Path) -> None:
    put(tree, "proc/self/cgroup", CGROUP_1)
    put(tree, "sys/fs/cgroup/memory/memory.limit_in_bytes", "2097152\n")
    put(tree, "sys/fs/cgroup/memory/memory.usage_in_bytes", "8192\n")
    sample = Sampler(tree, tree).sample()
    assert (sample.memory_limit_source, sample.memory_limit, sample.memory_usage) == ("cgroup1", 2_097_152, 8_192)


def test_without_a_limit_the_host_is_the_limit(tree: Path) -> None:
    put(tree, "proc/self/cgroup", CGROUP_2)
    put(tree, "sys/fs/cgroup/system.slice/ragate.service/memory.max", str(1 << 60))
    sample = Sampler(tree, tree).sample()
    assert sample.memory_limit_source == "host"
    assert sample.memory_limit == 24_684_096 * 1_024
    assert sample.memory_usage == (24_684_096 - 24_065_544) * 1_024


def test_nothing_to_read_leaves_gaps(tmp_path: Path) -> None:
    sample = Sampler(tmp_path / "absent", tmp_path).sample()
    assert sample.load is None
    assert sample.memory_limit is None
    assert sample.disk_total is None
    assert sample.cpu_seconds == {}
    assert sample.process_threads is None


def test_this_machine(tmp_path: Path) -> None:
    sample = Sampler(tmp_path).sample()
    assert sample.memory_limit is not None
    assert sample.process_threads is not None
    assert sample.process_threads >= 1
    assert sample.cpu_seconds["user"] >= 0


def test_reading_is_bounded(tree: Path) -> None:
    put(tree, "proc/loadavg", "1 2 3 " + " " * 10_000_000)
    assert len(resources._read(tree / "proc/loadavg")) == resources.READ_BYTES


def test_usage_is_what_was_not_idle_between_two_samples() -> None:
    before = Resources(cpu_seconds={"user": 10.0, "idle": 100.0, "iowait": 5.0})
    now = Resources(cpu_seconds={"user": 13.0, "idle": 100.5, "iowait": 5.5}, memory_limit=1_000, memory_usage=250)
    assert resources.usage(7, before, now) == Usage(7, 0.75, 0.25)
    assert resources.usage(0, None, now) == Usage(0, None, 0.25)
    assert resources.usage(1, Resources(), now).cpu is None
    assert resources.usage(1, now, now) == Usage(1, None, 0.25), "no time has passed"
    assert resources.usage(1, now, Resources()) == Usage(1, None, None)
    back = Resources(cpu_seconds={"user": 14.0, "idle": 100.0, "iowait": 4.0}, memory_limit=0, memory_usage=5)
    assert resources.usage(1, before, back) == Usage(1, 1.0, None), "iowait ran backwards"
    assert resources.usage(1, before, Resources(memory_limit=10, memory_usage=20)).memory == 1.0


async def test_the_watch_samples_and_notices_a_blocked_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "LAG_SECONDS", 0.01)
    late: list[float] = []
    seen = asyncio.Event()

    def lagged(seconds: float) -> None:
        late.append(seconds)
        if seconds >= 0.05:
            seen.set()

    watch = ResourceWatch(Sampler(tmp_path), lagged)
    assert watch.current() is None
    assert watch.usage() is None
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(0)
    first = watch.current()
    assert isinstance(first, Resources)
    assert watch.usage() == Usage(0, None, resources.usage(0, None, first).memory)
    time.sleep(0.1)
    async with asyncio.timeout(60):
        await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert min(late) >= 0
