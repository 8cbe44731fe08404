"""Both ends together over TLS on loopback: who may attach, what is lost with a link, and what never is."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import grpc.aio
import pytest

from gateway.agentlink import messages as wire
from gateway.agentlink.remote import RemoteGate
from gateway.certs import Folder, Role
from gateway.control.ports import Backend, Resync
from gateway.core.errors import BackendError, Unreached
from gateway.core.model import Address, Applied, Change, ChangeKind
from tests.agentlink.pair import PATIENCE, Pair, site_certificates, until
from tests.agentlink.process import AgentProcess
from tests.ports import free_place

ONE, TWO = Address.parse("10.0.0.1"), Address.parse("fd00::2")


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(site_certificates(tmp_path / "certs", "app", "other"))


def admit(pair: Pair, address: Address, seconds: float = 30.0) -> Change:
    return Change(ChangeKind.ADMIT, address, "admitted", pair.clock.now().boot + seconds)


async def test_an_agent_attaches_and_does_what_it_is_told(pair: Pair) -> None:
    async with pair.listening() as hub, pair.agent() as agent:
        await pair.attached()
        (outcome,) = await pair.gate.apply([admit(pair, ONE)])
        assert outcome.state is Applied.VERIFIED
        stands = (await pair.gate.observe([ONE]))[ONE]
        assert stands.profile == "admitted"
        assert stands.remaining is not None
        assert 28.0 < stands.remaining <= 30.0
        assert agent.admitted == {ONE}
        await pair.gate.cut([Change(ChangeKind.CUT, ONE)])
        assert pair.backend.stands(ONE).tombstone
        assert agent.admitted == frozenset()
        state = hub.states()["app"]
        assert state.attached
        assert agent.state.attached
        assert "gateway gw" in agent.state.detail
        await until(lambda: hub.states()["app"].not_after > time.time())


async def test_without_an_agent_nothing_is_reached_and_it_is_said(pair: Pair) -> None:
    async with pair.listening():
        with pytest.raises(Unreached, match="no agent app has attached"):
            await pair.gate.apply([admit(pair, ONE)])
        with pytest.raises(Unreached):
            await pair.gate.cut([Change(ChangeKind.CUT, ONE)])


async def test_a_lost_agent_keeps_what_it_has_and_is_looked_at_again(pair: Pair) -> None:
    async with pair.listening() as hub:
        async with pair.agent():
            await pair.attached()
            await pair.gate.apply([admit(pair, ONE)])
        await until(lambda: pair.gate.why)
        assert not hub.states()["app"].attached
        assert pair.backend.stands(ONE).profile == "admitted", "nothing is withdrawn"
        with pytest.raises(Unreached):
            await pair.gate.apply([admit(pair, ONE)])
        reports = pair.gate.damages()
        assert isinstance(await anext(reports), Resync)
        async with pair.agent():
            await pair.attached()
            assert isinstance(await anext(reports), Resync)
            assert (await pair.gate.observe([ONE]))[ONE].profile == "admitted"
        assert [one.kind for one in pair.notices] == ["agent"] * len(pair.notices)


async def test_a_gateway_that_comes_back_is_attached_to_again_and_the_plan_is_not_sent_twice(pair: Pair) -> None:
    made: list[wire.Plan] = []

    def make_gate(plan: wire.Plan) -> Backend:
        made.append(plan)
        return pair.backend

    pair.make_gate = make_gate
    async with pair.agent() as agent:
        async with pair.listening():
            await pair.attached()
            await pair.gate.apply([admit(pair, ONE)])
        await until(lambda: not agent.state.attached)
        assert pair.backend.stands(ONE).profile == "admitted"
        pair.gate = RemoteGate("app")
        async with pair.listening():
            await pair.attached()
            assert len(made) == 1
            assert pair.store.kept
    # and a new agent process enforces the plan that was kept before it has attached to anybody
    async with pair.agent():
        await until(lambda: len(made) == 2)


async def test_work_under_way_when_the_link_is_lost_is_neither_done_nor_failed(pair: Pair) -> None:
    async with pair.listening(), pair.agent():
        await pair.attached()
        pair.backend.hold_apply.clear()
        task = asyncio.create_task(pair.gate.apply([admit(pair, ONE)]))
        session = pair.gate.session
        assert session is not None
        await asyncio.sleep(0.05)
        session.end("cut off by the test")
        with pytest.raises(Unreached, match="cut off by the test"):
            await task
        pair.backend.hold_apply.set()
        await pair.attached()


async def test_a_cut_never_waits_for_an_opening(pair: Pair) -> None:
    async with pair.listening(), pair.agent():
        await pair.attached()
        pair.backend.hold_apply.clear()
        opening = asyncio.create_task(pair.gate.apply([admit(pair, ONE), admit(pair, TWO)]))
        await asyncio.sleep(0.05)
        (cut,) = await pair.gate.cut([Change(ChangeKind.CUT, ONE)])
        assert cut.state is Applied.VERIFIED
        assert not opening.done()
        pair.backend.hold_apply.set()
        outcomes = await opening
        assert [outcome.state for outcome in outcomes] == [Applied.FAILED, Applied.VERIFIED]
        assert pair.backend.stands(ONE).tombstone


async def test_a_cut_passes_openings_that_were_not_sent_and_takes_them_along(pair: Pair) -> None:
    async with pair.listening(), pair.agent():
        await pair.attached()
        # asked within one turn of the loop: nothing of it has been sent when the cut is asked
        opening = asyncio.create_task(pair.gate.apply([admit(pair, ONE), admit(pair, TWO)]))
        cut = asyncio.create_task(pair.gate.cut([Change(ChangeKind.CUT, ONE)]))
        one, two = await opening
        assert (one.state, one.detail) == (Applied.FAILED, "overtaken by a cut")
        assert two.state is Applied.VERIFIED
        assert (await cut)[0].state is Applied.VERIFIED
        assert pair.backend.stands(ONE).tombstone


async def test_a_failing_path_gate_is_told_as_such(pair: Pair) -> None:
    async with pair.listening(), pair.agent():
        await pair.attached()
        pair.backend.fail_next(BackendError("nft", "the kernel said no", transient=True))
        with pytest.raises(BackendError, match="the kernel said no") as caught:
            await pair.gate.apply([admit(pair, ONE)])
        assert not isinstance(caught.value, Unreached)
        reports = pair.gate.damages()
        await anext(reports)
        pair.backend.damage("somebody flushed it")
        assert await anext(reports) == "app: somebody flushed it"


# --- who may attach
# ---------------------------------------------------------------------------------------------------


async def test_a_revoked_agent_is_refused_and_both_sides_say_so(pair: Pair) -> None:
    async with pair.listening(), pair.agent() as agent:
        await pair.attached()
        await pair.gate.apply([admit(pair, ONE)])
        pair.folder.revoke(Role.AGENT, "app", time.time())
        await until(lambda: "revoked" in pair.gate.why, lambda: pair.gate.why)
        await until(lambda: "refuses: the certificate of agent app" in agent.state.detail, lambda: agent.state)
        assert any("is revoked" in one.detail for one in pair.notices)
        assert pair.backend.stands(ONE).profile == "admitted", "it ends with its lease, as told"
        pair.folder.issue(Role.AGENT, "app", [], time.time())
        await pair.attached()


async def test_an_agent_that_no_target_names_is_refused(pair: Pair) -> None:
    async with pair.listening(), pair.agent("other") as agent:
        await until(lambda: "no agent of a target" in agent.state.detail, lambda: agent.state)
        await until(lambda: any("no agent of a target" in one.detail for one in pair.notices))
        assert pair.gate.why


async def test_a_certificate_of_another_role_is_refused(pair: Pair) -> None:
    pair.folder.issue(Role.OPERATOR, "app", [], time.time())
    async with pair.listening(), pair.agent("app", role=Role.OPERATOR) as agent:
        await until(lambda: "operator app" in agent.state.detail, lambda: agent.state)
        assert pair.gate.why


async def test_another_sites_agent_gets_no_connection(pair: Pair, tmp_path: Path) -> None:
    strangers = site_certificates(tmp_path / "elsewhere", "app")
    async with pair.listening(), pair.agent(folder=strangers) as agent:
        await until(lambda: len(pair.states) > 0, lambda: agent.state)
        assert not agent.state.attached
        assert pair.gate.why == "no agent app has attached yet"


async def test_an_expired_agent_is_let_go_and_says_why(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "certs")
    early = time.time() - 86_400 + 4
    folder.init("site", early)
    folder.issue(Role.GATEWAY, "gw", ["127.0.0.1"], time.time())
    folder.issue(Role.AGENT, "app", [], early, days=1)
    pair = Pair(folder)
    async with pair.listening(), pair.agent() as agent:
        await until(lambda: "expired" in agent.state.detail, lambda: (agent.state, pair.gate.why))
        assert pair.gate.why


async def test_a_revoked_gateway_is_not_believed(pair: Pair) -> None:
    async with pair.listening():
        pair.folder.revoke(Role.GATEWAY, "gw", time.time())
        async with pair.agent() as agent:
            await until(lambda: "not believed" in agent.state.detail, lambda: agent.state)
            assert "is revoked" in agent.state.detail
            assert not pair.store.kept, "nothing is taken from it"
            await until(lambda: any("cannot enforce" in one.detail for one in pair.notices))


async def told(pair: Pair, *said: bytes) -> grpc.aio.AioRpcError:
    """What a client with the agent's certificate is told when it says this."""
    folder = pair.folder
    channel = grpc.aio.secure_channel(
        f"{pair.host}:{pair.port}",
        grpc.ssl_channel_credentials(
            folder.authority.read_bytes(),
            folder.key(Role.AGENT, "app").read_bytes(),
            folder.certificate(Role.AGENT, "app").read_bytes(),
        ),
    )
    try:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            f"/{wire.METHOD_SERVICE}/{wire.METHOD_NAME}"
        )
        call = method(iter(said))
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in call:
                    pass
        return caught.value
    finally:
        await channel.close()


def hello(*protocols: int) -> bytes:
    return wire.encode(wire.Hello(protocols, "9.9.9", "boot", 1.0, "", b"n" * 32, "nft"))


async def test_versions_without_a_common_protocol_refuse_and_say_so(pair: Pair) -> None:
    async with pair.listening():
        newer = wire.PROTOCOLS[-1] + 1
        error = await told(pair, hello(newer, newer + 1))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "upgrade the older one" in (error.details() or "")
        assert f"speaks link protocol ({newer}, {newer + 1})" in pair.gate.why
        assert any("upgrade the older one" in one.detail for one in pair.notices)


async def test_whoever_does_not_speak_the_protocol_is_let_go(pair: Pair) -> None:
    beat = wire.encode(wire.Beat(1.0, 0.0))
    async with pair.listening():
        for said in ((b"",), (b"junk",), (beat,), (hello(1), b"junk"), (hello(1), hello(1)), (hello(1),)):
            error = await told(pair, *said)
            assert error.code() is not grpc.StatusCode.UNKNOWN, error
            assert pair.gate.why
        async with pair.agent():
            await pair.attached()


async def test_the_newer_of_two_attachments_of_one_agent_counts(pair: Pair) -> None:
    async with pair.listening(), pair.agent():
        await pair.attached()
        first = pair.gate.session
        async with pair.agent():
            await until(lambda: pair.gate.session not in (first, None))


async def test_no_admission_is_held_longer_than_the_agent_allows(pair: Pair) -> None:
    async with pair.listening(), pair.agent(lease=5.0):
        await pair.attached()
        await pair.gate.apply([admit(pair, ONE, 3_000.0)])
        remaining = pair.backend.stands(ONE).remaining
        assert remaining is not None
        assert remaining <= 5.0


# --- under load ---------------------------------------------------------------------------------------------


def many(pair: Pair) -> list[Change]:
    return [admit(pair, Address(n.to_bytes(4, "big"), 32)) for n in range(0x0A00_0000, 0x0A00_0000 + 900)]


async def load(pair: Pair, lost: list[int]) -> None:
    """Ask without pause; what is lost is asked again."""
    while True:
        try:
            await pair.gate.apply(many(pair))
        except Unreached:
            lost[0] += 1
            await pair.gate.reached()


async def test_agents_killed_in_the_middle_of_work_break_nothing(pair: Pair, tmp_path: Path) -> None:
    contexts: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: contexts.append(context))
    host, port = free_place()
    agent = AgentProcess(
        tmp_path / "agent",
        pair.folder,
        f"{pair.host}:{pair.port}",
        path_gate="relay",
        relay=[{"service": "feed", "listen": f"{host}:{port}"}],
    )
    lost = [0]
    async with pair.listening():
        task = asyncio.create_task(load(pair, lost))
        for turn in range(3):
            agent.start()
            await until(lambda: not pair.gate.why, lambda: agent.log)
            await asyncio.sleep(0.2 * turn)
            agent.kill()
            await until(lambda: pair.gate.why)
        task.cancel()
        await asyncio.wait((task,))
    assert contexts == []
    assert task.cancelled()


async def test_gateways_that_vanish_in_the_middle_of_work_break_no_agent(pair: Pair) -> None:
    contexts: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: contexts.append(context))
    async with pair.agent() as agent:
        for turn in range(3):
            pair.gate = RemoteGate("app")
            lost = [0]
            async with pair.listening():
                await pair.attached()
                task = asyncio.create_task(load(pair, lost))
                await asyncio.sleep(0.1 * turn)
            await until(lambda: not agent.state.attached, lambda: agent.state)
            task.cancel()
            await asyncio.wait((task,))
    assert contexts == []
