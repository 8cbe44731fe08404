"""A device's address in text and in bytes."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Address

octet = st.integers(0, 300).map(str)
written = st.sampled_from(["", " ", "+", "-", "0", "00", "\u0663", "_"])
dotted = st.lists(st.tuples(written, octet).map("".join), min_size=3, max_size=5).map(".".join)


@given(st.ip_addresses(v=4))
def test_ipv4_is_written_as_the_library_writes_it(ip: ipaddress.IPv4Address) -> None:
    assert str(Address(ip.packed, 32)) == str(ip)


@given(st.ip_addresses(v=6))
def test_ipv6_is_written_as_the_library_writes_it(ip: ipaddress.IPv6Address) -> None:
    assert str(Address(ip.packed, 128)) == str(ip)
    net = ipaddress.ip_network((ip, 64), strict=False)
    assert str(Address(net.network_address.packed, 64)) == str(net)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_what_can_be_read_is_what_was_written(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    try:
        read = Address.parse(str(ip))
    except ValueError:
        mapped = isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None
        assert mapped or ip.is_multicast or ip.is_unspecified or str(ip) == "255.255.255.255"
        return
    assert read == Address(ip.packed, ip.max_prefixlen)
    assert str(read) == str(ip)


@given(dotted)
def test_nothing_is_read_that_the_library_does_not_read(text: str) -> None:
    """Signs, blanks, leading zeros, other scripts' digits, too many or too few numbers."""
    try:
        known = ipaddress.IPv4Address(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            Address.parse(text)
        return
    if known.is_multicast or known.is_unspecified or text == "255.255.255.255":
        with pytest.raises(ValueError, match="not an address that a device can send from"):
            Address.parse(text)
    else:
        assert Address.parse(text) == Address(known.packed, 32)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.4/31",
        "01.2.3.4",
        "+1.2.3.4",
        " 1.2.3.4",
        "1.2.3.256",
        "\u0661.2.3.4",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "ff02::1",
        "::ffff:1.2.3.4",
        "fe80::1%eth0",
        "2001:db8::1/64",
        "2001:db8::/48",
    ],
)
def test_what_no_device_can_send_from_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Address.parse(text)
