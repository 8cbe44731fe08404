"""The parts of the benchmark: each makes its measurements and returns rows.

What must not live here: how anything is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from gateway.simulate.namespaces import Network
from tests.bench import advised, linked, live, posts, rival
from tests.bench import reload as reloading
from tests.bench import relying as data
from tests.bench.alerts import CYCLE, Bodies, Result, percentile, plan, room, send
from tests.bench.beside import rebuilding
from tests.bench.report import Machine, Row
from tests.bench.site import BenchError, Gateway, Site, running


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    many: int = 100_000
    idle: int = 400
    paced: int = 8_000
    rounds: int = 3
    sustained: int = 60_000
    sustained_few: int = 10_000
    cuts: int = 20
    flushes: int = 10
    rival_alone: int = 30
    rival_burst: int = 100
    reloaded: int = 12_000
    linked: int = 200
    renewal_seconds: float = 60.0
    senders: int = 1_000
    data_seconds: float = 10.0
    posting: int = 20_000
    posted: int = 40_000
    advised: int = 10_000
    advised_seconds: float = 60.0


FULL = Sizes()
QUICK = Sizes(
    20_000,
    100,
    4_000,
    1,
    8_000,
    6_000,
    5,
    3,
    10,
    30,
    3_000,
    linked=50,
    data_seconds=4.0,
    posting=10_000,
    posted=12_000,
    advised=1_000,
    advised_seconds=12.0,
)
FEW = 100
IDLE_RATE = 50.0
REFUSED_SHARE = 0.02
"""Alerts that may be refused by name: under full load those of one device may overtake each other on the way."""
PACED_RATE = 2_000.0
DATA_RATE = 5_000.0
POSTED_RATE = 8_000.0
POSTED_P99 = 20.0
POSTED_ROUNDS = 6
HELD_RATE = 1_000.0
IDLE_CONNECTIONS, IDLE_IN_TLS = 10_000, 1_000
RELOADED_RATE = 200.0
PROBED = ("-m", "tests.bench.probed")


@dataclass
class Bench:
    """One run: what it stands on, and what it has found. ``raw`` goes into the JSON as it is."""

    net: Network
    scratch: Path
    sizes: Sizes
    machine: Machine
    rows: list[Row] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    posting: Site | None = None
    _sites: dict[int, tuple[Site, Bodies]] = field(default_factory=dict)

    def site(self, count: int) -> tuple[Site, Bodies]:
        """The site of so many devices, made once."""
        if count not in self._sites:
            made = Site.make(self.scratch / f"site-{count}", count)
            self._sites[count] = made, Bodies(made)
        return self._sites[count]

    def alerts(self, gateway: Gateway, count: int, rate: float, warm: int, warm_rate: float) -> Result:
        """Send and account for ``count`` alerts, after ``warm`` others that count for nothing.

        The devices are evenly spread and so many that each goes through its cycle once, or more often where there
        are fewer devices: the mix is the same on every site. Raises ``BenchError`` when alerts did not do what
        they should.
        """
        site, bodies = self.site(gateway.site.count)
        devices = range(0, site.count, max(1, site.count // min(site.count, max(FEW, count // CYCLE))))
        bodies.prepare(devices, 2)
        sender = self.net.hosts["verifier"].descriptor
        send(gateway, plan(site, bodies, devices, warm, warm_rate), sender)
        result = send(gateway, plan(site, bodies, devices, count, rate, room(count, devices)), sender)
        if result.refused > result.alerts * REFUSED_SHARE or result.failed or result.unsent:
            raise BenchError(
                f"of {result.alerts} alerts {result.refused} were refused, {result.failed} could not be enforced "
                f"and {result.unsent} not be sent: {result.details} {result.errors}; the service says: "
                f"{gateway.log_tail()}"
            )
        return result

    def keep(self, name: str, result: Result) -> None:
        """Put a result into the JSON, its latencies as percentiles."""
        told = {key: value for key, value in vars(result).items() if key not in {"sent", "due"}}
        for kind in ("sent", "due"):
            told[kind] = {f"p{p}": percentile(getattr(result, kind), p) for p in (50, 90, 99, 99.9, 100)}
        self.raw[name] = told

    def running(self, count: int, program: Sequence[str] = ("-m", "gateway")) -> Any:
        """A service with an empty journal for the site of so many devices."""
        return running(self.site(count)[0], self.net.router.descriptor, program)


def idle(bench: Bench) -> None:
    """One alert at a time, without and with a program beside that rebuilds its rules."""
    for count in (FEW, bench.sizes.many):
        with bench.running(count) as gateway:
            for beside in (False, True):
                other = rebuilding(bench.scratch, bench.net.router.descriptor) if beside else nullcontext()
                with other:
                    result = bench.alerts(gateway, bench.sizes.idle, IDLE_RATE, FEW, IDLE_RATE)
                name = f"{count:,} devices{', 10,000 addresses rebuilt beside' if beside else ''}"
                bench.keep(f"idle {name}", result)
                p50, p99 = percentile(result.sent, 50), percentile(result.sent, 99)
                note = f"max {percentile(result.sent, 100):.3g} ms, {result.alerts} alerts at {IDLE_RATE:.0f}/s"
                bench.rows += [
                    Row(
                        "idle",
                        f"p50, {name}",
                        p50,
                        "ms",
                        "at most",
                        None if beside else 3.0,
                        None if beside else 1.0,
                    ),
                    Row(
                        "idle",
                        f"p99, {name}",
                        p99,
                        "ms",
                        "at most",
                        None if beside else 10.0,
                        20.0 if beside else 3.0,
                        note,
                    ),
                ]


def paced(bench: Bench) -> None:
    """2,000 alerts a second: latency, and CPU per alert as devices grow, in alternating rounds."""
    best: dict[int, Result] = {}
    memory: dict[int, int] = {}
    for turn in range(bench.sizes.rounds):
        for count in (FEW, bench.sizes.many):
            with bench.running(count) as gateway:
                memory[count] = gateway.rss()
                result = bench.alerts(gateway, bench.sizes.paced, PACED_RATE, 1_000, 500)
            bench.keep(f"paced {count:,} devices, round {turn + 1}", result)
            if count not in best or result.server_us < best[count].server_us:
                best[count] = result
    for count, result in best.items():
        goal = 20.0 if count == bench.sizes.many else None
        note = f"p50 {percentile(result.sent, 50):.3g} ms, max {percentile(result.sent, 100):.3g} ms"
        what = f"p99 at {PACED_RATE:,.0f}/s, {count:,} devices"
        bench.rows.append(Row("paced", what, percentile(result.sent, 99), "ms", "at most", None, goal, note))
        bench.rows.append(
            Row(
                "paced",
                f"server CPU per alert, {count:,} devices",
                result.server_us,
                "us",
                note=f"client {result.client_us:.0f} us; best of {bench.sizes.rounds}",
            )
        )
    few, many = best[FEW].server_us, best[bench.sizes.many].server_us
    what = f"server CPU per alert, {bench.sizes.many:,} over {FEW} devices"
    bench.rows.append(Row("paced", what, many / few, "x", "at most", 1.5, 1.2))
    growth = (memory[bench.sizes.many] - memory[FEW]) / (bench.sizes.many - FEW)
    bench.rows.append(Row("paced", "memory per device", growth, "bytes", "at most", None, 1_024.0))
    bench.raw["memory"] = memory


def rate(bench: Bench) -> None:
    """As many alerts as go through, one connection each, in alternating rounds."""
    rounds: dict[int, list[Result]] = {FEW: [], bench.sizes.many: []}
    for turn in range(bench.sizes.rounds):
        for count, results in rounds.items():
            alerts = bench.sizes.sustained_few if count == FEW else bench.sizes.sustained
            with bench.running(count) as gateway:
                results.append(bench.alerts(gateway, alerts, 0, 500, 500))
            bench.keep(f"rate {count:,} devices, round {turn + 1}", results[-1])
    for count, results in rounds.items():
        # Whatever else the machine does can only slow a round down: the best one is nearest to the service's own.
        best = max(results, key=lambda result: result.rate)
        lost = max(result.lost for result in results)
        rates = ", ".join(f"{result.rate:,.0f}" for result in results)
        note = (
            f"best of rounds {rates}; {best.alerts:,} alerts: {best.verified:,} verified, "
            f"{best.superseded:,} superseded, {best.refused:,} refused"
        )
        bench.rows += [
            Row("rate", f"sustained, {count:,} devices", best.rate, "/s", "at least", 4_000.0, 10_000.0, note),
            Row("rate", f"alerts lost, {count:,} devices", lost, "", "at most", 0, 0, "the worst round"),
            Row(
                "rate",
                f"server CPU per alert, {count:,} devices",
                best.server_us,
                "us",
                note=f"client {best.client_us:.0f} us; the service had {best.server_share:.0%} of its CPU",
            ),
        ]


def today(bench: Bench) -> None:
    """What a site has today, on the same alerts."""
    why = rival.missing()
    for rules in (10, 1_000):
        if why:
            bench.rows.append(Row("today", f"relying party with {rules} rules", math.nan, "", note=why))
            continue
        found = rival.measure(
            bench.net,
            bench.scratch / f"rival-{rules}",
            rules,
            alone=bench.sizes.rival_alone,
            burst=bench.sizes.rival_burst,
        )
        bench.raw[f"today {rules} rules"] = found
        what = f"with {rules:,} rules"
        bench.rows += [
            Row("today", f"rate {what}", found["alerts_per_s"], "/s", note=_times(bench, "rate", found)),
            Row("today", f"p50 {what}", found["p50_ms"], "ms", note=_times(bench, "idle", found)),
            Row("today", f"p99 {what}", found["p99_ms"], "ms", note="neither durable nor read back; IPv4 only"),
            Row("today", f"CPU per alert {what}", found["cpu_us_per_alert"], "us", note="with its scripts"),
        ]


def _times(bench: Bench, part: str, found: Mapping[str, float]) -> str:
    start = {"rate": "sustained", "idle": "p50"}[part]
    ours = next((row.value for row in bench.rows if row.part == part and row.what.startswith(start)), None)
    if ours is None:
        return ""
    ratio = ours / found["alerts_per_s"] if part == "rate" else found["p50_ms"] / ours
    return f"ours: {ratio:.3g} times {'as many' if part == 'rate' else 'as fast'}"


def flows(bench: Bench) -> None:
    """Live flows of a device that fails."""
    site, bodies = bench.site(FEW)
    found = live.cut_flows(bench.net, site, bodies, bench.sizes.cuts)
    bench.raw["flows"] = found
    for protocol, told in found.items():
        note = f"p50 {told['p50_ms']:.3g} ms, {told['repetitions']} cuts"
        what = f"last {protocol.upper()} packet after the verdict"
        bench.rows.append(Row("flows", what, told["max_ms"], "ms", "at most", None, 5.0, note))


def flush(bench: Bench) -> None:
    """``nft flush ruleset`` under traffic."""
    site, bodies = bench.site(FEW)
    found = live.flush(bench.net, site, bodies, bench.sizes.flushes)
    bench.raw["flush"] = found
    note = f"p50 {found['p50_ms']:.3g} ms, {found['repetitions']} flushes"
    bench.rows.append(
        Row("flush", "open to a stranger after a flush", found["max_ms"], "ms", "at most", 50.0, 50.0, note)
    )


def restart(bench: Bench) -> None:
    """kill -9 and a new start."""
    site, bodies = bench.site(bench.sizes.many)
    found = live.restart(bench.net, site, bodies)
    bench.raw["restart"] = found
    what = f"ready after kill -9, {bench.sizes.many:,} devices"
    note = f"first start {found['first_start_s']:.3g} s; an admitted flow had {found['admitted_packets']} packets"
    bench.rows.append(Row("restart", what, found["ready_s"], "s", "at most", None, 3.0, note))
    bench.rows.append(
        Row("restart", "packets of a stranger meanwhile", found["stranger_packets"], "", "at most", 0, 0)
    )


def ends(bench: Bench) -> None:
    """Ends of admissions without a gateway."""
    found = live.ends(bench.net, bench.scratch / "site-short")
    bench.raw["ends"] = found
    for name in ("deadline", "lease"):
        what = f"admission ends by its {name}, after kill -9"
        late = found[name]["after_expected_ms"]
        bench.rows.append(
            Row("ends", what, late, "ms", "at most", 100.0, 100.0, "last packet, against the end that was shown")
        )
    again = found["packets_after_restart"]
    bench.rows.append(Row("ends", "packets after a new start", again, "", "at most", 0, 0))


def both_ends(bench: Bench) -> None:
    """One verdict on two hosts, and the leases of many devices over the link."""
    found = linked.two_hosts(bench.net, bench.scratch / "site-linked", bench.sizes.linked)
    bench.raw["both_ends"] = found
    for name in ("pass", "fail"):
        told = found[name]
        note = (
            f"max {told['p100']:.3g} ms, {bench.sizes.linked} devices;"
            f" quietest {linked.WINDOW}: p50 {told['best_p50']:.3g}, max {told['best_p100']:.3g} ms"
        )
        bench.rows += [
            Row("both_ends", f"{name} → read back on both hosts, p50", told["p50"], "ms", "at most", None, 5.0),
            Row("both_ends", f"the same, p99 ({name})", told["p99"], "ms", "at most", None, 20.0, note),
        ]
    shares = linked.renewals(bench.scratch / "site-renewals", bench.sizes.many, bench.sizes.renewal_seconds)
    bench.raw["renewals"] = shares
    for side, share in shares.items():
        what = f"leases of {bench.sizes.many:,} devices, {side}"
        bench.rows.append(Row("both_ends", what, share * 100, "% of a core", "at most", None, 10.0))


def relying(bench: Bench) -> None:
    """DATA of connected devices through the relying party's port."""
    sizes = bench.sizes
    found: dict[str, data.Carried] = {}
    for connections in ("kept", "each"):
        site = data.site_of(bench.scratch / f"site-relying-{connections}", sizes.senders, connections)
        # A connection for each message leaves its port at rest for a minute: there are 28,000 of them, and once the
        # half that the kernel tries first is in use every connection searches all of it.
        most = 10_000_000 if connections == "kept" else 12_000
        with data.carrying(bench.net, site, sizes.senders) as carrying:
            found[connections] = carrying.full(sizes.data_seconds, most)
            if connections == "kept":
                found["half"] = carrying.paced(DATA_RATE / 2, sizes.data_seconds)
                bench.raw["relying idle bytes"] = more = carrying.idle(IDLE_CONNECTIONS)
                found["half beside idle"] = carrying.paced(DATA_RATE / 2, sizes.data_seconds)
    bench.raw["relying"] = {name: asdict(one) for name, one in found.items()}
    for name, one in found.items():
        if one.other or not one.arrived:
            raise BenchError(f"{name}: {one.other} of {one.accepted + one.other} DATA were not accepted")
    for connections, least in (("kept", DATA_RATE), ("each", None)):
        one = found[connections]
        what = f"DATA/s carried, {sizes.senders:,} devices, app connections: {connections}"
        note = f"p50 {one.p50_ms:.3g} ms, p99 {one.p99_ms:.3g} ms; {_cost(one)}"
        bench.rows.append(Row("relying", what, one.rate, "/s", "at least", least, least, note))
    for name, beside in (("half", ""), ("half beside idle", f" beside {IDLE_CONNECTIONS:,} idle connections")):
        one = found[name]
        note = f"p50 {one.p50_ms:.3g} ms, max {one.max_ms:.3g} ms; {_cost(one)}"
        what = f"p99 at {DATA_RATE / 2:,.0f} DATA/s{beside}"
        bench.rows.append(Row("relying", what, one.p99_ms, "ms", "at most", None, 20.0, note))
    what = f"memory of {IDLE_CONNECTIONS:,} idle connections"
    bench.rows.append(Row("relying", what, more / 2**20, "MiB", "at most", None, 50.0))


def _cost(one: data.Carried) -> str:
    return (
        f"server {one.server_us:.0f} us of CPU each, {one.server_share:.2f} of a CPU; client {one.client_us:.0f} us"
    )


def rest(bench: Bench) -> None:
    """Verdicts posted over HTTPS with client certificate and signature, connections kept alive."""
    _posted(bench, "rest", lanes=8, window=2)


def rpc(bench: Bench) -> None:
    """The same over gRPC streams."""
    _posted(bench, "rpc", lanes=4, window=8)


def held(bench: Bench) -> None:
    """Ten thousand idle connections at the REST door, and verdicts beside them."""
    site = bench.posting = bench.posting or posts.make_site(bench.scratch / "site-posts", bench.sizes.posting)
    verdicts, turn = bench.sizes.posted // 4, 0
    shape = {"batch": 32, "lanes": 8, "window": 2, "rate": HELD_RATE}
    found: dict[str, dict[str, Any]] = {}
    kinds = {"none": (0, False), "silent": (IDLE_CONNECTIONS, False), "in TLS": (IDLE_IN_TLS, True)}
    for name, (count, tls) in kinds.items():
        with posts.running(site, bench.net.router.descriptor) as gateway:
            warm = posts.load(bench.net, gateway, "rest", verdicts=site.count, turn=turn, **shape)
            with posts.holding(bench.net, gateway, "rest", count, tls=tls) as idle:
                told = posts.load(bench.net, gateway, "rest", verdicts=verdicts, turn=turn + 1, **shape)
            found[name] = {**told, "took": idle.took, "alive": idle.alive, "warm": warm["p99_ms"]}
        if idle.alive != count:
            raise BenchError(f"{count - idle.alive} of {count} idle connections were ended")
    bench.raw["held"] = found
    for name, (count, _) in kinds.items():
        one = found[name]
        note = f"p50 {one['p50_ms']:.3g} ms; server {one['server_us']:.0f} us a verdict"
        what = f"p99 at {HELD_RATE:,.0f}/s beside {count:,} idle connections ({name})"
        bench.rows.append(Row("held", what, one["p99_ms"], "ms", "at most", None, 20.0, note))
        if count:
            goal = 50.0 if name == "silent" else None
            each = f"{one['took'] / count / 1024:.1f} KiB each"
            what = f"memory of {count:,} idle connections ({name})"
            bench.rows.append(Row("held", what, one["took"] / 2**20, "MiB", "at most", None, goal, each))


def _posted(bench: Bench, door: str, lanes: int, window: int) -> None:
    """In documents of 32 several rounds of five seconds or so, full and half the rate by turns, and the best of
    each: the machine's speed changes twofold within minutes. In documents of one a single round, without a bar."""
    place = bench.scratch / "site-posts"
    site = bench.posting = bench.posting or posts.make_site(place, bench.sizes.posting)
    for batch, rounds in ((32, POSTED_ROUNDS), (1, 1)):
        verdicts = bench.sizes.posted if batch > 1 else bench.sizes.posted // 4
        many = f"{batch} verdict{'s' if batch > 1 else ''} a document"
        shape = {"batch": batch, "lanes": lanes, "window": window}
        full, half = [], []
        with posts.running(site, bench.net.router.descriptor) as gateway:
            # Every device's first verdict flips it; from the second turn on half of them do.
            posts.load(bench.net, gateway, door, verdicts=site.count, **{**shape, "batch": 32})
            turn = 1
            for _ in range(rounds):
                full.append(posts.load(bench.net, gateway, door, verdicts=verdicts, turn=turn, **shape))
                turn += math.ceil(verdicts / site.count)
                less = verdicts // 2
                half.append(
                    posts.load(bench.net, gateway, door, verdicts=less, rate=POSTED_RATE / 2, turn=turn, **shape)
                )
                turn += math.ceil(less / site.count)
        bench.raw[f"{door} {many}"] = {"full": full, "half": half}
        best, least = max(full, key=itemgetter("per_second")), min(half, key=itemgetter("p99_ms"))
        note = f"{verdicts:,} verdicts; server {best['server_us']:.0f} us, client {best['client_us']:.0f} us"
        told = f"p50 {least['p50_ms']:.3g} ms, max {least['max_ms']:.3g} ms; server {least['server_us']:.0f} us"
        if rounds > 1:
            note += "; rounds " + ", ".join(f"{one['per_second']:,.0f}" for one in full)
            told += "; rounds " + ", ".join(f"{one['p99_ms']:.3g}" for one in half)
        rate, most = (POSTED_RATE, POSTED_P99) if batch > 1 else (None, None)
        paced = f"p99 at {POSTED_RATE / 2:,.0f}/s, {many}"
        bench.rows += [
            Row(door, f"sustained, {many}", best["per_second"], "/s", "at least", None, rate, note),
            Row(door, paced, least["p99_ms"], "ms", "at most", None, most, told),
        ]


def reload(bench: Bench) -> None:
    """The book reloaded without a pause under alerts at a modest rate, and the same alerts without it."""
    count = bench.sizes.many
    with bench.running(count, PROBED) as gateway:
        found: dict[str, Result] = {}
        seen: dict[str, dict[str, list[float]]] = {}
        for name in ("without", "while"):
            beside = reloading.again_and_again(gateway) if name == "while" else nullcontext(reloading.Reloads())
            reloading.forget_lag(gateway)
            with beside as reloads:
                found[name] = bench.alerts(gateway, bench.sizes.reloaded, RELOADED_RATE, FEW, RELOADED_RATE)
            seen[name] = reloading.lag(gateway)
            bench.keep(f"reload {count:,} devices, {name}", found[name])
    if reloads.failures or not reloads.seconds:
        raise BenchError(f"reloads failed: {reloads.failures or 'none ended'}")
    bench.raw["reload"] = {
        "reloads": vars(reloads),
        "lag_ms": {
            name: {
                kind: {f"p{p}": percentile(values, p) for p in (50, 99, 99.9, 100)} for kind, values in each.items()
            }
            for name, each in seen.items()
        },
    }
    many = f"{count:,} devices"
    note = f"{len(reloads.seconds)} reloads of {sum(reloads.seconds) / len(reloads.seconds):.3g} s each"
    bench.rows.append(
        Row(
            "reload", f"longest slice of a change, {many}", max(reloads.slices_ms), "ms", "at most", None, 2.0, note
        )
    )
    for name, each in seen.items():
        note = f"p99.9 {percentile(each['own'], 99.9):.3g} ms; late by up to {percentile(each['late'], 100):.3g} ms"
        what = f"longest own work between two probes, {name} reloads"
        bench.rows.append(Row("reload", what, percentile(each["own"], 100), "ms", note=note))
    for name, result in found.items():
        goal = 20.0 if name == "while" else None
        note = f"p50 {percentile(result.sent, 50):.3g} ms, max {percentile(result.sent, 100):.3g} ms"
        what = f"p99 at {RELOADED_RATE:,.0f}/s, {name} reloads, {many}"
        bench.rows.append(Row("reload", what, percentile(result.sent, 99), "ms", "at most", None, goal, note))


def kubearmor(bench: Bench) -> None:
    """Devices change faster and faster: what KubeArmor's daemon is asked meanwhile, and the path gate beside."""
    sizes = bench.sizes
    for many, window in advised.measured(
        bench.net, bench.scratch / "advised", sizes.advised, sizes.advised_seconds
    ):
        name = f"{many:,} devices a minute"
        bench.keep(f"kubearmor {name}", window.result)
        bench.raw[f"kubearmor {name}"] |= {key: value for key, value in window._asdict().items() if key != "result"}
        p50, p99 = percentile(window.result.sent, 50), percentile(window.result.sent, 99)
        calls, sent = advised.per_second(window.calls, window), advised.per_second(window.bytes, window) / 1_000
        note = (
            f"{window.calls} calls, {window.entries:,} prefixes in the last; longest rebuild {window.longest:.3g} s"
        )
        busy = f"{window.in_flight} in flight at the most"
        bench.rows += [
            Row("kubearmor", f"calls, {name}", calls, "/s", "at most", 1.5, 1.0, note),
            Row("kubearmor", f"sent, {name}", sent, "kB/s"),
            Row(
                "kubearmor",
                f"time in which a call is in flight, {name}",
                advised.per_second(window.busy, window),
                "of 1",
                "at most",
                1.0,
                0.5,
                busy,
            ),
            Row("kubearmor", f"path gate p50, {name}", p50, "ms"),
            Row("kubearmor", f"path gate p99, {name}", p99, "ms", "at most", None, 20.0),
        ]
        if window.in_flight > 1:
            raise BenchError(f"{window.in_flight} calls were in flight at one daemon")


PARTS: Mapping[str, Callable[[Bench], None]] = {
    each.__name__: each
    for each in (
        idle,
        paced,
        rate,
        reload,
        today,
        flows,
        flush,
        restart,
        ends,
        both_ends,
        kubearmor,
        relying,
        rest,
        rpc,
        held,
    )
}
