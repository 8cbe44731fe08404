"""The order between targets: what is behind opens first, the path gate last, and cuts ask nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control.followed import Cause
from gateway.control.order import Order, opens
from gateway.control.ports import Notice
from gateway.control.reconcile import Reconciler
from gateway.control.remote import RemoteReconciler
from gateway.core.model import DENY, Address, Applied, Change, ChangeKind, ChangeOutcome, DeviceId, Rule
from tests.fakes.backend import FakeBackend
from tests.fakes.clock import ManualClock
from tests.fakes.linked import LinkedBackend

LEASE, LINK_LEASE = 120.0, 60.0
PATIENCE = 60.0
DEVICE = DeviceId("cam")
ADDRESSES = (Address.parse("10.0.0.1"), Address.parse("fd00::2"))
ONE = ADDRESSES[0]
RANKS = {DENY: 0, "probation": 1, "admitted": 2}


def rule(profile: str, until: float = 2_000.0, *, tombstone: bool = False) -> Rule:
    return Rule(DEVICE, profile, until, tombstone)


@pytest.mark.parametrize(
    ("wanted", "have", "expected"),
    [
        (rule("admitted"), None, True),
        (rule("admitted"), rule(DENY, 0.0, tombstone=True), True),
        (rule("admitted"), rule("admitted", 900.0), True),  # it has ended
        (rule("admitted"), rule("admitted", 1_050.0), True),  # a renewal
        (rule("admitted"), rule("probation", 1_050.0), True),
        (rule("probation"), rule("admitted", 1_050.0), False),
        (rule("admitted", 1_040.0), rule("admitted", 1_050.0), False),
        (rule("admitted", 2_000.0), rule("admitted", 1_120.0), False),  # as long as the lease allows already
        (rule(DENY, 0.0), rule("admitted", 1_050.0), False),
    ],
)
def test_what_counts_as_opening(wanted: Rule, have: Rule | None, expected: bool) -> None:
    assert opens(wanted, have, 1_000.0, LEASE, RANKS.__getitem__) is expected


class Behind(NamedTuple):
    """A target of which everything is said."""

    target: str
    unreachable: str
    has: Rule | None

    def stands(self, _address: Address) -> Rule | None:
        return self.has


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ((), ""),
        ((Behind("a", "", rule("admitted")),), ""),
        ((Behind("a", "", rule("admitted")), Behind("b", "no agent", rule("admitted"))), "waits for b: no agent"),
        ((Behind("a", "", None),), "waits for a to verify it first"),
        ((Behind("a", "", rule("probation")),), "waits for a to verify it first"),
        ((Behind("a", "", rule("admitted", 1_000.0)),), "waits for a to verify it first"),
        ((Behind("a", "", rule(DENY, 0.0, tombstone=True)),), "waits for a to verify it first"),
    ],
)
def test_what_an_opening_waits_for(behind: Sequence[Behind], expected: str) -> None:
    order = Order(behind, LEASE, RANKS.__getitem__)
    assert order.waits_for(ONE, rule("admitted"), None, 1_000.0) == expected
    assert order.waits_for(ONE, rule("probation"), rule("admitted", 1_050.0), 1_000.0) == ""


# --- against a model --------------------------------------------------------------------------------------


class LastBackend(FakeBackend):
    """Remembers every opening that another target had not verified, or that was made while it was out of reach."""

    def __init__(self, clock: ManualClock, behind: LinkedBackend) -> None:
        super().__init__(clock)
        self._behind = behind
        self.clock = clock
        self.violations: list[str] = []

    async def apply(self, changes: Sequence[Change]) -> Sequence[ChangeOutcome]:
        for change in changes:
            if change.kind in (ChangeKind.ADMIT, ChangeKind.REFRESH) and self._opens(change):
                there = self._behind.stands(change.address)
                if self._behind.why or there.tombstone or there.profile != change.profile:
                    self.violations.append(f"{change} while {there}, {self._behind.why!r}")
        return await super().apply(changes)

    def _opens(self, change: Change) -> bool:
        here = self.stands(change.address)
        if not here.profile or here.tombstone:
            return True
        if RANKS[change.profile] != RANKS[here.profile]:
            return RANKS[change.profile] > RANKS[here.profile]
        return here.remaining is None or change.until - self.clock.now().boot > here.remaining


class Both:
    """Two targets driven together, as the clockwork does."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.behind = LinkedBackend(self.clock)
        self.gate = LastBackend(self.clock, self.behind)
        self.notices: list[Notice] = []
        self.first = RemoteReconciler(
            self.behind,
            self.behind,
            target="app-server",
            clock=self.clock,
            lease=LINK_LEASE,
            report=self.report,
            notice=self.notices.append,
        )
        self.last = Reconciler(
            self.gate,
            target="gateway",
            clock=self.clock,
            lease=LEASE,
            report=self.report,
            notice=self.notices.append,
        )
        self.last.waits_for = Order([self.first], LEASE, RANKS.__getitem__).waits_for
        self.first.on_opened = self.last.recheck
        self.wanted: dict[Address, Rule | None] = {}

    def report(self, gate: Reconciler, cause: Cause, state: Applied, now: float) -> None:
        pass

    def want(self, address: Address, wanted: Rule | None) -> None:
        self.wanted[address] = wanted
        for gate in (self.first, self.last):
            gate.want(address, wanted)

    async def settle(self) -> None:
        for _ in range(80):
            await asyncio.sleep(0)

    def shut(self, gate: FakeBackend, address: Address) -> bool:
        return not gate.stands(address).profile

    def converged(self) -> bool:
        """Whether both targets have what is wanted; an admission never stands beside a tombstone."""
        for address, wanted in self.wanted.items():
            profile = "" if wanted is None or wanted.profile == DENY else wanted.profile
            for gate in (self.behind, self.gate):
                stands = gate.stands(address)
                tombstone = wanted is not None and wanted.tombstone
                if stands.profile != profile or (tombstone and not stands.tombstone):
                    return False
                if profile and stands.tombstone:
                    return False
        return True

    async def __aenter__(self) -> Self:
        await self.behind.start()
        await self.gate.start()
        self._tasks = [asyncio.create_task(self.first.run()), asyncio.create_task(self.last.run())]
        await self.settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


async def test_the_path_gate_opens_when_what_is_behind_has_verified() -> None:
    async with Both() as both:
        both.behind.restore_link()
        both.behind.hold_apply.clear()
        both.want(ONE, rule("admitted"))
        await both.settle()
        assert both.shut(both.gate, ONE)
        state = both.last.state([ONE], 0.0)
        assert (state.state, state.detail) == ("pending", "waits for app-server to verify it first")
        both.behind.hold_apply.set()
        await both.settle()
        assert both.behind.stands(ONE).profile == both.gate.stands(ONE).profile == "admitted"
        assert both.last.state([ONE], 0.0).state == "verified"
        assert both.last.state([ONE], 0.0).verified_at is not None


async def test_a_cut_goes_everywhere_at_once_whoever_is_away() -> None:
    async with Both() as both:
        both.behind.restore_link()
        both.want(ONE, rule("admitted"))
        await both.settle()
        both.behind.lose_link()
        both.want(ONE, rule(DENY, 0.0, tombstone=True))
        await both.settle()
        assert both.shut(both.gate, ONE)
        state = both.first.state([ONE], 0.0)
        assert (state.state, state.detail) == ("pending", "the link was lost")
        assert state.latest_end == both.clock.boot + LINK_LEASE
        both.behind.restore_link()
        await both.settle()
        assert both.behind.stands(ONE).tombstone
        assert both.first.state([ONE], 0.0).state == "verified"
        assert both.first.state([ONE], 0.0).latest_end is None


async def test_a_lost_link_stops_renewals_and_withdraws_nothing() -> None:
    async with Both() as both:
        both.behind.restore_link()
        both.want(ONE, rule("admitted", 100_000.0))
        await both.settle()
        both.behind.lose_link()
        both.clock.advance(LEASE * 0.75)
        both.want(ONE, rule("admitted", 100_001.0))  # as a new pass does, and as a renewal would
        await both.settle()
        stands = both.gate.stands(ONE)
        assert stands.profile == "admitted"
        assert stands.remaining == pytest.approx(LEASE * 0.25)
        assert both.first.state([ONE], 0.0).state == "pending", "its lease has ended"
        both.clock.advance(LEASE * 0.25)
        assert both.shut(both.gate, ONE)
        both.behind.restore_link()
        await both.settle()
        assert both.gate.stands(ONE).remaining == pytest.approx(LEASE)


async def test_a_lesser_profile_asks_nobody() -> None:
    async with Both() as both:
        both.behind.restore_link()
        both.want(ONE, rule("admitted"))
        await both.settle()
        both.behind.lose_link()
        both.want(ONE, rule("probation"))
        await both.settle()
        assert both.gate.stands(ONE).profile == "probation"


async def test_a_target_that_is_damaged_closes_nothing_else_and_is_told_again() -> None:
    async with Both() as both:
        both.behind.restore_link()
        both.want(ONE, rule("admitted"))
        await both.settle()
        both.behind.damage("flushed")
        await both.settle()
        assert both.behind.stands(ONE).profile == "admitted"
        assert [notice.kind for notice in both.notices] == ["drift"]


WISHES = st.sampled_from(
    [
        ("admitted", 900.0),
        ("admitted", 30.0),
        ("probation", 300.0),
        (DENY, 0.0),
        ("tombstone", 0.0),
        ("forget", 0.0),
    ]
)
STEPS = st.one_of(
    st.tuples(st.just("want"), st.sampled_from(ADDRESSES), WISHES),
    st.tuples(st.sampled_from(["lose", "restore", "hold", "release", "damage", "settle"])),
    st.tuples(st.just("pass"), st.sampled_from([0.5, 20.0, 45.0, 130.0])),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_whatever_happens_the_order_holds_and_both_converge(steps: list[tuple[object, ...]]) -> None:
    asyncio.run(_story(steps))


async def _story(steps: list[tuple[object, ...]]) -> None:
    async with Both() as both:
        both.behind.restore_link()
        for step in steps:
            await _take(both, step)
        both.behind.hold_apply.set()
        if both.behind.why:
            both.behind.restore_link()
        await both.settle()
        for address in both.wanted:
            if (wanted := both.wanted[address]) is not None and wanted.profile != DENY:
                both.want(address, rule(wanted.profile, both.clock.boot + 500.0))  # a pass that is fresh
        async with asyncio.timeout(PATIENCE):
            while not both.converged():
                await asyncio.sleep(0.01)
        assert both.gate.violations == []


async def _take(both: Both, step: tuple[object, ...]) -> None:
    match step:
        case ("want", Address() as address, (str() as profile, float() as seconds)):
            wanted: Rule | None = rule(profile, both.clock.boot + seconds)
            if profile in (DENY, "tombstone"):
                wanted = rule(DENY, 0.0, tombstone=profile == "tombstone")
            elif profile == "forget":
                wanted = None
            both.want(address, wanted)
            if wanted is None or wanted.profile == DENY:
                await both.settle()
                assert both.shut(both.gate, address), "a cut waits for nobody"
        case ("lose",):
            both.behind.lose_link()
        case ("restore",) if both.behind.why:
            both.behind.restore_link()
        case ("hold",):
            both.behind.hold_apply.clear()
        case ("release",):
            both.behind.hold_apply.set()
        case ("damage",):
            both.behind.damage("flushed")
        case ("pass", float() as seconds):
            both.clock.advance(seconds)
        case _:
            pass
    await both.settle()
