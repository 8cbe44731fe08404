"""The shapes that schemas are made of: single values, lists, and mappings with exactly the keys of a reader.

What lives here: what more than one file has. What must not: any file's own keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Schema = dict[str, object]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
DEVICE = "^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"
PROFILE: Schema = {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,15}$"}
TEXT: Schema = {"type": "string"}
DURATION: Schema = {"type": ["number", "string"], "pattern": r"^[0-9]{1,9}(\.[0-9]{1,6})?(ms|s|m|h|d)?$"}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65_535}
WORDS: Schema = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}


#: ``HOST:PORT``; which hosts are taken, the reader says.
ENDPOINT: Schema = {"type": "string", "pattern": "^.+:[0-9]{1,5}$"}
TRUTH: Schema = {"type": "boolean"}


def matching(pattern: re.Pattern[str]) -> Schema:
    """Text that a reader's pattern matches as a whole."""
    return {"type": "string", "pattern": f"^{pattern.pattern.removesuffix(chr(92) + 'Z')}$"}


def whole(most: int, least: int = 1) -> Schema:
    """A whole number."""
    return {"type": "integer", "minimum": least, "maximum": most}


def list_of(item: Schema) -> Schema:
    """A list of one shape."""
    return {"type": "array", "items": item}


def choice(words: Sequence[str | bool]) -> Schema:
    """One of a closed list of words."""
    return {"enum": list(words)}


def either(*schemas: Schema) -> Schema:
    """Any of several shapes."""
    return {"anyOf": list(schemas)}


def section(keys: Sequence[str], values: Mapping[str, Schema], need: Sequence[str] = ()) -> Schema:
    """A mapping with exactly these keys. Raises ``KeyError`` when a key of the reader has no schema."""
    if extra := set(values) - set(keys):
        raise KeyError(*extra)
    made: Schema = {
        "type": "object",
        "properties": {key: values[key] for key in keys},
        "additionalProperties": False,
    }
    return made | ({"required": list(need)} if need else {})


def exactly(values: Mapping[str, Schema], need: Sequence[str] = ()) -> Schema:
    """A mapping with exactly these keys."""
    return section(tuple(values), values, need)


def file_of(title: str, section: Schema) -> Schema:
    """A whole file, with the draft that its schema is written in."""
    return {"$schema": DRAFT, "title": title, **section}
