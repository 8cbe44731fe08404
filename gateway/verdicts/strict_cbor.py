"""CBOR that can be read in one way only (RFC 8949): definite lengths, no duplicate keys, no tags within, no rest.

What lives here: reading bytes into plain values (whole numbers, bytes, text, lists, maps, true, false, null). A
walk over the heads comes first and bounds depth, sizes and kinds; only then does the library build values.
Canonical encoding is not asked for: signatures cover the bytes as they were received. What must not: what any key
means.
"""

from __future__ import annotations

import cbor2

from gateway.core.errors import InputRefused, Refusal

DEPTH = 16  #: levels of nesting; an EAR has 5
ITEMS = 65_536  #: of all kinds together; a map of this many small entries is 128 KiB

_TAG = 6
_OTHER = 7
_ARRAY, _MAP = 4, 5
_TAKEN_SIMPLE = frozenset({20, 21, 22})  # false, true, null


def decode(data: bytes) -> object:
    """Return the value. Raises ``InputRefused`` (format) for anything that is not exactly one strict item."""
    end = _walk(data)
    if end != len(data):
        raise _refused(f"{len(data) - end} bytes behind the item")
    try:
        value: object = cbor2.loads(data, max_depth=DEPTH + 1, allow_indefinite=False, allow_duplicate_keys=False)
    except cbor2.CBORDecodeError as error:
        raise _refused(f"not strict CBOR: {str(error)[:120]}") from error
    return value


def untag(data: bytes, *tags: int) -> bytes:
    """Strip these tags from the front, each at most once and in this order."""
    for tag in tags:
        head = cbor2.dumps(cbor2.CBORTag(tag, None))[:-1]
        data = data.removeprefix(head)
    return data


def _refused(what: str) -> InputRefused:
    return InputRefused(Refusal.FORMAT, what)


def _walk(data: bytes) -> int:
    """Go through the heads of one item; return where it ends."""
    at = 0
    items = 0
    open_items = [1]  # how many items each open container still wants
    maps = [False]  # whether that container is a map: what comes while it wants an even number is a key
    while open_items:
        if open_items[-1] == 0:
            open_items.pop()
            maps.pop()
            continue
        is_key = maps[-1] and open_items[-1] % 2 == 0
        open_items[-1] -= 1
        items += 1
        if items > ITEMS:
            raise _refused(f"more than {ITEMS} items")
        kind, value, at = _head(data, at)
        if kind in (2, 3):
            at += value
            if at > len(data):
                raise _refused("cut short within a string")
        elif kind in (_ARRAY, _MAP):
            if is_key:
                raise _refused("a container as a key")
            wanted = value * (2 if kind == _MAP else 1)
            if wanted > len(data) - at:  # each item has at least one byte
                raise _refused("cut short within a container")
            open_items.append(wanted)
            maps.append(kind == _MAP)
            if len(open_items) > DEPTH + 1:
                raise _refused(f"nested more than {DEPTH} levels deep")
    return at


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Major type, argument, and where the content begins (RFC 8949 section 3)."""
    if at >= len(data):
        raise _refused("cut short")
    kind, info = data[at] >> 5, data[at] & 31
    at += 1
    if kind == _TAG:
        raise _refused("a tag where none is taken")
    if kind == _OTHER:
        if info not in _TAKEN_SIMPLE:
            raise _refused("a floating-point number or a simple value that is not taken")
        return kind, info, at
    if info < 24:
        return kind, info, at
    if info > 27:
        raise _refused("an indefinite length or a reserved one")
    size = 1 << (info - 24)
    if at + size > len(data):
        raise _refused("cut short")
    return kind, int.from_bytes(data[at : at + size], "big"), at + size
