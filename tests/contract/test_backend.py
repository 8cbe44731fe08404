"""What every path gate promises, whatever it is made of (the ``Backend`` port).

Another implementation joins by a rig: a function that runs a scenario against it, registered in ``RIGS``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest

from gateway.control.ports import Backend, Clock
from gateway.core.errors import BackendError
from gateway.core.model import Address, Applied, Change, ChangeKind, ChangeOutcome, Stands
from gateway.enforce.nft import Baseline, Endpoint, GatedService, NftBackend
from gateway.enforce.nft.netlink import NetlinkSocket
from gateway.enforce.relay import RelayBackend, RelayRoute
from tests.agentlink.pair import Pair, plan, site_certificates, until
from tests.agentlink.process import AgentProcess
from tests.fakes.backend import FakeBackend
from tests.fakes.clock import ManualClock
from tests.netns import KernelClock, in_namespaces
from tests.ports import free_place

ONE = Address.parse("10.77.1.11")
TWO = Address.parse("fd77:1::11")
NET = Address.parse("fd77:1:0:5::/64")
ALL = (ONE, TWO, NET)
NOTHING = Stands("", None, tombstone=False)
TOMBSTONE = Stands("", None, tombstone=True)


@dataclass(frozen=True)
class Rig:
    """A backend that was not started yet, with profiles ``admitted`` and ``probation``, knowing ``ALL``."""

    backend: Backend
    clock: Clock
    pass_time: Callable[[float], Awaitable[None]]

    def change(
        self, kind: ChangeKind, address: Address, profile: str = "admitted", seconds: float = 60.0
    ) -> Change:
        if kind in (ChangeKind.ADMIT, ChangeKind.REFRESH):
            return Change(kind, address, profile, self.clock.now().boot + seconds)
        return Change(kind, address)

    async def stands(self, address: Address) -> Stands:
        return (await self.backend.observe([address]))[address]


Scenario = Callable[[Rig], Awaitable[None]]


async def _life(rig: Rig, scenario: Scenario) -> None:
    await rig.backend.start()
    try:
        await scenario(rig)
    finally:
        await rig.backend.stop()


def run_fake(scenario: Scenario) -> None:
    clock = ManualClock()

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    asyncio.run(_life(Rig(FakeBackend(clock), clock, pass_time), scenario))


def run_nft(scenario: Scenario) -> None:
    async def body() -> None:
        service = GatedService(Endpoint(Address.parse("10.77.3.2"), 8001, "tcp"), frozenset({"admitted"}))
        clock = KernelClock()
        await _life(
            Rig(NftBackend(Baseline((service,), inventory_size=16), ALL, clock), clock, asyncio.sleep), scenario
        )

    in_namespaces(body)


def run_nft_before_destroy(scenario: Scenario) -> None:
    """As on a kernel before Linux 6.3, which does not know deletes that are content with nothing to delete."""
    with mock.patch.object(NetlinkSocket, "can_destroy", return_value=False):
        run_nft(scenario)


def run_relay(scenario: Scenario) -> None:
    clock = ManualClock()

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    routes = [RelayRoute("feed", "127.0.0.1:0", "127.0.0.1", 9)]
    profiles = {"admitted": frozenset({"feed"}), "probation": frozenset({"feed"})}
    asyncio.run(_life(Rig(RelayBackend(routes, profiles, clock), clock, pass_time), scenario))


async def _over_a_link(scenario: Scenario, **settings: Any) -> None:
    """The gateway's end here, a real agent process with a real path gate at the other."""
    with TemporaryDirectory(prefix="ragate-") as name:
        pair = Pair(site_certificates(Path(name) / "certs", "app"), lease=3_600.0)
        pair.plan = plan(*map(str, ALL))
        agent = AgentProcess(Path(name) / "agent", pair.folder, f"{pair.host}:{pair.port}", lease="1h", **settings)
        async with pair.listening():
            with agent.running():
                await until(lambda: not pair.gate.why, lambda: agent.log)
                await scenario(Rig(pair.gate, pair.clock, asyncio.sleep))


def run_link(scenario: Scenario) -> None:
    host, port = free_place()
    entry = {"service": "feed", "listen": f"{host}:{port}"}
    asyncio.run(_over_a_link(scenario, path_gate="relay", relay=[entry]))


RIGS: Mapping[str, Callable[[Scenario], None]] = {
    "fake": run_fake,
    "nft": run_nft,
    "nft-before-6.3": run_nft_before_destroy,
    "relay": run_relay,
    "link": run_link,
}


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.netns if name.startswith("nft") else ()) for name in RIGS]
)
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    return RIGS[request.param]


Run = Callable[[Scenario], None]


def verified(outcomes: object) -> bool:
    assert isinstance(outcomes, list | tuple)
    assert all(isinstance(outcome, ChangeOutcome) for outcome in outcomes)
    return all(outcome.state is Applied.VERIFIED for outcome in outcomes)


def test_starts_shut_and_without_state(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        assert await rig.backend.observe(ALL) == dict.fromkeys(ALL, NOTHING)
        assert rig.backend.name

    run(scenario)


def test_admits_into_exactly_one_profile_until_the_end(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        assert verified(await rig.backend.apply([rig.change(ChangeKind.ADMIT, address) for address in ALL]))
        for address in ALL:
            stands = await rig.stands(address)
            assert stands.profile == "admitted"
            assert not stands.tombstone
            assert stands.remaining is not None
            assert 0 < stands.remaining <= 60.0
        assert verified(await rig.backend.apply([rig.change(ChangeKind.ADMIT, ONE, "probation", 30.0)]))
        stands = await rig.stands(ONE)
        assert stands.profile == "probation"
        assert stands.remaining is not None
        assert stands.remaining <= 30.0

    run(scenario)


def test_an_admission_ends_by_itself(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        assert verified(await rig.backend.apply([rig.change(ChangeKind.ADMIT, ONE, seconds=0.2)]))
        await rig.pass_time(0.4)
        assert await rig.stands(ONE) == NOTHING

    run(scenario)


def test_an_end_that_has_come_admits_nothing(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        for kind in (ChangeKind.ADMIT, ChangeKind.REFRESH):
            for seconds in (0.0005, 0.0, -1.0):
                await rig.backend.apply([rig.change(ChangeKind.ADMIT, ONE)])
                await rig.backend.apply([rig.change(kind, ONE, seconds=seconds)])
                assert await rig.stands(ONE) == NOTHING

    run(scenario)


@pytest.mark.parametrize("lane", ["cut", "apply"])
def test_a_cut_leaves_a_tombstone_and_no_profile(run: Run, lane: str) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.backend.apply([rig.change(ChangeKind.ADMIT, address) for address in ALL])
        take = rig.backend.cut if lane == "cut" else rig.backend.apply
        cuts = [rig.change(ChangeKind.CUT, address) for address in ALL]
        outcomes = await take(cuts)
        assert verified(outcomes)
        assert [outcome.change for outcome in outcomes] == cuts
        assert await rig.backend.observe(ALL) == dict.fromkeys(ALL, TOMBSTONE)

    run(scenario)


def test_a_proof_names_what_was_found_and_nothing_else(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.backend.apply([rig.change(ChangeKind.ADMIT, ONE), rig.change(ChangeKind.CUT, ALL[1])])
        proof = await rig.backend.prove(ALL)
        for address in ALL:
            stands, named = proof.stands[address], proof.elements[address]
            assert (stands.profile, stands.tombstone) == (await rig.stands(address))[::2]
            assert len(named) == bool(stands.profile) + stands.tombstone
        assert "admitted" in proof.elements[ONE][0]
        assert "cut" in proof.elements[ALL[1]][0]
        assert proof.at > 0

    run(scenario)


def test_each_change_twice_is_once(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        for kind, after in (
            (ChangeKind.CUT, TOMBSTONE),
            (ChangeKind.WITHDRAW, TOMBSTONE),
            (ChangeKind.FORGET, NOTHING),
            (ChangeKind.WITHDRAW, NOTHING),
        ):
            for _ in range(2):
                assert verified(await rig.backend.cut([rig.change(kind, ONE)]))
                assert await rig.stands(ONE) == after
        for kind in (ChangeKind.ADMIT, ChangeKind.REFRESH):
            for _ in range(2):
                assert verified(await rig.backend.apply([rig.change(kind, ONE)]))
                assert (await rig.stands(ONE)).profile == "admitted"

    run(scenario)


def test_only_admit_and_forget_remove_a_tombstone(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.backend.cut([rig.change(ChangeKind.CUT, ONE), rig.change(ChangeKind.CUT, TWO)])
        await rig.backend.cut([rig.change(ChangeKind.WITHDRAW, ONE)])
        (refreshed,) = await rig.backend.apply([rig.change(ChangeKind.REFRESH, ONE)])
        assert refreshed.state is Applied.FAILED
        assert refreshed.detail
        await rig.backend.apply([rig.change(ChangeKind.ADMIT, ONE, seconds=-1.0)])
        assert await rig.stands(ONE) == TOMBSTONE
        assert verified(await rig.backend.apply([rig.change(ChangeKind.ADMIT, ONE)]))
        assert (await rig.stands(ONE)).tombstone is False
        assert verified(await rig.backend.cut([rig.change(ChangeKind.FORGET, TWO)]))
        assert await rig.stands(TWO) == NOTHING

    run(scenario)


def test_apply_then_revert_leaves_nothing(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        before = await rig.backend.observe(ALL)
        await rig.backend.apply([rig.change(ChangeKind.ADMIT, address) for address in ALL])
        await rig.backend.cut([rig.change(ChangeKind.WITHDRAW, address) for address in ALL])
        assert await rig.backend.observe(ALL) == before
        await rig.backend.cut([rig.change(ChangeKind.CUT, address) for address in ALL])
        await rig.backend.cut([rig.change(ChangeKind.FORGET, address) for address in ALL])
        assert await rig.backend.observe(ALL) == before

    run(scenario)


def test_a_refresh_moves_the_end_both_ways(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.backend.apply([rig.change(ChangeKind.ADMIT, ONE, seconds=30.0)])
        for seconds in (90.0, 10.0):
            assert verified(await rig.backend.apply([rig.change(ChangeKind.REFRESH, ONE, seconds=seconds)]))
            remaining = (await rig.stands(ONE)).remaining
            assert remaining is not None
            assert seconds - 8.0 < remaining <= seconds

    run(scenario)


def test_changes_of_one_address_keep_their_order(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        story = [
            rig.change(ChangeKind.ADMIT, ONE),
            rig.change(ChangeKind.CUT, ONE),
            rig.change(ChangeKind.ADMIT, ONE, "probation"),
            rig.change(ChangeKind.ADMIT, TWO),
            rig.change(ChangeKind.CUT, TWO),
        ]
        outcomes = await rig.backend.apply(story)
        assert [outcome.change for outcome in outcomes] == story
        assert (await rig.stands(ONE)).profile == "probation"
        assert await rig.stands(TWO) == TOMBSTONE

    run(scenario)


def test_one_bad_change_spoils_no_other(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        batch = [
            rig.change(ChangeKind.ADMIT, ONE),
            rig.change(ChangeKind.ADMIT, TWO, "nowhere"),
            rig.change(ChangeKind.CUT, NET),
        ]
        outcomes = await rig.backend.apply(batch)
        assert [o.state for o in outcomes] == [Applied.VERIFIED, Applied.FAILED, Applied.VERIFIED]
        assert "nowhere" in outcomes[1].detail
        assert (await rig.stands(ONE)).profile == "admitted"
        assert await rig.stands(TWO) == NOTHING
        assert await rig.stands(NET) == TOMBSTONE

    run(scenario)


def test_what_was_asked_before_a_cut_never_undoes_it(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        for kind in (ChangeKind.ADMIT, ChangeKind.REFRESH, ChangeKind.FORGET) * 20:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_take(rig.backend.apply, rig.change(kind, ONE)))
                tasks.create_task(_take(rig.backend.cut, rig.change(ChangeKind.CUT, ONE)))
            assert await rig.stands(ONE) == TOMBSTONE
            assert verified(await rig.backend.apply([rig.change(ChangeKind.ADMIT, ONE)]))

    run(scenario)


async def _take(take: Callable[[list[Change]], Awaitable[object]], change: Change) -> None:
    await take([change])


def test_what_is_asked_after_a_cut_wins(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        for _ in range(20):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_take(rig.backend.cut, rig.change(ChangeKind.CUT, ONE)))
                tasks.create_task(_take(rig.backend.apply, rig.change(ChangeKind.ADMIT, ONE)))
            assert (await rig.stands(ONE)).profile == "admitted"
            assert (await rig.stands(ONE)).tombstone is False

    run(scenario)


def test_the_cut_lane_refuses_what_raises(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        with pytest.raises(ValueError, match="CUT, WITHDRAW and FORGET"):
            await rig.backend.cut([rig.change(ChangeKind.ADMIT, ONE)])

    run(scenario)


def test_many_changes_at_once(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        many = [Address((0x0A4D_8000 + n).to_bytes(4, "big"), 32) for n in range(900)]
        assert verified(await rig.backend.apply([rig.change(ChangeKind.ADMIT, address) for address in many]))
        assert verified(await rig.backend.cut([rig.change(ChangeKind.WITHDRAW, address) for address in many]))
        assert set((await rig.backend.observe(many)).values()) == {NOTHING}

    run(scenario)


def test_after_stop_it_says_so(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.backend.stop()
        with pytest.raises(BackendError):
            await rig.backend.cut([rig.change(ChangeKind.CUT, ONE)])
        with pytest.raises(BackendError):
            await rig.backend.apply([rig.change(ChangeKind.ADMIT, ONE)])

    run(scenario)
