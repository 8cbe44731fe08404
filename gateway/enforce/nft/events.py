"""What others change in our table's sets, as the kernel tells it: a socket in the group of nf_tables' notices.

The kernel tells of every change and by whose socket it was made (``nlmsg_pid``). A filter on the socket lets go of
what our own sockets changed before it is queued, so thousands of admissions a second wake nobody. What ends by its
time is not told of. What must not live here: what to do about it, the static part, the loop.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from gateway.enforce.nft.messages import (
    ATTRIBUTE,
    GENMSG_LENGTH,
    HEADER,
    NFNLGRP_NFTABLES,
    NFPROTO_INET,
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWSETELEM,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE,
    attributes,
)
from gateway.enforce.nft.netlink import NETLINK_NETFILTER, RECEIVE_BYTES, SO_RCVBUFFORCE, NetlinkError
from gateway.enforce.nft.ruleset import TABLE

#: Bytes of notices that may wait: some 40,000 elements of a burst; what is more is found by a survey.
WAITING_BYTES = 8 << 20
#: Datagrams taken at one time: each holds at most a few dozen elements and takes some 20 us.
MOST_AT_ONCE = 256
#: Datagrams let go of at one time: more than the room holds, the smallest taking some 700 bytes of it.
MOST_WAITING = 16_384
#: Elements told one by one; with more a survey is cheaper.
MOST_TOLD = 10_000

SO_ATTACH_FILTER = 26  # asm-generic/socket.h
# linux/filter.h, linux/bpf_common.h
_LOAD_WORD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_WHOLE = 0xFFFFFFFF
_PORT_OFFSET = 12  # struct nlmsghdr: nlmsg_pid
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
_TABLE_NAME = TABLE.encode() + b"\0"
_KINDS = frozenset({NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM})


class Told(NamedTuple):
    """What was told since the last time: elements as (set, key), whether something was not told, and whether any
    was: of every transaction at least the new generation is told (nf_tables_api.c, nf_tables_gen_notify)."""

    elements: frozenset[tuple[str, bytes]]
    lost: bool
    any: bool = True


_NOTHING = Told(frozenset(), lost=False, any=False)


def _program(own: Sequence[int]) -> bytes:
    """A socket filter that lets go of what the ``own`` ports sent: the first message's port, as all of a datagram
    are of one transaction (nf_tables_api.c)."""
    lines = [(_LOAD_WORD | 0x00, 0, 0, _PORT_OFFSET)]
    # a load turns the host's order into the network's; the last line drops
    values = [int.from_bytes(struct.pack("=I", port), "big") for port in own]
    lines += [(_JUMP_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    lines += [(_RETURN, 0, 0, _WHOLE), (_RETURN, 0, 0, 0)]
    return b"".join(_INSTRUCTION.pack(*line) for line in lines)


class Events:
    """Listens from the moment it is made, in the network namespace of the thread that makes it.

    ``own`` are the ports of sockets whose changes are not told. Raises ``NetlinkError``.
    """

    def __init__(self, own: Sequence[int]) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        except OSError as error:
            raise NetlinkError(error.errno or errno.EIO, "no netlink socket for notices") from error
        try:
            self._filter(own)
            self._grow()
            self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        except OSError as error:
            self._socket.close()
            raise NetlinkError(error.errno or errno.EIO, "nf_tables' notices cannot be listened to") from error
        self._buffer = bytearray(RECEIVE_BYTES)

    def _filter(self, own: Sequence[int]) -> None:
        program = _program(own)
        kept = ctypes.create_string_buffer(program, len(program))  # copied by the kernel during the call
        count = len(program) // _INSTRUCTION.size
        self._socket.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", count, ctypes.addressof(kept))
        )

    def _grow(self) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, WAITING_BYTES)
        except PermissionError:  # a user namespace's root: up to net.core.rmem_max
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WAITING_BYTES)

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()

    def take(self) -> Told:
        """What was told since the last time, without waiting. Raises ``NetlinkError``."""
        elements: set[tuple[str, bytes]] = set()
        lost = heard = False
        for _ in range(MOST_AT_ONCE):
            try:
                received = self._socket.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise NetlinkError(error.errno or errno.EIO, "listening to nf_tables' notices") from error
                lost = True
                continue
            heard = True
            self._read(memoryview(self._buffer)[:received], elements)
        if not heard and not lost:
            return _NOTHING
        if len(elements) > MOST_TOLD:
            return Told(frozenset(), lost=True)
        return Told(frozenset(elements), lost)

    def drop(self) -> None:
        """Let go of what waits: everything is going to be looked at. Raises ``NetlinkError``."""
        for _ in range(MOST_WAITING):
            try:
                self._socket.recv_into(self._buffer, 1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise NetlinkError(error.errno or errno.EIO, "listening to nf_tables' notices") from error

    def _read(self, data: memoryview, elements: set[tuple[str, bytes]]) -> None:
        offset = 0
        while offset + HEADER.size <= len(data):
            length, kind, _, _, _ = HEADER.unpack_from(data, offset)
            if length < HEADER.size or offset + length > len(data):
                return
            start = offset + HEADER.size
            if kind in _KINDS and data[start] == NFPROTO_INET:
                _elements(bytes(data[start + GENMSG_LENGTH : offset + length]), elements)
            offset += (length + 3) & ~3


def _elements(body: bytes, elements: set[tuple[str, bytes]]) -> None:
    told = dict(attributes(body))
    if told.get(NFTA_SET_ELEM_LIST_TABLE) != _TABLE_NAME:
        return
    name = os.fsdecode(told.get(NFTA_SET_ELEM_LIST_SET, b"").rstrip(b"\0"))
    for _, listed in attributes(told.get(NFTA_SET_ELEM_LIST_ELEMENTS, b"")):
        # an element's key is its first attribute, in a nest of its own (nf_tables_api.c)
        size = ATTRIBUTE.unpack_from(listed, ATTRIBUTE.size)[0] - ATTRIBUTE.size
        start = 2 * ATTRIBUTE.size
        elements.add((name, listed[start : start + size]))
