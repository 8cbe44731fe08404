"""The network policy: entries in the order that the first match needs, and no way to lock anybody out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Address
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.network import Scope, build_network
from gateway.kubearmor.policies import Action, NetworkPolicy, Port
from gateway.kubearmor.prefixes import EVERYBODY, FILLERS, Prefix

GATED = (Port(8001), Port(5000, "udp"))
NET = Prefix.parse("10.9.0.0/16")


def build(scope: Scope, *admitted: str) -> NetworkPolicy:
    policy = build_network(scope, map(Address.parse, admitted), name="50-net", node="*", generation=1)
    assert policy is not None
    return policy


def reaches(policy: NetworkPolicy, source: str, port: Port) -> bool:
    """What KubeArmor's chain does with a new flow: first match wins, nothing matched passes."""
    wanted = Prefix.parse(source)
    for entry in policy.ingress:
        from_here = any(p.family == wanted.family and p.span[0] <= wanted.network <= p.span[1] for p in entry.peers)
        if from_here and any(port.overlaps(gated) for gated in entry.ports):
            return entry.action is Action.ALLOW
    return True


def test_entries_stand_in_order_and_each_has_both_families() -> None:
    scope = Scope(
        GATED, always_allowed=(NET,), corridor=(Port(8100),), management=(Port(22),), management_from=(NET,)
    )
    management, corridor, admitted, block = build(scope, "10.77.1.10", "10.77.1.11", "fd77:1::/64").ingress
    assert (management.peers, management.ports) == ((NET, FILLERS[1]), (Port(22),))
    assert (corridor.peers, corridor.ports) == (EVERYBODY, (Port(8100),))
    assert [str(peer) for peer in admitted.peers] == ["10.9.0.0/16", "10.77.1.10/31", "fd77:1::/64"]
    assert admitted.ports == GATED
    assert (block.peers, block.ports, block.action) == (EVERYBODY, GATED, Action.BLOCK)
    assert {management.action, corridor.action, admitted.action} == {Action.ALLOW}


def test_with_nobody_admitted_the_gated_ports_are_shut_and_no_other() -> None:
    policy = build(Scope(GATED))
    assert len(policy.ingress) == 1
    for source in ("10.77.1.10", "fd77:1::11"):
        assert not reaches(policy, source, Port(8001))
        assert not reaches(policy, source, Port(5000, "udp"))
        assert reaches(policy, source, Port(5000, "tcp"))
        assert reaches(policy, source, Port(22))


@given(st.sets(st.integers(0, 63)), st.integers(0, 63), st.sampled_from(["10.77.1.{}", "fd77::{:x}"]))
def test_exactly_the_admitted_reach_the_gated_ports(admitted: set[int], source: int, form: str) -> None:
    policy = build(Scope(GATED, corridor=(Port(8100),)), *(form.format(n) for n in admitted))
    assert reaches(policy, form.format(source), Port(8001)) == (source in admitted)
    assert reaches(policy, form.format(source), Port(8100))


def test_a_host_without_gated_ports_gets_no_policy() -> None:
    assert build_network(Scope(()), (), name="50-net", node="*", generation=1) is None


@pytest.mark.parametrize(
    "scope",
    [
        {"corridor": (Port(8000, "tcp", 8100),)},
        {"management": (Port(8001),), "management_from": (NET,)},
        {"management": (Port(22),)},
        {"management_from": (NET,)},
    ],
)
def test_a_scope_that_would_open_the_gate_or_says_half_is_refused(scope: dict[str, tuple[Port, ...]]) -> None:
    with pytest.raises(DocumentRefused):
        Scope(GATED, **scope)  # type: ignore[arg-type]
