"""The addresses and default routes of a network namespace, set through rtnetlink.

For containers: an engine gives a container one address of each family and its own bridge as the way out, and a site
needs several addresses on a device's side and the gateway as the way out. Needs CAP_NET_ADMIN. What must not live
here: which addresses those are. Sources: netlink(7), rtnetlink(7), linux/rtnetlink.h, linux/if_addr.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

ANSWER_SECONDS = 10.0
"""The longest the kernel may take to answer; it answers before the call that asked returns."""

_RTM_NEWADDR, _RTM_NEWROUTE = 20, 24
_NLMSG_ERROR = 2
_REQUEST_ACK_CREATE_REPLACE = 0x1 | 0x4 | 0x400 | 0x100
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD = 0x02
_RTA_OIF, _RTA_GATEWAY = 4, 5
_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_UNIVERSE, _RTN_UNICAST = 254, 4, 0, 1

_HEADER = struct.Struct("=IHHII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_ANSWER_BYTES = 65_536

Interface = IPv4Interface | IPv6Interface
Address = IPv4Address | IPv6Address


def set_addresses(link: str, addresses: Sequence[Interface]) -> None:
    """Give the link these addresses, usable at once; those that it has stay. Raises ``OSError``."""
    index = socket.if_nametoindex(link)
    for address in addresses:
        body = _ADDRESS.pack(_family(address), address.network.prefixlen, 0, 0, index)
        packed = address.ip.packed
        body += _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
        if address.version == 6:
            # A second of duplicate detection would only delay the first bind: addresses of the site are fixed.
            body += _attribute(_IFA_FLAGS, struct.pack("=I", _IFA_F_NODAD))
        _ask(_RTM_NEWADDR, body, f"address {address} at {link}")


def set_default_routes(link: str, gateways: Sequence[Address]) -> None:
    """Let everything beyond the link go to these gateways, one of each family. Raises ``OSError``."""
    index = socket.if_nametoindex(link)
    for gateway in gateways:
        body = _ROUTE.pack(
            _family(gateway), 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0
        )
        body += _attribute(_RTA_GATEWAY, gateway.packed) + _attribute(_RTA_OIF, struct.pack("=I", index))
        _ask(_RTM_NEWROUTE, body, f"default route to {gateway} at {link}")


def _family(address: Interface | Address) -> int:
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def _ask(kind: int, body: bytes, what: str) -> None:
    """One request, acknowledged. Raises ``OSError`` with the kernel's reason and what was asked."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(ANSWER_SECONDS)
        kernel.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_ACK_CREATE_REPLACE, 1, 0) + body)
        answer = kernel.recv(_ANSWER_BYTES)
    _, answered, _, _, _ = _HEADER.unpack_from(answer)
    (code,) = struct.unpack_from("=i", answer, _HEADER.size) if answered == _NLMSG_ERROR else (0,)
    if code:
        raise OSError(-code, f"{what}: {os.strerror(-code)}")
