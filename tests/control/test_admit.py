"""Admission: every envelope is judged by its source, refusals are facts, a full queue asks doors to wait."""

from __future__ import annotations

from collections.abc import Callable

from gateway.control.admit import AdmissionLimits, Admit
from gateway.core.errors import Refusal
from gateway.core.model import (
    DeviceId,
    Envelope,
    Outcome,
    Record,
    Rejected,
    Standing,
    Timeliness,
    Verdict,
)
from tests.control.world import SOURCE, World, running


class Words:
    """An authenticator that reads ``DEVICE OUTCOME`` and trusts it: the bytes are judged elsewhere."""

    def authenticate(
        self, envelope: Envelope, record_of: Callable[[DeviceId], Record | None]
    ) -> Verdict | Rejected:
        name, outcome = envelope.data.decode().split()
        device = DeviceId(name)
        if record_of(device) is None:
            return Rejected(SOURCE, Refusal.DEVICE, "unknown", envelope.peer, envelope.received.wall, name)
        issued = int(envelope.received.wall)
        return Verdict(device, SOURCE, Outcome(outcome), issued, Timeliness.FRESH, envelope.data, outcome, "")


def admission(world: World, limits: AdmissionLimits | None = None) -> Admit:
    return Admit(
        {SOURCE: Words()}, world.devices, world.journal, [world.facts], world.clock, limits or AdmissionLimits()
    )


def envelope(world: World, text: str) -> Envelope:
    return Envelope(text.encode(), SOURCE, "192.0.2.9", world.clock.now())


async def test_a_verdict_reaches_the_devices_and_a_refusal_the_journal() -> None:
    async with running() as world:
        admit = admission(world)
        admit.submit(envelope(world, "cam-1 passed"))
        admit.submit(envelope(world, "ghost passed"))
        await world.settle()
        assert world.standing("cam-1") is Standing.TRUSTED
        refusals = [fact for fact in world.facts.all if isinstance(fact, Rejected)]
        assert [fact.refusal for fact in refusals] == [Refusal.DEVICE]
        assert await world.journal.refusals(10)


async def test_many_envelopes_are_taken_in_slices_and_none_is_lost() -> None:
    async with running() as world:
        admit = admission(world, AdmissionLimits(queue=10, slice=4))
        for _ in range(25):
            admit.submit(envelope(world, "cam-1 requested"))
        assert admit.full
        assert admit.depth == 25
        woken: list[int] = []
        admit.when_ready(lambda: woken.append(admit.depth))
        await world.settle()
        assert len(world.facts.transitions) == 25
        assert woken
        assert woken[0] < 10


async def test_a_slow_journal_fills_the_admission_and_frees_it_when_it_has_caught_up() -> None:
    async with running() as world:
        admit = admission(world, AdmissionLimits(journal=3))
        world.journal.delay()
        for _ in range(4):
            admit.submit(envelope(world, "cam-1 requested"))
        await world.settle()
        assert admit.full
        woken: list[bool] = []
        admit.when_ready(lambda: woken.append(True))
        await world.settle()
        assert not woken
        world.journal.release()
        while not woken:  # bounded by the suite's timeout
            await world.settle()
        assert not admit.full


async def test_while_the_journal_cannot_be_written_passes_are_refused_and_failures_act() -> None:
    async with running() as world:
        admit = admission(world)
        admit.submit(envelope(world, "cam-1 passed"))
        await world.settle()
        world.journal.fail()
        world.clock.advance(1)
        admit.submit(envelope(world, "cam-2 passed"))
        admit.submit(envelope(world, "cam-1 failed"))
        await world.settle()
        (refused,) = [fact for fact in world.facts.all if isinstance(fact, Rejected)]
        assert refused.refusal is Refusal.DEGRADED
        assert "journal" in refused.detail
        assert world.stands("10.0.0.1").tombstone
        assert not world.admitted("10.0.0.2")


async def test_what_a_door_refuses_by_itself_is_counted() -> None:
    async with running() as world:
        admission(world).refuse(SOURCE, Refusal.TIMEOUT, "no frame within 5 s", "192.0.2.9")
        (fact,) = [fact for fact in world.facts.all if isinstance(fact, Rejected)]
        assert (fact.refusal, fact.peer) == (Refusal.TIMEOUT, "192.0.2.9")


async def test_an_orderly_stop_judges_what_waits() -> None:
    async with running() as world:
        admit = admission(world)
        admit.submit(envelope(world, "cam-1 failed"))
        admit.drain()
        assert admit.depth == 0
        assert world.standing("cam-1") is Standing.DISTRUSTED
