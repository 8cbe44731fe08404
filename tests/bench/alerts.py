"""Alerts that obey the rules, and what the journal says became of each.

What lives here: the order of passes and failures, campaigns, and matching journal rows by nonce. What must not:
processes, promises.

Every device goes through the same four alerts again and again: PASS (admitted: a flip), PASS a second later
(extended), FAILED_ATTEST (cut: a flip), PASS a second later (the first of the two that recovery asks for). So
exactly half of the alerts flip a device. Issued-at seconds rise strictly; where alerts come faster than seconds
pass, they are issued in the past, inside the window of 120 s that the gateway allows.
"""

from __future__ import annotations

import math
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.sediment.wire import Reason
from gateway.simulate.load import IN_FLIGHT_MAX, Body, Campaign, Report, launch, sign_bodies
from tests.bench.site import CLIENT_CPU, DOOR, VERIFIERS, BenchError, Gateway, Site, address, device_name

BACK = 100
"""Seconds in the past at which the first alert of a device may be issued: the gateway takes 120."""

SETTLE_SECONDS = 30.0
"""For so long after the last alert left outcomes are waited for."""

SLOWEST = 500.0
"""Alerts a second below which nobody waits for a campaign that goes as fast as it can."""

_PASS, _FAIL = 0, 1
_ALERTS = ((_PASS, 1), (_PASS, 1), (_FAIL, 0), (_PASS, 1))  # verdict, least seconds after the one before
CYCLE = len(_ALERTS)
_REASONS = (Reason.PASS, Reason.FAILED_ATTEST)


class Bodies:
    """Signed bodies by device, made once."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._index: dict[int, int] = {}
        self.list: list[Body] = []

    def prepare(self, devices: Iterable[int], processes: int) -> None:
        """Sign what these devices will need: about 0.6 ms of one core each."""
        fresh = [device for device in devices if device not in self._index]
        hmac = self._site.keys.hmac
        wanted = [(device_name(d), hmac[device_name(d)], address(d), reason) for d in fresh for reason in _REASONS]
        start = len(self.list)
        self.list += sign_bodies(self._site.keys.signing, wanted, processes=processes)
        self._index.update({device: start + 2 * n for n, device in enumerate(fresh)})

    def of(self, device: int, verdict: int) -> int:
        """The place in ``list``."""
        return self._index[device] + verdict


class Plan(NamedTuple):
    """A campaign, and by device the number and offset of its last alert in it."""

    campaign: Campaign
    ends: dict[int, tuple[int, int]]

    def issued(self, start: float) -> dict[int, int]:
        """Each device's newest issued-at, once the start is known."""
        rate = self.campaign.rate
        return {d: int(start + (n / rate if rate else 0.0)) + offset for d, (n, offset) in self.ends.items()}


def room(count: int, devices: Sequence[int]) -> int:
    """Seconds in the past at which ``count`` alerts at once must begin, and a few more."""
    return min(BACK, math.ceil(count / len(devices) * 3 / 4) + 5)


def plan(site: Site, bodies: Bodies, devices: Sequence[int], count: int, rate: float, back: int = BACK) -> Plan:
    """``count`` alerts, the devices taken in turn, each where its cycle stands.

    A device's first alert is issued ``back`` seconds before it is due, if its newest is not newer: no more than
    is needed (``room``), for what waits long at the door must still lie in the window.
    Raises ``BenchError`` when the window has no room for that many of one device.
    """
    now = int(time.time())
    step = 1 / rate if rate else 0.0
    order: list[int] = []
    offsets: list[int] = []
    ends: dict[int, tuple[int, int]] = {}
    for number in range(count):
        device = devices[number % len(devices)]
        verdict, apart = _ALERTS[site.phase.get(device, 0)]
        if device in ends:
            before, offset = ends[device]
            # Due seconds of the two differ by this much at least, whatever fraction of a second the start has.
            least = offset + apart - int((number - before) * step)
        else:
            least = site.last.get(device, 0) + apart - now - int(number * step)
        offset = max(least, -back)
        if offset > 0:
            raise BenchError(f"{count} alerts at {rate:g}/s are too many for {len(devices)} devices")
        ends[device] = number, offset
        site.phase[device] = (site.phase.get(device, 0) + 1) % CYCLE
        order.append(bodies.of(device, verdict))
        offsets.append(offset)
    used = sorted(set(order))  # so that a small campaign is a small file
    place = {old: new for new, old in enumerate(used)}
    picked = [bodies.list[old] for old in used]
    # No more on their way than devices: alerts of one device then arrive in order.
    patience = SETTLE_SECONDS + (0.0 if rate else count / SLOWEST)
    flying = max(1, min(IN_FLIGHT_MAX, len(devices) // 2))
    made = Campaign(DOOR, rate, picked, [place[old] for old in order], offsets, VERIFIERS, flying, patience)
    return Plan(made, ends)


class Row(NamedTuple):
    """What the journal says of one alert. ``ms``: from receipt to journalled and read back (None: never)."""

    received: float
    accepted_ms: float | None
    verified_ms: float | None
    durable_ms: float | None
    state: str
    detail: str

    @property
    def ms(self) -> float | None:
        """Later of journalled and read back."""
        if self.verified_ms is None or self.durable_ms is None:
            return None
        return max(self.verified_ms, self.durable_ms)


@dataclass
class Result:
    """What became of a campaign. Latencies in ms, ascending: ``sent`` from the sender's last byte, ``due`` from
    when the alert should have gone; ``superseded`` was overtaken by a newer verdict of the device."""

    alerts: int
    sent: list[float] = field(default_factory=list)
    due: list[float] = field(default_factory=list)
    verified: int = 0
    superseded: int = 0
    failed: int = 0
    refused: int = 0
    unsent: int = 0
    lost: int = 0
    seconds: float = 0.0  # first byte sent to last alert enforced
    rate: float = 0.0
    server_us: float = 0.0
    server_share: float = 0.0  # of one CPU; well below 1 under full load: somebody else used it
    client_us: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    threads_us: dict[str, float] = field(default_factory=dict)
    details: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)  # why alerts were not sent


class _Body(msgspec.Struct):
    nonce: str = ""


_decoder = msgspec.json.Decoder(_Body)


def _newest(journal: Path) -> int:
    with _reader(journal) as db:
        return int(db.execute("SELECT coalesce(max(seq), 0) FROM facts").fetchone()[0])


class _reader:  # noqa: N801 - used like a function
    def __init__(self, journal: Path) -> None:
        self._db = sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=10.0)

    def __enter__(self) -> sqlite3.Connection:
        return self._db

    def __exit__(self, *_: object) -> None:
        self._db.close()


def rows(journal: Path, after: int, seed: bytes) -> tuple[dict[int, Row], int]:
    """Journal rows behind ``after`` by the number of their alert, and how many refusals there are."""
    found: dict[int, Row] = {}
    with _reader(journal) as db:
        outcomes = {
            seq: (state, detail, a, v, d)
            for seq, state, detail, a, v, d in db.execute(
                "SELECT seq, state, detail, accepted_ms, verified_ms, durable_ms FROM outcomes WHERE seq > ?",
                (after,),
            )
        }
        refused = db.execute("SELECT count(*) FROM facts WHERE seq > ? AND kind = 'refusal'", (after,)).fetchone()
        for seq, at, body in db.execute(
            "SELECT seq, at, body FROM facts WHERE seq > ? AND kind = 'transition'", (after,)
        ):
            nonce = bytes.fromhex(_decoder.decode(body).nonce)
            if nonce[:-8] != seed:
                continue
            state, detail, accepted, verified, durable = outcomes.get(seq, ("", "", None, None, None))
            found[int.from_bytes(nonce[-8:], "big")] = Row(at, accepted, verified, durable, state, detail)
    return found, int(refused[0])


def send(gateway: Gateway, planned: Plan, namespace: int) -> Result:
    """Send a campaign from the verifier's namespace and account for every alert of it."""
    site, made = gateway.site, planned.campaign
    sent, report_path = site.folder / "campaign", site.folder / "report"
    made.write(sent)
    report_path.unlink(missing_ok=True)
    after = _newest(site.journal)
    threads, cpu = gateway.threads(), gateway.cpu()
    sender = launch(sent, report_path, namespace=namespace, cpus=CLIENT_CPU)
    try:
        code = sender.wait(120.0 + len(made.order) / (made.rate or 500.0))
    except subprocess.TimeoutExpired:
        sender.kill()
        sender.wait()
        raise BenchError("the sender did not end") from None
    if code:
        raise BenchError(f"the sender ended with {code}")
    report = Report.read(report_path)
    site.last.update(planned.issued(report.start))
    found, refused = _settled(gateway, made, after, report)
    cpu = gateway.cpu() - cpu
    used = {name: seconds - threads.get(name, 0.0) for name, seconds in gateway.threads().items()}
    return _result(made, report, found, refused, cpu, used)


def _settled(gateway: Gateway, made: Campaign, after: int, report: Report) -> tuple[dict[int, Row], int]:
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        time.sleep(0.4)  # outcomes ride along with the next commit, or go after 0.25 s
        found, refused = rows(gateway.site.journal, after, made.seed)
        complete = sum(1 for row in found.values() if row.state)
        if complete + refused >= report.count or time.monotonic() > until:
            return found, refused


def _result(
    made: Campaign, report: Report, found: dict[int, Row], refused: int, cpu: float, used: dict[str, float]
) -> Result:
    result = Result(len(made.order), refused=refused, unsent=len(made.order) - report.count)
    to_wall = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    details: Counter[str] = Counter()
    ends, stages = [0.0], []
    for number, row in found.items():
        details[f"{row.state}: {row.detail}" if row.detail else row.state] += 1
        result.verified += row.state == "verified"
        overtaken = row.state == "failed" and "overtaken" in row.detail
        result.superseded += overtaken
        result.failed += row.state == "failed" and not overtaken
        if row.state != "verified" or row.ms is None:
            continue
        end = row.received + row.ms / 1_000
        ends.append(end)
        result.sent.append((end - (report.sent[number] + to_wall) / 1e9) * 1_000)
        result.due.append((end - (report.due[number] + to_wall) / 1e9) * 1_000)
        stages.append((row.durable_ms or 0.0, row.verified_ms or 0.0))
    result.lost = report.count - refused - sum(1 for row in found.values() if row.state)
    result.sent.sort()
    result.due.sort()
    first = min((at for at in report.sent if at), default=0)
    result.seconds = max(ends) - (first + to_wall) / 1e9
    done = len(found) + refused
    result.rate = done / result.seconds if result.seconds > 0 else 0.0
    result.server_us = cpu / max(done, 1) * 1e6
    result.server_share = cpu / result.seconds if result.seconds > 0 else 0.0
    result.client_us = report.cpu_seconds / max(report.count, 1) * 1e6
    result.stages = {
        "durable_p50_ms": percentile(sorted(s[0] for s in stages), 50),
        "verified_p50_ms": percentile(sorted(s[1] for s in stages), 50),
        "left_late_p99_ms": percentile(report.lateness, 99) * 1_000,
    }
    result.threads_us = {name: seconds / max(done, 1) * 1e6 for name, seconds in used.items() if seconds > 0.001}
    result.details = dict(details.most_common(8))
    result.errors = dict(report.errors)
    return result


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The smallest value that ``percent`` of all do not exceed; NaN for none."""
    if not ascending:
        return float("nan")
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]
