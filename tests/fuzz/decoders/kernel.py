"""Answers of the kernel: read-back of nftables elements, sockets, links and routes.

The kernel is trusted; what is asked here is that no answer, however odd, ends in anything but a declared error.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from gateway.core.errors import BackendError
from gateway.core.model import Address
from gateway.enforce.nft import sockets
from gateway.enforce.nft.inbox import SLOT, Inbox
from gateway.enforce.nft.messages import (
    ATTRIBUTE,
    HEADER,
    INET,
    NFT_MSG_GETSETELEM,
    NFT_MSG_NEWSETELEM,
    Message,
    SetName,
    attribute,
    attributes,
    element,
    element_messages,
)
from gateway.enforce.nft.netlink import MAX_REQUESTS, NetlinkSocket
from gateway.enforce.nft.ruleset import Endpoint
from gateway.watch.bypass import rtnetlink
from tests.fuzz.decoders.shape import Attempt, Target, joined, pieces

SET4, SET6 = SetName("ragate", "admitted4", 4), SetName("ragate", "admitted6", 16)
KEY4, KEY6 = bytes((10, 77, 1, 11)), bytes(15) + b"\1"
DEVICE = Address(KEY4, 32)
#: Numbers of replies (linux/netlink.h).
NLMSG_ERROR, NLMSG_DONE = 2, 3


class AnyKernel:
    """A socket that answers with datagrams given beforehand, and then not at all."""

    def __init__(self, datagrams: Sequence[bytes]) -> None:
        self.left = list(datagrams)

    def send(self, data: bytes) -> int:
        return len(data)

    def sendto(self, data: bytes, _where: object) -> int:
        return len(data)

    def recv(self, size: int) -> bytes:
        if not self.left:
            raise TimeoutError
        return self.left.pop(0)[:size]

    def recv_into(self, buffer: bytearray, size: int = 0, _flags: int = 0) -> int:
        if not self.left:
            raise BlockingIOError
        data = self.left.pop(0)[: size or len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.left.clear()


class AnyInbox(Inbox):
    """Slots that are filled by such a socket."""

    def __init__(self, kernel: AnyKernel) -> None:
        super().__init__(MAX_REQUESTS)
        self.kernel = kernel

    def clear(self, origin: Any) -> None:
        """Nothing: what is given beforehand is meant for what is asked next."""

    def receive(self, origin: Any, count: int) -> None:
        self.lengths = []
        for slot in range(count):
            data = self.kernel.recv(SLOT) if self.kernel.left else self._nothing()
            self.buffer[slot * SLOT : slot * SLOT + len(data)] = data
            self.lengths.append(len(data))

    def _nothing(self) -> bytes:
        raise BlockingIOError


def _listening(datagrams: Sequence[bytes], kept: NetlinkSocket, before: bytes) -> NetlinkSocket:
    """The same socket as it was when it was new, before another kernel."""
    told: Any = kept
    told._socket.close()
    told._socket = AnyKernel(datagrams)
    if not isinstance(told._inbox, AnyInbox):
        told._inbox = AnyInbox(told._socket)
        told._buffer = told._inbox.buffer
    told._inbox.kernel = told._socket
    told._sequence = 0
    told._buffer[: len(before)] = before
    return kept


def _elements() -> Attempt:
    netlink = NetlinkSocket()
    blank = bytes(4_096)

    def attempt(data: bytes) -> None:
        datagrams = pieces(data)
        dict(attributes(data))
        wanted = [(SET4, KEY4), (SET6, KEY6)]
        acts = (
            lambda: netlink.get_elements(wanted),
            lambda: netlink.dump_keys(SET4),
            lambda: netlink.ask([(NFT_MSG_GETSETELEM, INET), (NFT_MSG_GETSETELEM, INET)]),
            lambda: netlink.transact(
                [*element_messages(NFT_MSG_NEWSETELEM, SET4, [element(KEY4, 5)]), Message(0, 0, b"")]
            ),
        )
        for act in acts:
            _listening(datagrams, netlink, blank)
            with suppress(BackendError):
                act()

    return attempt


def reply(kind: int, sequence: int, body: bytes, flags: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def _element_seeds() -> Sequence[bytes]:
    stands = reply(NFT_MSG_NEWSETELEM, 1, SET4.question + KEY4)
    timed = SET6.question + KEY6 + attribute(4, struct.pack(">Q", 9)) + attribute(5, struct.pack(">Q", 7))
    done = reply(NLMSG_DONE, 1, bytes(4))
    fine, missing = reply(NLMSG_ERROR, 3, bytes(4)), reply(NLMSG_ERROR, 1, struct.pack("=i", -2))
    refused = reply(NLMSG_ERROR, 2, struct.pack("=i", -2))
    listed = SET4.prefix + ATTRIBUTE.pack(4 + 16, 3 | 0x8000) + element(KEY4)
    return [
        joined(stands, reply(NFT_MSG_NEWSETELEM, 1, timed)),
        joined(stands, missing),
        joined(reply(NFT_MSG_NEWSETELEM, 1, listed) + done),
        joined(fine),
        joined(reply(NLMSG_ERROR, 1, struct.pack("=i", -28)), refused + fine),
    ]


def _sockets() -> Attempt:
    services = [Endpoint(Address(bytes((10, 77, 3, 2)), 32), 8001, "tcp")]

    def attempt(data: bytes) -> None:
        inside: Any = sockets
        for family in (socket.AF_INET, socket.AF_INET6):
            kernel = AnyKernel(pieces(data))
            with suppress(BackendError):
                found = list(inside._sockets(kernel, family, socket.IPPROTO_TCP, services, {DEVICE}))
                for one in found:
                    inside._destroyed(kernel, *one)

    return attempt


def _socket_seeds() -> Sequence[bytes]:
    inside: Any = sockets
    whole = inside._ID.pack(8001, 40000, KEY4 + bytes(12), KEY4 + bytes(12), bytes(4), bytes(8))
    listed = reply(sockets.SOCK_DIAG_BY_FAMILY, 1, bytes(inside._ANSWER_ID) + whole + bytes(16))
    done, fine = reply(NLMSG_DONE, 1, bytes(4)), reply(NLMSG_ERROR, 1, bytes(4))
    return [joined(listed + done, fine), joined(listed, done, reply(NLMSG_ERROR, 1, struct.pack("=i", -1)))]


def _links() -> Attempt:
    def attempt(data: bytes) -> None:
        datagrams = pieces(data)
        for ask in (
            rtnetlink.Kernel.interfaces,
            rtnetlink.Kernel.flowtables,
            lambda each: dict(each.routes(["10.77.1.11", "fd77::/64"])),
        ):
            kernel: Any = rtnetlink.Kernel()
            answers = AnyKernel(datagrams)
            kernel._sockets = {rtnetlink.NETLINK_ROUTE: answers, rtnetlink.NETLINK_NETFILTER: answers}
            with suppress(rtnetlink.LookError):
                ask(kernel)

    return attempt


def _link_seeds() -> Sequence[bytes]:
    inside: Any = rtnetlink
    done = reply(NLMSG_DONE, 1, bytes(4))
    interface = inside._IFINFO.pack(0, 0, 2, 0, 0) + attribute(rtnetlink.IFLA_IFNAME, b"eth0\0")
    queue = inside._TCMSG.pack(0, 2, 0, 0, 0) + attribute(rtnetlink.TCA_KIND, b"clsact\0")
    route = inside._RTMSG.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, 1, 0)
    route += attribute(rtnetlink.RTA_OIF, struct.pack("=I", 2))
    return [
        joined(reply(16, 1, interface) + done, reply(36, 2, queue) + reply(NLMSG_DONE, 2, bytes(4))),
        joined(reply(24, 1, route), reply(NLMSG_ERROR, 2, struct.pack("=i", -101))),
        joined(done),
    ]


WORDS = (reply(NLMSG_DONE, 1, bytes(4)), reply(NLMSG_ERROR, 1, bytes(4)), struct.pack("=HH", 4, 1), b"\0\x14")

TARGETS = (
    Target(
        "kernel.nft-read-back",
        ("gateway.enforce.nft.messages", "gateway.enforce.nft.netlink"),
        _elements,
        _element_seeds,
        WORDS,
    ),
    Target("kernel.sock-diag", ("gateway.enforce.nft.sockets",), _sockets, _socket_seeds, WORDS),
    Target("kernel.rtnetlink", ("gateway.watch.bypass.rtnetlink",), _links, _link_seeds, WORDS),
)
