"""Prefixes: canonical, and aggregated exactly as the standard library does."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Address
from gateway.kubearmor import prefixes
from gateway.kubearmor.names import DocumentRefused
from gateway.kubearmor.prefixes import (
    EVERYBODY,
    FILLERS,
    Prefix,
    aggregate,
    both_families,
    check_prefix,
    merge,
    of_addresses,
)


@st.composite
def networks(draw: st.DrawFn) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Crowded at both ends of each family, so that neighbours, overlaps and the whole space come up."""
    bits = draw(st.sampled_from([32, 128]))
    length = draw(st.integers(0, 6) | st.integers(bits - 6, bits))
    base = draw(st.sampled_from([0, (1 << bits) - 64, 10 << (bits - 8)]))
    network = (base + draw(st.integers(0, 63))) >> (bits - length) << (bits - length)
    return (ipaddress.IPv4Network if bits == 32 else ipaddress.IPv6Network)((network, length))


@given(st.lists(networks(), max_size=40), st.integers(1, 7))
def test_aggregates_as_the_standard_library_does(
    nets: list[ipaddress.IPv4Network | ipaddress.IPv6Network], piece: int
) -> None:
    expected = [
        *map(str, ipaddress.collapse_addresses(n for n in nets if isinstance(n, ipaddress.IPv4Network))),
        *map(str, ipaddress.collapse_addresses(n for n in nets if isinstance(n, ipaddress.IPv6Network))),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefixes, "_PIECE", piece)
        found = aggregate(Prefix(n.version, int(n.network_address), n.prefixlen) for n in nets)
    assert [str(prefix) for prefix in found] == expected
    for prefix in found:
        check_prefix(prefix)
        assert Prefix.parse(str(prefix)) == prefix


def test_device_addresses_become_few_prefixes() -> None:
    texts = [f"10.77.1.{n}" for n in range(256)] + ["fd77:1::/64", "fd77:1::11", "fd77:2::1"]
    found = of_addresses(Address.parse(text) for text in texts)
    assert [str(prefix) for prefix in found] == ["10.77.1.0/24", "fd77:1::/64", "fd77:2::1/128"]


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.0/33",
        "10.0.0.300/32",
        "10.0.0.1/24",
        "host",
        "10.0.0.1 accept\n",
        "",
        "::ffff:1.2.3.4",
        "fe80::1%eth0",
    ],
)
def test_what_is_no_canonical_prefix_is_refused(text: str) -> None:
    with pytest.raises(DocumentRefused):
        Prefix.parse(text)


@pytest.mark.parametrize("prefix", [(4, 1, 24), (4, 0, 33), (6, -1, 128), (5, 0, 0), (4, 1 << 32, 32)])
def test_hand_made_prefixes_are_checked(prefix: tuple[int, int, int]) -> None:
    with pytest.raises(DocumentRefused, match="canonical"):
        check_prefix(Prefix(*prefix))


def test_the_missing_family_is_filled_and_nothing_else() -> None:
    four, six = Prefix.parse("10.0.0.1/32"), Prefix.parse("fd00::/64")
    assert both_families([four]) == (four, FILLERS[1])
    assert both_families([six]) == (six, FILLERS[0])
    assert both_families([six, four]) == (six, four)
    assert both_families(EVERYBODY) == EVERYBODY


def test_touching_ranges_are_joined() -> None:
    assert merge([(5, 6), (0, 1), (2, 4), (8, 9), (8, 8)]) == ((0, 6), (8, 9))
