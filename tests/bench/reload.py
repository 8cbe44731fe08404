"""The book reloaded again and again while alerts arrive: slices on the loop, and what a verdict waits.

What must not live here: promises.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.site import BenchError, Gateway

PATIENCE = 300.0
"""Seconds for one reload: the trial stands back behind everything else on the machine."""

_CLASS = """
classes:
  - {{name: turn-{turn}, match: {{id: "d*"}}, max_age: 15m}}
  - {{name: some-{turn}, match: {{id: "d*{digit}"}}, standings: probation}}
"""


@dataclass
class Reloads:
    """What was seen of all reloads of one service."""

    seconds: list[float] = field(default_factory=list)
    slices_ms: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def once(gateway: Gateway, turn: int, book: str, found: Reloads) -> None:
    """One reload: every device gets other rules, and one in ten, others each time, another profile."""
    before = _number(gateway)
    (gateway.site.folder / "book.yaml").write_text(book + _CLASS.format(turn=turn, digit=turn % 10))
    began = time.monotonic()
    os.kill(gateway.pid, signal.SIGHUP)
    while True:
        last = gateway.get("/v1/book")["last"]
        if last is not None and last["number"] > before:
            break
        if time.monotonic() - began > PATIENCE:
            raise BenchError(f"no reload within {PATIENCE:.0f} s: {gateway.log_tail()}")
        time.sleep(0.05)
    found.seconds.append(time.monotonic() - began)
    found.slices_ms.append(float(last["slice_ms"]))
    found.said.append(str(last["lines"][0]))
    if last["result"] != "taken":
        found.failures.append(f"{last['result']}: {last['lines']}")


def _number(gateway: Gateway) -> int:
    last = gateway.get("/v1/book")["last"]
    return 0 if last is None else int(last["number"])


@contextmanager
def again_and_again(gateway: Gateway) -> Iterator[Reloads]:
    """Reload without a pause; the book is as it was afterwards."""
    path = gateway.site.folder / "book.yaml"
    book = path.read_text()
    found = Reloads()
    stop = threading.Event()

    def work() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            try:
                once(gateway, turn, book, found)
            except (BenchError, OSError, ValueError) as error:
                found.failures.append(str(error))
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join(PATIENCE)
        path.write_text(book)


def forget_lag(gateway: Gateway) -> None:
    """Let the probe begin anew."""
    os.kill(gateway.pid, signal.SIGUSR1)


def lag(gateway: Gateway) -> dict[str, list[float]]:
    """What the probe has seen since: ``late`` and ``own`` in milliseconds, ascending."""
    path: Path = gateway.site.folder / "lag.json"
    path.unlink(missing_ok=True)
    os.kill(gateway.pid, signal.SIGUSR2)
    until = time.monotonic() + 30.0
    while not path.exists():
        if time.monotonic() > until:
            raise BenchError("the probe does not answer")
        time.sleep(0.05)
    told: dict[str, Any] = json.loads(path.read_text())
    return {name: [float(value) for value in told[name]] for name in ("late", "own")}
