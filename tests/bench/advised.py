"""Measurements of the KubeArmor layer: how often its daemon is called as devices change, and the path gate beside.

``python -m tests.bench.advised PORT HEALTH FILE`` is the daemon: the fake, answering after the time that KubeArmor
takes to lay the rules of a host anew, which writes what it was asked into FILE five times a second.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gateway.simulate.child import command
from gateway.simulate.namespaces import Network
from tests.bench.alerts import Bodies, Result, plan, room, send
from tests.bench.site import CLIENT_CPU, BenchError, Gateway, Site, running
from tests.fakes.kubearmor import FakeKubeArmor
from tests.ports import free_port

QUIET = 3.0
"""Seconds without a call after which everything is at KubeArmor: three times its least pause between two calls."""

LAST = 1.0
"""Seconds after the last alert within which its change is told."""

PATIENCE = 120.0


class Window(NamedTuple):
    """What one rate of change came to: calls of network policies and their bytes, seconds in which they fell,
    seconds that the daemon laid rules, the longest time for that, the most calls in flight, and the alerts' own
    result."""

    calls: int
    bytes: int
    seconds: float
    busy: float
    longest: float
    in_flight: int
    entries: int
    result: Result


def measured(net: Network, folder: Path, most: int, seconds: float) -> Iterator[tuple[int, Window]]:
    """For 10, 100, … up to ``most`` devices a minute: that many change, for ``seconds`` each. Every second address
    is left out, so that they do not aggregate."""
    site = Site.make(folder, 2 * most)
    bodies = Bodies(site)
    port, health, told = free_port(), free_port(), folder / "daemon.json"
    settings = yaml.safe_load((folder / "ragate.yaml").read_text())
    settings["targets"][0]["kubearmor"] = {
        "address": f"127.0.0.1:{port}",
        "health": f"127.0.0.1:{health}",
        "tables": "trust",
    }
    (folder / "ragate.yaml").write_text(yaml.safe_dump(settings))
    bodies.prepare(range(0, 2 * most, 2), 2)
    router, sender = net.router.descriptor, net.hosts["verifier"].descriptor
    with _daemon(router, port, health, told), running(site, router) as gateway:
        _settled(told, gateway)
        size = 10
        while size <= most:
            count = max(2, round(size * seconds / 60))
            devices = range(0, 2 * size, 2)
            before = _read(told)
            result = send(gateway, plan(site, bodies, devices, count, size / 60, room(count, devices)), sender)
            after = _settled(told, gateway)
            yield size, _window(before, after, count * 60 / size + LAST, result)
            size *= 10


def _window(before: dict[str, Any], after: dict[str, Any], seconds: float, result: Result) -> Window:
    took = after["rebuilds"][len(before["rebuilds"]) :]
    if not took:
        raise BenchError("the daemon was never told of a change")
    return Window(
        len(took),
        after["bytes"] - before["bytes"],
        seconds,
        sum(took),
        max(took),
        after["in_flight"],
        after["entries"],
        result,
    )


def _read(told: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(told.read_bytes())
    return found


def _settled(told: Path, gateway: Gateway) -> dict[str, Any]:
    """What the daemon says when nothing comes any more."""
    until, calls, since = time.monotonic() + PATIENCE, -1, time.monotonic()
    while time.monotonic() < until:
        found = _read(told) if told.exists() else {"rebuilds": ()}
        now = len(found["rebuilds"])
        if now != calls:
            calls, since = now, time.monotonic()
        if calls and time.monotonic() - since > QUIET:
            return found
        time.sleep(0.1)
    raise BenchError(f"KubeArmor was not told everything within {PATIENCE:.0f} s: {gateway.log_tail()}")


@contextmanager
def _daemon(namespace: int, port: int, health: int, told: Path) -> Iterator[None]:
    argv = [sys.executable, "-m", "tests.bench.advised", str(port), str(health), str(told)]
    process = subprocess.Popen(command(argv, namespace), pass_fds=(namespace,))
    os.sched_setaffinity(process.pid, CLIENT_CPU)
    try:
        until = time.monotonic() + PATIENCE
        while not told.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise BenchError("the daemon did not start")
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


async def _serve(port: int, health: int, told: Path) -> None:
    daemon = FakeKubeArmor()
    daemon.port, daemon.health_port, daemon.timed = port, health, True
    await daemon.start()
    while True:
        now = {
            "rebuilds": daemon.rebuilds,
            "bytes": daemon.bytes,
            "in_flight": daemon.most_in_flight,
            "entries": daemon.prefixes(),
        }
        fresh = told.with_suffix(".new")
        fresh.write_text(json.dumps(now))
        fresh.replace(told)
        await asyncio.sleep(0.2)


def per_second(value: float, window: Window) -> float:
    """A sum over the window's length; NaN for none."""
    return value / window.seconds if window.seconds else math.nan


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
