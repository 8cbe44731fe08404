"""The promises of ``Standings``, kept by the clockwork's own and by the fake that doors are tested with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from gateway.control.ports import Standings
from gateway.control.standings import DeviceStandings, Reach
from gateway.core.model import DENY, DeviceId, Effect, Event, EventKind, Record, Rule, SourceName, Transition
from tests.fakes.clock import ManualClock
from tests.fakes.standings import FakeStandings

CAM, OTHER = DeviceId("cam-1"), DeviceId("cam-2")


class Made(NamedTuple):
    """One implementation, and how to make it say something."""

    standings: Standings
    admit: Callable[[DeviceId], None]
    cut: Callable[[DeviceId], None]
    want: Callable[[DeviceId], None]


def clockworks() -> Made:
    made = DeviceStandings(lambda profile: Reach(frozenset({"feed"})), ManualClock())

    def want(device: DeviceId) -> None:
        event = Event(EventKind.REQUESTED, 1.0)
        made.happened(Transition(device, SourceName("v"), event, Record(), Record(), Effect.RECORDED, ""))

    return Made(
        made,
        lambda device: made.stands(device, Rule(device, "admitted", 2_000.0)),
        lambda device: made.tightens(device, Rule(device, DENY, 0.0)),
        want,
    )


def fake() -> Made:
    made = FakeStandings()
    return Made(made, lambda device: made.admit(device, until=2_000.0), made.cut, made.wishes.add)


@pytest.fixture(params=[clockworks, fake], ids=["clockwork", "fake"])
def made(request: pytest.FixtureRequest) -> Made:
    build: Callable[[], Made] = request.param
    return build()


def test_nobody_is_admitted_until_it_is_said(made: Made) -> None:
    assert made.standings.until(CAM, "feed") == 0.0
    made.admit(CAM)
    assert made.standings.until(CAM, "feed") == 2_000.0
    assert made.standings.until(CAM, "another") == 0.0
    assert made.standings.until(OTHER, "feed") == 0.0
    made.cut(CAM)
    assert made.standings.until(CAM, "feed") == 0.0


def test_followers_are_told_in_the_same_turn_once_the_answer_has_changed(made: Made) -> None:
    seen: list[tuple[str, float]] = []
    made.standings.follow(lambda device: seen.append((device, made.standings.until(device, "feed"))))
    made.admit(CAM)
    made.cut(CAM)
    assert seen == [("cam-1", 2_000.0), ("cam-1", 0.0)]


def test_a_wish_stands_until_it_is_answered_and_admits_nobody(made: Made) -> None:
    made.want(CAM)
    assert made.standings.wanted(CAM)
    assert not made.standings.wanted(OTHER)
    assert made.standings.until(CAM, "feed") == 0.0
    made.standings.asked(CAM)
    assert not made.standings.wanted(CAM)
