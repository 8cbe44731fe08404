"""Hints in the clockwork: they lower within their rate, and nothing they do raises."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.control.admit import Admit
from gateway.control.claims import Claims
from gateway.control.hints import HintLimits, HintRate
from gateway.core.errors import Refusal
from gateway.core.model import (
    AnchorKind,
    DeviceId,
    Envelope,
    Hint,
    Outcome,
    Rejected,
    SourceName,
    Standing,
    Timeliness,
    Verdict,
)
from gateway.sediment.hints import HookHints
from tests.control.world import BOOK, INVENTORY, SOURCE, World, device, running

HOOK = SourceName("hook")
CAM = DeviceId("cam-1")


def admit(world: World, limits: HintLimits = HintLimits()) -> Admit:  # noqa: B008 - frozen value
    judge = HookHints(HOOK, {each.id: each.binding for each in INVENTORY})
    return Admit({HOOK: judge}, world.devices, world.journal, [world.facts], world.clock, hint_limits=limits)


async def hinted(world: World, doors: Admit, reason: str = "FAILED_ATTEST", name: str = "cam-1") -> None:
    address = {"cam-1": "10.0.0.1", "cam-2": "10.0.0.2"}.get(name, "10.0.0.9")
    data = "\0".join((name, address, reason)).encode()
    doors.submit(Envelope(data, HOOK, "unix:1000", world.clock.now()))
    await world.settle()


@pytest.mark.parametrize("reason", ["FAILED_ATTEST", "FAILED_AUTH", "USER_REJECT"])
async def test_a_failure_makes_a_trusted_device_suspect(reason: str) -> None:
    async with running() as world:
        await world.passes("cam-1")
        doors = admit(world)
        await hinted(world, doors, reason)
        assert world.standing("cam-1") is Standing.SUSPECT
        assert not world.admitted("10.0.0.1")  # this book gives a suspect device nothing
        assert doors.hints[HOOK, "lowered"] == 1
        assert world.facts.transitions[-1].event.actor == HOOK


@pytest.mark.parametrize("reason", ["PASS", "REQUESTED", "INIT", "EXPIRATION"])
async def test_a_good_word_raises_nobody(reason: str) -> None:
    async with running() as world:
        doors = admit(world)
        for before in (Standing.UNKNOWN, Standing.DISTRUSTED):
            await hinted(world, doors, reason)
            assert world.standing("cam-1") is before
            await world.fails("cam-1")
        assert doors.hints[HOOK, "ignored"] == 2
        assert not world.admitted("10.0.0.1")


async def test_a_signed_pass_after_the_hint_brings_the_device_back() -> None:
    async with running() as world:
        await world.passes("cam-1")
        doors = admit(world)
        await hinted(world, doors)
        world.clock.advance(5)
        await world.passes("cam-1")
        assert world.standing("cam-1") is Standing.TRUSTED


async def test_a_suspect_device_keeps_its_deadline_unless_the_book_cuts() -> None:
    for cut in (frozenset[str](), frozenset({"hook"})):
        book = dataclasses.replace(BOOK, suspect="probation", cut_on_hints=cut)
        async with running(book=book) as world:
            await world.passes("cam-1")
            doors = admit(world)
            await hinted(world, doors)
            assert world.standing("cam-1") is Standing.SUSPECT
            assert world.admitted("10.0.0.1") is (not cut)
            assert world.admitted("10.0.0.2") is False


async def test_hints_about_one_device_have_a_rate_and_the_others_go_on() -> None:
    async with running() as world:
        await world.passes("cam-2")
        doors = admit(world, HintLimits(per_device=2, per_source=10, seconds=60))
        for _ in range(5):
            await hinted(world, doors)
        refused = [fact for fact in world.facts.all if isinstance(fact, Rejected)]
        assert [fact.refusal for fact in refused] == [Refusal.RATE] * 3
        assert {(fact.source, fact.device) for fact in refused} == {(HOOK, "cam-1")}
        await hinted(world, doors, name="cam-2")
        assert world.standing("cam-2") is Standing.SUSPECT
        world.clock.advance(60)
        await hinted(world, doors)
        assert doors.hints[HOOK, "no-effect"] == 3


async def test_unknown_devices_use_up_no_rate_and_leave_no_state() -> None:
    async with running() as world:
        await world.passes("cam-1")
        doors = admit(world, HintLimits(per_device=1, per_source=1))
        for number in range(300):
            await hinted(world, doors, name=f"cam-{number + 10}")
        await hinted(world, doors)
        assert world.standing("cam-1") is Standing.SUSPECT


def test_the_rate_counts_sources_apart() -> None:
    rate = HintRate(HintLimits(per_device=1, per_source=2, seconds=10))
    feed = SourceName("verifier.feed")

    def hint(source: SourceName, name: str) -> Hint:
        return Hint(DeviceId(name), source, adverse=True, reason="x")

    assert rate.objection(hint(HOOK, "a"), 0.0) == ""
    assert "about this device" in rate.objection(hint(HOOK, "a"), 9.9)
    assert rate.objection(hint(feed, "a"), 9.9) == ""
    assert rate.objection(hint(HOOK, "b"), 9.9) == ""
    assert "of this source" in rate.objection(hint(HOOK, "c"), 9.9)
    assert rate.objection(hint(HOOK, "a"), 10.0) == ""


async def test_a_hint_without_effect_hides_nothing_and_leaves_no_row() -> None:
    async with running() as world:
        await world.passes("cam-1")
        await world.fails("cam-1")
        view = world.devices.view(CAM)
        rows = len(world.disk.rows)
        doors = admit(world)
        await hinted(world, doors)
        after = world.devices.view(CAM)
        assert view is not None
        assert after is not None
        assert after.last is view.last
        assert len(world.disk.rows) == rows
        assert doors.hints[HOOK, "no-effect"] == 1


# --- claims ------------------------------------------------------------------------------------------------------


def passed(claim: str, at: int = 100) -> Verdict:
    return Verdict(CAM, SOURCE, Outcome.PASSED, at, Timeliness.FRESH, b"", "PASS", claim)


def test_a_claim_that_no_binding_covers_is_kept_and_bounded() -> None:
    claims = Claims([device("cam-1", "10.0.0.1", anchor=AnchorKind.L2)])
    claims.judged(passed("tcp:10.0.0.1:1"))
    assert list(claims.all()) == []
    for at in (100, 110):
        claims.judged(passed("tcp:10.0.0.7:1", at))
    ((name, claim),) = claims.all()
    assert (name, str(claim.address), claim.times, claim.first, claim.last) == (CAM, "10.0.0.7", 2, 100, 110)
    claims.judged(passed("tcp:10.0.0.8:1", 120))
    assert [(str(each.address), each.times) for _, each in claims.all()] == [("10.0.0.8", 1)]
    claims.judged(passed("tcp:10.0.0.1:1", 130))
    assert list(claims.all()) == []


@pytest.mark.parametrize("claim", ["", "tcp:", "tcp:$(reboot):1", "tcp:224.0.0.1:1", "tcp:10.0.0.0/8:1"])
def test_what_is_no_address_is_no_claim(claim: str) -> None:
    claims = Claims([device("cam-1", "10.0.0.1")])
    claims.judged(passed(claim))
    assert list(claims.all()) == []
