"""What the host and this process use: CPU, memory, load, disk, open files, and how late the event loop runs.

What lives here: pure parsers of ``/proc`` and control group texts (``proc(5)``, kernel documentation
``admin-guide/cgroup-v2`` and ``cgroup-v1/memory``), and the sampler that reads them. What must not: deciding
anything; a file that is absent or unreadable leaves a gap in the sample and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gateway.control.ports import Usage

#: Seconds between samples: finer than any usual scrape interval of 10 to 60 s needs.
SAMPLE_SECONDS = 5.0

#: Seconds between looks at the loop's punctuality.
LAG_SECONDS = 0.1

#: Bytes read of any one file; all lines that are used lie well within (``/proc/meminfo`` has 1.5 KiB).
READ_BYTES = 16_384

#: Control groups that one process may be nested in, as far as limits are looked for.
CGROUP_DEPTH = 32

#: Control groups v1 tell "no limit" by the largest multiple of the page size in 63 bits; anything from here on
#: is more than any machine has.
CGROUP1_UNLIMITED = 1 << 62

_CPU_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


@dataclass(frozen=True, slots=True)
class Resources:
    """One sample. Bytes and seconds; ``None`` or empty: this machine does not tell.

    ``memory_limit`` is the lowest limit that holds for this process and ``memory_usage`` what counts against
    it; ``memory_limit_source`` is ``cgroup2``, ``cgroup1`` or ``host``. ``cpu_seconds`` are per mode, all CPUs
    together. ``process_memory_limit`` is -1 without a limit.
    """

    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    cpus: int | None = None
    load: tuple[float, float, float] | None = None
    memory_total: int | None = None
    memory_available: int | None = None
    memory_limit: int | None = None
    memory_usage: int | None = None
    memory_limit_source: str = "host"
    disk_total: int | None = None
    disk_free: int | None = None
    open_files: int | None = None
    open_files_limit: int | None = None
    process_threads: int | None = None
    process_memory_limit: int | None = None
    process_peak_resident: int | None = None
    process_switches: Mapping[str, int] = field(default_factory=dict)


class CgroupPaths(NamedTuple):
    """Where this process sits: paths below the mount points; ``None``: not in such a hierarchy."""

    unified: str | None
    memory: str | None  # the v1 memory controller; when present, it and not v2 holds the limit


class MemoryLimit(NamedTuple):
    """A limit in bytes and the use that counts against it (``None``: not told)."""

    limit: int
    usage: int | None


def parse_stat_cpu(text: str, ticks: float) -> dict[str, float]:
    """CPU seconds per mode from the first line of ``/proc/stat``; ``ticks`` is ``SC_CLK_TCK``. Empty: none."""
    words = text.split("\n", 1)[0].split()
    if len(words) < 5 or words[0] != "cpu" or ticks <= 0 or not all(_is_number(word) for word in words[1:]):
        return {}
    return {mode: int(word) / ticks for mode, word in zip(_CPU_MODES, words[1:], strict=False)}


def parse_loadavg(text: str) -> tuple[float, float, float] | None:
    """The three averages of ``/proc/loadavg``."""
    words = text.split()
    try:
        return float(words[0]), float(words[1]), float(words[2])
    except (ValueError, IndexError):
        return None


def parse_kib_lines(text: str) -> dict[str, int]:
    """Bytes per name from lines ``Name:   123 kB`` (``/proc/meminfo``, ``/proc/self/status``)."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and _is_number(words[0]):
            found[name] = int(words[0]) * 1024
    return found


def parse_counts(text: str) -> dict[str, int]:
    """Plain numbers per name from lines ``Name:   123`` (``/proc/self/status``)."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if _is_number(rest.strip()):
            found[name] = int(rest)
    return found


def parse_file_nr(text: str) -> tuple[int, int] | None:
    """(open, most) of ``/proc/sys/fs/file-nr``: allocated, allocated but unused, maximum."""
    words = text.split()
    if len(words) != 3 or not all(_is_number(word) for word in words):
        return None
    return int(words[0]) - int(words[1]), int(words[2])


def parse_cgroup(text: str) -> CgroupPaths:
    """Where a process sits, from ``/proc/self/cgroup`` (lines ``id:controllers:path``).

    A path that leads out of our own name space (``/../x``) cannot be followed and counts as the root.
    """
    unified: str | None = None
    memory: str | None = None
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3 or not parts[2].startswith("/"):
            continue
        path = "/" if ".." in parts[2].split("/") else parts[2]
        if parts[0] == "0" and not parts[1]:
            unified = path
        elif "memory" in parts[1].split(","):
            memory = path
    return CgroupPaths(unified, memory)


def parse_limit(text: str) -> int | None:
    """Bytes of ``memory.max`` or ``memory.limit_in_bytes``; ``None``: no limit, or nothing to read."""
    word = text.strip()
    if not _is_number(word) or int(word) >= CGROUP1_UNLIMITED:
        return None
    return int(word)


def lowest_limit(levels: list[tuple[str, str]]) -> MemoryLimit | None:
    """The lowest limit among (limit text, usage text) of a control group and its ancestors."""
    found: MemoryLimit | None = None
    for limit_text, usage_text in levels:
        limit = parse_limit(limit_text)
        if limit is not None and (found is None or limit < found.limit):
            found = MemoryLimit(limit, parse_limit(usage_text))
    return found


def _is_number(word: str) -> bool:
    # Kernel counters are at most 64 bit; a longer run of digits is no such number.
    return len(word) <= 20 and word.isascii() and word.isdigit()


class Sampler:
    """Reads one sample. ``root`` is where ``/proc`` and ``/sys`` are found; ``disk`` a path on the file system
    whose space matters (the journal's folder)."""

    def __init__(self, disk: Path, root: Path = Path("/")) -> None:
        self._disk = disk
        self._proc = root / "proc"
        self._cgroups = root / "sys/fs/cgroup"
        self._ticks = float(os.sysconf("SC_CLK_TCK"))

    def sample(self) -> Resources:
        """Read everything once: about ten small files of the kernel's, none of which waits for a disk."""
        memory = parse_kib_lines(_read(self._proc / "meminfo"))
        status = _read(self._proc / "self/status")
        counts = parse_counts(status)
        files = parse_file_nr(_read(self._proc / "sys/fs/file-nr"))
        disk = self._disk_space()
        source, limit = self._memory_limit(memory.get("MemTotal"), memory.get("MemAvailable"))
        return Resources(
            cpu_seconds=parse_stat_cpu(_read(self._proc / "stat"), self._ticks),
            cpus=os.cpu_count(),
            load=parse_loadavg(_read(self._proc / "loadavg")),
            memory_total=memory.get("MemTotal"),
            memory_available=memory.get("MemAvailable"),
            memory_limit=limit.limit if limit else None,
            memory_usage=limit.usage if limit else None,
            memory_limit_source=source,
            disk_total=disk[0] if disk else None,
            disk_free=disk[1] if disk else None,
            open_files=files[0] if files else None,
            open_files_limit=files[1] if files else None,
            process_threads=counts.get("Threads"),
            process_memory_limit=resource.getrlimit(resource.RLIMIT_AS)[0],
            process_peak_resident=parse_kib_lines(status).get("VmHWM"),
            process_switches={
                kind: counts[f"{kind}_ctxt_switches"]
                for kind in ("voluntary", "nonvoluntary")
                if f"{kind}_ctxt_switches" in counts
            },
        )

    def _disk_space(self) -> tuple[int, int] | None:
        try:
            space = os.statvfs(self._disk)
        except OSError:
            return None
        return space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize

    def _memory_limit(self, total: int | None, available: int | None) -> tuple[str, MemoryLimit | None]:
        paths = parse_cgroup(_read(self._proc / "self/cgroup"))
        if paths.memory is not None:
            source, base, path = "cgroup1", self._cgroups / "memory", paths.memory
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            source, base, path = "cgroup2", self._cgroups, paths.unified or "/"
            names = ("memory.max", "memory.current")
        found = lowest_limit([(_read(at / names[0]), _read(at / names[1])) for at in _upwards(base, path)])
        if found is not None and (total is None or found.limit < total):
            return source, found
        if total is None:
            return "host", None
        return "host", MemoryLimit(total, None if available is None else total - available)


def _upwards(base: Path, path: str) -> list[Path]:
    """The control group's folder and those of its ancestors up to the mount point."""
    parts = [part for part in path.split("/") if part][:CGROUP_DEPTH]
    return [base.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _read(path: Path) -> str:
    """The beginning of a small kernel file; empty when it is absent or may not be read."""
    try:
        with path.open("rb") as file:
            return file.read(READ_BYTES).decode("ascii", "replace")
    except OSError:
        return ""


def usage(number: int, before: Resources | None, now: Resources) -> Usage:
    """Shares in use by two samples that follow each other: CPU time that was not idle, of all that passed between
    them (``proc(5)``: a guest's time is within user time, waiting for a disk is idle), and memory against the limit
    that holds."""
    memory = None
    if now.memory_limit and now.memory_usage is not None:
        memory = min(1.0, now.memory_usage / now.memory_limit)
    if before is None:
        return Usage(number, None, memory)
    spent = {mode: value - before.cpu_seconds.get(mode, 0.0) for mode, value in now.cpu_seconds.items()}
    passed = sum(spent.values())
    idle = spent.get("idle", 0.0) + spent.get("iowait", 0.0)
    # iowait may run backwards (proc(5)): a share is held within what a share can be.
    cpu = min(1.0, max(0.0, 1.0 - idle / passed)) if passed > 0 and before.cpu_seconds else None
    return Usage(number, cpu, memory)


class ResourceWatch:
    """Keeps the newest sample and tells how late the event loop is.

    ``lagged`` takes the lateness in seconds of each look at the loop, on the loop's thread.
    """

    def __init__(self, sampler: Sampler, lagged: Callable[[float], None]) -> None:
        self._sampler = sampler
        self._lagged = lagged
        self._current: Resources | None = None
        self._usage: Usage | None = None

    def current(self) -> Resources | None:
        """The newest sample; ``None`` before the first."""
        return self._current

    def usage(self) -> Usage | None:
        """Shares in use by the newest sample; ``None`` before the first."""
        return self._usage

    def _sample(self) -> None:
        before, self._current = self._current, self._sampler.sample()
        number = 0 if self._usage is None else self._usage.number + 1
        self._usage = usage(number, before, self._current)

    async def run(self) -> None:
        """Sample and measure until cancelled.

        A sample is read on the loop's thread: it costs less than handing it to another one. The look after a
        sample starts anew, so that reading is not counted as lateness twice.
        """
        loop = asyncio.get_running_loop()
        next_sample = loop.time()
        while True:
            if loop.time() >= next_sample:
                self._sample()
                next_sample = loop.time() + SAMPLE_SECONDS
            due = loop.time() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self._lagged(max(0.0, loop.time() - due))
