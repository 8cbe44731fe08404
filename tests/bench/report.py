"""Rows of the result: what was promised, what was measured, what it comes to; as a table and as JSON.

What must not live here: measuring.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

Sense = Literal["at most", "at least", ""]


@dataclass(frozen=True)
class Row:
    """One line: ``minimum`` is what a release must reach, ``goal`` what is promised (None: nothing is)."""

    part: str
    what: str
    value: float
    unit: str
    sense: Sense = ""
    minimum: float | None = None
    goal: float | None = None
    note: str = ""

    def meets(self, bound: float | None) -> bool | None:
        """Whether the value keeps within ``bound``; None when there is none. NaN keeps within nothing."""
        if bound is None or not self.sense:
            return None
        return self.value <= bound if self.sense == "at most" else self.value >= bound

    @property
    def of_goal(self) -> float | None:
        """Value over goal."""
        return None if not self.goal else self.value / self.goal


def missed(rows: Sequence[Row]) -> list[Row]:
    """Rows below their minimum."""
    return [row for row in rows if row.meets(row.minimum) is False]


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _verdict(kept: bool | None) -> str:
    return {True: "kept", False: "MISSED", None: ""}[kept]


def table(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    heads = ("part", "measurement", "value", "minimum", "", "goal", "", "note")
    cells = [heads]
    for row in rows:
        sign = {"at most": "<= ", "at least": ">= ", "": ""}[row.sense]
        low = "" if row.minimum is None else sign + _number(row.minimum)
        goal = "" if row.goal is None else sign + _number(row.goal)
        cells.append(
            (
                row.part,
                row.what,
                f"{_number(row.value)} {row.unit}".strip(),
                low,
                _verdict(row.meets(row.minimum)),
                goal,
                _verdict(row.meets(row.goal)),
                row.note,
            )
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


@dataclass
class Machine:
    """What the numbers were made on. ``rsa_us`` and ``loop_ms`` tell how fast a core was at that moment,
    ``flush_us`` the disk: compare them before comparing anything else."""

    cpus: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    kernel: str = field(default_factory=platform.release)
    python: str = field(default_factory=platform.python_version)
    samples: list[dict[str, float]] = field(default_factory=list)

    def sample(self, folder: Path) -> None:
        """Measure the machine now: one RSA-2048 verification, a million turns of an empty loop, and what one flush
        of 4 KiB to the disk takes (median of 50)."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        message = os.urandom(500)
        signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        public, pad, digest = key.public_key(), padding.PKCS1v15(), hashes.SHA256()
        began = time.thread_time()
        for _ in range(2_000):
            public.verify(signature, message, pad, digest)
        rsa_us = (time.thread_time() - began) / 2_000 * 1e6
        began = time.thread_time()
        for _ in range(1_000_000):
            pass
        loop_ms = (time.thread_time() - began) * 1_000
        flush_us = sorted(_flushes(folder / "flushed", 50))[25] * 1e6
        sample = {"rsa_us": rsa_us, "loop_ms": loop_ms, "flush_us": flush_us, "load": os.getloadavg()[0]}
        self.samples.append(sample)

    def __str__(self) -> str:
        spread = {name: [sample[name] for sample in self.samples] for name in self.samples[0]}
        told = ", ".join(f"{name} {min(v):.3g} to {max(v):.3g}" for name, v in spread.items())
        return f"{self.cpus} CPUs, Linux {self.kernel}, Python {self.python}; {told}"


def _flushes(path: Path, times: int) -> list[float]:
    taken = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for turn in range(times):
            os.pwrite(descriptor, bytes(4_096), 4_096 * turn)
            began = time.perf_counter()
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
        path.unlink()
    return taken


def write(folder: Path, rows: Sequence[Row], raw: Mapping[str, Any], machine: Machine, *, quick: bool) -> Path:
    """Write everything as JSON; returns the file."""
    now = datetime.now(UTC)
    path = folder / f"bench-{now:%Y-%m-%d}.json"
    document = {
        "at": now.isoformat(timespec="seconds"),
        "quick": quick,
        "machine": asdict(machine),
        "rows": [
            asdict(row)
            | {"kept_minimum": row.meets(row.minimum), "kept_goal": row.meets(row.goal), "of_goal": row.of_goal}
            for row in rows
        ],
        "raw": raw,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, default=asdict) + "\n")
    return path
