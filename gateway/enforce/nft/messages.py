"""Bytes of nf_tables netlink messages: numbers, attributes, elements, questions. Pure; no socket.

Numbers carry their names in the kernel's headers ``linux/netlink.h``, ``linux/netfilter/nfnetlink.h`` and
``linux/netfilter/nf_tables.h``. Attribute values are in network byte order, headers in the host's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

NLMSG_ERROR = 2  # linux/netlink.h
NLMSG_DONE = 3  # linux/netlink.h
NLM_F_REQUEST = 0x1  # linux/netlink.h
NLM_F_ACK = 0x4  # linux/netlink.h
NLM_F_DUMP_INTR = 0x10  # linux/netlink.h
NLM_F_DUMP = 0x300  # linux/netlink.h: NLM_F_ROOT | NLM_F_MATCH
NLM_F_CAPPED = 0x100  # linux/netlink.h: an error without the request it answers
NLM_F_CREATE = 0x400  # linux/netlink.h

NFNL_SUBSYS_NFTABLES = 10  # linux/netfilter/nfnetlink.h
NFNL_MSG_BATCH_BEGIN = 16  # linux/netfilter/nfnetlink.h
NFNL_MSG_BATCH_END = 17  # linux/netfilter/nfnetlink.h
NFNLGRP_NFTABLES = 7  # enum nfnetlink_groups
NFPROTO_INET = 1  # linux/netfilter.h

_NFT = NFNL_SUBSYS_NFTABLES << 8
NFT_MSG_GETTABLE = _NFT | 1  # enum nf_tables_msg_types, this and the following
NFT_MSG_GETCHAIN = _NFT | 4
NFT_MSG_GETRULE = _NFT | 7
NFT_MSG_GETSET = _NFT | 10
NFT_MSG_NEWSETELEM = _NFT | 12
NFT_MSG_GETSETELEM = _NFT | 13
NFT_MSG_DELSETELEM = _NFT | 14
NFT_MSG_GETGEN = _NFT | 16
NFT_MSG_GETOBJ = _NFT | 19
NFT_MSG_DESTROYSETELEM = _NFT | 30  # since Linux 6.3: a delete that is content with nothing to delete

NLA_F_NESTED = 0x8000  # linux/netlink.h
NLA_TYPE_MASK = 0x3FFF  # linux/netlink.h
NFTA_TABLE_NAME = 1  # enum nft_table_attributes
NFTA_TABLE_FLAGS = 2
NFTA_TABLE_USE = 3
NFTA_CHAIN_TABLE = 1  # enum nft_chain_attributes
NFTA_CHAIN_NAME = 3
NFTA_CHAIN_USE = 6
NFTA_RULE_TABLE = 1  # enum nft_rule_attributes
NFTA_RULE_CHAIN = 2
NFTA_RULE_EXPRESSIONS = 4
NFTA_EXPR_NAME = 1  # enum nft_expr_attributes
NFTA_SET_TABLE = 1  # enum nft_set_attributes
NFTA_SET_NAME = 2
NFTA_SET_FLAGS = 3
NFTA_SET_KEY_LEN = 5
NFTA_SET_DESC = 9
NFTA_SET_USERDATA = 13
NFTA_SET_DESC_SIZE = 1  # enum nft_set_desc_attributes
NFTA_SET_ELEM_LIST_TABLE = 1  # enum nft_set_elem_list_attributes
NFTA_SET_ELEM_LIST_SET = 2
NFTA_SET_ELEM_LIST_ELEMENTS = 3
NFTA_LIST_ELEM = 1  # enum nft_list_attributes
NFTA_SET_ELEM_KEY = 1  # enum nft_set_elem_attributes
NFTA_SET_ELEM_TIMEOUT = 4
NFTA_SET_ELEM_EXPIRATION = 5
NFTA_DATA_VALUE = 1  # enum nft_data_attributes
NFTA_OBJ_TABLE = 1  # enum nft_object_attributes
NFTA_OBJ_NAME = 2
NFTA_OBJ_TYPE = 3
NFTA_OBJ_DATA = 4
NFT_OBJECT_COUNTER = 1  # linux/netfilter/nf_tables.h
NFTA_COUNTER_PACKETS = 2  # enum nft_counter_attributes

#: Elements in one message: a nested attribute's length is 16 bits wide and an element takes at most 44 bytes.
MAX_ELEMENTS = 1_400
HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
SEQUENCE_OFFSET = 8
ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
BE64 = struct.Struct(">Q")
GENMSG_LENGTH = 4  # struct nfgenmsg
BODY = HEADER.size + GENMSG_LENGTH  # where a reply's attributes begin
INET = struct.pack(">BBH", NFPROTO_INET, 0, 0)  # struct nfgenmsg: family, version, resource
SUBSYSTEM = struct.pack(">BBH", 0, 0, NFNL_SUBSYS_NFTABLES)
_ELEMENTS = NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED


class Element(NamedTuple):
    """One element as read back: its timeout and what is left of it, in ms; ``None``: it stands for ever."""

    timeout_ms: int | None
    remaining_ms: int | None


FOR_EVER = Element(None, None)


class Message(NamedTuple):
    """One message of a transaction: type, extra flags, and the bytes after ``struct nlmsghdr``."""

    kind: int
    flags: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute (``struct nlattr``), padded to four bytes."""
    return ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def text_attribute(kind: int, value: str) -> bytes:
    """A name as an attribute: ASCII, closed by a zero byte."""
    return attribute(kind, value.encode("ascii") + b"\0")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type without flags, value) of each attribute in ``data``; stops where the bytes make no sense."""
    offset, end = 0, len(data)
    while offset + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _key_head(length: int, extra: int) -> bytes:
    """What precedes a key of this length in a list entry that has ``extra`` bytes after the key."""
    padded = (length + 3) & ~3
    return (
        ATTRIBUTE.pack(12 + padded + extra, NFTA_LIST_ELEM | NLA_F_NESTED)
        + ATTRIBUTE.pack(8 + padded, NFTA_SET_ELEM_KEY | NLA_F_NESTED)
        + ATTRIBUTE.pack(4 + length, NFTA_DATA_VALUE)
    )


# keys are whole registers: IPv4 4, IPv6 16, IPv4 . protocol . port 12, IPv6 . protocol . port 24 bytes; in front of
# an address an interface's name 16 and a MAC 8
_TIMEOUT_LENGTH = ATTRIBUTE.size + BE64.size
_PLAIN_HEAD = {length: _key_head(length, 0) for length in (4, 12, 16, 20, 24, 28, 32, 40)}
_TIMED_HEAD = {length: _key_head(length, _TIMEOUT_LENGTH) for length in (4, 16)}
_TIMEOUT_HEAD = ATTRIBUTE.pack(_TIMEOUT_LENGTH, NFTA_SET_ELEM_TIMEOUT)


def element(key: bytes, timeout_ms: int | None = None) -> bytes:
    """One list entry: a key in network byte order and, if given, its timeout in ms (be64, at least 1).

    Keys have 4 or 16 bytes (addresses), 12 or 24 (address, protocol, port; each padded to four), or 20 to 40 (what
    an address comes with; these have no timeout). Raises ``ValueError`` for a timeout below 1 ms: 0 would make the
    element stand for ever.
    """
    if timeout_ms is None:
        return _PLAIN_HEAD[len(key)] + key
    if timeout_ms < 1:
        msg = f"a timeout of {timeout_ms} ms would stand for ever"
        raise ValueError(msg)
    return _TIMED_HEAD[len(key)] + key + _TIMEOUT_HEAD + BE64.pack(timeout_ms)


class SetName:
    """A set of one table, and the fixed bytes of messages about it.

    ``key_length`` in bytes: of whole registers, as ``element`` takes them.
    """

    __slots__ = ("answered", "asking", "key_length", "name", "named", "numbered", "prefix", "question")

    def __init__(self, table: str, name: str, key_length: int) -> None:
        self.name = name
        self.key_length = key_length
        #: the attributes that name it, as in a reply
        self.named = text_attribute(NFTA_SET_ELEM_LIST_TABLE, table) + text_attribute(NFTA_SET_ELEM_LIST_SET, name)
        self.prefix = INET + self.named
        #: the question for one key, up to the key; none for keys of other lengths: such sets are only listed
        self.question = b""
        if key_length in _PLAIN_HEAD:
            self.question = _element_list(self, element(bytes(key_length)))[:-key_length]
        #: bytes of a message that asks for one key, and of its answer if the element stands for ever
        self.answered = HEADER.size + len(self.question) + key_length
        #: the message that asks for one key: what is before and behind its number, up to the key
        whole = HEADER.pack(self.answered, NFT_MSG_GETSETELEM, NLM_F_REQUEST, 0, 0) + self.question
        self.asking, self.numbered = whole[:SEQUENCE_OFFSET], whole[SEQUENCE_OFFSET + 4 :]


def element_messages(kind: int, where: SetName, elements: Sequence[bytes]) -> list[Message]:
    """Messages that add (``NFT_MSG_NEWSETELEM``) or delete (``NFT_MSG_DELSETELEM``) these elements."""
    flags = NLM_F_CREATE if kind == NFT_MSG_NEWSETELEM else 0
    return [
        Message(kind, flags, _element_list(where, b"".join(elements[start : start + MAX_ELEMENTS])))
        for start in range(0, len(elements), MAX_ELEMENTS)
    ]


def key_messages(kind: int, where: SetName, keys: Sequence[bytes]) -> list[Message]:
    """As ``element_messages``, of plain elements with these keys."""
    flags = NLM_F_CREATE if kind == NFT_MSG_NEWSETELEM else 0
    head = _PLAIN_HEAD[where.key_length]
    return [
        Message(kind, flags, _element_list(where, head + head.join(keys[start : start + MAX_ELEMENTS])))
        for start in range(0, len(keys), MAX_ELEMENTS)
    ]


def _element_list(where: SetName, elements: bytes) -> bytes:
    return where.prefix + ATTRIBUTE.pack(4 + len(elements), _ELEMENTS) + elements


def transaction(messages: Sequence[Message], first: int) -> bytes:
    """A batch: ``first`` is the number of its beginning, those behind have the next ones."""
    pack = HEADER.pack
    last = first + len(messages)
    parts = [pack(BODY, NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, first, 0), SUBSYSTEM]
    for sequence, (kind, flags, body) in enumerate(messages, first + 1):
        # one acknowledgement, of the last message: it comes after every refusal
        flags |= NLM_F_REQUEST if sequence != last else NLM_F_REQUEST | NLM_F_ACK  # noqa: PLW2901
        parts += (pack(HEADER.size + len(body), kind, flags, sequence, 0), body)
    parts += (pack(BODY, NFNL_MSG_BATCH_END, NLM_F_REQUEST, last + 1, 0), SUBSYSTEM)
    return b"".join(parts)


def table_request(table: str) -> tuple[int, bytes]:
    """The question for a table: flags, use count, handle, comment."""
    return NFT_MSG_GETTABLE, INET + text_attribute(NFTA_TABLE_NAME, table)


def chain_request(table: str, chain: str) -> tuple[int, bytes]:
    """The question for a chain: hook, policy, use count, handle."""
    return NFT_MSG_GETCHAIN, INET + text_attribute(NFTA_CHAIN_TABLE, table) + text_attribute(NFTA_CHAIN_NAME, chain)


def set_request(table: str, name: str) -> tuple[int, bytes]:
    """The question for a set's declaration."""
    return NFT_MSG_GETSET, INET + text_attribute(NFTA_SET_TABLE, table) + text_attribute(NFTA_SET_NAME, name)


def counter_request(table: str, name: str) -> tuple[int, bytes]:
    """The question for a counter that has a name."""
    kind = attribute(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER.to_bytes(4, "big"))
    return NFT_MSG_GETOBJ, INET + text_attribute(NFTA_OBJ_TABLE, table) + text_attribute(NFTA_OBJ_NAME, name) + kind


def generation_request() -> tuple[int, bytes]:
    """The question for the number of the ruleset's generation, which every commit raises."""
    return NFT_MSG_GETGEN, INET


def listed_keys(where: SetName, replies: Sequence[bytes]) -> list[bytes]:
    """The keys of a set in replies to a question for all its elements."""
    keys: list[bytes] = []
    # an element's key is its first attribute, inside three headers (nf_tables_api.c)
    start, size = 3 * ATTRIBUTE.size, where.key_length
    for reply in replies:
        for kind, elements in attributes(reply):
            if kind != NFTA_SET_ELEM_LIST_ELEMENTS:
                continue
            offset, end = 0, len(elements)
            while offset < end:
                keys.append(elements[offset + start : offset + start + size])
                offset += max(ATTRIBUTE.size, (ATTRIBUTE.unpack_from(elements, offset)[0] + 3) & ~3)
    return keys


#: Behind the key of an element with an end, nearly always: nothing but how long it stands, and what is left of it.
_TIMES = struct.Struct(">IQIQ")
_TIMES_HEADS = struct.unpack(
    ">II", _TIMEOUT_HEAD + ATTRIBUTE.pack(_TIMEOUT_LENGTH, NFTA_SET_ELEM_EXPIRATION)
)  # as _TIMES reads them
_ENDS = frozenset({NFTA_SET_ELEM_TIMEOUT, NFTA_SET_ELEM_EXPIRATION})


def element_of(reply: bytearray, offset: int, end: int) -> Element:
    """Read what stands behind the key in a one-element reply: from ``offset`` to ``end``. Raises ``ValueError``."""
    if offset > end:  # it would otherwise read as an element without an end
        msg = "a reply that ends before its key"
        raise ValueError(msg)
    if end - offset == _TIMES.size:
        first, timeout, second, remaining = _TIMES.unpack_from(reply, offset)
        if (first, second) == _TIMES_HEADS:
            return Element(timeout, remaining)
    timeout = remaining = None
    while offset + ATTRIBUTE.size <= end:
        length, kind = ATTRIBUTE.unpack_from(reply, offset)
        if length < ATTRIBUTE.size or offset + length > end:
            msg = "an attribute of impossible length"
            raise ValueError(msg)
        if kind in _ENDS and length != ATTRIBUTE.size + BE64.size:
            msg = "a time of impossible length"
            raise ValueError(msg)
        if kind == NFTA_SET_ELEM_TIMEOUT:
            (timeout,) = BE64.unpack_from(reply, offset + 4)
        elif kind == NFTA_SET_ELEM_EXPIRATION:
            (remaining,) = BE64.unpack_from(reply, offset + 4)
        offset += (length + 3) & ~3
    if timeout is None:
        return FOR_EVER
    # the kernel leaves out an end that is now
    return Element(timeout, 0 if remaining is None else remaining)
