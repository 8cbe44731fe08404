"""Documents whose senders wait: order, durability, enforcement, and a queue that asks senders to come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.control.admit import AdmissionLimits, Admit
from gateway.control.reception import WAIT_SECONDS, Answer, Denied, Identity, Reception, Sender, Submission
from gateway.core.acceptance import Window, weigh
from gateway.core.errors import Refusal
from gateway.core.model import (
    DeviceId,
    Envelope,
    Instant,
    Outcome,
    Record,
    Rejected,
    SourceName,
    Standing,
    Statement,
    Transition,
    Verdict,
)
from tests.control.world import SOURCE, World, running
from tests.fakes.clock import ManualClock
from tests.fakes.journal import Disk

OTHER = SourceName("other")


class Lines:
    """An opener of ``DEVICE OUTCOME NONCE`` lines, issued when received; the bytes are judged elsewhere."""

    def open(self, envelope: Envelope) -> Sequence[Statement] | Rejected:
        if envelope.data.startswith(b"!"):
            return Rejected(SOURCE, Refusal.SIGNATURE, "bad", envelope.peer, envelope.received.wall)
        issued = int(envelope.received.wall)
        return [
            Statement(name, Outcome(outcome), issued, nonce.encode(), outcome)
            for name, outcome, nonce in (line.split() for line in envelope.data.decode().splitlines())
        ]

    def appraise(
        self, statement: Statement, envelope: Envelope, record_of: Callable[[DeviceId], Record | None]
    ) -> Verdict | Rejected:
        device = DeviceId(statement.device)
        record = record_of(device)
        if record is None:
            return Rejected(SOURCE, Refusal.DEVICE, "unknown", envelope.peer, envelope.received.wall, device)
        timeliness, refusal = weigh(
            statement.outcome, statement.issued_at, statement.nonce, record, envelope.received.wall, Window()
        )
        if refusal is not None:
            return Rejected(SOURCE, *refusal, envelope.peer, envelope.received.wall, device, authentic=True)
        return Verdict(
            device,
            SOURCE,
            statement.outcome,
            statement.issued_at,
            timeliness,
            statement.nonce,
            statement.reason,
            "",
        )


def admission(world: World, limits: AdmissionLimits | None = None) -> Admit:
    limits = limits or AdmissionLimits()
    openers = {SOURCE: Lines()}
    return Admit({}, world.devices, world.journal, [world.facts], world.clock, limits, openers=openers)


def envelope(world: World, text: str) -> Envelope:
    return Envelope(text.encode(), SOURCE, "192.0.2.9", world.clock.now())


async def test_statements_are_judged_in_order_and_told_when_durable_and_enforced() -> None:
    async with running() as world:
        receipt = admission(world).present(
            envelope(world, "cam-1 passed a\ncam-1 passed a\nghost passed a\ncam-1 failed b"), follow=True
        )
        assert await receipt.durable is None
        await receipt.enforced
        first, twice, ghost, last = receipt.items
        assert isinstance(first.result, Transition)
        assert isinstance(twice.result, Rejected)
        assert twice.result.refusal is Refusal.REPLAY
        assert isinstance(ghost.result, Rejected)
        assert isinstance(last.result, Transition)
        assert world.standing("cam-1") is Standing.DISTRUSTED
        assert last.milliseconds is not None
        assert len({item.seq for item in receipt.items}) == 4
        rows = {row["seq"]: row for row in await world.journal.verdicts(DeviceId("cam-1"), 10)}
        assert last.seq in rows


async def test_a_long_document_is_judged_in_slices_between_others() -> None:
    async with running() as world:
        admit = admission(world, AdmissionLimits(queue=10, statements=4))
        receipt = admit.present(envelope(world, "\n".join(f"cam-1 requested {n}" for n in range(25))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert 0 < sum(item.result is not None for item in receipt.items) < 25
        assert admit.full
        other = admit.present(envelope(world, "cam-2 failed x"), follow=True)
        await receipt.durable
        await other.enforced
        assert all(isinstance(item.result, Transition) for item in receipt.items)
        assert admit.depth == 0


async def test_durable_waits_for_the_disk_and_enforced_for_the_gate() -> None:
    async with running() as world:
        world.journal.delay()
        receipt = admission(world).present(envelope(world, "cam-1 passed a"), follow=True)
        await world.settle()
        assert not receipt.durable.done()
        assert not world.admitted("10.0.0.1")
        world.journal.release()
        assert await receipt.durable is None
        await receipt.enforced
        assert world.admitted("10.0.0.1")


async def test_a_journal_that_fails_is_told_and_what_raises_is_taken_back() -> None:
    async with running() as world:
        admit = admission(world)
        world.journal.fail()
        receipt = admit.present(envelope(world, "cam-1 passed a\ncam-2 failed b"), follow=True)
        await world.settle()
        assert await receipt.durable is not None
        assert not world.admitted("10.0.0.1")
        assert world.stands("10.0.0.2").tombstone
        later = admit.present(envelope(world, "cam-1 passed c"))
        await world.settle()
        (item,) = later.items
        assert isinstance(item.result, Rejected)
        assert item.result.refusal is Refusal.DEGRADED


async def test_after_the_clock_was_set_back_nothing_raises_and_failures_count() -> None:
    """The journal knows a later time: a pass that looks fresh may be an old one, posted again."""
    clock, disk = ManualClock(), Disk()
    async with running(clock=clock, disk=disk) as world:
        admit = admission(world)
        await admit.present(envelope(world, "cam-1 failed a")).durable
    clock.jump(-3_600)
    async with running(clock=clock, disk=disk) as world:
        admit = admission(world)
        receipt = admit.present(envelope(world, "cam-2 passed b\ncam-2 failed c"))
        await receipt.durable
        raising, lowering = receipt.items
        assert isinstance(raising.result, Rejected)
        assert raising.result.refusal is Refusal.DEGRADED
        assert isinstance(lowering.result, Transition)
        assert world.standing("cam-2") is Standing.DISTRUSTED
        assert not world.devices.may_raise


async def test_an_orderly_stop_judges_documents_that_wait() -> None:
    async with running() as world:
        admit = admission(world)
        receipt = admit.present(envelope(world, "cam-1 failed a"))
        admit.drain()
        assert isinstance(receipt.items[0].result, Transition)
        assert admit.depth == 0


async def test_a_refused_document_is_told_so() -> None:
    async with running() as world:
        receipt = admission(world).present(envelope(world, "!"))
        await receipt.durable
        assert receipt.refused is not None
        assert receipt.refused.refusal is Refusal.SIGNATURE
        assert not receipt.items


# --- reception ----------------------------------------------------------------------------------------------------

ENDS = 1e12
CERTIFICATE = Identity("ab" * 32, ("dns:rp.example",), ENDS)


def reception(world: World, admit: Admit | None = None, seconds: float = WAIT_SECONDS, **more: float) -> Reception:
    senders = [
        Sender(SOURCE, ("application/json",), ("dns:rp.example",), **more),
        Sender(OTHER, ("application/json",), ("uri:urn:other", f"sha256:{'cd' * 32}")),
    ]
    return Reception(senders, admit or admission(world), world.clock)


def submission(world: World, text: str, **more: object) -> Submission:
    made = Submission(text.encode(), "192.0.2.9", world.clock.now(), str(SOURCE), media_type="application/json")
    return made._replace(**more)  # type: ignore[arg-type]


async def test_the_same_bytes_with_the_same_proof_are_one_document() -> None:
    async with running() as world:
        taken = reception(world)
        both = await asyncio.gather(
            *(taken.receive(submission(world, "cam-1 passed a", wait=True)) for _ in range(3))
        )
        assert all(isinstance(each, Answer) and each.verified for each in both)
        assert len(set(both)) == 1
        assert len(world.facts.transitions) == 1
        other = await taken.receive(submission(world, "cam-1 passed a", signature=b"x"))
        assert isinstance(other, Denied)
        assert other.step is Refusal.REPLAY
        assert taken.remembered == 1


async def test_a_sender_that_waits_in_vain_is_told_whom_for() -> None:
    async with running() as world:
        taken, text = reception(world), "cam-1 failed a\nghost failed a"

        async def answer(*, wait: bool) -> Answer:
            found = await taken.receive(submission(world, text, wait=wait))
            assert isinstance(found, Answer)
            return found

        world.backend.hold_cut.clear()
        world.journal.delay()
        waiting = asyncio.create_task(answer(wait=True))
        await world.settle()
        world.clock.advance(WAIT_SECONDS + 1)
        world.journal.release()
        in_vain = await waiting
        assert not in_vain.verified
        pending, refused = in_vain.results
        assert (pending.accepted, pending.standing, pending.milliseconds) == (True, "distrusted", None)
        assert pending.failed == "gateway: pending, nothing read back yet"
        assert (refused.accepted, refused.failed) == (False, "")
        at_once = await answer(wait=False)
        assert at_once.results[0].failed == ""  # who does not wait has missed nothing
        world.backend.hold_cut.set()
        later = await answer(wait=True)
        assert later.verified
        assert later.results[0].failed == ""


async def test_a_refused_document_is_judged_again() -> None:
    async with running() as world:
        taken = reception(world)
        for _ in range(2):
            answer = await taken.receive(submission(world, "ghost passed a"))
            assert isinstance(answer, Denied)
            assert answer.results[0].step == "device"
        assert taken.remembered == 0


async def test_memory_of_answers_ends() -> None:
    async with running() as world:
        taken = reception(world)
        await taken.receive(submission(world, "cam-1 noted a\ncam-2 noted a"))
        assert taken.remembered == 2
        world.clock.advance(601)
        await taken.receive(submission(world, "cam-1 noted b"))
        assert taken.remembered == 1


async def test_exactly_one_source_or_none() -> None:
    async with running() as world:
        taken = reception(world)

        async def step(**more: object) -> str:
            answer = await taken.receive(submission(world, "cam-1 noted a", **more))
            return answer.step.value if isinstance(answer, Denied) else str(answer.source)

        assert await step() == SOURCE
        assert await step(source="", identity=CERTIFICATE) == SOURCE
        assert await step(source="") == "source"
        assert await step(source="", identity=CERTIFICATE._replace(names=())) == "source"
        assert await step(source="nobody") == "source"
        assert await step(source="other", identity=CERTIFICATE) == "source"
        assert await step(identity=CERTIFICATE._replace(names=("dns:rp.example", "uri:urn:other"))) == "source"
        assert await step(identity=CERTIFICATE._replace(not_after=world.clock.now().wall)) == "source"
        assert await step(media_type="text/plain") == "kind"


async def test_pressure_and_rates_ask_senders_to_come_back() -> None:
    async with running() as world:
        slow = reception(world, rate=2.0, burst=2.0)
        assert isinstance(
            await slow.receive(submission(world, "cam-1 noted a\ncam-1 noted b\ncam-1 noted c")), Answer
        )
        answer = await slow.receive(submission(world, "cam-1 noted d"))
        assert isinstance(answer, Denied)
        assert (answer.step, answer.retry) == (Refusal.LIMIT, 0.5)
        world.clock.advance(1)
        assert isinstance(await slow.receive(submission(world, "cam-1 noted d")), Answer)
        admit = admission(world, AdmissionLimits(journal=1))
        world.journal.delay()
        admit.present(envelope(world, "cam-1 noted e"))
        await world.settle()
        full = await reception(world, admit).receive(submission(world, "cam-1 noted f"))
        assert isinstance(full, Denied)
        assert (full.step, full.retry) == (Refusal.LIMIT, 1.0)
        world.journal.release()


async def test_a_sender_that_leaves_changes_nothing() -> None:
    async with running() as world:
        taken = reception(world)
        world.journal.delay()
        task = asyncio.create_task(taken.receive(submission(world, "cam-1 passed a", wait=True)))
        await world.settle()
        task.cancel()
        await asyncio.wait((task,))
        world.journal.release()
        answer = await taken.receive(submission(world, "cam-1 passed a", wait=True))
        assert isinstance(answer, Answer)
        assert answer.verified
        assert len(world.facts.transitions) == 1


async def test_a_sender_that_leaves_at_once_still_pays_and_leaves_no_refusal_behind() -> None:
    async with running() as world:
        taken = reception(world, rate=2.0, burst=2.0)
        for text in ("cam-1 noted a\ncam-1 noted b\ncam-1 noted c", "ghost noted a"):
            task = asyncio.create_task(taken.receive(submission(world, text)))
            await asyncio.sleep(0)
            task.cancel()
            await world.settle()
        assert taken.remembered == 3
        answer = await taken.receive(submission(world, "cam-1 noted d"))
        assert isinstance(answer, Denied)
        assert answer.step is Refusal.LIMIT


async def test_instants_are_the_doors() -> None:
    async with running() as world:
        early = Instant(world.clock.now().wall - 1, world.clock.now().boot - 1)
        answer = await reception(world).receive(submission(world, "cam-1 passed a", received=early, wait=True))
        assert isinstance(answer, Answer)
        assert (answer.results[0].milliseconds or 0) >= 1_000
