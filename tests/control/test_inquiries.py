"""What verifiers are asked: budget, one question a pass, one after the other, never late, never twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.control.inquiries import ATTEMPTS, RESULTS, Inquirer, Inquiries, InquiryLimits
from gateway.control.ports import Confirmed
from gateway.core.errors import SourceError
from gateway.core.model import (
    DeviceId,
    Effect,
    Event,
    EventKind,
    Outcome,
    Record,
    SourceName,
    Standing,
    Timeliness,
    Transition,
    Verdict,
)
from tests.fakes.clock import ManualClock
from tests.fakes.verifier import FakeVerifier

SOURCE = SourceName("verifier")
AT_ONCE = InquiryLimits(settle=0.0)
CAM, OTHER = DeviceId("cam-1"), DeviceId("cam-2")


class Site:
    def __init__(self, limits: InquiryLimits) -> None:
        self.clock = ManualClock()
        self.verifier = FakeVerifier()
        self.inquirer = Inquirer(SOURCE, self.verifier, self.clock, limits)
        self.inquiries = Inquiries([self.inquirer], self.clock)

    def passes(self, device: DeviceId = CAM, address: str = "10.0.0.1", effect: Effect = Effect.RAISED) -> None:
        now = self.clock.now()
        claim = f"tcp:{address}:35940" if address else ""
        verdict = Verdict(device, SOURCE, Outcome.PASSED, int(now.wall), Timeliness.FRESH, b"", "PASS", claim)
        event = Event(EventKind.PASSED, now.wall)
        step = Transition(device, SOURCE, event, Record(), Record(Standing.TRUSTED), effect, "")
        self.inquiries.stepped([(step, verdict, now)])

    def becomes_suspect(self, device: DeviceId = CAM, before: Standing = Standing.TRUSTED) -> None:
        event = Event(EventKind.HINTED, self.clock.wall)
        step = Transition(device, SOURCE, event, Record(before), Record(Standing.SUSPECT), Effect.LOWERED, "")
        self.inquiries.stepped([(step, None, self.clock.now())])

    def remembers(self, address: str = "10.0.0.1", *, good: bool = True) -> None:
        self.verifier.memory[address] = Confirmed(int(self.clock.wall), good)

    def counted(self, kind: str, result: str) -> int:
        assert result in RESULTS[kind]
        return self.inquirer.counts[kind, result]


@asynccontextmanager
async def site(limits: InquiryLimits = AT_ONCE) -> AsyncIterator[Site]:
    at = Site(limits)
    task = asyncio.create_task(at.inquirer.run())
    await settle()
    try:
        yield at
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not what():
            await asyncio.sleep(0.005)


# --- the question after a pass -----------------------------------------------------------------------------------


async def test_one_question_after_each_accepted_pass() -> None:
    async with site() as at:
        at.remembers()
        at.passes()
        await settle()
        assert at.verifier.confirmed == ["10.0.0.1"]
        assert at.inquirer.is_confirmed(CAM)
        at.clock.advance(600)
        await settle()
        assert at.verifier.confirmed == ["10.0.0.1"]  # never by the clock
        at.remembers()
        at.passes()
        await settle()
        assert at.verifier.confirmed == ["10.0.0.1"] * 2
        assert at.counted("confirm", "agrees") == 2


async def test_a_pass_that_was_refused_asks_nothing() -> None:
    async with site() as at:
        at.passes(effect=Effect.REFUSED)
        await settle()
        assert at.verifier.confirmed == []


async def test_nothing_else_asks_about_an_address() -> None:
    async with site() as at:
        now = at.clock.now()
        for outcome in set(Outcome) - {Outcome.PASSED}:
            verdict = Verdict(CAM, SOURCE, outcome, 1, Timeliness.FRESH, b"", "", "tcp:10.0.0.1:1")
            event = Event(EventKind.FAILED, now.wall)
            step = Transition(CAM, SOURCE, event, Record(), Record(), Effect.LOWERED, "")
            at.inquiries.judged(verdict, step, now)
        await settle()
        assert at.verifier.confirmed == []


async def test_questions_go_one_after_the_other() -> None:
    async with site() as at:
        at.verifier.gate.clear()
        for number in range(20):
            at.passes(DeviceId(f"cam-{number}"), f"10.0.0.{number + 1}")
        await settle()
        assert at.verifier.under_way == 1
        at.verifier.gate.set()
        await until(lambda: len(at.verifier.confirmed) == 20)
        assert at.verifier.most_at_once == 1
        assert sorted(set(at.verifier.confirmed)) == sorted(at.verifier.confirmed)


async def test_a_pass_during_a_question_is_asked_about_again() -> None:
    async with site() as at:
        at.remembers()
        at.verifier.gate.clear()
        at.passes()
        await settle()
        at.passes()
        assert not at.inquirer.is_confirmed(CAM)
        at.verifier.gate.set()
        await until(lambda: at.inquirer.is_confirmed(CAM))
        assert at.verifier.confirmed == ["10.0.0.1"] * 2


async def test_an_answer_about_an_older_pass_confirms_nothing() -> None:
    async with site() as at:
        at.verifier.gate.clear()
        at.remembers()
        at.passes()
        await settle()
        at.passes(address="")
        at.verifier.gate.set()
        await until(lambda: at.counted("confirm", "agrees") == 1)
        assert not at.inquirer.is_confirmed(CAM)


async def test_a_late_question_is_not_asked() -> None:
    async with site(InquiryLimits(late=5.0)) as at:
        at.verifier.gate.clear()
        at.passes(OTHER, "10.0.0.2")
        await settle()
        at.passes()
        at.clock.advance(5.1)
        at.verifier.gate.set()
        await until(lambda: at.counted("confirm", "late") == 1)
        assert at.verifier.confirmed == ["10.0.0.2"]
        assert not at.inquirer.is_confirmed(CAM)


@pytest.mark.parametrize(
    ("memory", "result"),
    [
        (None, "unknown"),
        (Confirmed(1_795_283_400, good=False), "contradicts"),
        (Confirmed(1_795_283_300, good=True), "contradicts"),
        (Confirmed(1_795_283_398, good=True), "agrees"),
    ],
)
async def test_what_the_verifier_remembers(memory: Confirmed | None, result: str) -> None:
    async with site() as at:
        if memory is not None:
            at.verifier.memory["10.0.0.1"] = memory
        at.passes()
        await until(lambda: at.counted("confirm", result) == 1)
        assert at.inquirer.is_confirmed(CAM) is (result == "agrees")


async def test_a_verifier_that_is_away_leaves_the_device_replayable_and_is_told_of() -> None:
    async with site() as at:
        at.remembers()
        at.passes()
        await until(lambda: at.inquirer.is_confirmed(CAM))
        at.verifier.away = "connection refused"
        at.passes()
        await until(lambda: at.counted("confirm", "failed") == 1)
        assert not at.inquirer.is_confirmed(CAM)
        assert "connection refused" in at.inquirer.state()
        assert at.verifier.confirmed == ["10.0.0.1"] * 2  # not asked again


async def test_a_pass_without_an_address() -> None:
    async with site() as at:
        at.passes(address="")
        await settle()
        assert at.verifier.confirmed == []
        assert at.counted("confirm", "no-address") == 1


# --- requests to attest ------------------------------------------------------------------------------------------


async def test_a_device_that_becomes_suspect_is_asked_for_once() -> None:
    async with site(InquiryLimits(again=10.0, settle=0.0)) as at:
        at.becomes_suspect()
        at.becomes_suspect(before=Standing.SUSPECT)
        await settle()
        assert at.verifier.attested == [CAM]
        at.clock.advance(9.9)
        at.becomes_suspect()
        await settle()
        assert at.verifier.attested == [CAM]
        at.clock.advance(0.2)
        at.becomes_suspect()
        await settle()
        assert at.verifier.attested == [CAM, CAM]


async def test_a_suspect_device_is_asked_for_when_a_pass_can_count_and_at_once_for_an_operator() -> None:
    async with site(InquiryLimits(settle=0.3)) as at:
        at.becomes_suspect()
        at.becomes_suspect(OTHER)
        await settle()
        assert at.verifier.attested == []
        assert at.inquirer.waiting == 2
        (asked,) = await at.inquiries.attest(OTHER, [SOURCE])
        assert asked.state == "asked"
        assert at.verifier.attested == [OTHER]
        at.clock.advance(0.3)
        await until(lambda: at.verifier.attested == [OTHER, CAM])


async def test_a_source_that_cannot_be_asked_is_left_alone() -> None:
    inquiries = Inquiries([], ManualClock())
    event = Event(EventKind.HINTED, 1.0)
    step = Transition(CAM, SOURCE, event, Record(Standing.TRUSTED), Record(Standing.SUSPECT), Effect.LOWERED, "")
    inquiries.stepped([(step, None, ManualClock().now())])
    assert not inquiries.solicited(CAM, SOURCE, ManualClock().now())
    with pytest.raises(SourceError, match="no api is configured"):
        await inquiries.attest(CAM, [SOURCE])


async def test_requests_stay_within_the_budget() -> None:
    async with site(InquiryLimits(requests=3, per=0.5, settle=0.0)) as at:
        for number in range(7):
            at.becomes_suspect(DeviceId(f"cam-{number}"))
        await settle()
        assert len(at.verifier.attested) == 3
        assert at.inquirer.waiting == 4
        at.clock.advance(0.5)
        await until(lambda: len(at.verifier.attested) == 6)
        await settle()
        assert at.inquirer.waiting == 1
        at.clock.advance(0.5)
        await until(lambda: len(at.verifier.attested) == 7)


async def test_a_device_that_has_passed_is_not_asked_for_any_more() -> None:
    async with site(InquiryLimits(requests=1, per=600, settle=0.0)) as at:
        at.becomes_suspect(OTHER)
        await settle()
        asked = at.inquirer.request(CAM)
        at.passes()
        assert (await asked).state == "passed"
        assert at.inquirer.waiting <= 1
        assert at.verifier.attested == [OTHER]


async def test_an_operator_is_told_what_became_of_it() -> None:
    async with site() as at:
        (asked,) = await at.inquiries.attest(CAM, [SOURCE])
        assert (asked.source, asked.state) == (SOURCE, "asked")


async def test_an_operator_is_told_that_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.control.inquiries.TOLD_WITHIN", 0.05)
    async with site(InquiryLimits(requests=1, per=600, settle=0.0)) as at:
        at.becomes_suspect(OTHER)
        await settle()
        at.becomes_suspect(DeviceId("cam-3"))
        (asked,) = await at.inquiries.attest(CAM, [SOURCE])
        assert asked.state == "waiting"
        assert asked.detail.startswith("1 requests before it")


async def test_a_request_is_tried_so_many_times_and_no_more() -> None:
    async with site() as at:
        at.verifier.away = "connection refused"
        (asked,) = await at.inquiries.attest(CAM, [SOURCE])
        assert (asked.state, asked.detail) == ("failed", "connection refused")
        assert at.verifier.attested == [CAM] * ATTEMPTS
        assert at.counted("attest", "failed") == 1
        assert not at.inquiries.solicited(CAM, SOURCE, at.clock.now())


async def test_a_device_that_the_verifier_cannot_name() -> None:
    async with site() as at:
        at.verifier.unaskable.add(CAM)
        with pytest.raises(SourceError, match="cannot be asked for"):
            await at.inquiries.attest(CAM, [SOURCE])
        at.becomes_suspect()
        await settle()
        assert at.verifier.attested == []


@pytest.mark.parametrize(("after", "ours"), [(0.0, True), (5.0, True), (5.1, False)])
async def test_a_requested_answers_our_request_of_the_last_five_seconds_once(after: float, ours: bool) -> None:
    async with site() as at:
        assert not at.inquiries.solicited(CAM, SOURCE, at.clock.now())
        await at.inquiries.attest(CAM, [SOURCE])
        at.clock.advance(after)
        assert not at.inquiries.solicited(OTHER, SOURCE, at.clock.now())
        assert at.inquiries.solicited(CAM, SOURCE, at.clock.now()) is ours
        assert not at.inquiries.solicited(CAM, SOURCE, at.clock.now())
