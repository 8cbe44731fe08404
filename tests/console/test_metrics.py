"""The fold over facts, and what a scrape sees."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gateway import __version__
from gateway.console import metrics as module
from gateway.console.facts import (
    LEARNT_PAIRS,
    NOTICE_KINDS,
    OTHER,
    VERDICT_BUCKETS,
    VERDICT_KINDS,
    FactCollector,
)
from gateway.console.families import Tally
from gateway.console.metrics import Metrics
from gateway.console.relaying import FORWARD_RESULTS
from gateway.control.ports import Fact, Notice, SiteNow
from gateway.control.running import RESULTS, Books, Ended, Result, RunningBook
from gateway.core.errors import Refusal
from gateway.core.model import (
    Applied,
    DeviceId,
    Effect,
    Enforced,
    Event,
    EventKind,
    Instant,
    Record,
    Rejected,
    SourceName,
    Standing,
    Transition,
)
from gateway.core.policy import Book
from gateway.kubearmor.render import Library

DEVICE = DeviceId("cam-77")
SOURCE = SourceName("verifier")
NOW = Instant(1.0, 1.0)

Scrape = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def transition(kind: EventKind, source: str = SOURCE) -> Transition:
    return Transition(DEVICE, SourceName(source), Event(kind, 1.0), Record(), Record(), Effect.NONE, "")


def enforced(
    accepted: float,
    verified: float,
    state: Applied = Applied.VERIFIED,
    received: float = 100.0,
    target: str = "gateway",
) -> Enforced:
    return Enforced(
        DEVICE, target, "nft", "admitted", state, "", received, received + accepted, received + verified
    )


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), [SOURCE])


async def scrape(metrics: Metrics) -> Scrape:
    text = (await metrics.exposition()).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Scrape, metric: str, **labels: str) -> float:
    return found[metric, tuple(sorted(labels.items()))]


async def test_every_series_of_a_source_exists_from_the_start(metrics: Metrics) -> None:
    found = await scrape(metrics)
    for refusal in Refusal:
        assert value(found, "ragate_rejections_total", source=SOURCE, reason=refusal.value) == 0
    for kind in VERDICT_KINDS:
        assert value(found, "ragate_verdicts_total", source=SOURCE, result=kind.value) == 0
    for notice in NOTICE_KINDS:
        assert value(found, "ragate_notices_total", kind=notice) == 0


async def test_verdicts_count_by_result_and_other_events_do_not(metrics: Metrics) -> None:
    metrics.stepped([(transition(kind), None, NOW) for kind in EventKind])
    metrics.stepped([(transition(EventKind.FAILED), None, NOW)])
    found = await scrape(metrics)
    assert value(found, "ragate_verdicts_total", source=SOURCE, result="failed") == 2
    assert value(found, "ragate_verdicts_total", source=SOURCE, result="passed") == 1
    total = sum(n for (name, _), n in found.items() if name == "ragate_verdicts_total")
    assert total == len(VERDICT_KINDS) + 1


async def test_an_unknown_source_counts_as_other(metrics: Metrics) -> None:
    metrics.stepped([(transition(EventKind.PASSED, "stranger"), None, NOW)])
    metrics.observe(Rejected(SourceName("stranger"), Refusal.PEER, "", "192.0.2.1", 1.0))
    metrics.observe(Rejected(SOURCE, Refusal.HMAC, "", "192.0.2.1", 1.0, device="cam-77"))
    found = await scrape(metrics)
    assert value(found, "ragate_verdicts_total", source=OTHER, result="passed") == 1
    assert value(found, "ragate_rejections_total", source=OTHER, reason="peer") == 1
    assert value(found, "ragate_rejections_total", source=SOURCE, reason="hmac") == 1
    assert not any("stranger" in str(labels) for _, labels in found)


async def test_latencies(metrics: Metrics) -> None:
    metrics.add_target("gateway", "nft")
    told = [
        enforced(0.0005, 0.0009),
        enforced(0.5, 0.0, Applied.ACCEPTED),
        enforced(0.1, 0.1, Applied.FAILED),
        enforced(0.1, 0.1, received=0.0),
    ]
    metrics.enforced([(number, fact) for number, fact in enumerate(told)])
    found = await scrape(metrics)
    labels = {"target": "gateway", "backend": "nft"}
    assert value(found, "ragate_verdict_accepted_seconds_count", **labels) == 2
    assert value(found, "ragate_verdict_accepted_seconds_sum", **labels) == pytest.approx(0.5005)
    assert value(found, "ragate_verdict_verified_seconds_count", **labels) == 1
    assert value(found, "ragate_verdict_verified_seconds_bucket", le="0.0005", **labels) == 0
    assert value(found, "ragate_verdict_verified_seconds_bucket", le="0.001", **labels) == 1
    assert value(found, "ragate_verdict_verified_seconds_bucket", le="+Inf", **labels) == 1


async def test_pairs_are_learnt_up_to_a_limit(metrics: Metrics) -> None:
    for number in range(LEARNT_PAIRS + 10):
        metrics.enforced([(1, enforced(0.001, 0.002, target=f"t{number}"))])
    found = await scrape(metrics)
    assert value(found, "ragate_verdict_verified_seconds_count", target="t0", backend="nft") == 1
    assert value(found, "ragate_verdict_verified_seconds_count", target=OTHER, backend=OTHER) == 10


async def test_a_layer_beside_the_gate_is_in_one_state_at_a_time(metrics: Metrics) -> None:
    assert not any("advisory" in name for name, _ in await scrape(metrics))
    told = {"state": "failed", "host": "failed", "network": "verified", "documents": "idle", "detail": "x"}
    metrics.set_advisory("gateway", "kubearmor", lambda: told)

    async def ones() -> dict[str, str]:
        found = await scrape(metrics)
        labels = [dict(of) for (name, of), value in found.items() if name == "ragate_advisory_state" and value == 1]
        assert all((each["target"], each["backend"]) == ("gateway", "kubearmor") for each in labels)
        return {each["part"]: each["state"] for each in labels}

    assert await ones() == {"state": "failed", "host": "failed", "network": "verified", "documents": "idle"}
    told["state"] = told["host"] = "absent"
    assert (await ones())["host"] == "absent"


async def test_forwarding_is_read_when_there_is_a_receiver(metrics: Metrics) -> None:
    assert not any("forwarded" in name for name, _ in await scrape(metrics))
    counts = dict.fromkeys(FORWARD_RESULTS, 0)
    metrics.set_forwarding(lambda: counts)
    counts["failed"] = 3
    found = await scrape(metrics)
    series = {labels: n for (name, labels), n in found.items() if name == "ragate_forwarded_total"}
    assert series == {(("result", result),): counts[result] for result in ("forwarded", "failed", "dropped")}


async def test_the_site_its_alarms_and_overrides(metrics: Metrics) -> None:
    assert not any(
        name.startswith(("ragate_site", "ragate_resource", "ragate_over")) for name, _ in await scrape(metrics)
    )
    site, count = SiteNow("lockdown", 1.0, {}, ("",), {"memory": "memory: above"}), 3
    metrics.set_site(lambda: site, lambda: ("lockdown", "normal"), ("cpu", "memory"))
    metrics.set_overrides(lambda: count)
    found = await scrape(metrics)
    series = {dict(labels)["profile"]: n for (name, labels), n in found.items() if name == "ragate_site_profile"}
    assert series == {"lockdown": 1.0, "normal": 0.0}
    assert value(found, "ragate_resource_alarm", resource="cpu") == 0
    assert value(found, "ragate_resource_alarm", resource="memory") == 1
    assert value(found, "ragate_overrides") == 3
    site = site._replace(profile="elevated", alarms={})  # a book that is being replaced may know it no more
    found = await scrape(metrics)
    series = {dict(labels)["profile"]: n for (name, labels), n in found.items() if name == "ragate_site_profile"}
    assert series == {"lockdown": 0.0, "normal": 0.0, "elevated": 1.0}


async def test_notices(metrics: Metrics) -> None:
    metrics.add_target("gateway", "nft")
    for notice in (
        Notice("drift", "nft", "", 1.0, 3),
        Notice("drift", "cam-77", "", 1.0),
        Notice("backend-error", "nft", "", 1.0),
        Notice("withheld", "start", "", 1.0, 5),
        Notice("conflict", "cam-77", "", 1.0),
        Notice("never heard of", "cam-77", "", 1.0),
    ):
        metrics.observe(notice)
    found = await scrape(metrics)
    assert value(found, "ragate_drift_repairs_total", backend="nft") == 3
    assert value(found, "ragate_drift_repairs_total", backend=OTHER) == 1
    assert value(found, "ragate_reconcile_errors_total", backend="nft") == 1
    assert value(found, "ragate_withheld_total") == 5
    assert value(found, "ragate_notices_total", kind="conflict") == 1
    assert value(found, "ragate_notices_total", kind=OTHER) == 1
    assert not any("cam-77" in str(labels) for _, labels in found)


async def test_what_is_read_at_scrape(metrics: Metrics) -> None:
    depth, writable = 3, True
    metrics.add_queue("admission", lambda: depth)
    metrics.set_journal(lambda: writable)
    metrics.set_devices(lambda: {"trusted": 7})
    metrics.journal_committed(0.0015)
    metrics.loop_lagged(0.003)
    found = await scrape(metrics)
    assert value(found, "ragate_queue_depth", queue="admission") == 3
    assert value(found, "ragate_journal_writable") == 1
    assert value(found, "ragate_devices", standing="trusted") == 7
    assert {dict(labels)["standing"] for name, labels in found if name == "ragate_devices"} == {
        standing.label for standing in Standing
    }
    assert value(found, "ragate_journal_commit_seconds_count") == 1
    assert value(found, "ragate_event_loop_lag_seconds_bucket", le="0.005") == 1
    assert value(found, "ragate_event_loop_lag_seconds_bucket", le="0.002") == 0
    depth, writable = 4, False
    found = await scrape(metrics)
    assert value(found, "ragate_queue_depth", queue="admission") == 4
    assert value(found, "ragate_journal_writable") == 0


async def test_process_and_build(metrics: Metrics) -> None:
    found = await scrape(metrics)
    assert value(found, "process_open_fds") > 0
    assert value(found, "process_resident_memory_bytes") > 0
    assert [labels for name, labels in found if name == "ragate_build_info"] == [(("version", __version__),)]


async def test_text_is_the_same_when_made_on_another_thread(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics.stepped([(transition(EventKind.PASSED), None, NOW)])
    here = await scrape(metrics)
    monkeypatch.setattr(module, "SAMPLES_ON_LOOP", 0)
    there = await scrape(metrics)
    assert set(here) == set(there)
    assert value(there, "ragate_verdicts_total", source=SOURCE, result="passed") == 1


async def test_every_name_is_ours_or_a_standard_one_and_explains_itself(metrics: Metrics) -> None:
    text = (await metrics.exposition()).decode()
    for family in text_string_to_metric_families(text):
        assert family.name.startswith(("ragate_", "process_")), family.name
        assert family.documentation, family.name
    assert "_created" not in text


@given(st.lists(st.floats(min_value=0, max_value=100), max_size=50))
def test_a_tally_is_cumulative_and_loses_nothing(values: list[float]) -> None:
    tally = Tally(VERDICT_BUCKETS)
    for each in values:
        tally.observe(each)
    buckets = tally.buckets()
    assert [le for le, _ in buckets][-1] == "+Inf"
    assert buckets[-1][1] == len(values)
    for le, count in buckets:
        assert count == sum(1 for each in values if each <= float(le))
    assert math.isclose(tally.total, sum(values))


@given(
    st.one_of(
        st.builds(
            Rejected, st.text().map(SourceName), st.sampled_from(Refusal), st.text(), st.text(), st.floats(0, 1e9)
        ),
        st.builds(Notice, st.text(), st.text(), st.text(), st.floats(0, 1e9), st.integers(0, 1_000)),
    )
)
def test_no_fact_raises(fact: Fact) -> None:
    Metrics(CollectorRegistry(), [SOURCE]).observe(fact)


@given(
    st.lists(
        st.builds(
            enforced,
            st.floats(-5, 50),
            st.floats(-5, 50),
            st.sampled_from(Applied),
            received=st.sampled_from((0.0, 100.0)),
            target=st.sampled_from("ab"),
        )
    ),
    st.lists(st.builds(transition, st.sampled_from(EventKind), st.sampled_from((SOURCE, "stranger")))),
)
def test_many_told_at_once_count_as_one_by_one(outcomes: list[Enforced], steps: list[Transition]) -> None:
    alone, together = FactCollector(), FactCollector()
    for each in (alone, together):
        each.add_source(SOURCE)
        each.add_source(OTHER)
    for fact in outcomes:
        alone.enforced([(1, fact)])
    for transition_ in steps:
        alone.stepped([(transition_, None, NOW)])
    together.enforced([(1, fact) for fact in outcomes])
    together.stepped([(transition_, None, NOW) for transition_ in steps])
    assert together.verdicts == alone.verdicts
    assert together.latencies.keys() == alone.latencies.keys()
    for pair, tallies in alone.latencies.items():
        for mine, theirs in zip(together.latencies[pair], tallies, strict=True):
            assert mine.counts == theirs.counts
            assert math.isclose(mine.total, theirs.total)
            assert mine.total >= 0


async def test_the_running_book_and_what_became_of_attempts(metrics: Metrics) -> None:
    assert not any(name.startswith("ragate_book") for name, _ in await scrape(metrics))
    books = Books(RunningBook(Book(), Library(), "ab" * 32, "book.yaml", 1_000.0))
    metrics.set_book(books)
    found = await scrape(metrics)
    assert value(found, "ragate_book_loaded_timestamp_seconds") == 1_000.0
    assert value(found, "ragate_book_last_reload_successful") == 1.0
    assert value(found, "ragate_book_info", digest="abababababab") == 1.0
    assert {
        result: value(found, "ragate_book_reloads_total", result=result) for result in RESULTS
    } == dict.fromkeys(RESULTS, 0.0)
    ends: tuple[tuple[Result, float], ...] = (("refused", 0.0), ("failed", 0.0), ("unchanged", 1.0), ("taken", 1.0))
    for number, (result, successful) in enumerate(ends, 1):
        books.end(Ended(number, result, "unix:alice", 2_000.0, "cd" * 32, ("why",)))
        found = await scrape(metrics)
        assert value(found, "ragate_book_reloads_total", result=result) == 1.0
        assert value(found, "ragate_book_last_reload_successful") == successful
    books.take(RunningBook(Book(), Library(), "cd" * 32, "book.yaml", 2_000.0))
    found = await scrape(metrics)
    assert value(found, "ragate_book_loaded_timestamp_seconds") == 2_000.0
    assert ("ragate_book_info", (("digest", "abababababab"),)) not in found
