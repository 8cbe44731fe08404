"""Many datagrams by one system call (recvmmsg), each into a slot of its own: a call each would take as long as the
kernel takes to answer, and each call gives Python's lock away and waits for it again.

What must not live here: what the datagrams mean, when to wait for them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator

#: Bytes of a slot: the answer about one element takes some 100, with the longest comment (256) not 500.
SLOT = 1_024
#: Up to so many datagrams a call each is as quick: what a single verdict reads back.
FEW = 4
#: Bytes of a slot that ``heads`` tells: struct nlmsghdr and the errno behind it.
HEAD = 20


class _Piece(ctypes.Structure):  # struct iovec
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):  # struct msghdr
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("pieces", ctypes.c_void_p),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Datagram(ctypes.Structure):  # struct mmsghdr
    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


_DATAGRAM_BYTES = ctypes.sizeof(_Datagram)
_HEAD = struct.Struct(f"{HEAD}s{SLOT - HEAD}x")
_DONTWAIT = int(socket.MSG_DONTWAIT)
_receive: Callable[[int, int, int, int, None], int] = ctypes.CDLL(None, use_errno=True).recvmmsg
_receive.argtypes = (  # type: ignore[attr-defined]
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_uint,
    ctypes.c_int,
    ctypes.c_void_p,
)


class Inbox:
    """Slots for the datagrams of one socket. ``buffer`` begins with the newest ones received, ``SLOT`` apart."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.buffer = bytearray(slots * SLOT)
        self._pieces = (_Piece * slots)()
        self._datagrams = (_Datagram * slots)()
        # both arrays point into what they keep alive
        self._kept = (ctypes.c_char * len(self.buffer)).from_buffer(self.buffer)
        for place, (piece, datagram) in enumerate(zip(self._pieces, self._datagrams, strict=True)):
            piece.base, piece.length = ctypes.addressof(self._kept) + place * SLOT, SLOT
            datagram.header.pieces = ctypes.addressof(self._pieces) + place * ctypes.sizeof(_Piece)
            datagram.header.piece_count = 1
        self._address = ctypes.addressof(self._datagrams)
        self._first = [memoryview(self.buffer)[place * SLOT : (place + 1) * SLOT] for place in range(FEW)]
        #: how many bytes were received into each slot, as many as it has of those that were longer
        self.lengths: list[int] = []
        words = memoryview(self._datagrams).cast("B").cast("I")
        self._every_length = words[_Datagram.length.offset // 4 :: _DATAGRAM_BYTES // 4]

    def clear(self, origin: socket.socket) -> None:
        """Let go of what waits at a socket, and of what it has to tell of what could not wait."""
        file, empty = origin.fileno(), False
        while not empty:
            more = _receive(file, self._address, self._slots, _DONTWAIT, None)
            empty = more < 0 and ctypes.get_errno() != errno.ENOBUFS

    def receive(self, origin: socket.socket, count: int) -> None:
        """Receive exactly so many datagrams, waiting for each as long as the socket does. Raises ``OSError``."""
        if count <= FEW:
            self.lengths = [origin.recv_into(slot) for slot in self._first[:count]]
            return
        if count > self._slots:
            msg = f"{count} datagrams for {self._slots} slots"
            raise ValueError(msg)
        file, there = origin.fileno(), 0
        while there < count:
            more = _receive(file, self._address + there * _DATAGRAM_BYTES, count - there, 0, None)
            if more > 0:
                there += more
            elif (code := ctypes.get_errno()) != errno.EINTR:
                raise OSError(code, os.strerror(code))
        self.lengths = self._every_length[:count].tolist()

    def heads(self, count: int) -> Iterator[tuple[bytes]]:
        """What the first ``count`` datagrams begin with, ``HEAD`` bytes each."""
        return _HEAD.iter_unpack(memoryview(self.buffer)[: count * SLOT])
