"""Questions to the kernel about links, routes, ingress filters and flowtables, over netlink.

Reads only. What must not live here: judging the answers, changing anything.

Numbers carry their names in the kernel's headers ``linux/netlink.h``, ``linux/rtnetlink.h``, ``linux/if_link.h``,
``linux/pkt_sched.h`` and ``linux/netfilter/nf_tables.h``.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count

from gateway.core.errors import RagateError
from gateway.watch.bypass.judge import Interface, Route

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
RTM_GETLINK, RTM_GETROUTE, RTM_GETQDISC, RTM_GETTFILTER = 18, 26, 38, 46
RTA_DST, RTA_OIF = 1, 4
RTN_LOCAL = 2
IFLA_IFNAME, IFLA_LINKINFO, IFLA_XDP = 3, 18, 43
IFLA_INFO_KIND, IFLA_XDP_ATTACHED = 1, 2
TCA_KIND = 1
TC_H_CLSACT, TC_H_MIN_INGRESS = 0xFFFF0000, 0xFFF2
NFT_MSG_GETFLOWTABLE = 10 << 8 | 23  # NFNL_SUBSYS_NFTABLES, enum nf_tables_msg_types
NFTA_FLOWTABLE_TABLE, NFTA_FLOWTABLE_NAME = 1, 2
RTMGRP_LINK, RTMGRP_TC, RTMGRP_IPV4_ROUTE, RTMGRP_IPV4_RULE, RTMGRP_IPV6_ROUTE = 0x1, 0x8, 0x40, 0x80, 0x400
CHANGES = RTMGRP_LINK | RTMGRP_TC | RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_RULE | RTMGRP_IPV6_ROUTE
"""Multicast groups that tell of a change worth another look."""

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_RTMSG = struct.Struct(
    "=BBBBBBBBI"
)  # struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
_RTM_TYPE = 7  # offset of the type in struct rtmsg
_QUESTION4 = struct.Struct("=IHHIIBBBBBBBBIHH4s")  # struct nlmsghdr, struct rtmsg, struct rtattr, the address
_QUESTION6 = struct.Struct("=IHHIIBBBBBBBBIHH16s")
_TCMSG = struct.Struct("=BxxxiIII")  # struct tcmsg: family, ifindex, handle, parent, info
_NFGENMSG = struct.Struct(">BBH")  # family, version, resource
_ERRNO = struct.Struct("=i")
_INDEX = struct.Struct("=I")

REPLY_BYTES = 65_536
"""Bytes of one datagram: the kernel fills dumps in pieces of at most 32 KiB."""
ROUTES_AT_ONCE = 64
"""Questions in one datagram: their answers, about 150 bytes each, stay far below any receive buffer."""
REPLY_SECONDS = 2
"""Seconds to wait for an answer: the kernel gives it before the question's ``send`` returns."""
DUMP_TRIES = 4
"""Dumps tried anew when what is listed changes meanwhile (NLM_F_DUMP_INTR)."""
_INGRESS = frozenset({"ingress", "clsact"})
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES, errno.ENETDOWN})
"""Answers for an address to which nothing leads: no route, unreachable, blackhole, prohibited (fib_frontend.c)."""


class LookError(RagateError):
    """The kernel did not answer, or refused to."""


class Kernel:
    """Two sockets in the network namespace of the thread that makes them. Raises ``LookError``."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self._sequence = 0

    def close(self) -> None:
        """Release the sockets."""
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()

    def interfaces(self) -> dict[int, Interface]:
        """Every interface by its index, with its ingress filters."""
        with _whole_answers():
            return self._interfaces()

    def _interfaces(self) -> dict[int, Interface]:
        found: dict[int, Interface] = {}
        for body in self._dump(NETLINK_ROUTE, RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0)):
            _, _, index, _, _ = _IFINFO.unpack_from(body)
            told = dict(_attributes(body[_IFINFO.size :]))
            info = dict(_attributes(told.get(IFLA_LINKINFO, b"")))
            xdp = dict(_attributes(told.get(IFLA_XDP, b"")))
            attached = any(xdp.get(IFLA_XDP_ATTACHED, b""))
            found[index] = Interface(
                index, _text(told.get(IFLA_IFNAME, b"")), _text(info.get(IFLA_INFO_KIND, b"")), attached
            )
        for index in self._with_ingress():
            if index in found and self._has_filters(index):
                found[index] = found[index]._replace(filters=True)
        return found

    def _with_ingress(self) -> set[int]:
        """Interfaces whose ingress can have filters at all."""
        found = set()
        for body in self._dump(NETLINK_ROUTE, RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0)):
            _, index, _, _, _ = _TCMSG.unpack_from(body)
            if _text(dict(_attributes(body[_TCMSG.size :])).get(TCA_KIND, b"")) in _INGRESS:
                found.add(index)
        return found

    def _has_filters(self, index: int) -> bool:
        request = _TCMSG.pack(0, index, 0, TC_H_CLSACT | TC_H_MIN_INGRESS, 0)
        return bool(self._dump(NETLINK_ROUTE, RTM_GETTFILTER, request))

    def routes(self, addresses: Sequence[str], rest: float = 0.0) -> Iterator[tuple[str, Route | None]]:
        """Where packets for each address go; None: nowhere. Addresses are text; a prefix stands for its first.

        ``rest``: seconds to give way to others between two datagrams of questions.
        """
        for start in range(0, len(addresses), ROUTES_AT_ONCE):
            if start and rest:
                time.sleep(rest)
            with _whole_answers():
                found = self._some_routes(addresses[start : start + ROUTES_AT_ONCE])
            yield from found

    def _some_routes(self, addresses: Sequence[str]) -> Iterator[tuple[str, Route | None]]:
        first = self._sequence + 1
        self._sequence += len(addresses)
        self._send(NETLINK_ROUTE, b"".join(map(_route_question, addresses, count(first))))
        answers: dict[int, Route | None] = {}
        while len(answers) < len(addresses):
            for kind, _, sequence, body in self._receive(NETLINK_ROUTE):
                if not first <= sequence < first + len(addresses):
                    continue  # the answer to an older question whose wait was given up
                answers[sequence] = _no_route(body) if kind == NLMSG_ERROR else _route(body)
        return zip(addresses, map(answers.__getitem__, count(first)))  # noqa: B905 -- the second has no end

    def flowtables(self) -> list[str]:
        """Every flowtable as ``TABLE/NAME``."""
        names = []
        with _whole_answers():
            bodies = self._dump(NETLINK_NETFILTER, NFT_MSG_GETFLOWTABLE, _NFGENMSG.pack(0, 0, 0))
        for body in bodies:
            told = dict(_attributes(body[_NFGENMSG.size :]))
            names.append(
                f"{_text(told.get(NFTA_FLOWTABLE_TABLE, b''))}/{_text(told.get(NFTA_FLOWTABLE_NAME, b''))}"
            )
        return names

    def _dump(self, family: int, kind: int, body: bytes) -> list[bytes]:
        for _ in range(DUMP_TRIES):
            found, whole = self._dump_once(family, kind, body)
            if whole:
                return found
        raise LookError(f"a list of the kernel (message {kind}) changed {DUMP_TRIES} times while it was read")

    def _dump_once(self, family: int, kind: int, body: bytes) -> tuple[list[bytes], bool]:
        self._sequence += 1
        mine = self._sequence
        self._send(family, _message(kind, NLM_F_REQUEST | NLM_F_DUMP, mine, body))
        found: list[bytes] = []
        whole = True
        while True:
            for what, flags, sequence, answer in self._receive(family):
                if sequence != mine:
                    continue
                whole = whole and not flags & NLM_F_DUMP_INTR
                if what == NLMSG_DONE:
                    return found, whole
                if what == NLMSG_ERROR:
                    (code,) = _ERRNO.unpack_from(answer)
                    raise LookError(f"the kernel refuses message {kind}: {os.strerror(-code)}")
                found.append(answer)

    def _socket(self, family: int) -> socket.socket:
        made = self._sockets.get(family)
        if made is None:
            try:
                made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
            except OSError as error:
                raise LookError(f"no netlink socket: {error.strerror}") from error
            made.settimeout(REPLY_SECONDS)
            made.bind((0, 0))
            self._sockets[family] = made
        return made

    def _send(self, family: int, data: bytes) -> None:
        try:
            self._socket(family).sendto(data, (0, 0))
        except OSError as error:
            raise LookError(f"the kernel takes no question: {error.strerror}") from error

    def _receive(self, family: int) -> Iterator[tuple[int, int, int, bytes]]:
        try:
            data = self._socket(family).recv(REPLY_BYTES)
        except TimeoutError as error:
            raise LookError(f"no answer of the kernel within {REPLY_SECONDS} s") from error
        except OSError as error:
            raise LookError(f"no answer of the kernel: {error.strerror}") from error
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                raise LookError("an answer of impossible length")
            yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3


@contextmanager
def _whole_answers() -> Iterator[None]:
    """An answer that ends before what its kind begins with. Raises ``LookError``."""
    try:
        yield
    except (struct.error, IndexError) as error:
        raise LookError(f"an answer of the kernel is cut short: {error}") from error


def changes() -> socket.socket:
    """A non-blocking socket that becomes readable when links, routes or filters change. Raises ``LookError``."""
    try:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_ROUTE)
        made.bind((0, CHANGES))
    except OSError as error:
        raise LookError(f"no netlink socket for changes: {error.strerror}") from error
    return made


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    padded = body + bytes(-len(body) % 4)
    return _HEADER.pack(_HEADER.size + len(padded), kind, flags, sequence, 0) + padded


def _route_question(address: str, sequence: int) -> bytes:
    """One whole message: where there are many devices, building it is most of what a question costs."""
    text = address.partition("/")[0]
    if ":" in text:
        packed = socket.inet_pton(socket.AF_INET6, text)
        family, question = socket.AF_INET6, _QUESTION6
    else:
        packed = socket.inet_pton(socket.AF_INET, text)
        family, question = socket.AF_INET, _QUESTION4
    size, bits = question.size, 8 * len(packed)
    return question.pack(
        size,
        RTM_GETROUTE,
        NLM_F_REQUEST,
        sequence,
        0,
        family,
        bits,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        4 + len(packed),
        RTA_DST,
        packed,
    )


def _route(body: bytes) -> Route | None:
    kind, offset = body[_RTM_TYPE], _RTMSG.size
    while offset + _ATTRIBUTE.size <= len(body):
        length, what = _ATTRIBUTE.unpack_from(body, offset)
        if what == RTA_OIF:
            return Route(_INDEX.unpack_from(body, offset + _ATTRIBUTE.size)[0], kind == RTN_LOCAL)
        if length < _ATTRIBUTE.size:
            break
        offset += (length + 3) & ~3
    return None


def _no_route(body: bytes) -> Route | None:
    (code,) = _ERRNO.unpack_from(body)
    if -code not in _NO_ROUTE:
        raise LookError(f"the kernel does not tell a route: {os.strerror(-code)}")
    return None


def _attributes(data: bytes) -> Iterable[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "backslashreplace")
