"""What becomes of runtime alerts: suspect devices by the book's threshold, alarms, facts; nobody is raised."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gateway.control.admit import Admit
from gateway.control.alerts import GATHERED, GATHERED_MOST, Alerts, Watched
from gateway.control.hints import HintLimits
from gateway.core.errors import Refusal
from gateway.core.model import Address, AnchorKind, Instant, Rejected, SourceName, Standing
from gateway.core.policy import AlertThreshold, Book, Thresholds
from gateway.kubearmor.alerts import RuntimeAlert
from tests.control.world import BOOK, World, device, running

SOURCE = SourceName("gateway.alerts")
OWN = "50-network-gateway-01234567"
WATCHING = dataclasses.replace(
    BOOK, thresholds=Thresholds(AlertThreshold(8, 3, 60.0), alarm=AlertThreshold(5, 4, 30.0))
)
ALERT = RuntimeAlert("network", "blocked", "60-honey", 8, Address.parse("10.0.0.1"), "edge", "ingress TCP")


class Heard:
    """The part under test in a world."""

    def __init__(self, world: World, limits: HintLimits = HintLimits(), **watched: Any) -> None:  # noqa: B008
        self.world = world
        self.admit = Admit({}, world.devices, world.journal, [world.facts], world.clock, hint_limits=limits)
        given = {"own": frozenset({OWN}), **watched}
        self.alerts = Alerts(world.devices, self.admit.hint, {"gateway": Watched(SOURCE, **given)})

    async def say(self, times: int = 1, apart: float = 1.0, **changes: Any) -> None:
        for _ in range(times):
            self.alerts.heard("gateway", ALERT._replace(**changes), self.world.clock.now())
            self.world.clock.advance(apart)
        await self.world.settle()

    def turn(self) -> None:
        self.alerts.turn(self.world.clock.now())

    def told(self, kind: str) -> list[str]:
        return [notice.detail for notice in self.world.facts.notices(kind)]


def world(book: Book = WATCHING, **given: Any) -> Any:
    return running(book=book, **given)


async def test_as_many_alerts_as_the_book_says_make_a_trusted_device_suspect() -> None:
    async with world() as here:
        await here.passes("cam-1")
        heard = Heard(here)
        await heard.say(2)
        assert here.standing("cam-1") is Standing.TRUSTED
        await heard.say()
        assert here.standing("cam-1") is Standing.SUSPECT
        assert not here.admitted("10.0.0.1")  # this book gives a suspect device nothing
        assert here.standing("cam-2") is Standing.UNKNOWN
        assert heard.admit.hints[SOURCE, "lowered"] == 1
        (event,) = [each.event for each in here.facts.transitions if each.event.actor == SOURCE]
        assert "3 alerts of severity 8 or more within 60 s; the last: 60-honey, ingress TCP" in event.reason
        (told,) = heard.told("alerts")
        assert told.startswith("cam-1 at gateway: 3 alerts")
        assert told.endswith("it is suspect from here on")


async def test_another_pass_makes_it_trusted_again_and_counting_begins_anew() -> None:
    async with world() as here:
        await here.passes("cam-1")
        heard = Heard(here)
        await heard.say(3)
        here.clock.advance(30.0)
        await here.passes("cam-1")
        assert here.standing("cam-1") is Standing.TRUSTED
        await heard.say(2)
        assert here.standing("cam-1") is Standing.TRUSTED
        await heard.say()
        assert here.standing("cam-1") is Standing.SUSPECT


@pytest.mark.parametrize(
    "changes",
    [
        {"severity": 7},
        {"severity": 0},
        {"act": "allowed"},
        {"act": "told"},
        {"source": None},
        {"source": Address.parse("10.0.0.9")},
        {"policy": OWN, "severity": 10},
        {"what": "denial", "source": None},
        {"what": "daemon", "source": None, "severity": 0},
    ],
)
async def test_what_counts_for_no_device(changes: dict[str, Any]) -> None:
    async with world() as here:
        await here.passes("cam-1")
        heard = Heard(here)
        await heard.say(20, apart=0.1, **changes)
        assert here.standing("cam-1") is Standing.TRUSTED
        assert heard.admit.hints == {}


async def test_too_far_apart_is_not_within_the_books_time() -> None:
    async with world() as here:
        await here.passes("cam-1")
        heard = Heard(here)
        await heard.say(5, apart=15.0)
        assert here.standing("cam-1") is Standing.SUSPECT
    async with world() as here:
        await here.passes("cam-1")
        heard = Heard(here)
        await heard.say(3, apart=31.0)
        assert here.standing("cam-1") is Standing.TRUSTED


async def test_without_an_anchor_packets_name_nobody() -> None:
    """Anybody can send from an address that nothing guarantees: a neighbour must not make this device suspect."""
    async with world(inventory=(device("cam-1", "10.0.0.1", anchor=AnchorKind.NONE),)) as here:
        await here.passes("cam-1")
        await Heard(here).say(10)
        assert here.standing("cam-1") is Standing.TRUSTED


@pytest.mark.parametrize("before", [Standing.UNKNOWN, Standing.DISTRUSTED, Standing.LAPSED])
async def test_alerts_raise_nobody(before: Standing) -> None:
    async with world() as here:
        if before is Standing.DISTRUSTED:
            await here.fails("cam-1")
        if before is Standing.LAPSED:
            await here.passes("cam-1")
            here.clock.advance(101.0)
            here.clockwork.turn()
        heard = Heard(here)
        await heard.say(9)
        assert here.standing("cam-1") is before
        assert heard.told("alerts")[0].endswith("its standing is no higher, or hints were too many")


async def test_the_book_may_cut_for_them() -> None:
    book = dataclasses.replace(WATCHING, suspect="probation", cut_on_hints=frozenset({SOURCE}))
    async with world(book) as here:
        await here.passes("cam-1")
        await Heard(here).say(3)
        assert here.standing("cam-1") is Standing.SUSPECT
        assert not here.admitted("10.0.0.1")


async def test_a_book_without_the_threshold_is_told_and_nothing_follows() -> None:
    async with running() as here:
        await here.passes("cam-1")
        heard = Heard(here)
        await heard.say(50)
        assert here.standing("cam-1") is Standing.TRUSTED
        assert heard.alerts.raised() == {}
        assert heard.alerts.counts["gateway", "network", "blocked"] == 50


async def test_hints_have_their_rate() -> None:
    async with world() as here:
        heard = Heard(here, HintLimits(per_device=1))
        await heard.say(6, apart=0.1)
        (refused,) = [fact for fact in here.facts.all if isinstance(fact, Rejected)]
        assert (refused.refusal, refused.source, refused.device) == (Refusal.RATE, SOURCE, "cam-1")


async def test_a_severity_that_an_alert_has_lost_is_that_of_the_policy_that_stands() -> None:
    async with world() as here:
        await here.passes("cam-1")
        heard = Heard(here, severity_of={"60-honey": 9}.get)
        await heard.say(3, severity=0)
        assert here.standing("cam-1") is Standing.SUSPECT


async def test_a_64_binding_covers_the_addresses_in_it() -> None:
    async with world(inventory=(device("cam-1", "fd00:1:2:3::/64"),)) as here:
        await here.passes("cam-1")
        await Heard(here).say(3, source=Address.parse("fd00:1:2:3::77"))
        assert here.standing("cam-1") is Standing.SUSPECT


# --- the alarm of a host ------------------------------------------------------------------------------------------


async def test_many_alerts_of_a_host_raise_an_alarm_whoever_caused_them_and_end_it_again() -> None:
    async with world() as here:
        heard = Heard(here)
        file: dict[str, Any] = {"what": "file", "source": None, "subject": "app", "severity": 5}
        await heard.say(3, **file)
        assert heard.alerts.raised() == {}
        await heard.say(1, **file)
        assert "4 alerts of severity 5 or more within 30 s" in heard.alerts.raised()["gateway"]
        assert "at app" in heard.alerts.raised()["gateway"]
        await heard.say(5, **file)
        assert len(heard.told("alerts")) == 1
        heard.turn()
        assert heard.alerts.raised()
        here.clock.advance(30.1)
        heard.turn()
        assert heard.alerts.raised() == {}
        assert "fewer alerts than the book's threshold again" in heard.told("alerts")[1]
        assert here.facts.transitions == []


async def test_an_alarm_ends_with_its_threshold() -> None:
    async with world() as here:
        heard = Heard(here)
        await heard.say(4, source=None)
        assert heard.alerts.raised()
        here.devices.book = dataclasses.replace(here.devices.book, thresholds=Thresholds())
        heard.turn()
        assert heard.alerts.raised() == {}


# --- facts --------------------------------------------------------------------------------------------------------


async def test_equal_alerts_are_one_fact() -> None:
    async with world() as here:
        heard = Heard(here)
        await heard.say(5, apart=0.1, severity=0)
        await heard.say(1, what="daemon", act="told", policy="", source=None, detail="ERROR: nft apply error")
        assert heard.told("alert") == []
        assert heard.alerts.next() is not None
        here.clock.advance(GATHERED)
        heard.turn()
        assert heard.told("alert") == [
            "network blocked by 60-honey, 10.0.0.1: ingress TCP (5 times)",
            "daemon told, edge: ERROR: nft apply error",
        ]
        assert [notice.times for notice in here.facts.notices("alert")] == [5, 1]
        assert heard.alerts.next() is None
        heard.turn()
        assert len(heard.told("alert")) == 2


async def test_a_flood_of_different_alerts_is_a_bounded_number_of_facts() -> None:
    async with world() as here:
        heard = Heard(here)
        for number in range(1_000):
            source = Address.parse(f"10.9.{number >> 8}.{number & 255}") if number else None
            heard.alerts.heard("gateway", ALERT._replace(source=source), Instant(1.0, 1.0))
        here.clock.advance(GATHERED)
        heard.turn()
        told = here.facts.notices("alert")
        assert len(told) == GATHERED_MOST + 1
        assert told[-1].detail.startswith(f"{1_000 - GATHERED_MOST} more alerts")
        assert sum(notice.times for notice in told) == 1_000


async def test_a_host_that_is_not_listened_to_is_a_mistake() -> None:
    async with world() as here:
        with pytest.raises(KeyError):
            Heard(here).alerts.heard("elsewhere", ALERT, here.clock.now())
