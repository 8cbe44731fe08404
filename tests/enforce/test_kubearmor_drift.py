"""What somebody changes at a KubeArmor daemon behind our back: noticed, mended, counted, told; and not fought."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.control.ports import Notice
from gateway.core.model import Instant
from gateway.enforce.kubearmor import KubeArmorSettings, Tables
from gateway.enforce.kubearmor.drift import AT_ONCE, FIRST_HOLD, LONGEST_HOLD, Drift
from tests.enforce.test_kubearmor import addresses, admitted, advisory, daemon, running, state, told, until
from tests.enforce.test_kubearmor_documents import LIBRARY, names, rendered
from tests.fakes.kubearmor import FakeKubeArmor

__all__ = ["daemon"]  # the fixture

Harm = Callable[[FakeKubeArmor], None]


def _delete(kind: str) -> Harm:
    def harm(daemon: FakeKubeArmor) -> None:
        daemon.stored[kind].clear()
        if kind == "network":
            daemon._rebuild()

    return harm


def _edit_host(daemon: FakeKubeArmor) -> None:
    """Under the same name and generation."""
    (spec,) = daemon.stored["host"].values()
    spec["file"]["matchPaths"].pop()


def _edit_container(daemon: FakeKubeArmor) -> None:
    spec = next(iter(daemon.stored["container"].values()))
    spec["file"]["matchDirectories"][0]["readOnly"] = False


def _allow_all(daemon: FakeKubeArmor) -> None:
    (spec,) = daemon.stored["network"].values()
    spec["ingress"][-1]["action"] = "Allow"
    daemon._rebuild()


def _flush(daemon: FakeKubeArmor) -> None:
    assert daemon.chains is not None
    daemon.chains[6].clear()


def _shadow(daemon: FakeKubeArmor) -> None:
    """Rules between ours, as a careless hand inserts them."""
    assert daemon.chains is not None
    daemon.chains[4].insert(1, [{"accept": None}])


@pytest.mark.parametrize(
    "harm",
    [
        _delete("host"),
        _delete("container"),
        _delete("network"),
        _edit_host,
        _edit_container,
        _allow_all,
        _flush,
        _shadow,
    ],
)
async def test_it_is_mended_counted_and_told(daemon: FakeKubeArmor, harm: Harm) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 2)))
        before = await state(hand, "verified", documents="verified", host="verified", network="verified")
        assert told(daemon, "drift") == []
        whole = str((daemon.stored["host"], daemon.stored["container"], daemon.chains))
        harm(daemon)
        assert str((daemon.stored["host"], daemon.stored["container"], daemon.chains)) != whole
        await until(lambda: len(told(daemon, "drift")) == 1)
        await state(hand, "verified", documents="verified", host="verified", network="verified", repairs="1")
        assert admitted(daemon) == {"10.77.1.1"}
        assert set(names(daemon)) == {"20-container-fixed", "60-container-feeds"}
        assert before["restarts"] == hand.state()["restarts"] == "0"


def test_it_is_looked_for_often_enough_to_be_seen_within_ten_seconds() -> None:
    settings = KubeArmorSettings()
    assert settings.check + settings.pace <= 5.0


async def test_a_restart_is_told_and_counted(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        await state(hand, "verified")
        await daemon.restart()
        await until(lambda: any("sent again" in text for text in told(daemon, "drift")))
        assert any("stopped, restarted or crashed" in text for text in told(daemon, "backend-error"))
        assert (await state(hand, "verified"))["restarts"] == "1"


async def test_who_deletes_again_and_again_is_not_fought(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        await state(hand, "verified")
        for number in range(AT_ONCE + 1):
            assert daemon.chains is not None
            daemon.chains[4].clear()
            await until(lambda number=number: len(told(daemon, "drift")) == number + 1)  # type: ignore[misc]
            if number < AT_ONCE:
                await state(hand, "verified")
        await until(lambda: "again and again" in hand.state()["network_detail"], hand.state())
        assert any("somebody works against us" in text for text in told(daemon, "backend-error"))
        sent, reads = len(daemon.calls), daemon.reads
        await until(lambda: daemon.reads > reads + 20)
        assert len(daemon.calls) == sent  # looked at, and left
        assert hand.state()["network"] == "failed"
        hand.declare(addresses("10.77.1.2"))  # what is new goes out all the same
        await until(lambda: admitted(daemon) == {"10.77.1.2"})


def test_the_repairs_of_a_storm_wait_longer_each_time() -> None:
    now, heard = 1_000.0, list[Notice]()
    drift = Drift("kubearmor", heard.append, lambda: Instant(now, now))
    for _ in range(AT_ONCE):
        drift.found("x")
        assert drift.waiting == 0
    held = []
    for _ in range(8):
        drift.found("x")
        held.append(drift.waiting)
        now += drift.waiting
    assert held[:3] == [FIRST_HOLD, 2 * FIRST_HOLD, 4 * FIRST_HOLD]
    assert max(held) == LONGEST_HOLD
    now += 3 * LONGEST_HOLD
    drift.found("x")
    assert drift.waiting == 0
    assert [each.kind for each in heard].count("drift") == AT_ONCE + 9


# --- the security module ------------------------------------------------------------------------------------------


async def test_without_a_security_module_nothing_of_host_or_container_counts(daemon: FakeKubeArmor) -> None:
    daemon.enforcer = ""
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 2)))
        seen = await state(hand, "failed", host="failed", documents="failed", network="verified")
        assert seen["host_detail"].startswith("no LSM enforcer")
        assert "no LSM enforcer" in seen["documents_detail"]
        alarms = [text for text in told(daemon, "backend-error") if "no LSM enforcer" in text]
        assert len(alarms) == 2  # one for each part, and no more
        assert told(daemon, "drift") == []
        sent, reads = len(daemon.calls), daemon.reads
        await until(lambda: daemon.reads > reads + 20)
        assert len(daemon.calls) == sent
        assert len([text for text in told(daemon, "backend-error") if "no LSM" in text]) == 2


async def test_while_the_module_is_not_known_accepted_is_all(daemon: FakeKubeArmor) -> None:
    daemon.enforcer = None
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.77.1.1"))
        hand.declare_documents(rendered(LIBRARY, ("quarantine", 0, 2)))
        seen = await state(hand, "accepted", host="accepted", documents="accepted", network="verified")
        assert "no record" in seen["host_detail"]
        daemon.enforcer = "BPFLSM"
        await state(hand, "verified", host="verified", documents="verified")
        daemon.enforcer = None  # a tidy host clears its folder of temporary files
        await asyncio.sleep(0.1)
        await state(hand, "verified", host="verified", documents="verified")


async def test_a_daemon_that_lost_its_module_with_a_restart_is_noticed(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon, tables=Tables.NONE)) as hand:
        await state(hand, "verified", host="verified")
        daemon.enforcer = ""
        await daemon.restart()
        await state(hand, "failed", host="failed")


async def test_a_probe_of_many_megabytes_is_read(daemon: FakeKubeArmor) -> None:
    """Everybody's policies are in it, in full: the library's 4 MiB are not enough."""
    await daemon.start()
    theirs = {"file": {"matchPaths": [{"path": f"/srv/{number:040}"} for number in range(70_000)]}}
    daemon.stored["host"]["10-theirs"] = theirs
    async with running(advisory(daemon, tables=Tables.NONE, rpc_timeout=60.0)) as hand:
        await state(hand, "verified", host="verified")
