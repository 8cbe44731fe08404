"""Words made fit for the journal: as UTF-8, whatever they came with.

What lives here: strings and values as text. What must not: an opinion about what they say.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

_json = msgspec.json.Encoder()


def _clean(value: object) -> object:
    """``value`` with lone surrogates in its strings spelled out, so that it can be written as UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


def text(value: object) -> str:
    """``value`` as JSON. Raises ``TypeError`` for what JSON cannot carry."""
    try:
        return _json.encode(value).decode()
    except UnicodeEncodeError:
        return _json.encode(_clean(msgspec.to_builtins(value))).decode()


def label(words: str) -> str:
    """A string for a column: without lone surrogates."""
    return words if words.isascii() else str(_clean(words))
