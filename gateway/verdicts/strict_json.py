"""JSON that can be read in one way only (RFC 8259, and RFC 7493's interoperable subset).

What lives here: reading bytes into plain values, refusing whatever two readers could understand differently:
duplicate members, numbers beyond 64 bits, NaN, lone surrogates, a byte order mark, anything behind the value.
What must not: what any member means.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from gateway.core.errors import InputRefused, Refusal

DEPTH = 16  #: levels of nesting; the deepest document taken here (an EAR's annotations aside) has 5
DIGITS = 19  #: of a whole number: more than 64 bits hold

_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"')
_STRUCTURE = bytes(set(range(256)) - set(b'{}[]"'))
_STEP = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def decode(data: bytes) -> object:
    """Return the value. Raises ``InputRefused`` (format) for anything that is not exactly one strict document."""
    if _too_deep(data):
        raise _refused(f"nested more than {DEPTH} levels deep")
    try:
        text = data.decode("utf-8")
        value: object = _DECODER.decode(text)
        if _SURROGATE.search(data):
            # A pair became one character; half of one is no text at all.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError as error:
        raise _refused("not UTF-8 text") from error
    except ValueError as error:
        raise _refused(f"not strict JSON: {str(error)[:120]}") from error
    return value


def _refused(what: str) -> InputRefused:
    return InputRefused(Refusal.FORMAT, what)


def _too_deep(data: bytes) -> bool:
    """Look before parsing: the library's parser calls itself for every level."""
    if data.count(b"[") + data.count(b"{") <= DEPTH:
        return False
    depth = 0
    bare = _ESCAPED.sub(b"", data) if b"\\" in data else data
    for byte in _STRING.sub(b"", bare.translate(None, _STRUCTURE)):
        depth += _STEP.get(byte, 0)
        if depth > DEPTH:
            return True
    return False


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                break
            seen.add(name)
        msg = f"member {name[:40]!a} stands there twice"
        raise ValueError(msg)
    return found


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS:
        msg = f"a number of {len(digits)} digits"
        raise ValueError(msg)
    return int(digits)


def _fraction(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        msg = "a number beyond what a computer can hold"
        raise ValueError(msg)
    return number


def _constant(word: str) -> NoReturn:
    msg = f"{word} is no JSON"
    raise ValueError(msg)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=_whole, parse_float=_fraction, parse_constant=_constant
)
