"""What of JSON Schema the published schemas use, for tests that hold a value against one.

What must not live here: the schemas.
"""

from __future__ import annotations

import re
from collections.abc import Mapping


def fits(value: object, schema: Mapping[str, object] | bool) -> bool:
    """What of JSON Schema our schemas use; an unknown word is a mistake of the schema."""
    if isinstance(schema, bool):
        return schema
    return all(_holds(word, said, value, schema) for word, said in schema.items())


_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def _holds(word: str, said: object, value: object, schema: Mapping[str, object]) -> bool:
    match word, said, value:
        case (("$schema" | "title"), _, _):
            return True
        case "type", str(), _:
            return isinstance(value, _TYPES[said]) and (said == "boolean" or not isinstance(value, bool))
        case "type", list(), _:
            return any(_holds("type", each, value, schema) for each in said)
        case "anyOf", list(), _:
            return any(fits(value, each) for each in said)
        case "enum", list(), _:
            return value in said
        case "pattern", str(), str():
            return re.search(said, value) is not None
        case (("minLength" | "maxLength"), int(), str()):
            return len(value) >= said if word == "minLength" else len(value) <= said
        case (("minimum" | "maximum"), int(), int()):
            return value >= said if word == "minimum" else value <= said
        case "items", dict(), list():
            return all(fits(each, said) for each in value)
        case (("minItems" | "maxItems" | "minProperties" | "maxProperties"), int(), (list() | dict())):
            return len(value) >= said if word.startswith("min") else len(value) <= said
        case "uniqueItems", bool(), list():
            return not said or all(each not in value[:place] for place, each in enumerate(value))
        case "required", list(), dict():
            return set(said) <= set(value)
        case "propertyNames", dict(), dict():
            return all(fits(key, said) for key in value)
        case "properties", dict(), dict():
            return all(fits(value[key], each) for key, each in said.items() if key in value)
        case "additionalProperties", (bool() | dict()), dict():
            listed = schema.get("properties", {})
            assert isinstance(listed, dict)
            return all(fits(each, said) for key, each in value.items() if key not in listed)
    known = {"pattern", "minLength", "maxLength", "minimum", "maximum", "required"}
    lists = {"items", "minItems", "maxItems", "uniqueItems"}
    objects = {"minProperties", "maxProperties", "propertyNames", "properties", "additionalProperties"}
    assert word in known | lists | objects
    return True
