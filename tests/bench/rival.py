"""What a site has today: alerts handled the way SEDIMENT's relying party does, with a rule script per verdict.

Written from the description of its behaviour: one thread per connection, one message per connection, HMAC and
signature checked, then a shell runs a script that takes a lock, deletes every rule line that mentions the address
and appends a DROP unless the verdict is PASS. One change at a time, one process per command. Nothing is journalled,
nothing is read back, IPv4 only.

As a program in the namespace to be ruled: ``python -m tests.bench.rival CONFIG DONE``. For each alert whose script
has ended a line in DONE: its number, the time (boot nanoseconds), CPU seconds so far with all scripts.
"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from gateway.config import load
from gateway.core.model import Envelope, Instant, Record, Rejected, SourceName, Verdict
from gateway.sediment.authenticate import SedimentAuthenticator, SedimentSource
from gateway.sediment.wire import decode_alert
from gateway.simulate.child import command
from gateway.simulate.load import Report, launch
from gateway.simulate.namespaces import Network
from tests.bench.alerts import Bodies, percentile, plan
from tests.bench.site import CLIENT_CPU, DOOR, SERVER_CPU, BenchError, Site, inside

SCRIPT = """#!/bin/sh
# install_rule DEVICE ADDRESS REASON
exec 9>"$0.lock"
flock 9
iptables -S INPUT | grep -F -- "$2" | sed 's/^-A/-D/' | while read -r rule; do
  iptables $rule
done
[ "$3" = PASS ] || iptables -A INPUT -s "$2" -p udp --dport 5060 -j DROP
"""

_FIRST = int(IPv4Address("172.20.0.1"))


class Rival:
    """Listens for alerts and runs the script for each."""

    def __init__(self, config: Path, done: Path) -> None:
        loaded = load(config)
        source = loaded.sources[0]
        self._script = config.parent / "install_rule.sh"
        self._script.write_text(SCRIPT)
        self._script.chmod(0o755)
        described = SedimentSource(source.name, source.public_key, source.verifier_id.encode())
        self._authenticator = SedimentAuthenticator(described, loaded.hmac_keys)
        self._addresses = {device.id: str(device.binding.addresses[0]) for device in loaded.devices}
        self._lock = threading.Lock()
        self._done = done.open("a", buffering=1)
        self._listener = socket.create_server(tuple(DOOR), backlog=1024)

    def serve(self) -> None:
        """Accept until killed."""
        print("ready", flush=True)
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            data = b""
            while more := connection.recv(32_000):
                data += more
        # It has no freshness check and no memory: every alert is judged at its own time.
        issued = float(decode_alert(data).header.timestamp)
        envelope = Envelope(data, SourceName("verifier"), "", Instant(issued, 0.0))
        verdict = self._authenticator.authenticate(envelope, lambda _: Record())
        if isinstance(verdict, Rejected):
            sys.exit(f"refused: {verdict.refusal} {verdict.detail}")
        self._install(verdict)

    def _install(self, verdict: Verdict) -> None:
        words = [str(self._script), verdict.device, self._addresses[verdict.device], verdict.reason]
        os.system(" ".join(shlex.quote(word) for word in words))
        at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        with self._lock:
            used = sum(
                usage.ru_utime + usage.ru_stime
                for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
            )
            self._done.write(f"{int.from_bytes(verdict.nonce[-8:], 'big')} {at} {used}\n")


@dataclass(frozen=True)
class Handled:
    """Of one campaign: latencies to the installed rule (ms, ascending), alerts a second, CPU per alert."""

    alerts: int
    done: int
    ms: list[float]
    rate: float
    cpu_us: float


def missing() -> str:
    """Why it cannot run here, or ""; as root on Debian and Ubuntu the package is installed first."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if shutil.which("iptables", path=path):
        return ""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return "iptables is not installed (package iptables)"
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "iptables"]):
        subprocess.run([apt, *arguments], capture_output=True, timeout=180, check=False)
    return "" if shutil.which("iptables", path=path) else "iptables is not installed and could not be"


@contextmanager
def running(site: Site, net: Network, rules: int) -> Iterator[Path]:
    """The rival in the gateway's namespace with so many rules installed; gives the file of what is done."""
    namespace = net.router.descriptor
    inside(namespace, "nft", "flush", "ruleset")
    text = "".join(
        f"-A INPUT -s {IPv4Address(_FIRST + n)}/32 -p udp -m udp --dport 5060 -j DROP\n" for n in range(rules)
    )
    restore = site.folder / "rules"
    restore.write_text(f"*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n{text}COMMIT\n")
    inside(namespace, "iptables-restore", str(restore))
    done = site.folder / "done"
    done.write_text("")
    argv = [sys.executable, "-m", "tests.bench.rival", str(site.folder / "ragate.yaml"), str(done)]
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    process = subprocess.Popen(
        command(argv, namespace), pass_fds=(namespace,), stdout=subprocess.PIPE, env=environment
    )
    os.sched_setaffinity(process.pid, SERVER_CPU)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise BenchError("the rival did not start")
        yield done
    finally:
        process.kill()
        process.wait()
        inside(namespace, "nft", "flush", "ruleset")


def handle(
    site: Site, net: Network, bodies: Bodies, done: Path, count: int, rate: float, seconds: float
) -> Handled:
    """Send ``count`` of the same alerts and wait, at most ``seconds``, until their scripts have ended."""
    devices = [device for device in range(site.count) if device % 4 != 3]  # the IPv4 ones
    bodies.prepare(devices, 2)
    before = len(done.read_text().splitlines())
    used = _cpu(done)
    planned = plan(site, bodies, devices, count, rate)
    sent, report_path = site.folder / "campaign", site.folder / "report"
    planned.campaign.write(sent)
    report_path.unlink(missing_ok=True)
    sender = launch(sent, report_path, namespace=net.hosts["verifier"].descriptor, cpus=CLIENT_CPU)
    if sender.wait(60.0):
        raise BenchError("the sender failed")
    report = Report.read(report_path)
    site.last.update(planned.issued(report.start))
    until = time.monotonic() + seconds
    while len(lines := done.read_text().splitlines()[before:]) < count and time.monotonic() < until:
        time.sleep(0.1)
    if not lines:
        raise BenchError(f"the rival handled none of {count} alerts in {seconds:g} s")
    ended = {int(number): int(at) for number, at, _ in (line.split() for line in lines)}
    ms = sorted((at - report.sent[number]) / 1e6 for number, at in ended.items())
    first = min(report.sent[number] for number in ended)
    span = (max(ended.values()) - first) / 1e9
    return Handled(count, len(ended), ms, len(ended) / span, (_cpu(done) - used) / len(ended) * 1e6)


def _cpu(done: Path) -> float:
    lines = done.read_text().splitlines()
    return float(lines[-1].split()[2]) if lines else 0.0


def measure(net: Network, folder: Path, rules: int, *, alone: int, burst: int) -> dict[str, Any]:
    """Latency of single alerts, and the rate at which a burst is worked off, with so many rules installed."""
    site = Site.make(folder, 100)
    bodies = Bodies(site)
    with running(site, net, rules) as done:
        handle(site, net, bodies, done, 4, 4, 30.0)
        single = handle(site, net, bodies, done, alone, 4, 60.0)
        crowd = handle(site, net, bodies, done, burst, 0, 60.0)
    return {
        "rules": rules,
        "p50_ms": percentile(single.ms, 50),
        "p99_ms": percentile(single.ms, 99),
        "alerts_per_s": crowd.rate,
        "cpu_us_per_alert": crowd.cpu_us,
        "done": f"{crowd.done} of {crowd.alerts}",
    }


if __name__ == "__main__":
    Rival(Path(sys.argv[1]), Path(sys.argv[2])).serve()
