"""Measurements over the link: a verdict enforced on two hosts, and what it costs to renew many leases."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import yaml

from gateway.certs import Role
from gateway.control.followed import Cause
from gateway.control.ports import Notice
from gateway.control.reconcile import Reconciler
from gateway.control.remote import RemoteReconciler
from gateway.core.model import Address, Applied, DeviceId, Rule
from gateway.simulate.namespaces import Network
from tests.agentlink.pair import Pair, site_certificates, until
from tests.agentlink.process import AgentProcess
from tests.bench.alerts import Bodies, percentile
from tests.bench.live import FAIL, PASS, tell
from tests.bench.site import CLIENT_CPU, FIRST4, TICKS, BenchError, Gateway, Site, device_name, forget, running
from tests.netns import KernelClock
from tests.ports import free_place

ADDRESS = "10.77.3.1"
LINK = f"{ADDRESS}:8444"
PAUSE = 0.04
"""Seconds between a verdict and the question how long it took: 25 verdicts a second, one at a time."""
LEASE = 60.0


def two_hosts(net: Network, folder: Path, count: int) -> dict[str, Any]:
    """Each device passes once and fails once, one verdict at a time; milliseconds from a verdict's last byte until
    both hosts have read it back."""
    site = Site.make(folder, count)
    certificates = site_certificates(folder / "certs", "app", host=ADDRESS)
    settings = yaml.safe_load((folder / "ragate.yaml").read_text())
    settings["agents"] = {"listen": LINK}
    settings["certificates"] = {
        "authority": str(certificates.authority),
        "certificate": str(certificates.certificate(Role.GATEWAY, "gw")),
        "key": str(certificates.key(Role.GATEWAY, "gw")),
        "revoked": str(certificates.revocations),
    }
    settings["targets"].append({"name": "app-server", "agent": "app"})
    (folder / "ragate.yaml").write_text(yaml.safe_dump(settings))
    bodies = Bodies(site)
    bodies.prepare(range(count), 1)
    agent = AgentProcess(folder / "agent", certificates, LINK, path_gate="nft")
    appserver = net.hosts["appserver"].descriptor
    forget(site, appserver)
    agent.start(appserver)
    _own_cpu(agent)
    found: dict[str, list[float]] = {"pass": [], "fail": []}
    steps: dict[str, list[float]] = {}
    try:
        with running(site, net.router.descriptor) as gateway:
            for name, verdict, ago in (("pass", PASS, 2), ("fail", FAIL, 0)):
                for device in range(count):
                    sent = _wall(tell(net, site, bodies, device, verdict, ago=ago))
                    standing = "trusted" if verdict == PASS else "distrusted"
                    seen = _both(gateway, device, standing)
                    found[name].append((max(each["verified_at"] for each in seen["targets"]) - sent) * 1_000)
            for device in range(count):
                _keep_steps(steps, gateway.get(f"/v1/devices/{device_name(device)}"))
    finally:
        agent.kill()
        forget(site, appserver)
    told: dict[str, Any] = {name: _spread(values) for name, values in found.items()}
    return told | {"steps": {name: percentile(sorted(values), 50) for name, values in steps.items()}}


def _own_cpu(agent: AgentProcess) -> None:
    """The other host has a processor of its own: not the one to which the gateway is pinned, if there are two."""
    assert agent.process is not None
    for thread in os.listdir(f"/proc/{agent.process.pid}/task"):
        os.sched_setaffinity(int(thread), CLIENT_CPU)


def _keep_steps(steps: dict[str, list[float]], seen: dict[str, Any]) -> None:
    """Milliseconds from a verdict's last byte to each step at each target, as the journal's rows have them."""
    for row in seen["verdicts"]:
        for outcome in row["outcomes"]:
            for step in ("durable", "accepted", "verified"):
                took = outcome[f"{step}_ms"]
                if took is not None:
                    steps.setdefault(f"{row['event']} {outcome['target']} {step}", []).append(float(took))


def _wall(boot_ns: int) -> float:
    """UNIX seconds of a moment of the boot-time clock. Both clocks are read here, one right after the other."""
    return time.time() - (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - boot_ns) / 1e9


def _both(gateway: Gateway, device: int, standing: str) -> dict[str, Any]:
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        time.sleep(PAUSE)
        seen = gateway.get(f"/v1/devices/{device_name(device)}")
        targets = seen["targets"]
        told = {(target["wanted"], target["state"], target["verified_at"] is not None) for target in targets}
        if seen["standing"] == standing and told == {(seen["profile"], "verified", True)}:
            return dict(seen)
    raise BenchError(f"{device_name(device)} is not {standing} at both ends: {seen}")


WINDOW = 20
"""Verdicts of one window: less than a second of a machine that others use, too."""


def _spread(values: list[float]) -> dict[str, float]:
    """Percentiles of all, and of the quietest window: what is left when nobody else has the CPU."""
    ordered = sorted(values)
    windows = [sorted(values[at : at + WINDOW]) for at in range(0, max(1, len(values) - WINDOW + 1), WINDOW)]
    best = min(windows, key=lambda window: percentile(window, 50))
    return {
        **{f"p{p}": percentile(ordered, p) for p in (50, 99, 100)},
        **{f"best_p{p}": percentile(best, p) for p in (50, 100)},
    }


# --- renewals ---------------------------------------------------------------------------------------------


def renewals(folder: Path, count: int, seconds: float) -> dict[str, float]:
    """Shares of a core that so many admitted devices cost in renewals of 60 s leases, here and in the agent."""
    return asyncio.run(_renewals(folder, count, seconds))


async def _renewals(folder: Path, count: int, seconds: float) -> dict[str, float]:
    folder.mkdir()
    pair = Pair(site_certificates(folder / "certs", "app"), lease=LEASE)
    host, port = free_place()
    agent = AgentProcess(
        folder / "agent",
        pair.folder,
        f"{pair.host}:{pair.port}",
        path_gate="relay",
        relay=[{"service": "feed", "listen": f"{host}:{port}"}],
    )
    gate = RemoteReconciler(
        pair.gate,
        pair.gate,
        target="app-server",
        clock=KernelClock(),
        lease=LEASE,
        report=_nobody,
        notice=_nothing,
    )
    async with pair.listening():
        with agent.running():
            await until(lambda: not pair.gate.why, lambda: agent.log)
            end = pair.clock.now().boot + 3_600.0
            for number in range(count):
                address = Address((FIRST4 + number).to_bytes(4, "big"), 32)
                gate.want(address, Rule(DeviceId(f"d{number}"), "admitted", end))
            task = asyncio.create_task(gate.run())
            try:
                await until(lambda: gate.depth == 0 and len(gate.admitted) == count, lambda: gate.depth)
                assert agent.process is not None
                before = time.process_time(), _cpu(agent.process.pid)
                await asyncio.sleep(seconds)
                used = time.process_time() - before[0], _cpu(agent.process.pid) - before[1]
            finally:
                task.cancel()
                await asyncio.wait((task,))
    return {"gateway": used[0] / seconds, "agent": used[1] / seconds}


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _nobody(gate: Reconciler, cause: Cause, state: Applied, now: float) -> None:
    """Nothing is followed here."""


def _nothing(notice: Notice) -> None:
    """What goes wrong shows in the numbers."""
