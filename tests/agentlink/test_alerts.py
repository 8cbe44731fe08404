"""Runtime alerts from a host to the gateway: bounded, checked, and every loss counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.agentlink import messages as wire
from gateway.agentlink.alerts import (
    QUIET_TURNS,
    TAKEN_MOST,
    TELL_MOST,
    Counts,
    Inbox,
    Outbox,
)
from gateway.core.model import Address, Instant
from gateway.kubearmor.alerts import RuntimeAlert
from tests.agentlink.pair import Pair, site_certificates, until

ALERT = RuntimeAlert("network", "blocked", "60-honey", 8, Address.parse("10.0.0.1"), "app", "ingress TCP")
STREAMS, REASONS = ("alerts", "logs"), ("malformed", "source", "outbox", "link")


def at(boot: float) -> Instant:
    return Instant(1_000_000.0 + boot, boot)


class Ends:
    """An outbox, an inbox, and what came through."""

    def __init__(self, most: int = 2_000) -> None:
        self.heard: list[tuple[RuntimeAlert, Instant]] = []
        self.outbox = Outbox(7, most)
        self.inbox = Inbox(lambda alert, when: self.heard.append((alert, when)), STREAMS, REASONS)
        self.counts = Counts(("alerts",), {"alerts": 3, "logs": 1}, {"malformed": 2}, {"alerts": 1})

    def report(self, boot: float = 0.0) -> wire.Heard:
        message = self.outbox.report(boot, self.counts)
        assert message is not None
        read = wire.read_from_agent(wire.encode(message))
        assert isinstance(read, wire.Heard)
        return read


def test_an_alert_goes_over_with_its_age_and_the_counts() -> None:
    ends = Ends()
    ends.outbox.put(ALERT, at(10.0))
    ends.outbox.put(ALERT._replace(what="file", source=None), at(12.0))
    before = ends.inbox.told
    ends.inbox.take(ends.report(15.0), at(500.0))
    assert (before, ends.inbox.told) == (False, True)
    assert ends.heard == [
        (ALERT, at(495.0)),
        (ALERT._replace(what="file", source=None), at(497.0)),
    ]
    assert ends.inbox.up == {"alerts"}
    assert (ends.inbox.heard["alerts"], ends.inbox.lost["malformed"], ends.inbox.breaks["alerts"]) == (3, 2, 1)
    ends.inbox.detached()
    assert ends.inbox.up == frozenset()


def test_totals_are_added_once_and_another_life_begins_anew() -> None:
    ends = Ends()
    for _ in range(2):
        ends.outbox.put(ALERT, at(0.0))
        ends.inbox.take(ends.report(), at(0.0))
    assert ends.inbox.heard["alerts"] == 3
    ends.outbox = Outbox(8)
    ends.outbox.put(ALERT, at(0.0))
    ends.inbox.take(ends.report(), at(0.0))
    assert ends.inbox.heard["alerts"] == 6
    assert ends.inbox.lost["link"] == 0


def test_a_full_outbox_loses_the_newest_and_says_how_many() -> None:
    ends = Ends(most=2)
    for number in range(5):
        ends.outbox.put(ALERT._replace(severity=number), at(0.0))
    assert len(ends.outbox) == 2
    ends.inbox.take(ends.report(), at(0.0))
    assert [alert.severity for alert, _ in ends.heard] == [0, 1]
    assert ends.inbox.lost["outbox"] == 3


def test_what_went_missing_with_a_link_is_counted() -> None:
    ends = Ends()
    ends.outbox.put(ALERT, at(0.0))
    ends.inbox.take(ends.report(), at(0.0))
    for _ in range(4):
        ends.outbox.put(ALERT, at(0.0))
    ends.report()  # never arrives
    ends.outbox.put(ALERT, at(0.0))
    ends.inbox.take(ends.report(), at(0.0))
    assert ends.inbox.lost["link"] == 4
    assert len(ends.heard) == 2


def test_a_gateway_that_starts_takes_an_agents_past_for_no_loss_of_alerts_that_it_has() -> None:
    """It cannot know which of them an earlier gateway had: they are counted as not received by this one."""
    ends = Ends()
    for _ in range(3):
        ends.outbox.put(ALERT, at(0.0))
    ends.report()
    fresh = Inbox(lambda *_: None, STREAMS, REASONS)
    ends.outbox.put(ALERT, at(0.0))
    fresh.take(ends.report(), at(0.0))
    assert fresh.lost["link"] == 0


def test_a_message_has_a_bound_and_the_rest_follows() -> None:
    ends = Ends()
    for _ in range(TELL_MOST + 1):
        ends.outbox.put(ALERT, at(0.0))
    assert len(ends.report().alerts) == TELL_MOST
    assert len(ends.report().alerts) == 1


def test_without_alerts_the_counts_are_told_now_and_then() -> None:
    ends = Ends()
    said = [ends.outbox.report(0.0, ends.counts) is not None for _ in range(2 * QUIET_TURNS)]
    assert said == ([False] * (QUIET_TURNS - 1) + [True]) * 2


def packed(**changes: Any) -> wire.HeardAlert:
    given = {
        "what": "network",
        "act": "blocked",
        "policy": "p",
        "severity": 8,
        "source": b"\x0a\0\0\x01",
        "subject": "app",
        "detail": "x",
        "age": 0.0,
    }
    return wire.HeardAlert(**{**given, **changes})


def heard(*alerts: wire.HeardAlert, told: int | None = None, run: int = 1) -> wire.Heard:
    return wire.Heard(run, len(alerts) if told is None else told, (), {}, {}, {}, alerts)


@pytest.mark.parametrize(
    "changes",
    [{"what": "x"}, {"severity": 99}, {"source": b"\x0a\0\0"}, {"detail": "\x1b[2J"}, {"policy": "x" * 500}],
)
def test_a_hostile_agents_alert_is_lost_and_counted(changes: dict[str, Any]) -> None:
    ends = Ends()
    ends.inbox.take(heard(packed(**changes), packed()), at(0.0))
    assert len(ends.heard) == 1
    assert ends.inbox.lost["malformed"] == 1


@pytest.mark.parametrize("age", [-5.0, 1e300, float("inf"), float("nan")])
def test_no_age_makes_an_alert_of_the_future_or_of_no_time(age: float) -> None:
    ends = Ends()
    ends.inbox.take(heard(packed(age=age)), at(100_000.0))
    ((_, when),) = ends.heard
    assert 0.0 <= when.boot <= 100_000.0


def test_more_than_an_honest_agent_says_is_lost_and_counted() -> None:
    ends = Ends()
    told = 0
    while told < TAKEN_MOST + 2 * TELL_MOST:
        told += TELL_MOST
        ends.inbox.take(heard(*[packed()] * TELL_MOST, told=told), at(0.0))
    assert len(ends.heard) == TAKEN_MOST
    assert ends.inbox.lost["source"] == told - TAKEN_MOST


def test_words_and_numbers_of_a_hostile_agent_make_no_metrics_and_no_negative_counts() -> None:
    ends = Ends()
    message = wire.Heard(1, 0, ("alerts", "evil"), {"alerts": -5, "evil": 9}, {"evil": 1}, {"logs": -1}, ())
    ends.inbox.take(message, at(0.0))
    assert ends.inbox.up == {"alerts"}
    assert set(ends.inbox.heard) == set(STREAMS)
    assert set(ends.inbox.lost) == set(REASONS)
    assert min([*ends.inbox.heard.values(), *ends.inbox.breaks.values()]) == 0


@pytest.mark.parametrize(
    "message", [heard(*[packed()] * (TELL_MOST + 1)), heard(packed(), told=0)], ids=["too many", "more than told"]
)
def test_a_message_that_no_agent_writes_ends_the_link(message: wire.Heard) -> None:
    with pytest.raises(wire.LinkProtocolError):
        Ends().inbox.take(message, at(0.0))


def test_a_count_that_goes_back_ends_the_link() -> None:
    ends = Ends()
    ends.inbox.take(heard(packed(), told=5), at(0.0))
    with pytest.raises(wire.LinkProtocolError, match="fewer alerts than before"):
        ends.inbox.take(heard(packed(), told=3), at(0.0))


# --- both ends over a real link -----------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(site_certificates(tmp_path / "certs", "app"))


async def test_alerts_go_over_a_link_and_wait_while_there_is_none(pair: Pair) -> None:
    ends = Ends()
    pair.inbox = ends.inbox
    pair.report = lambda boot: ends.outbox.report(boot, ends.counts)
    ends.outbox.put(ALERT, pair.clock.now())
    async with pair.listening(), pair.agent():
        await pair.attached()
        await until(lambda: len(ends.heard) == 1)
        assert ends.inbox.up == {"alerts"}
    await until(lambda: ends.inbox.up == frozenset())
    ends.outbox.put(ALERT._replace(severity=9), pair.clock.now())
    async with pair.agent(), pair.listening():
        await until(lambda: [alert.severity for alert, _ in ends.heard] == [8, 9])
    assert ends.inbox.lost["link"] == 0


async def test_a_gateway_of_before_is_told_nothing_that_it_does_not_know(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = Ends()
    pair.inbox = ends.inbox
    asked: list[float] = []
    pair.report = asked.append
    monkeypatch.setattr(wire, "PROTOCOLS", (1,))
    async with pair.listening() as hub, pair.agent():
        await pair.attached()
        await until(lambda: hub.states()["app"].not_after)  # a beat has come: it stands and works
        assert asked == []
