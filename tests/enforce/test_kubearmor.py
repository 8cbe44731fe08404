"""The KubeArmor hand against a daemon with KubeArmor's quirks: what its rules become, and what is said of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.control.ports import Notice
from gateway.core.errors import BackendError, ConfigError
from gateway.core.model import Address
from gateway.enforce.kubearmor import KubeArmorAdvisory, KubeArmorSettings, Tables
from gateway.enforce.kubearmor.lane import MAX_UNANSWERED
from gateway.kubearmor import policies
from gateway.kubearmor.host import Hardening
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.network import Scope
from gateway.kubearmor.pb import policy_pb2
from gateway.kubearmor.policies import Port
from tests.fakes.clock import ManualClock
from tests.fakes.kubearmor import FakeKubeArmor
from tests.patience import PATIENCE

SCOPE = Scope((Port(8001), Port(8002, "udp")), corridor=(Port(8100),))
HARDENING = Hardening(journal="/var/lib/ragate/journal.db", sealed=("/etc/ragate/policies",))
FAST: dict[str, Any] = {
    "quiet": 0.01,
    "pace": 0.01,
    "share": 1.0,
    "check": 0.05,
    "retry_min": 0.01,
    "retry_max": 0.05,
    "crash_backoff": 0.02,
    "rpc_timeout": 5.0,
    "tables": Tables.READ,
}


#: What was told to people, by daemon.
NOTICES: dict[int, list[Notice]] = {}


def told(daemon: FakeKubeArmor, kind: str) -> list[str]:
    return [notice.detail for notice in NOTICES[id(daemon)] if notice.kind == kind]


def addresses(*texts: str) -> frozenset[Address]:
    return frozenset(map(Address.parse, texts))


@pytest.fixture
async def daemon() -> AsyncIterator[FakeKubeArmor]:
    fake = FakeKubeArmor()
    NOTICES[id(fake)] = []
    yield fake
    del NOTICES[id(fake)]
    await fake.stop()


def advisory(daemon: FakeKubeArmor, **changes: Any) -> KubeArmorAdvisory:
    given: dict[str, Any] = {"address": daemon.address, "health": daemon.health, **FAST, **changes}
    notices = NOTICES.setdefault(id(daemon), [])
    return KubeArmorAdvisory(
        KubeArmorSettings(**given),
        ManualClock(),
        SCOPE,
        HARDENING,
        tables=daemon,
        lsm=daemon.lsm,
        notice=notices.append,
    )


@asynccontextmanager
async def running(hand: KubeArmorAdvisory) -> AsyncIterator[KubeArmorAdvisory]:
    task = asyncio.create_task(hand.run())
    try:
        yield hand
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], bool], what: object = "") -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.005)


async def state(hand: KubeArmorAdvisory, wanted: str, **parts: str) -> Mapping[str, str]:
    try:
        await until(lambda: hand.state().items() >= ({"state": wanted} | parts).items())
    except TimeoutError:
        pytest.fail(f"wanted {wanted} {parts}, is {hand.state()}")
    return hand.state()


def admitted(daemon: FakeKubeArmor, family: int = 4) -> set[str]:
    """The sources that the daemon's rules let reach tcp/8001."""
    assert daemon.chains is not None
    found: set[str] = set()
    for rule in daemon.chains[family]:
        text = str(rule)
        if "'right': 8001" in text and "accept" in rule[-1]:
            right = rule[0]["match"]["right"]
            found |= {
                str(item) for item in (right["set"] if isinstance(right, dict) and "set" in right else [right])
            }
    return found


async def test_devices_reach_the_rules_and_both_policies_are_verified(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        assert hand.name == "kubearmor"
        hand.declare(addresses("10.77.1.11", "fd77:1::11"))
        seen = await state(hand, "verified", host="verified", network="verified")
        assert admitted(daemon) == {"10.77.1.11"}
        assert admitted(daemon, 6) == {"fd77:1::11"}
        assert seen["addresses"] == "2"
        hand.declare(addresses("10.77.1.12"))
        await until(lambda: admitted(daemon) == {"10.77.1.12"})
        assert admitted(daemon, 6) == {"100::"}  # the discard prefix, never nobody: that would be everybody
        hand.declare(frozenset())
        await until(lambda: not admitted(daemon) and not admitted(daemon, 6))
        await state(hand, "verified")
    assert {what for _, what, _ in daemon.calls} == {"ADDED"}
    assert len(daemon.stored["host"]) == len(daemon.stored["network"]) == 1
    assert daemon.most_in_flight == 1


async def test_no_network_policy_before_anything_was_declared(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        await state(hand, "waiting", host="verified", network="waiting")
        assert daemon.stored["network"] == {}


async def test_newest_wins_and_the_pace_is_kept(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    pace, now = 0.2, asyncio.get_running_loop().time
    async with running(advisory(daemon, pace=pace)) as hand:
        began = now()
        for n in range(1, 101):
            hand.declare(addresses(f"10.77.1.{n}"))
            await asyncio.sleep(0.005)
        await until(lambda: admitted(daemon) == {"10.77.1.100"})
        took = now() - began
    sent = [call for call in daemon.calls if call[0] == "network"]
    assert len(sent) <= 2 + took / pace


async def test_within_the_pace_nothing_more_is_sent(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon, pace=3600.0)) as hand:
        hand.declare(addresses("10.77.1.1"))
        await state(hand, "verified")
        hand.declare(addresses("10.77.1.2"))
        await asyncio.sleep(0.3)
        assert admitted(daemon) == {"10.77.1.1"}


async def test_a_restart_is_seen_and_everything_is_sent_again(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        before = await state(hand, "verified")
        await daemon.die()
        assert daemon.chains is not None
        await state(hand, "absent", restarts="1", network="waiting")
        hand.declare(addresses("10.77.1.2"))
        await daemon.start()
        after = await state(hand, "verified", restarts="1")
        assert admitted(daemon) == {"10.77.1.2"}
        assert int(after["generation"]) > int(before["generation"])


async def test_lost_streams_are_a_restart_and_everything_is_sent_again_once_it_is_quiet(
    daemon: FakeKubeArmor,
) -> None:
    """The streams may be at another address than the policies: their end is the only sign then."""
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.disturbed("not settled yet: says nothing new")
        hand.declare(addresses("10.77.1.1"))
        before = await state(hand, "verified", restarts="0")
        sent = len(daemon.calls)
        hand.disturbed("KubeArmor's streams ended (the connection was closed)")
        after = await state(hand, "verified", restarts="1")
        assert int(after["generation"]) > int(before["generation"])
        assert {kind for kind, what, _ in daemon.calls[sent:] if what == "ADDED"} == {"host", "network"}
        assert after["since"] >= before["since"]


async def test_a_restart_that_forgot_everything_is_mended(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        await state(hand, "verified")
        await daemon.die()
        daemon.disk.clear()
        await daemon.start()
        await until(lambda: len(daemon.stored["host"]) == 1 and admitted(daemon) == {"10.77.1.1"})
        await state(hand, "verified")


class Restoring(FakeKubeArmor):
    """Its restore goes on between probes: each shows one policy more than the one before, until all are back."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.waiting = [f"9{n}-theirs" for n in range(number)]
        self.shown: list[int] = []

    async def _probe(self, request: Any, context: Any) -> policy_pb2.ProbeResponse:
        answer = await super()._probe(request, context)
        self.shown.append(len(self.stored["host"]))
        if self.waiting:
            self._store("host", self.waiting.pop(), {"file": {"matchPaths": [{"path": "/srv/a"}]}})
        return answer


async def test_what_is_sent_waits_until_the_restore_is_quiet() -> None:
    """The probe still changes while the restore goes on: nothing is sent into it."""
    daemon = Restoring(3)
    await daemon.start()
    try:
        async with running(advisory(daemon)) as hand:
            hand.declare(addresses("10.77.1.2"))
            await until(lambda: daemon.calls != [])
            assert daemon.shown[:5] == [0, 1, 2, 3, 3]
            await state(hand, "verified")
            assert admitted(daemon) == {"10.77.1.2"}
        assert len(daemon.stored["host"]) == 4
    finally:
        await daemon.stop()


async def test_a_host_policy_that_vanished_is_sent_again(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        await state(hand, "verified")
        daemon.stored["host"].clear()
        await until(lambda: len(daemon.stored["host"]) == 1)
        seen = await state(hand, "verified", repairs="1")
        assert seen["restarts"] == "0"
    assert len(told(daemon, "drift")) == 1


async def test_flushed_rules_are_repaired_with_a_new_generation(daemon: FakeKubeArmor) -> None:
    """An identical policy would be a no-op: only the generation makes KubeArmor rebuild."""
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        before = await state(hand, "verified")
        assert daemon.chains is not None
        daemon.chains[6].clear()
        await until(lambda: hand.state()["repairs"] == "1")
        after = await state(hand, "verified")
        assert int(after["generation"]) > int(before["generation"])
        assert daemon.chains[6]


async def test_rules_frozen_by_somebodys_poison_are_said_to_be_failed(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    bad = {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}], "action": "Block"}]}
    daemon.stored["network"]["10-theirs"] = bad
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        seen = await state(hand, "failed", network="failed", host="verified")
        assert "frozen" in seen["network_detail"]
        assert admitted(daemon) == set()
        del daemon.stored["network"]["10-theirs"]
        await state(hand, "verified")
        assert admitted(daemon) == {"10.77.1.1"}


async def test_without_evidence_of_nft_no_network_policy_is_sent(daemon: FakeKubeArmor) -> None:
    daemon.nft = False
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        seen = await state(hand, "verified", host="verified", network="withheld")
        assert "could end the daemon" in seen["network_detail"]
        assert daemon.starts == 1
        assert not daemon.dead.is_set()


async def test_without_leave_to_read_or_trust_no_network_policy_is_sent(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon, tables=Tables.NONE)) as hand:
        hand.declare(addresses("10.77.1.1"))
        seen = await state(hand, "verified", network="withheld")
        assert "tables" in seen["network_detail"]
        assert daemon.stored["network"] == {}
        assert daemon.reads == 0


async def test_trusted_and_unread_tables_stay_accepted(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon, tables=Tables.TRUST)) as hand:
        hand.declare(addresses("10.77.1.1"))
        await state(hand, "accepted", network="accepted", host="verified")
        assert admitted(daemon) == {"10.77.1.1"}
        assert daemon.reads == 0


async def test_a_policy_that_ends_the_daemon_is_not_sent_for_ever(daemon: FakeKubeArmor) -> None:
    """Wrongly trusted: each network policy is a panic. The daemon must not be killed again and again."""
    daemon.nft = False
    await daemon.start()
    async with running(advisory(daemon, tables=Tables.TRUST)) as hand:
        hand.declare(addresses("10.77.1.1"))
        for _ in range(MAX_UNANSWERED):
            async with asyncio.timeout(PATIENCE):
                await daemon.dead.wait()
            await state(hand, "absent")
            await daemon.start()
        seen = await state(hand, "failed", network="failed", host="verified")
        assert "no answer" in seen["network_detail"]
        assert int(seen["restarts"]) == MAX_UNANSWERED
        hand.declare(addresses("10.77.1.2"))
        await asyncio.sleep(0.1)
        assert not daemon.dead.is_set()


@pytest.mark.parametrize("kind", ["host", "network"])
async def test_a_daemon_that_dies_in_the_call_is_looked_at_again(daemon: FakeKubeArmor, kind: str) -> None:
    daemon.die_on = kind
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        async with asyncio.timeout(PATIENCE):
            await daemon.dead.wait()
        await state(hand, "absent", restarts="1")
        await daemon.start()
        await state(hand, "verified")
        assert admitted(daemon) == {"10.77.1.1"}


async def test_an_absent_daemon_is_reported_and_met_when_it_comes(daemon: FakeKubeArmor) -> None:
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        seen = await state(hand, "absent")
        assert "UNAVAILABLE" in seen["detail"]
        await daemon.start()
        await state(hand, "verified")


async def test_a_port_that_listens_and_says_nothing_is_connecting(daemon: FakeKubeArmor) -> None:
    silent = daemon.hang()
    async with running(advisory(daemon, health=None, rpc_timeout=0.1)) as hand:
        seen = await state(hand, "connecting", detail="probe: DEADLINE_EXCEEDED: Deadline Exceeded")
        assert seen["network"] == "waiting"
        silent.close()
        await daemon.start()
        await state(hand, "waiting", host="verified")


async def test_a_kind_that_the_daemon_disables_is_named(daemon: FakeKubeArmor) -> None:
    daemon.host = False
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        await state(hand, "verified", host="disabled", network="verified")


async def test_a_policy_too_large_is_not_sent_and_the_older_one_stands(
    daemon: FakeKubeArmor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        await state(hand, "verified")
        monkeypatch.setattr(policies, "MAX_EVENT", 2000)
        hand.declare(addresses(*(f"10.{m}.{n}.1" for m in range(8) for n in range(100))))
        seen = await state(hand, "failed", network="failed", host="verified")
        assert "too many separate prefixes" in seen["network_detail"]
        assert admitted(daemon) == {"10.77.1.1"}
        await asyncio.sleep(0.1)
        assert hand.state()["state"] == "failed"
        hand.declare(addresses("10.77.1.2"))
        await state(hand, "verified")
        assert admitted(daemon) == {"10.77.1.2"}


async def test_withdraw_leaves_nothing_and_sends_nothing_more(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    daemon.stored["network"]["10-theirs"] = {"ingress": []}
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        await state(hand, "verified")
        await hand.withdraw()
        assert daemon.stored == {"host": {}, "network": {"10-theirs": {"ingress": []}}, "container": {}}
        assert daemon.disk == {}
        hand.declare(addresses("10.77.1.2"))
        await daemon.restart()
        await asyncio.sleep(0.1)
        assert daemon.stored["host"] == {}
        await state(hand, "withdrawn")
        await hand.withdraw()


async def test_withdraw_removes_what_an_earlier_run_left(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        await state(hand, "verified")
    await advisory(daemon).withdraw()
    assert daemon.stored == {"host": {}, "network": {}, "container": {}}


async def test_withdraw_does_not_end_a_daemon_without_nft(daemon: FakeKubeArmor) -> None:
    daemon.nft = False
    await daemon.start()
    await advisory(daemon).withdraw()
    assert not daemon.dead.is_set()


async def test_withdraw_from_an_absent_daemon_says_so(daemon: FakeKubeArmor) -> None:
    with pytest.raises(BackendError, match="UNAVAILABLE"):
        await advisory(daemon).withdraw()


async def test_a_host_policy_that_cannot_be_is_found_at_start(daemon: FakeKubeArmor) -> None:
    with pytest.raises(DocumentRefused, match="relative"):
        KubeArmorAdvisory(KubeArmorSettings(), ManualClock(), SCOPE, Hardening(private=("relative",)))


@pytest.mark.parametrize(
    "address", ["10.0.0.1:32767", "edge.example:32767", "127.0.0.1", "[::]:1", "127.0.0.1:0", ""]
)
def test_a_daemon_on_another_host_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="not on this host"):
        KubeArmorSettings(address=address)


@pytest.mark.parametrize("address", ["127.0.0.1:32767", "[::1]:32767", "localhost:1", "unix:/run/kubearmor.sock"])
def test_a_daemon_on_this_host_is_taken(address: str) -> None:
    assert KubeArmorSettings(address=address, health=None).address == address


def test_no_share_of_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="share"):
        KubeArmorSettings(share=0)
