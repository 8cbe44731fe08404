"""What stands in the kernel, as it describes it: the table, its chains, sets and rules.

Belongs to the guard's thread. What must not live here: what should stand, changing anything.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gateway.enforce.nft.messages import (
    INET,
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETRULE,
    NFT_MSG_GETSET,
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_TABLE,
    NFTA_EXPR_NAME,
    NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_TABLE,
    NFTA_SET_DESC,
    NFTA_SET_DESC_SIZE,
    NFTA_SET_FLAGS,
    NFTA_SET_NAME,
    NFTA_SET_TABLE,
    NFTA_SET_USERDATA,
    NFTA_TABLE_FLAGS,
    attributes,
    table_request,
    text_attribute,
)
from gateway.enforce.nft.netlink import NetlinkError, NetlinkSocket
from gateway.enforce.nft.ruleset import TABLE

#: Times a listing is tried while others change the ruleset: some 40 ms at a probe.
LISTING_TRIES = 20
#: The same where everything waits for the listing: our own lanes may be committing all the time.
PATIENT_TRIES = 1_000

_ANONYMOUS = re.compile(rb"(__(?:set|map))\d+\0+")


class Declared(NamedTuple):
    """A standing set: flags (enum nft_set_flags), declared size (0: none), comment bytes."""

    flags: int
    size: int
    userdata: bytes


class Standing(NamedTuple):
    """The standing table: names of chains, sets by name, rules by chain, flags of the table."""

    chains: frozenset[str]
    sets: Mapping[str, Declared]
    rules: Mapping[str, tuple[bytes, ...]]
    flags: int


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("ascii", "replace")


def undisturbed(listing: Callable[[], list[bytes]], tries: int = LISTING_TRIES) -> list[bytes]:
    """A listing taken while nobody changed the ruleset; empty when its table or set is not there."""
    for tries_left in reversed(range(tries)):
        try:
            return listing()
        except NetlinkError as error:
            if error.code == errno.ENOENT:
                break
            if error.code != errno.EINTR or not tries_left:
                raise
    return []


def _listing(
    netlink: NetlinkSocket, kind: int, table_attribute: int, tries: int = PATIENT_TRIES
) -> list[dict[int, bytes]]:
    """All objects of a kind in our table, each as its attributes."""
    body = INET + text_attribute(table_attribute, TABLE)
    objects = [dict(attributes(reply)) for reply in undisturbed(lambda: netlink.dump(kind, body), tries)]
    return [one for one in objects if _text(one.get(table_attribute, b"")) == TABLE]


def standing_rules(netlink: NetlinkSocket, tries: int = LISTING_TRIES) -> dict[str, tuple[bytes, ...]]:
    """Our rules by chain, in order, as the kernel describes them without their counts. Raises ``NetlinkError``.

    A rule that another has replaced keeps its handle: only its expressions tell.
    """
    rules: dict[str, tuple[bytes, ...]] = {}
    for one in _listing(netlink, NFT_MSG_GETRULE, NFTA_RULE_TABLE, tries):
        chain = _text(one[NFTA_RULE_CHAIN])
        rules[chain] = (*rules.get(chain, ()), _without_counts(one[NFTA_RULE_EXPRESSIONS]))
    return rules


def _without_counts(expressions: bytes) -> bytes:
    """A rule's expressions without counts, and without the numbers of anonymous sets: both change by themselves."""
    if b"counter\0" in expressions:
        kept = []
        for _, expression in attributes(expressions):
            name = dict(attributes(expression))[NFTA_EXPR_NAME]
            kept.append(name if name == b"counter\0" else expression)
        expressions = b"".join(kept)
    return _ANONYMOUS.sub(rb"\1", expressions) if b"__" in expressions else expressions


def inspect(netlink: NetlinkSocket) -> Standing | None:
    """The table that stands; ``None``: there is none. Raises ``NetlinkError``."""
    (table,) = netlink.ask([table_request(TABLE)])
    if isinstance(table, int):
        if table != errno.ENOENT:
            raise NetlinkError(table, f"looking for table inet {TABLE}")
        return None
    flags = int.from_bytes(dict(attributes(table)).get(NFTA_TABLE_FLAGS, b""), "big")
    sets = {}
    for one in _listing(netlink, NFT_MSG_GETSET, NFTA_SET_TABLE):
        size = dict(attributes(one.get(NFTA_SET_DESC, b""))).get(NFTA_SET_DESC_SIZE, b"")
        sets[_text(one[NFTA_SET_NAME])] = Declared(
            int.from_bytes(one.get(NFTA_SET_FLAGS, b""), "big"),
            int.from_bytes(size, "big"),
            one.get(NFTA_SET_USERDATA, b""),
        )
    names = frozenset(_text(one[NFTA_CHAIN_NAME]) for one in _listing(netlink, NFT_MSG_GETCHAIN, NFTA_CHAIN_TABLE))
    return Standing(names, sets, standing_rules(netlink, PATIENT_TRIES), flags)
