"""What an explanation rests on: what is wanted, what each gate answers now, who shares an address."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from gateway.control import explained as module
from gateway.control.explained import Explainer, compared
from gateway.control.ports import Explained, Proof, ProofLine, Showing
from gateway.core.errors import BackendError
from gateway.core.model import DENY, Address, DeviceId, Rule, Standing, Stands
from gateway.core.policy import ADMITTED, PROBATION, Book, decide, explain
from tests.control.world import World, device, running

S = Standing
CAM = DeviceId("cam-1")
LOW = Book(node_default=PROBATION, suspect=PROBATION)
SHARING = (device("cam-1", "10.0.0.1"), device("cam-2", "10.0.0.1"))


async def explained(world: World) -> Explained:
    found = await Explainer(world.devices, (world.gate,), world.clock).explained(CAM)
    assert found is not None
    return found


async def test_what_is_wanted_and_what_stands() -> None:
    async with running(book=LOW) as world:
        await world.passes("cam-1")
        world.overrides.override(CAM, ADMITTED, 50.0, "unix:ann", "x")
        await world.settle()
        now = world.clock.now().wall
        found = await explained(world)
        assert (found.standing, found.deadline, found.shared, found.at) == (S.TRUSTED, now + 100.0, None, now)
        assert [str(line.address) for line in found.answers] == ["10.0.0.1", "fd00::1"]
        for line in found.answers:
            assert (line.target, line.wanted, line.stands, line.tombstone) == ("gateway", ADMITTED, ADMITTED, False)
            assert line.until == pytest.approx(now + 50.0)
            assert line.ends == pytest.approx(now + 50.0)
        view, book = found.view, found.book
        arguments = (view.device, found.standing, found.deadline, book, found.shared, view.override, found.at)
        assert decide(*arguments) == view.decision, "what is handed over is what the decision was made of"
        assert [line.level for line in explain(*arguments) if line.used] == ["override"]
        world.clock.advance(1.0)
        await world.fails("cam-1")
        cut = (await explained(world)).answers[0]
        assert (cut.wanted, cut.until, cut.stands, cut.ends, cut.tombstone) == (DENY, None, "", None, True)


async def test_a_gate_that_does_not_answer_and_a_device_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(book=LOW) as world:

        async def silent(_: Sequence[Address]) -> Mapping[Address, Stands]:
            raise BackendError("nft", "no answer within 5 s", transient=True)

        monkeypatch.setattr(world.backend, "observe", silent)
        for line in (await explained(world)).answers:
            assert (line.trouble, line.wanted, line.stands) == ("no answer within 5 s", DENY, "")
        nobody = DeviceId("nobody")
        assert await Explainer(world.devices, (world.gate,), world.clock).explained(nobody) is None


async def test_who_shares_an_address_is_named_and_no_override_gets_past_it() -> None:
    async with running(book=LOW, inventory=SHARING) as world:
        await world.passes("cam-1")
        await world.passes("cam-2")
        world.overrides.override(CAM, ADMITTED, 50.0, "unix:ann", "x")
        await world.settle()
        assert (await explained(world)).shared is None
        assert world.stands("10.0.0.1").profile == PROBATION, "the least that any of its owners may"
        world.clock.advance(1.0)
        await world.fails("cam-2")
        found = await explained(world)
        assert (found.standing, found.shared) == (S.TRUSTED, ("cam-2", S.DISTRUSTED))
        assert found.view.decision.standing is S.DISTRUSTED
        assert not world.admitted("10.0.0.1")


# --- the proof ---------------------------------------------------------------------------------------------------

ADMIT, CUT, SHUT = Rule(CAM, ADMITTED, 9.0), Rule(CAM, DENY, 0.0, tombstone=True), Rule(CAM, DENY, 0.0)


@pytest.mark.parametrize(
    ("rule", "stands", "result"),
    [
        (ADMIT, Stands(ADMITTED, 5.0, False), "verified"),
        (ADMIT, Stands("", None, False), "not found"),
        (ADMIT, Stands("", None, True), "differs"),
        (ADMIT, Stands(PROBATION, 5.0, False), "differs"),
        (CUT, Stands("", None, True), "verified"),
        (CUT, Stands("", None, False), "not found"),
        (CUT, Stands(ADMITTED, 5.0, True), "differs"),
        (SHUT, Stands("", None, False), "verified"),
        (SHUT, Stands("", None, True), "verified"),
        (SHUT, Stands(ADMITTED, 5.0, False), "differs"),
        (None, Stands("", None, False), "verified"),
        (None, Stands("", None, True), "differs"),
    ],
)
def test_a_read_back_is_called_what_it_is(rule: Rule | None, stands: Stands, result: str) -> None:
    assert compared(rule, stands) == result


async def proof_lines(world: World, **layers: Mapping[str, Showing]) -> list[ProofLine]:
    async def showing(addresses: Sequence[Address], *, name: str) -> Mapping[str, Showing]:
        assert [str(address) for address in addresses] == ["10.0.0.1", "fd00::1"]
        return layers[name]

    asked = {name: lambda addresses, name=name: showing(addresses, name=name) for name in layers}
    found = await Explainer(world.devices, (world.gate,), world.clock, asked).proven(CAM)
    assert found is not None
    assert found.at == world.clock.now().wall
    return list(found.lines)


async def test_every_target_is_read_at_this_moment_and_each_element_named() -> None:
    async with running(book=LOW) as world:
        await world.passes("cam-1")
        await world.settle()
        now = world.clock.now().wall
        lines = await proof_lines(
            world, kubearmor={"host": Showing(True, "generation 7"), "x": Showing(None, "away")}
        )
        assert [(line.target, line.address, line.result, line.element) for line in lines[:2]] == [
            ("gateway", "10.0.0.1", "verified", PROBATION),
            ("gateway", "fd00::1", "verified", PROBATION),
        ]
        assert {line.read_at for line in lines[:3]} == {now}
        assert [(line.backend, line.part, line.result, line.read_at) for line in lines[2:]] == [
            ("kubearmor", "host", "verified", now),
            ("kubearmor", "x", "cannot be read", None),
        ]
        world.backend.lose(Address.parse("10.0.0.1"))
        lost = (await proof_lines(world))[0]
        assert (lost.result, lost.element) == ("not found", "")


async def test_a_target_that_cannot_be_read_says_why_and_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(book=LOW) as world:

        async def refuses(_: Sequence[Address]) -> Proof:
            raise BackendError("nft", "the agent is away", transient=True)

        async def never(_: Sequence[Address]) -> Proof:
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(world.backend, "prove", refuses)
        line = (await proof_lines(world))[0]
        assert (line.result, line.element, line.read_at) == ("cannot be read", "the agent is away", None)
        monkeypatch.setattr(module, "PROOF_SECONDS", 0.01)
        monkeypatch.setattr(world.backend, "prove", never)
        assert (await proof_lines(world))[0].element == "no answer within 0.01 s"
        assert await Explainer(world.devices, (world.gate,), world.clock).proven(DeviceId("nobody")) is None
