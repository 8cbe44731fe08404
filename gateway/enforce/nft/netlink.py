"""A small nf_tables netlink client: element transactions, one-key read-back, probes of tables and chains.

Bytes, sockets and errnos only; nothing here knows devices, profiles or what a set is for. Every call is
synchronous and meant for a thread that owns the socket.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Generator, Sequence

from gateway.core.errors import BackendError
from gateway.enforce.nft.inbox import SLOT, Inbox
from gateway.enforce.nft.messages import (
    BODY,
    FOR_EVER,
    GENMSG_LENGTH,
    HEADER,
    NFT_MSG_DESTROYSETELEM,
    NFT_MSG_GETSETELEM,
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    Element,
    Message,
    SetName,
    element,
    element_messages,
    element_of,
    listed_keys,
    transaction,
)

NETLINK_NETFILTER = 12  # linux/netlink.h
SOL_NETLINK = 270  # linux/socket.h
NETLINK_CAP_ACK = 10  # linux/netlink.h: errors without the request they answer
SO_SNDBUFFORCE = 32  # asm-generic/socket.h
SO_RCVBUFFORCE = 33  # asm-generic/socket.h

#: Seconds to wait for a reply. The kernel queues replies before ``send`` returns; only a lost one is waited for.
REPLY_TIMEOUT = 5.0
#: Bytes asked for as socket buffers: a transaction is one datagram and must fit (1,000 changes are ~0.3 MiB).
BUFFER_BYTES = 4 << 20
#: Requests sent at once: their replies (each ~1.3 KiB of buffer accounting) fit the smallest usual buffer.
MAX_REQUESTS = 128
#: Bytes of the receive buffer: more than the kernel puts into one datagram (32 KiB, af_netlink.c).
RECEIVE_BYTES = 65_536

_ERRNO = struct.Struct("=i")  # struct nlmsgerr.error
#: What a reply begins with: struct nlmsghdr, and behind it an errno if it is an error.
_REPLY = struct.Struct("=IHHIIi")
_SEQUENCE_LIMIT = 1 << 31
_TRANSIENT = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ENOBUFS, errno.ENOMEM, errno.ENFILE})


class NetlinkError(BackendError):
    """The kernel refused a request, or did not answer it.

    ``code`` is the errno; ``index`` the position of the refused message in its transaction, ``None`` when the
    transaction as a whole was refused.
    """

    def __init__(self, code: int, what: str, index: int | None = None) -> None:
        name = errno.errorcode.get(code)
        said = f"error {code}" if name is None else f"{os.strerror(code)} ({name})"
        super().__init__("nft", f"{what}: {said}", transient=code in _TRANSIENT)
        self.code = code
        self.index = index


class NetlinkSocket:
    """One socket to nf_tables in the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        except OSError as error:
            raise NetlinkError(error.errno or errno.EIO, "no nf_tables netlink socket") from error
        self._socket.bind((0, 0))
        self._socket.connect((0, 0))  # from the kernel only
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        whole, fraction = divmod(REPLY_TIMEOUT, 1)
        # SO_RCVTIMEO and not settimeout(): the latter costs a poll for each receive
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(whole), int(fraction * 1e6))
        )
        self._grow(SO_SNDBUFFORCE, socket.SO_SNDBUF)
        self._grow(SO_RCVBUFFORCE, socket.SO_RCVBUF)
        self._inbox = Inbox(MAX_REQUESTS)
        self._buffer = self._inbox.buffer  # of RECEIVE_BYTES at least: where other replies are received, too
        self.port: int = self._socket.getsockname()[
            0
        ]  # what the kernel tells others by whose socket a change was made
        self._owed = False  # whether an answer may wait that nobody fetched
        self._sequence = 0

    def _grow(self, force: int, ask: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, force, BUFFER_BYTES)
        except PermissionError:  # a user namespace's root: up to net.core.{w,r}mem_max
            self._socket.setsockopt(socket.SOL_SOCKET, ask, BUFFER_BYTES)

    @property
    def largest_transaction(self) -> int:
        """Bytes that one transaction may have (af_netlink.c: the send buffer less 32)."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2 - 32

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()

    def transact(self, messages: Sequence[Message]) -> None:
        """Commit all messages as one transaction, or none of them.

        Raises ``NetlinkError`` with the index of the first refused message; nothing was changed then.
        """
        if not messages:
            return
        first = self._reserve(len(messages) + 2)
        last = first + len(messages)
        self._send(transaction(messages, first))
        refused = self._refusal(first, last)
        if refused is None:
            self._owed = False
        else:
            sequence, code = refused
            index = sequence - first - 1
            raise NetlinkError(code, "transaction refused", index if index >= 0 else None)

    def await_commits(self) -> None:
        """Return once every transaction that others had under way is over, and the kernel has told of it.

        A batch of nothing: it waits for the lock under which a transaction is committed and told of, and changes
        nothing, not even the generation (nf_tables_api.c, nf_tables_commit). No reply but a refusal comes, and it
        has come when sending is over. Raises ``NetlinkError``: then others may still be at it.
        """
        if self._owed:
            self._inbox.clear(self._socket)
        self._send(transaction((), self._reserve(2)))
        if self._receive(wait=False):
            raise NetlinkError(
                -_ERRNO.unpack_from(self._buffer, HEADER.size)[0], "waiting for others' transactions"
            )
        self._owed = False

    def can_destroy(self, where: SetName) -> bool:
        """Whether the kernel knows deletes that are content with nothing to delete.

        Tried on ``where`` with the all-zero key, which no device has. False also where the set does not stand:
        everything works without.
        """
        nothing = element(bytes(where.key_length))
        try:
            self.transact(element_messages(NFT_MSG_DESTROYSETELEM, where, [nothing]))
        except NetlinkError:
            return False
        return True

    def _refusal(self, first: int, last: int) -> tuple[int, int] | None:
        """Read up to the acknowledgement of message ``last``; return the first refusal (sequence, errno)."""
        refused: tuple[int, int] | None = None
        while True:
            # a refusal of the whole transaction (sequence ``first``) may be the only reply
            alone = refused is not None and refused[0] == first
            received = self._receive(wait=not alone)
            if received == 0:
                return refused
            for kind, _, sequence, offset, _ in self._replies(received):
                if kind != NLMSG_ERROR or not first <= sequence <= last:
                    continue  # the answer to an older request whose wait was given up
                (code,) = _ERRNO.unpack_from(self._buffer, offset)
                if code and (refused is None or sequence == first):
                    refused = (sequence, -code)
                if sequence == last and not alone:
                    return refused

    def ask(self, requests: Sequence[tuple[int, bytes]]) -> list[bytes | int]:
        """Ask several single-object questions; for each, the reply's attributes or the errno.

        Raises ``NetlinkError`` when a reply does not come.
        """
        answers: list[bytes | int] = []
        for start in range(0, len(requests), MAX_REQUESTS):
            answers += self._ask(requests[start : start + MAX_REQUESTS])
        return answers

    def _ask(self, requests: Sequence[tuple[int, bytes]]) -> list[bytes | int]:
        sequence, pack = self._reserve(1), HEADER.pack
        parts: list[bytes] = []
        for kind, body in requests:
            parts += (pack(HEADER.size + len(body), kind, NLM_F_REQUEST, sequence, 0), body)
        self._exchange(b"".join(parts), len(requests))
        answers: list[bytes | int] = []
        for start in range(0, len(requests) * SLOT, SLOT):
            length, code = self._answer(start, sequence)
            answers.append(bytes(self._buffer[start + BODY : start + length]) if code is None else code)
        return answers

    def _exchange(self, questions: bytes, count: int) -> None:
        """Send questions that all have one number and receive their answers, each into its slot, in order.

        Each question has exactly one answer, and the kernel has queued all of them in order before ``send`` returns
        (af_netlink.c, netlink_rcv_skb). One that finds no room is lost: then the last does not come, and none is
        taken for another's.
        """
        inbox = self._inbox
        if self._owed:
            inbox.clear(self._socket)
        self._send(questions)
        try:
            inbox.receive(self._socket, count)
        except OSError as error:
            raise _unreceived(error) from error
        self._owed = False
        if min(inbox.lengths) < _REPLY.size:
            raise NetlinkError(errno.EBADMSG, "a reply of impossible length")

    def _answer(self, start: int, sequence: int) -> tuple[int, int | None]:
        """How long the answer at ``start`` is, and its errno if it is an error."""
        length, kind, _, answered, _, code = _REPLY.unpack_from(self._buffer, start)
        if answered != sequence:
            raise NetlinkError(errno.EBADMSG, "an answer to another question")
        if not BODY <= length <= self._inbox.lengths[start // SLOT]:
            raise NetlinkError(errno.EBADMSG, "a reply of impossible length")
        return length, -code if kind == NLMSG_ERROR else None

    def get_elements(self, wanted: Sequence[tuple[SetName, bytes]]) -> list[Element | None]:
        """Read back these keys, each by one look-up. As ``look_up``."""
        return self.look_up([((where,), key) for where, key in wanted])

    def look_up(self, wanted: Sequence[tuple[tuple[SetName, ...], bytes]]) -> list[Element | None]:
        """Read back each key in each of its sets, by one look-up each; ``None``: the set has no such element.

        Every key has as many sets. Raises ``NetlinkError`` for any other answer than the element or ENOENT. ENOENT
        is also what a missing table or set answers.
        """
        found: list[Element | None] = []
        if not wanted:
            return found
        step = MAX_REQUESTS // len(wanted[0][0])
        for start in range(0, len(wanted), step):
            self._look_up(wanted[start : start + step], found)
        return found

    def _look_up(self, wanted: Sequence[tuple[tuple[SetName, ...], bytes]], found: list[Element | None]) -> None:
        # written out rather than composed: read-back is half of the cost of a verified change
        sequence = self._reserve(1)
        number = sequence.to_bytes(4, sys.byteorder)
        heads: dict[tuple[SetName, ...], list[bytes]] = {}
        parts: list[bytes] = []
        for places, key in wanted:
            if (row := heads.get(places)) is None:
                row = heads[places] = [where.asking + number + where.numbered for where in places]
                row.append(b"")
            parts.append(key.join(row))
        asked = [(where, key) for places, key in wanted for where in places]
        self._exchange(b"".join(parts), len(asked))
        missing = _REPLY.pack(
            _REPLY.size + HEADER.size, NLMSG_ERROR, NLM_F_CAPPED, sequence, self.port, -errno.ENOENT
        )
        start = 0
        for (head,) in self._inbox.heads(len(asked)):
            found.append(None if head == missing else self._element(start, sequence, asked[start // SLOT]))
            start += SLOT

    def _element(self, start: int, sequence: int, asked: tuple[SetName, bytes]) -> Element | None:
        """The answer at ``start`` to the question for one key."""
        where, key = asked
        length, code = self._answer(start, sequence)
        if code == errno.ENOENT:
            return None
        if code is not None:
            raise NetlinkError(code, "read-back refused")
        # up to the key a reply is as long as the question, and names the same
        buffer, end = self._buffer, start + where.answered
        if not (buffer.startswith(where.named, start + BODY) and buffer.startswith(key, end - len(key))):
            raise NetlinkError(errno.EBADMSG, "a reply about something else")
        if length == where.answered:
            return FOR_EVER
        try:
            return element_of(buffer, end, start + length)
        except ValueError as error:
            raise NetlinkError(errno.EBADMSG, str(error)) from error

    def get_element(self, where: SetName, key: bytes) -> Element | None:
        """Read back one key; ``None``: absent. Raises ``NetlinkError``."""
        return self.get_elements([(where, key)])[0]

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Every object of a kind: the attributes of each. Not for deciding what a large set lacks.

        Raises ``NetlinkError``; EINTR when the ruleset changed meanwhile.
        """
        objects: list[bytes] = []
        pieces = self.pieces(kind, body)
        while True:
            try:
                objects += next(pieces)
            except StopIteration as end:
                if not end.value:
                    raise NetlinkError(errno.EINTR, "dump refused") from None
                return objects

    def pieces(self, kind: int, body: bytes) -> Generator[list[bytes], None, bool]:
        """A dump, a datagram's objects at a time; returns whether nobody changed the ruleset meanwhile: otherwise
        some objects may be missing. Until its end the socket is good for nothing else.

        Raises ``NetlinkError``.
        """
        sequence = self._reserve(1)
        flags = NLM_F_REQUEST | NLM_F_DUMP
        self._send(HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body)
        interrupted = False
        while True:
            objects: list[bytes] = []
            for what, reply_flags, answered, offset, end in self._replies(self._receive(wait=True)):
                if answered != sequence:
                    continue
                interrupted = interrupted or bool(reply_flags & NLM_F_DUMP_INTR)
                if what in (NLMSG_ERROR, NLMSG_DONE):
                    code = -_ERRNO.unpack_from(self._buffer, offset)[0] if end - offset >= 4 else 0
                    if code not in (0, errno.EINTR):
                        raise NetlinkError(code, "dump refused")
                    self._owed = False
                    if objects:
                        yield objects
                    return not (code or interrupted)
                objects.append(bytes(self._buffer[offset + GENMSG_LENGTH : end]))
            yield objects

    def dump_keys(self, where: SetName) -> list[bytes]:
        """The keys of a set as one dump shows them: each was there, some may be missing. As ``dump``."""
        return listed_keys(where, self.dump(NFT_MSG_GETSETELEM, where.prefix))

    def key_pieces(self, where: SetName) -> Generator[list[bytes], None, bool]:
        """The keys of a set, a piece of a dump at a time. As ``pieces``."""
        pieces = self.pieces(NFT_MSG_GETSETELEM, where.prefix)
        while True:
            try:
                yield listed_keys(where, next(pieces))
            except StopIteration as end:
                return bool(end.value)

    def _reserve(self, count: int) -> int:
        """Sequence numbers never used before on this socket (until they wrap)."""
        if self._sequence + count >= _SEQUENCE_LIMIT:
            self._sequence = 0
        first = self._sequence + 1
        self._sequence += count
        return first

    def _send(self, data: bytes) -> None:
        self._owed = True
        try:
            self._socket.send(data)
        except OSError as error:
            raise NetlinkError(error.errno or errno.EIO, f"sending {len(data)} bytes") from error

    def _receive(self, *, wait: bool) -> int:
        """Bytes received into the buffer; 0 when nothing is there and ``wait`` is false."""
        try:
            return self._socket.recv_into(self._buffer, 0, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError as error:
            if not wait:
                return 0
            raise _unreceived(error) from error
        except OSError as error:
            raise _unreceived(error) from error

    def _replies(self, received: int) -> Sequence[tuple[int, int, int, int, int]]:
        """Split a datagram: (type, flags, sequence, where the payload begins, where it ends)."""
        length, kind, flags, sequence, _ = HEADER.unpack_from(self._buffer)
        if length == received:  # nearly always: one reply a datagram
            return ((kind, flags, sequence, HEADER.size, length),)
        replies = []
        offset = 0
        while offset + HEADER.size <= received:
            length, kind, flags, sequence, _ = HEADER.unpack_from(self._buffer, offset)
            if length < HEADER.size or offset + length > received:
                raise NetlinkError(errno.EBADMSG, "a reply of impossible length")
            replies.append((kind, flags, sequence, offset + HEADER.size, offset + length))
            offset += (length + 3) & ~3
        return replies


def _unreceived(error: OSError) -> NetlinkError:
    if isinstance(error, BlockingIOError):
        return NetlinkError(errno.ETIMEDOUT, f"no reply within {REPLY_TIMEOUT:g} s")
    return NetlinkError(error.errno or errno.EIO, "receiving")
