"""Another static part under a running path gate: one transaction, device elements and buckets stay, read back."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.core.errors import BackendError
from gateway.core.model import Address, Applied, ChangeKind
from gateway.enforce.nft import Baseline, ConnectionRate, NftBackend
from tests.enforce.test_nft_backend import (
    CLOCK,
    KNOWN,
    NET,
    NOTHING,
    ONE,
    TOMBSTONE,
    TWO,
    baseline,
    change,
    restarted,
    rules,
    take,
)
from tests.netns import in_namespaces, run

pytestmark = pytest.mark.netns

MORE = ("admitted", "probation", "update")


def handles() -> list[str]:
    """Chains and device sets by their handles: what was laid again has another."""
    listed = run("nft", "-a", "list", "table", "inet", "ragate").splitlines()
    words = ("chain ", "set cut", "set admitted", "set known")
    return [line for line in listed if line.strip().startswith(words)]


async def whole(backend: NftBackend, made: Baseline) -> None:
    """What stands is what a start lays, and the guard finds nothing to mend."""
    standing = rules()
    await asyncio.sleep(1.5)  # two listings of the guard
    assert backend._reports.empty()
    await backend.stop()
    run("nft", "delete table inet ragate")
    fresh, _ = await restarted(made)
    assert rules() == standing
    await fresh.stop()


@pytest.mark.parametrize(
    "made",
    [baseline(port=8002), baseline(profiles=MORE), baseline(profiles=("admitted",))],
    ids=["other service", "one profile more", "one profile less"],
)
def test_elements_stay_under_another_static_part(made: Baseline) -> None:
    async def body() -> None:
        backend, _ = await restarted(baseline())
        await take(backend, change(ChangeKind.ADMIT, ONE), change(ChangeKind.CUT, TWO))
        before = handles()
        await backend.move(made)
        assert handles() == before, "nothing was laid anew"
        assert (await backend.observe([ONE]))[ONE].profile == "admitted"
        assert (await backend.observe([TWO]))[TWO] == TOMBSTONE
        for profile in made.profiles:
            await take(backend, change(ChangeKind.ADMIT, NET, profile))
        outcomes = await backend.cut([change(ChangeKind.CUT, NET)])
        assert [one.state for one in outcomes] == [Applied.VERIFIED]
        await whole(backend, made)

    in_namespaces(body)


def test_there_and_back_and_to_itself() -> None:
    async def body() -> None:
        backend, _ = await restarted(baseline())
        await take(backend, change(ChangeKind.ADMIT, ONE))
        standing = rules()
        await backend.move(baseline(profiles=MORE))
        assert rules() != standing
        await backend.move(baseline())
        await backend.move(baseline())
        assert rules() == standing
        assert (await backend.observe([ONE]))[ONE].profile == "admitted"
        refused = await backend.apply([change(ChangeKind.ADMIT, ONE, "update")])
        assert [one.state for one in refused] == [Applied.FAILED]
        await whole(backend, baseline())

    in_namespaces(body)


def test_buckets_of_a_rate_that_stays_are_kept_and_others_are_not() -> None:
    def rated(**rates: ConnectionRate) -> Baseline:
        made = baseline()
        return Baseline(made.services, profiles=made.profiles, inventory_size=3, rates=rates)

    def buckets(name: str) -> int:
        listed = json.loads(run("nft", "-j", "list", "set", "inet", "ragate", name))
        return len([one for each in listed["nftables"] for one in each.get("set", {}).get("elem", [])])

    async def body() -> None:
        slow, slower = ConnectionRate(100, 3_600), ConnectionRate(50, 3_600)
        backend, _ = await restarted(rated(admitted=slow, probation=slow))
        for name in ("rate.admitted4", "rate.probation4"):
            run(
                "nft", f"add element inet ragate {name} {{ 10.77.1.11 limit rate over 100/hour burst 100 packets }}"
            )
            assert buckets(name) == 1
        await backend.move(rated(admitted=slow, probation=slower))
        assert buckets("rate.admitted4") == 1
        assert buckets("rate.probation4") == 0
        await whole(backend, rated(admitted=slow, probation=slower))

    in_namespaces(body)


def test_a_table_that_somebody_took_away_is_laid_again_as_it_was() -> None:
    async def body() -> None:
        backend, _ = await restarted(baseline())
        await take(backend, change(ChangeKind.ADMIT, ONE))
        assert backend._guard is not None
        reports = backend.damages()
        run("nft", "flush", "ruleset")
        moved: BackendError | None = None
        try:
            await backend.move(baseline(port=8002))
        except BackendError as error:
            moved = error
        async with asyncio.timeout(60):
            assert "laid again" in await anext(reports)
        if moved is None:  # the guard had mended it before
            assert "8002" in run("nft", "list", "table", "inet", "ragate")
        else:
            await backend.move(baseline(port=8002))
        assert (await backend.observe([ONE]))[ONE] == NOTHING, "whoever hears of damage brings elements back"
        await whole(backend, baseline(port=8002))

    in_namespaces(body)


def test_changes_go_on_while_the_static_part_moves() -> None:
    async def body() -> None:
        backend, _ = await restarted(baseline())
        done = asyncio.Event()

        async def moving() -> None:
            for number in range(6):
                await backend.move(baseline(profiles=MORE if number % 2 == 0 else MORE[:2]))
            done.set()

        task = asyncio.create_task(moving())
        turns = 0
        while not done.is_set() and not task.done():
            await take(
                backend, change(ChangeKind.ADMIT, ONE), change(ChangeKind.ADMIT, Address.parse("10.77.1.12"))
            )
            assert (await backend.observe([ONE]))[ONE].profile == "admitted"
            outcomes = await backend.cut([change(ChangeKind.CUT, ONE)])
            assert [one.state for one in outcomes] == [Applied.VERIFIED]
            turns += 1
        await task
        assert turns > 0
        assert len(KNOWN) == 3
        await whole(backend, baseline())

    in_namespaces(body)


async def test_a_backend_that_does_not_run_is_moved_nowhere() -> None:
    with pytest.raises(BackendError, match="not started"):
        await NftBackend(baseline(), KNOWN, CLOCK).move(baseline(port=8002))
