"""The gateway's own network policy in several parts: what the daemon's rules are at each moment of a change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

from gateway.core.model import Address
from gateway.enforce.kubearmor import Tables
from gateway.enforce.kubearmor.own import own_names
from gateway.kubearmor import policies
from tests.enforce.test_kubearmor import addresses, admitted, advisory, running, state, until
from tests.fakes.kubearmor import FakeKubeArmor

LIMIT = 2_000


class Watched(FakeKubeArmor):
    """Keeps, for each time at which rules were laid, who may reach tcp/8001: addresses, or everybody."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[set[str] | None] = []

    def _rebuild(self) -> None:
        super()._rebuild()
        self.moments.append(reaching(self))


def reaching(daemon: FakeKubeArmor) -> set[str] | None:
    """Who reaches tcp/8001 by the first match; None: everybody."""
    assert daemon.chains is not None
    found: set[str] = set()
    for rule in daemon.chains[4]:
        if "'right': 8001" not in str(rule):
            continue
        if "drop" in rule[-1]:
            return found
        right: Any = rule[0]["match"]["right"]
        found |= set(right["set"] if isinstance(right, dict) else [right])
    return None


@pytest.fixture
async def daemon(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setattr(policies, "MAX_EVENT", LIMIT)
    fake = Watched()
    await fake.start()
    yield fake
    await fake.stop()


def many(first: int, number: int) -> frozenset[Address]:
    return addresses(*(f"10.77.{n}.1" for n in range(first, first + number)))


def texts(given: frozenset[Address]) -> set[str]:
    return {str(each).partition("/")[0] for each in given} | {"192.0.2.255"}


async def names(daemon: FakeKubeArmor, number: int) -> list[str]:
    await until(lambda: len(daemon.stored["network"]) == number)
    return list(daemon.stored["network"])


async def lays(daemon: FakeKubeArmor, wanted: frozenset[Address]) -> None:
    """Wait until exactly these reach the port."""
    await until(lambda: (reaching(daemon) or set()) | {"192.0.2.255"} == texts(wanted))


async def test_parts_grow_and_shrink_and_nobody_else_is_ever_allowed(daemon: Watched) -> None:
    async with running(advisory(daemon)) as hand:
        hand.declare(many(0, 5))
        await state(hand, "verified")
        sent = len(daemon.moments)
        steps = [many(0, 5), many(0, 100), many(1, 100), many(20, 130), many(30, 60), many(80, 2)]
        for before, after in pairwise(steps):
            hand.declare(after)
            await lays(daemon, after)
            seen = await state(hand, "verified", addresses=str(len(after)))
            for moment in daemon.moments[sent:]:
                assert moment is not None
                assert moment <= texts(before | after)
            sent = len(daemon.moments)
        assert seen["repairs"] == "0"
        assert len(await names(daemon, 1)) == 1
    assert max(len(name) for _, _, name in daemon.calls) <= 63
    assert {name for kind, _, name in daemon.calls if kind == "network"} < own_names("gateway")
    assert daemon.most_in_flight == 1


async def test_one_device_sends_one_part(daemon: Watched) -> None:
    async with running(advisory(daemon)) as hand:
        hand.declare(many(0, 100))
        await state(hand, "verified")
        sent = len(daemon.calls)
        hand.declare(many(0, 101))
        await state(hand, "verified", addresses="101")
        assert len(daemon.calls) == sent + 1


async def test_it_is_verified_only_while_every_part_stands(daemon: Watched) -> None:
    """Deleted behind our back and restored by a restart's order alike: laid anew, in order."""
    async with running(advisory(daemon)) as hand:
        hand.declare(many(0, 100))
        seen = await state(hand, "verified", network="verified")
        assert "further parts" in seen["network_detail"]
        before = list(daemon.stored["network"])
        for repairs, lost in enumerate((before[0], before[1], before[-1]), 1):
            del daemon.stored["network"][lost]
            daemon._rebuild()
            await until(lambda repairs=repairs: hand.state()["repairs"] == str(repairs))  # type: ignore[misc]
            await state(hand, "verified")
            assert admitted(daemon) >= texts(many(0, 100)) - {"192.0.2.255"}
            assert reaching(daemon) is not None
        assert sorted(daemon.stored["network"]) == list(daemon.stored["network"]) == before


async def test_the_same_after_a_restart_of_the_daemon(daemon: Watched) -> None:
    async with running(advisory(daemon)) as hand:
        hand.declare(many(0, 100))
        await state(hand, "verified")
        await daemon.die()
        await state(hand, "absent")
        daemon.moments.clear()
        await daemon.start()
        hand.declare(many(50, 100))
        await state(hand, "verified", restarts="1", addresses="100")
        laid = daemon.moments[len(daemon.stored["network"]) :]
        assert laid
        assert all(moment is not None and moment <= texts(many(0, 150)) for moment in laid)


@pytest.mark.parametrize("tables", [Tables.READ, Tables.TRUST])
async def test_parts_that_an_earlier_run_left_are_taken_away(daemon: Watched, tables: Tables) -> None:
    async with running(advisory(daemon)) as hand:
        hand.declare(many(0, 100))
        await state(hand, "verified")
    async with running(advisory(daemon, tables=tables)) as hand:
        hand.declare(many(0, 2))
        await names(daemon, 1)
        assert (reaching(daemon) or set()) == {"10.77.0.1", "10.77.1.1"}


async def test_withdraw_takes_every_part(daemon: Watched) -> None:
    async with running(advisory(daemon)) as hand:
        hand.declare(many(0, 100))
        await state(hand, "verified")
    await advisory(daemon).withdraw()
    assert daemon.stored["network"] == {}
    assert daemon.disk == {}
