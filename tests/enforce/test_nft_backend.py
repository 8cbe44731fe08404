"""The nftables backend beyond the port's promises: adopting, mending, carrying over, damage, the two lanes."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from gateway.control.storms import CALM_REPAIRS
from gateway.core.errors import BackendError
from gateway.core.model import Address, Applied, Change, ChangeKind, Stands
from gateway.enforce.nft import Baseline, Endpoint, GatedService, NftBackend
from gateway.enforce.nft.elements import DeviceSets
from gateway.enforce.nft.fence import SUPERSEDED, UNDER_WAY, Dated, Fence
from gateway.enforce.nft.netlink import NetlinkSocket
from gateway.enforce.nft.ruleset import render_baseline_file
from tests.netns import KernelClock, in_namespaces, run

CLOCK = KernelClock()
ONE, TWO, NET = (Address.parse(text) for text in ("10.77.1.11", "fd77:1::11", "fd77:1:0:5::/64"))
KNOWN = (ONE, TWO, NET)
TOMBSTONE = Stands("", None, tombstone=True)
NOTHING = Stands("", None, tombstone=False)


def baseline(
    port: int = 8001, inventory: int = 3, profiles: tuple[str, ...] = ("admitted", "probation")
) -> Baseline:
    endpoints = (
        Endpoint(Address.parse("10.77.3.2"), port, "tcp"),
        Endpoint(Address.parse("fd77:3::2"), port, "udp"),
    )
    services = tuple(GatedService(one, frozenset({"admitted"})) for one in endpoints)
    return Baseline(services, profiles=profiles, inventory_size=inventory)


def change(kind: ChangeKind, address: Address, profile: str = "admitted", seconds: float = 600.0) -> Change:
    return Change(kind, address, profile, CLOCK.now().boot + seconds)


async def take(backend: NftBackend, *changes: Change) -> None:
    outcomes = await backend.apply(changes)
    assert all(outcome.state is Applied.VERIFIED for outcome in outcomes), outcomes


async def restarted(made: Baseline, known: tuple[Address, ...] = KNOWN) -> tuple[NftBackend, bool]:
    backend = NftBackend(made, known, CLOCK)
    return backend, await backend.start()


def rules() -> str:
    """The chains as listed, without counters."""
    return run("nft", "-s", "list", "table", "inet", "ragate").partition("chain refuse")[2]


@pytest.mark.netns
def test_a_standing_table_is_adopted_with_its_elements() -> None:
    async def body() -> None:
        first, found = await restarted(baseline())
        assert not found
        await take(first, change(ChangeKind.ADMIT, ONE), change(ChangeKind.CUT, TWO), change(ChangeKind.ADMIT, NET))
        await first.stop()
        listed = run("nft", "-a", "list", "table", "inet", "ragate").splitlines()
        handles = [line for line in listed if "# handle" in line]
        second, found = await restarted(baseline())
        assert found
        stands = await second.observe(KNOWN)
        assert [one.profile for one in stands.values()] == ["admitted", "", "admitted"]
        assert [one.tombstone for one in stands.values()] == [False, True, False]
        relisted = run("nft", "-a", "list", "table", "inet", "ragate").splitlines()
        assert [line for line in relisted if "# handle" in line] == handles
        await second.stop()

    in_namespaces(body)


@pytest.mark.netns
@pytest.mark.parametrize(
    "made",
    [baseline(port=8002), baseline(profiles=("admitted", "probation", "update")), baseline(profiles=("admitted",))],
    ids=["other service", "one profile more", "one profile less"],
)
def test_a_changed_static_part_is_replaced_under_standing_elements(made: Baseline) -> None:
    async def body() -> None:
        first, _ = await restarted(baseline())
        await take(first, change(ChangeKind.ADMIT, ONE), change(ChangeKind.CUT, TWO))
        await first.stop()
        second, found = await restarted(made)
        assert found
        assert (await second.observe([ONE]))[ONE].profile == "admitted"
        assert (await second.observe([TWO]))[TWO] == TOMBSTONE
        for profile in made.profiles:
            await take(second, change(ChangeKind.ADMIT, NET, profile))
        await second.stop()
        standing = rules()
        run("nft", "delete table inet ragate")
        third, found = await restarted(made)
        assert not found
        assert rules() == standing
        await third.stop()

    in_namespaces(body)


@pytest.mark.netns
@pytest.mark.parametrize(
    "harm",
    [
        "flush chain inet ragate sever4",
        "flush set inet ragate gated4",
        "insert rule inet ragate arrive accept",
        "add element inet ragate corridor4 { 10.77.3.2 . tcp . 8001 }",
        "add element inet ragate always6 { fd77:1::/64 }",
        "add chain inet ragate extra { type filter hook forward priority 0; }",
        "add set inet ragate extra { type mark; }",
    ],
)
def test_what_was_damaged_while_nobody_watched_is_mended_at_start(harm: str) -> None:
    async def body() -> None:
        first, _ = await restarted(baseline())
        await take(first, change(ChangeKind.ADMIT, ONE), change(ChangeKind.CUT, TWO))
        await first.stop()
        whole = run("nft", "-s", "list", "table", "inet", "ragate")
        run("nft", harm)
        second, found = await restarted(baseline())
        assert found
        assert (await second.observe([ONE]))[ONE].profile == "admitted"
        assert (await second.observe([TWO]))[TWO] == TOMBSTONE
        await second.stop()
        mended = run("nft", "-s", "list", "table", "inet", "ragate")
        assert sorted(_without_ends(mended)) == sorted(_without_ends(whole))

    in_namespaces(body)


def _without_ends(listing: str) -> list[str]:
    return [line.partition(" expires ")[0] for line in listing.splitlines()]


@pytest.mark.netns
def test_an_inventory_that_outgrew_its_sets_keeps_tombstones_and_shuts() -> None:
    async def body() -> None:
        first, _ = await restarted(baseline())
        await take(first, *(change(ChangeKind.CUT, address) for address in (ONE, NET)))
        await take(first, change(ChangeKind.ADMIT, TWO))
        await first.stop()
        second, found = await restarted(baseline(inventory=10_000))
        assert not found
        assert await second.observe(KNOWN) == {ONE: TOMBSTONE, TWO: NOTHING, NET: TOMBSTONE}
        await second.stop()

    in_namespaces(body)


@pytest.mark.netns
def test_addresses_that_left_the_inventory_lose_their_admission() -> None:
    async def body() -> None:
        first, _ = await restarted(baseline())
        await take(first, *(change(ChangeKind.ADMIT, address) for address in KNOWN))
        await first.stop()
        second, found = await restarted(baseline(), (ONE,))
        assert found
        stands = await second.observe(KNOWN)
        assert [one.profile for one in stands.values()] == ["admitted", "", ""]
        await second.stop()
        listing = run("nft", "list", "set", "inet", "ragate", "known6")
        assert "fd77" not in listing

    in_namespaces(body)


HARMS = (
    "flush ruleset",
    "delete table inet ragate",
    "flush table inet ragate",
    "flush chain inet ragate back6",
    "delete chain inet ragate arrive",
    "insert rule inet ragate leave accept",
    "flush set inet ragate gated6",
    "flush set inet ragate hosts4",
    "add table inet ragate { flags dormant; }",
    "chain inet ragate arrive { policy drop; }",
)


@pytest.mark.netns
@pytest.mark.parametrize("harms", [HARMS[: len(HARMS) // 2], HARMS[len(HARMS) // 2 :]], ids=["first", "second"])
def test_damage_is_seen_laid_again_and_reported(harms: tuple[str, ...]) -> None:
    assert len(harms) <= CALM_REPAIRS, "a storm is another test's"

    async def body() -> None:
        backend, _ = await restarted(baseline())
        damages = backend.damages()
        standing = rules()
        for harm in harms:
            await take(backend, change(ChangeKind.ADMIT, ONE))
            await asyncio.to_thread(run, "nft", harm)
            async with asyncio.timeout(60):
                assert "laid again" in await anext(damages), harm
            assert await backend.observe(KNOWN) == dict.fromkeys(KNOWN, NOTHING)
            assert rules() == standing
            await _until(lambda: "fd77:1::11" in run("nft", "list", "set", "inet", "ragate", "known6"))
        await backend.stop()

    in_namespaces(body)


@pytest.mark.netns
def test_a_replaced_rule_is_seen() -> None:
    async def body() -> None:
        backend, _ = await restarted(baseline())
        damages = backend.damages()
        listing = await asyncio.to_thread(run, "nft", "-a", "list", "chain", "inet", "ragate", "refuse")
        handle = next(line for line in listing.splitlines() if "drop" in line).rpartition(" ")[2]
        await asyncio.to_thread(run, "nft", f"replace rule inet ragate refuse handle {handle} accept")
        async with asyncio.timeout(60):
            assert "replaced" in await anext(damages)
        assert "drop" in rules().partition("}")[0]
        await backend.stop()

    in_namespaces(body)


@pytest.mark.netns
@pytest.mark.parametrize(
    "harm",
    [
        "add element inet ragate always4 { 10.77.1.0/24 }",
        "add element inet ragate services_probation4 { 10.77.3.2 . tcp . 8001 }",
        "add element inet ragate corridor6 { fd77:3::2 . udp . 8001 }",
    ],
)
def test_an_element_added_to_a_static_set_is_seen(harm: str) -> None:
    async def body() -> None:
        backend, _ = await restarted(baseline())
        damages = backend.damages()
        await asyncio.to_thread(run, "nft", harm)
        async with asyncio.timeout(60):
            assert "was changed" in await anext(damages)
        name = harm.split()[4]
        assert "elements" not in run("nft", "list", "set", "inet", "ragate", name)
        await backend.stop()

    in_namespaces(body)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.01)


@pytest.mark.netns
def test_changes_that_fail_together_are_taken_one_by_one() -> None:
    async def body() -> None:
        backend, _ = await restarted(baseline())
        # the IPv6 tombstones cannot be written: every transaction that needs them is refused
        filled = ", ".join(f"2001:db8::{number:x}" for number in range(1, 2_048))
        run("nft", "-f", "-", stdin=f"add element inet ragate cut6 {{ {filled} }}")
        changes = [change(ChangeKind.CUT, ONE), change(ChangeKind.CUT, TWO), change(ChangeKind.CUT, NET)]
        outcomes = await backend.cut(changes)
        assert [one.change for one in outcomes] == changes
        assert [one.state for one in outcomes] == [Applied.VERIFIED, Applied.FAILED, Applied.VERIFIED]
        assert "ENFILE" in outcomes[1].detail
        await backend.stop()

    in_namespaces(body)


@pytest.mark.netns
def test_a_full_set_delays_an_admission_and_never_a_cut() -> None:
    async def body() -> None:
        backend, _ = await restarted(baseline())
        await take(backend, change(ChangeKind.ADMIT, TWO, seconds=60))
        size = baseline().set_size
        timeouts = ", ".join(f"10.9.{n >> 8}.{n & 255} timeout 400ms" for n in range(size))
        run("nft", "-f", "-", stdin=f"add element inet ragate admitted4 {{ {timeouts} }}")
        (outcome,) = await backend.cut([change(ChangeKind.CUT, ONE)])
        assert outcome.state is Applied.VERIFIED
        # expired elements count until they are collected, which a busy machine puts off; then there is room
        async with asyncio.timeout(60):
            while (await backend.apply([change(ChangeKind.ADMIT, ONE)]))[0].state is not Applied.VERIFIED:
                await asyncio.sleep(0.1)
        await backend.stop()

    in_namespaces(body)


@pytest.mark.netns
def test_an_unusable_kernel_or_namespace_is_said_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        def refuse(text: str) -> str:
            raise BackendError("nft", "Operation not permitted", transient=False)

        monkeypatch.setattr("gateway.enforce.nft.standing.run_commands", refuse)
        backend = NftBackend(baseline(), KNOWN, CLOCK)
        with pytest.raises(BackendError, match="not permitted"):
            await backend.start()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("ragate-nft")]

    in_namespaces(body)


@pytest.mark.netns
def test_stop_ends_the_threads_and_leaves_the_elements() -> None:
    async def body() -> None:
        backend, _ = await restarted(baseline())
        await take(backend, change(ChangeKind.ADMIT, ONE))
        assert len([thread for thread in threading.enumerate() if thread.name.startswith("ragate-nft")]) == 4
        waiting = asyncio.ensure_future(backend.apply([change(ChangeKind.ADMIT, TWO)]))
        await asyncio.sleep(0)
        await backend.stop()
        assert [one.state for one in await waiting] == [Applied.VERIFIED]
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("ragate-nft")]
        netlink = NetlinkSocket()
        found = DeviceSets(("admitted",)).read(netlink, [ONE, TWO])
        assert all(one[1] is not None for one in found)
        netlink.close()

    in_namespaces(body)


@pytest.mark.netns
def test_the_lanes_race_and_the_cut_always_wins() -> None:
    async def body() -> None:
        backend, _ = await restarted(baseline(inventory=200))
        pool = [Address((0x0A4D_0200 + n).to_bytes(4, "big"), 32) for n in range(40)]
        rng = random.Random(4)
        seen_after_cut: list[str] = []
        watching = threading.Event()
        cut: set[Address] = set()
        watcher = threading.Thread(target=_watch_cut, args=(cut, watching, seen_after_cut))
        watcher.start()
        for _ in range(25):
            cut.clear()
            await take(backend, *(change(ChangeKind.ADMIT, address) for address in pool))
            async with asyncio.TaskGroup() as tasks:
                doomed = rng.sample(pool, 20)
                for _ in range(6):
                    kind = rng.choice((ChangeKind.ADMIT, ChangeKind.REFRESH, ChangeKind.FORGET))
                    batch = [change(kind, address) for address in rng.sample(pool, 30)]
                    tasks.create_task(_ignore(backend.apply(batch)))
                    await asyncio.sleep(rng.choice((0, 0, 0.0002)))
                tasks.create_task(_cut(backend, doomed, cut))
            stands = await backend.observe(doomed)
            assert set(stands.values()) == {TOMBSTONE}
        watching.set()
        watcher.join()
        assert not seen_after_cut
        await backend.stop()

    in_namespaces(body)


async def _ignore(outcomes: Awaitable[object]) -> None:
    await outcomes


async def _cut(backend: NftBackend, addresses: list[Address], done: set[Address]) -> None:
    outcomes = await backend.cut([change(ChangeKind.CUT, address) for address in addresses])
    assert all(outcome.state is Applied.VERIFIED for outcome in outcomes)
    done.update(addresses)


def _watch_cut(cut: set[Address], stop: threading.Event, seen: list[str]) -> None:
    """Note every address that stands admitted at any moment after its cut was verified."""
    netlink = NetlinkSocket()
    sets = DeviceSets(("admitted", "probation"))
    while not stop.is_set():
        for address in list(cut):
            (found,) = sets.read(netlink, [address])
            stands = sets.stands(found)
            if stands != TOMBSTONE and address in cut:
                seen.append(f"{address}: {stands}")
        time.sleep(0.0005)
    netlink.close()


@pytest.mark.netns
def test_a_cut_does_not_wait_for_a_long_queue_of_other_changes() -> None:
    async def body() -> None:
        backend, _ = await restarted(baseline(inventory=20_000))
        pool = [Address((0x0A50_0000 + n).to_bytes(4, "big"), 32) for n in range(8_000)]
        resync = asyncio.ensure_future(backend.apply([change(ChangeKind.ADMIT, address) for address in pool]))
        await asyncio.sleep(0)
        (outcome,) = await backend.cut([change(ChangeKind.CUT, ONE)])
        assert outcome.state is Applied.VERIFIED
        assert not resync.done()
        # of those that wait, too, a cut comes through at once and stays
        (outcome,) = await backend.cut([change(ChangeKind.CUT, pool[-1])])
        assert outcome.state is Applied.VERIFIED
        outcomes = await resync
        assert (await backend.observe([pool[-1]]))[pool[-1]] == TOMBSTONE
        assert [one.state for one in outcomes[:-1]] == [Applied.VERIFIED] * (len(pool) - 1)
        assert outcomes[-1].detail == SUPERSEDED
        await backend.stop()

    in_namespaces(body)


def lowering(kind: ChangeKind = ChangeKind.CUT) -> list[Change]:
    return [Change(kind, ONE)]


@pytest.mark.parametrize("later", [ChangeKind.CUT, ChangeKind.WITHDRAW, ChangeKind.FORGET])
@pytest.mark.parametrize("kind", list(ChangeKind))
def test_what_a_later_lowering_supersedes(kind: ChangeKind, later: ChangeKind) -> None:
    fence = Fence()
    dated = Dated(change(kind, ONE), fence.open_job())
    fence.lower(lowering(later))
    fence.landed(lowering(later))
    superseded = kind in (ChangeKind.ADMIT, ChangeKind.REFRESH, ChangeKind.FORGET) or (
        kind is ChangeKind.CUT and later is ChangeKind.FORGET
    )
    assert fence.enter([dated]) == [SUPERSEDED if superseded else ""]


def test_an_earlier_lowering_supersedes_nothing() -> None:
    fence = Fence()
    fence.lower(lowering())
    fence.landed(lowering())
    dated = Dated(change(ChangeKind.ADMIT, ONE), fence.open_job())
    assert fence.enter([dated]) == [""]
    assert fence.leave([dated]) == []


def test_an_earlier_lowering_lands_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.enforce.nft.fence.FLIGHT_SECONDS", 0.01)
    fence = Fence()
    fence.lower(lowering())
    dated = Dated(change(ChangeKind.ADMIT, ONE), fence.open_job())
    assert fence.enter([dated]) == [UNDER_WAY]
    fence.landed(lowering())
    assert fence.enter([dated]) == [""]


def test_a_lowering_during_a_flight_waits_for_it_and_is_handed_back() -> None:
    fence = Fence()
    dated = Dated(change(ChangeKind.ADMIT, ONE), fence.open_job())
    assert fence.enter([dated]) == [""]
    fence.lower(lowering())
    assert fence.flying(lowering()) == {ONE}
    assert fence.flying([Change(ChangeKind.CUT, TWO)]) == set()
    waited = threading.Event()

    def wait() -> None:
        fence.wait_landed({ONE})
        waited.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert not waited.is_set()
    assert fence.leave([dated]) == lowering()
    waiter.join(10)
    assert waited.is_set()


def test_nothing_is_remembered_once_both_lanes_are_idle() -> None:
    fence = Fence()
    fence.open_job()
    for _ in range(3):
        fence.lower(lowering())
    fence.landed(lowering() * 3)
    assert fence._lowered
    fence.close_jobs(1)
    assert not fence._lowered
    fence.lower(lowering())
    fence.landed(lowering())
    assert not fence._lowered


@pytest.mark.netns
def test_what_is_only_tried_or_laid_the_same_again_is_no_damage() -> None:
    """The kernel counts what a transaction will add before it is committed, and counts back when it is not."""

    async def body() -> None:
        backend, _ = await restarted(baseline())
        told: list[str] = []

        async def listen() -> None:
            async for sentence in backend.damages():
                told.append(sentence)

        listening = asyncio.create_task(listen())
        sets = "".join(f"add set inet ragate try{n} {{ type ipv4_addr; }}\n" for n in range(64))
        many = ", ".join(f"10.{n >> 8}.{n & 255}.1" for n in range(500))
        rule = "insert rule inet ragate leave ip saddr @try0 accept"
        tried = f"{sets}{rule}\nadd element inet ragate try0 {{ {many} }}"

        async def meanwhile(*line: str, stdin: str) -> None:
            other = asyncio.create_task(asyncio.to_thread(run, *line, stdin=stdin))
            while not other.done():  # the guard looks when something has changed
                await take(backend, change(ChangeKind.ADMIT, ONE))
                await asyncio.sleep(0.003)
            await other

        for _ in range(5):
            await meanwhile("nft", "--check", "-f", "-", stdin=tried)
            await meanwhile("nft", "-f", "-", stdin=render_baseline_file(baseline(), KNOWN))
        assert told == []
        await asyncio.to_thread(run, "nft", "insert rule inet ragate leave accept")
        await _until(lambda: bool(told))
        assert "laid again" in told[0]
        listening.cancel()
        await asyncio.wait((listening,))
        await backend.stop()

    in_namespaces(body)
