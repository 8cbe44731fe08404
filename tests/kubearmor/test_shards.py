"""One network policy as several: together they say the same, each is small enough, and little moves."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.model import Address
from gateway.kubearmor import policies
from gateway.kubearmor.names import DocumentRefused, Kind, policy_name
from gateway.kubearmor.network import Scope, build_network
from gateway.kubearmor.policies import EventType, NetworkEntry, NetworkPolicy, Port, render_event
from gateway.kubearmor.prefixes import FILLERS, Prefix
from gateway.kubearmor.shards import MAX_PARTS, loosens_only, part_names, split

SCOPE = Scope(
    (Port(8001), Port(8002, "udp")),
    corridor=(Port(8100),),
    management=(Port(22),),
    management_from=(Prefix.parse("192.0.2.0/28"),),
)
NAME = policy_name(50, Kind.NETWORK, "gateway", "x")


def policy(*numbers: int, generation: int = 1) -> NetworkPolicy:
    """Every second address, so that none join; odd numbers are IPv6."""
    admitted = [
        Address(b"\xfd" + bytes(5) + (2 * n).to_bytes(10), 128)
        if n % 2
        else Address((10 << 24 | 2 * n).to_bytes(4), 32)
        for n in numbers
    ]
    made = build_network(SCOPE, admitted, name=NAME, node="*", generation=generation)
    assert made is not None
    return made


def joined(parts: tuple[NetworkPolicy, ...]) -> list[NetworkEntry]:
    """What a chain of policies says, pieces of one entry put together and without fillers."""
    found: list[NetworkEntry] = []
    for entry in (entry for part in parts for entry in part.ingress):
        same = found and (found[-1].ports, found[-1].action) == (entry.ports, entry.action)
        peers = (*found.pop().peers, *entry.peers) if same else entry.peers
        found.append(replace(entry, peers=peers))
    return [replace(entry, peers=tuple(p for p in entry.peers if p not in FILLERS) + FILLERS) for entry in found]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "MAX_EVENT", 4_000)


def _chosen(size: int, chance: Random) -> frozenset[int]:
    return frozenset(chance.sample(range(401), size))


#: As often many numbers as few: sets drawn one by one are seldom larger than one part.
SETS = st.builds(_chosen, st.integers(0, 250), st.randoms(use_true_random=False))


@given(SETS, SETS)
@example(frozenset(range(0, 400, 2)), frozenset(range(1, 400, 2)))
def test_parts_say_what_the_whole_says_and_fit(before: frozenset[int], after: frozenset[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policies, "MAX_EVENT", 4_000)
        cuts = split(policy(*before)).cuts
        whole = policy(*after)
        parts = split(whole, cuts)
        assert joined(parts.policies) == joined((whole,))
        assert [each.name for each in parts.policies] == list(part_names(NAME)[: len(parts.policies)])
        for each in (*parts.policies, parts.closed):
            assert len(render_event(EventType.DELETED, each)) <= 4_000
        assert parts.closed.ingress[-1] == whole.ingress[-1]


@pytest.mark.usefixtures("small")
def test_one_device_more_changes_one_part() -> None:
    first = split(policy(*range(0, 300, 2)))
    assert len(first.policies) > 2
    second = split(policy(*range(0, 300, 2), 401), first.cuts)
    changed = [a.name for a, b in zip(first.policies, second.policies, strict=True) if a != b]
    assert changed == [first.policies[-1].name]


@pytest.mark.usefixtures("small")
def test_parts_become_fewer_with_room_to_spare() -> None:
    cuts = split(policy(*range(0, 300, 2))).cuts
    assert split(policy(0, 2), cuts).policies == (policy(0, 2),)


@pytest.mark.usefixtures("small")
def test_more_than_all_parts_take_is_refused() -> None:
    with pytest.raises(DocumentRefused, match="too many separate prefixes"):
        split(policy(*range(0, 4_000, 2)))


@pytest.mark.parametrize("slug", ["gateway", "a" * 80, ""])
@pytest.mark.parametrize("identity", ["1", "22", "target"])
def test_names_of_parts_follow_one_another(slug: str, identity: str) -> None:
    names = part_names(policy_name(50, Kind.NETWORK, slug, identity))
    assert len(names) == MAX_PARTS
    assert sorted(names) == list(names)
    assert len(set(names)) == MAX_PARTS
    assert not any(name != names[0] and name.startswith(names[0]) for name in names)


def test_what_takes_nothing_away_loosens_only() -> None:
    assert loosens_only(policy(2), policy(2, 4, 3))
    assert not loosens_only(policy(2, 4), policy(2, 6))
