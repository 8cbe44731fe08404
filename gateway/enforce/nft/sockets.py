"""Ending the sockets that this host itself has with a device that was cut.

Dropping packets leaves the server's end of a connection waiting for minutes, with whatever it still holds. Where
the gated service runs on this host, its sockets with that device are therefore destroyed too (``SOCK_DESTROY``,
kernel ``net/core/sock_diag.c``): the service sees ECONNABORTED at once. Nothing depends on it: the path gate has
cut before.

What lives here: one thread, its netlink socket, messages of ``linux/sock_diag.h`` and ``linux/inet_diag.h``. What
must not: deciding who is cut, the path gate's sets.
"""

from __future__ import annotations

import errno
import queue
import socket
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Sequence

from gateway.core.model import Address
from gateway.enforce.nft.netlink import NetlinkError
from gateway.enforce.nft.ruleset import Endpoint

NETLINK_SOCK_DIAG = 4  # linux/netlink.h
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21  # linux/sock_diag.h
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
ESTABLISHED_STATES = 0xFFF & ~(1 << 10 | 1 << 7 | 1 << 6)
"""Every TCP state (include/net/tcp_states.h) but LISTEN, CLOSE and TIME_WAIT, which carry nothing any more."""
NO_COOKIE = b"\xff" * 8  # INET_DIAG_NOCOOKIE
REPLY_BYTES = 65_536
REPLY_SECONDS = 2.0
GATHER_SECONDS = 0.02
"""Seconds in which further cuts join a pass: one pass walks every TCP socket of the host."""
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBxI")  # struct inet_diag_req_v2 up to the socket id: family, protocol, ext, states
_ID = struct.Struct(">HH16s16s4s8s")  # struct inet_diag_sockid: ports, source, destination, interface, cookie
_ERRNO = struct.Struct("=i")  # struct nlmsgerr begins with it
_ANSWER_ID = 4  # struct inet_diag_msg: family, state, timer, retrans stand before the id
_MAPPED = b"\0" * 10 + b"\xff\xff"
"""How a socket that listens on both families names an IPv4 peer (RFC 4291, section 2.5.5.2)."""


class SocketSweeper:
    """Destroys sockets between gated services of this host and devices that were cut.

    ``services`` are asked for at each pass. ``trouble`` says why the last pass failed (a kernel without
    ``CONFIG_INET_DIAG_DESTROY`` does not do it at all), "" when it did not; ``destroyed`` counts.
    """

    def __init__(self, services: Callable[[], Sequence[Endpoint]]) -> None:
        self._services = services
        self.trouble = ""
        self._queue: queue.SimpleQueue[Sequence[Address] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ragate-nft-sockets", daemon=True)
        self.destroyed = 0

    def start(self) -> None:
        """Start the thread, in the network namespace of the caller."""
        self._thread.start()

    def sweep(self, addresses: Sequence[Address]) -> None:
        """End what these addresses still have here; returns at once."""
        if addresses:
            self._queue.put(addresses)

    def stop(self, seconds: float) -> bool:
        """End the thread; False if it has not ended within ``seconds``."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (addresses := self._queue.get()) is not None:
            cut, last = self._gather(addresses)
            try:
                self.destroyed += destroy(self._services(), cut)
                self.trouble = ""
            except NetlinkError as error:
                self.trouble = f"sockets of devices that were cut stay until they time out: {error}"
            if last:
                return

    def _gather(self, addresses: Sequence[Address]) -> tuple[set[Address], bool]:
        cut = set(addresses)
        while True:
            try:
                more = self._queue.get(timeout=GATHER_SECONDS)
            except queue.Empty:
                return cut, False
            if more is None:
                return cut, True
            cut.update(more)


def destroy(services: Sequence[Endpoint], cut: Collection[Address]) -> int:
    """Destroy every socket of these services, as far as they are of this host, with these devices; how many.

    Raises ``NetlinkError``.
    """
    local = [service for service in services if service.protocol in _PROTOCOLS and is_local(service.address)]
    if not local or not cut:
        return 0
    with _opened() as kernel:
        found = [
            one
            for family in (socket.AF_INET, socket.AF_INET6)
            for protocol in {_PROTOCOLS[service.protocol] for service in local}
            for one in _sockets(kernel, family, protocol, local, cut)
        ]
        return sum(_destroyed(kernel, *one) for one in found)


def is_local(address: Address) -> bool:
    """Whether this host has the address."""
    family = socket.AF_INET if address.family == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


def _sockets(
    kernel: socket.socket, family: int, protocol: int, local: Sequence[Endpoint], cut: Collection[Address]
) -> Iterator[tuple[int, int, bytes]]:
    ports = {service.port for service in local if _PROTOCOLS[service.protocol] == protocol}
    request = _REQUEST.pack(family, protocol, 0, ESTABLISHED_STATES) + bytes(_ID.size)
    kernel.send(_message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, request))
    while True:
        for kind, body in _replies(kernel):
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                raise NetlinkError(_code(body), "listing sockets")
            whole = body[_ANSWER_ID : _ANSWER_ID + _ID.size]
            if len(whole) < _ID.size:
                raise NetlinkError(errno.EBADMSG, "a socket without its id")
            port, _, _, peer, _, _ = _ID.unpack(whole)
            if port in ports and _is_cut(family, peer, cut):
                yield family, protocol, whole


def _is_cut(family: int, peer: bytes, cut: Collection[Address]) -> bool:
    if family == socket.AF_INET:
        return Address(peer[:4], 32) in cut
    if peer.startswith(_MAPPED):
        return Address(peer[12:], 32) in cut
    return Address(peer, 128) in cut or Address(peer[:8] + bytes(8), 64) in cut


def _destroyed(kernel: socket.socket, family: int, protocol: int, whole: bytes) -> bool:
    """Destroy one socket, by its id and cookie: never another that took its place."""
    request = _REQUEST.pack(family, protocol, 0, ESTABLISHED_STATES) + whole
    kernel.send(_message(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, request))
    for kind, body in _replies(kernel):
        if kind == NLMSG_ERROR:
            code = _code(body)
            if code and code != errno.ENOENT:  # gone by itself meanwhile
                raise NetlinkError(code, "destroying a socket")
            return code == 0
    return False


def _code(body: bytes) -> int:
    """The errno in an answer's ``struct nlmsgerr``; 0: none."""
    if len(body) < _ERRNO.size:
        raise NetlinkError(errno.EBADMSG, "an answer without its code")
    return int(-_ERRNO.unpack_from(body)[0])


def _opened() -> socket.socket:
    try:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
    except OSError as error:
        raise NetlinkError(error.errno or errno.EIO, "no sock_diag netlink socket") from error
    made.bind((0, 0))
    made.connect((0, 0))
    made.settimeout(REPLY_SECONDS)
    return made


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body


def _replies(kernel: socket.socket) -> Iterator[tuple[int, bytes]]:
    try:
        data = kernel.recv(REPLY_BYTES)
    except TimeoutError as error:
        raise NetlinkError(errno.ETIMEDOUT, f"no reply within {REPLY_SECONDS:g} s") from error
    except OSError as error:
        raise NetlinkError(error.errno or errno.EIO, "receiving") from error
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += max(_HEADER.size, (length + 3) & ~3)
