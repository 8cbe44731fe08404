"""What an explanation rests on: what is wanted, what each gate answers now, who shares an address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from gateway.control.explained import Explainer
from gateway.control.ports import Explained
from gateway.core.errors import BackendError
from gateway.core.model import DENY, Address, DeviceId, Standing, Stands
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
