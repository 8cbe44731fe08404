"""What KubeArmor shows when an operator asks: what is there, what is not, and what could not be read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest

from gateway.control.ports import Showing
from gateway.core.errors import BackendError
from gateway.core.model import Address
from gateway.enforce.kubearmor import proof
from gateway.enforce.kubearmor.proof import HOST, show
from gateway.kubearmor.readback import Shown
from tests.enforce.test_kubearmor import addresses, advisory, daemon, running, until
from tests.fakes.kubearmor import FakeKubeArmor

__all__ = ["daemon"]

ONE, TWO, SIX = (Address.parse(text) for text in ("10.0.0.1", "10.0.0.2", "fd00::1"))


async def test_the_generation_and_each_rule_are_read_from_the_daemon_and_its_tables(daemon: FakeKubeArmor) -> None:
    await daemon.start()
    async with running(advisory(daemon)) as hand:
        hand.declare(addresses("10.0.0.1", "fd00::1"))
        await until(lambda: hand.state()["network"] == "verified")
        await until(lambda: hand.state()["host"] in {"verified", "failed"})
        found = await hand.prove([ONE, TWO, SIX])
    assert found[HOST].found
    assert "generation" in found[HOST].words
    one, two, six = (found[f"kubearmor rule for {address}"] for address in (ONE, TWO, SIX))
    assert one.found
    assert one.words.startswith("ip kubearmor INPUT, rule ")
    assert ": accept from it to tcp 8001" in one.words
    assert ": accept from it to udp 8002" in one.words
    assert six.found
    assert six.words.startswith("ip6 kubearmor INPUT, rule ")
    assert two.found is False
    assert "the default for everybody holds" in two.words


async def test_a_daemon_that_is_away_is_not_read_and_its_tables_are(daemon: FakeKubeArmor) -> None:
    daemon.chains = {4: [], 6: []}  # a daemon that was killed leaves its tables behind
    found = await advisory(daemon).prove([ONE])
    assert found[HOST].found is None
    assert found[f"kubearmor rule for {ONE}"].found is False
    daemon.chains = None
    found = await advisory(daemon).prove([ONE])
    assert found[f"kubearmor rule for {ONE}"].words == "there is no table ip kubearmor"


async def test_tables_that_may_not_be_read_and_reads_that_fail_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing() -> Mapping[str, Shown]:
        return {}

    async def never() -> Mapping[str, Shown]:
        await asyncio.Event().wait()
        raise AssertionError

    class Broken:
        async def read(self, family: int) -> bytes | None:
            raise BackendError("kubearmor", "listing nftables needs root", transient=False)

    part = f"kubearmor rule for {ONE}"
    unread = await show(nothing, None, {"p": 7}, [ONE])
    assert unread == {
        HOST: Showing(False, "the probe does not show p"),
        part: Showing(None, "its tables may not be read (tables: read)"),
    }
    assert (await show(nothing, Broken(), {}, [ONE]))[part] == Showing(None, "listing nftables needs root")
    old = await show(_shows("p", 6), None, {"p": 7}, [])
    assert old[HOST] == Showing(False, "the probe shows generation 6 of p, sent: 7")
    monkeypatch.setattr(proof, "SECONDS", 0.01)
    late = Showing(None, "no answer within 0.01 s")
    assert await show(never, None, {}, [ONE]) == {HOST: late, part: late}


def _shows(name: str, generation: int) -> Callable[[], Awaitable[Mapping[str, Shown]]]:
    async def probe() -> Mapping[str, Shown]:
        return {name: Shown("host", {}, generation, False)}

    return probe
