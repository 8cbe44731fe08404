"""What an agent finds on its host reaches the gateway: ways around its path gate, elements that others changed."""

from __future__ import annotations

from pathlib import Path

from gateway.agentlink.remote import MAX_REPORTS, RemoteGate
from gateway.control.ports import Resync, Strayed
from gateway.core.model import Address
from tests.agentlink.pair import Pair, site_certificates, until

ONE = Address.parse("10.0.0.1")


async def test_ways_around_and_strays_are_told_over_the_link(tmp_path: Path) -> None:
    pair = Pair(site_certificates(tmp_path / "pki", "app"))
    told: list[str] = []
    pair.gate.on_bypass = told.append
    async with pair.listening(), pair.agent() as agent:
        found: list[tuple[str, ...] | None] = [None]
        agent._bypasses = lambda: found[0]
        await until(lambda: not pair.gate.why)
        assert len(pair.gate.bypasses) == 0
        found[0] = ("a flowtable takes flows over",)
        await until(lambda: pair.gate.bypasses)
        found[0] = None  # not known any more: what was known stays
        damages = pair.gate.damages()
        assert isinstance(await anext(damages), Resync)
        pair.backend._reports.put_nowait(Strayed("somebody changed it", (ONE,)))
        report = await anext(damages)
        assert isinstance(report, Strayed)
        assert (report, report.addresses) == ("app: somebody changed it", frozenset({ONE}))
        assert told == ["a flowtable takes flows over"]
        found[0] = ()
        await until(lambda: len(told) == 2)
    assert told == ["a flowtable takes flows over", "closed again: a flowtable takes flows over"]


async def test_reports_that_found_no_room_ask_for_a_look_at_everything() -> None:
    gate = RemoteGate("app")
    for number in range(MAX_REPORTS + 1):
        gate.damaged(Strayed(f"report {number}", (ONE,)))
    damages = gate.damages()
    heard = [await anext(damages) for _ in range(MAX_REPORTS + 1)]
    last = heard[-1]
    assert isinstance(last, Strayed)
    assert last.everything
