"""JSON Schema (draft 2020-12) of the three files, for editors that complete and mark while one writes.

What lives here: the shape of each file, made from the same keys and words as the readers have. What must not:
reading. A schema sees less than the readers: names that refer to one another, positions, contradictions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from gateway.config import book, book_levels, book_profiles, book_site
from gateway.config.entries import ENTRY_KEYS
from gateway.config.inventory import ADDRESSES, LABEL, LABELS
from gateway.config.values import PASSES_MOST
from gateway.core.model import AnchorKind
from gateway.core.policy import KINDS

Schema = dict[str, object]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
_DEVICE = "^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"
_PROFILE: Schema = {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,15}$"}
_TEXT: Schema = {"type": "string"}
_DURATION: Schema = {"type": ["number", "string"], "pattern": r"^[0-9]{1,9}(\.[0-9]{1,6})?(ms|s|m|h|d)?$"}
_PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65_535}
_WORDS: Schema = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}


def _whole(most: int) -> Schema:
    return {"type": "integer", "minimum": 1, "maximum": most}


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _choice(words: Sequence[str]) -> Schema:
    return {"enum": list(words)}


def _either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _section(keys: Sequence[str], values: Mapping[str, Schema], need: Sequence[str] = ()) -> Schema:
    """A mapping with exactly these keys. Raises ``KeyError`` when a key of the reader has no schema."""
    if extra := set(values) - set(keys):
        raise KeyError(*extra)
    made: Schema = {
        "type": "object",
        "properties": {key: values[key] for key in keys},
        "additionalProperties": False,
    }
    return made | ({"required": list(need)} if need else {})


_STANDINGS = _either(
    _PROFILE, _section(tuple(book_levels.STANDINGS), dict.fromkeys(book_levels.STANDINGS, _PROFILE))
)
_MARKS: Mapping[str, Schema] = {
    "max_age": _DURATION,
    "recovery_passes": _whole(PASSES_MOST),
    "quorum": _whole(book_levels.QUORUM_MOST),
}
_MATCH = _section(
    book_levels.MATCH_KEYS,
    {"labels": _WORDS, "id": _TEXT, "prefix": _either(_TEXT, _list(_TEXT))},
) | {"minProperties": 1}


def book_schema() -> Schema:
    """The policy book."""
    endpoint: Mapping[str, Schema] = {
        "name": _NAME,
        "address": _TEXT,
        "port": _PORT,
        "protocol": _choice(book.PROTOCOLS),
    }
    values: Mapping[str, Schema] = {
        "targets": {
            "type": "object",
            "additionalProperties": _section(book_site.TARGET_KEYS, {"kinds": _list(_choice(KINDS))}, ("kinds",)),
        },
        "profiles": _TEXT,
        "services": _list(
            _section(
                book.SERVICE_KEYS,
                {**endpoint, "path": _choice(book.PATHS), "profiles": _list(_PROFILE)},
                ("name", "address", "port"),
            )
        ),
        "corridor": _list(_section(book.CORRIDOR_KEYS, endpoint, ("name", "address", "port"))),
        "always_allowed": _list(_TEXT),
        "node_default": _STANDINGS,
        "suspect": _PROFILE,
        "cut_on_hints": _list(_NAME),
        "deployments": _list(
            _section(
                book_levels.DEPLOYMENT_KEYS,
                {"name": _NAME, "match": _MATCH, "services": _list(_NAME), "standings": _STANDINGS},
                ("name", "match"),
            )
        ),
        "classes": _list(
            _section(
                book_levels.CLASS_KEYS,
                {"name": _NAME, "match": _MATCH, "standings": _STANDINGS, **_MARKS},
                ("name", "match"),
            )
        ),
        "devices": {
            "type": "object",
            "propertyNames": {"pattern": _DEVICE},
            "additionalProperties": _either(
                _PROFILE, _section(book_levels.DEVICE_KEYS, {"standings": _STANDINGS, **_MARKS})
            ),
        },
        "site": _list(_site()),
        "thresholds": _thresholds(),
    }
    return _file("The policy book of ragate", _section(book.BOOK_KEYS, values))


def _site() -> Schema:
    condition: Schema = {"type": "string", "pattern": r"^ *(<|<=|==|!=|>=|>) *[0-9]{1,9}(\.[0-9]{1,3})? *%? *$"}
    keys = ("class", *book_levels.STANDINGS)
    when = _section(keys, {"class": _NAME, **dict.fromkeys(book_levels.STANDINGS, condition)})
    return _section(book_site.SITE_KEYS, {"name": _NAME, "when": when}, ("name",))


def _thresholds() -> Schema:
    alert = _section(
        book_site.ALERT_THRESHOLD_KEYS,
        {"severity": _whole(book_site.SEVERITY_MOST), "count": _whole(1_000_000), "within": _DURATION},
        book_site.ALERT_THRESHOLD_KEYS,
    )
    share: Schema = {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,3})?%$"}
    resource = _section(
        book_site.RESOURCE_THRESHOLD_KEYS, {"above": share, "for": _DURATION}, book_site.RESOURCE_THRESHOLD_KEYS
    )
    return _section(
        book_site.THRESHOLD_KEYS,
        {
            "alerts": _section(book_site.ALERT_KEYS, {"suspect": alert}),
            "resources": _section(book_site.RESOURCE_KEYS, dict.fromkeys(book_site.RESOURCE_KEYS, resource)),
        },
    )


def profile_schema() -> Schema:
    """The ``profile.yaml`` of one profile."""
    rate: Schema = {"type": "string", "pattern": "^[0-9]{1,6}/(s|m|h)$"}
    values: Mapping[str, Schema] = {
        "reach": _either(_choice(("all",)), _list(_NAME)),
        "rate": _either(
            {"type": "null"}, _section(book_profiles.RATE_KEYS, {"new_connections": rate}, ("new_connections",))
        ),
        "rank": _whole(book_profiles.RANK_MOST),
        "site": {"type": "boolean"},
        "parameters": {"type": "object"},
        "documents": _list(_TEXT),
    }
    return _file("A profile of ragate", _section(book_profiles.PROFILE_KEYS, values))


def devices_schema() -> Schema:
    """The inventory."""
    labels = _WORDS | {"propertyNames": {"pattern": _NAME["pattern"]}, "maxProperties": LABELS}
    labels["additionalProperties"] = {"type": ["string", "number", "boolean"], "maxLength": LABEL}
    device = _section(
        ENTRY_KEYS,
        {
            "id": {"type": "string", "pattern": _DEVICE},
            "source": _NAME,
            "addresses": _list(_TEXT) | {"minItems": 1, "maxItems": ADDRESSES},
            "anchor": _choice([anchor.value for anchor in AnchorKind]),
            "hmac_key_file": _TEXT,
            "labels": labels,
            "max_age": _DURATION,
            "recovery_passes": _whole(PASSES_MOST),
        },
        ("id", "source", "addresses"),
    )
    return _file(
        "The inventory of ragate",
        _section(("hmac_keys", "devices"), {"hmac_keys": _TEXT, "devices": _list(device)}, ("devices",)),
    )


#: The published files, by their place in the folder of policies.
SCHEMAS = {
    "book.schema.json": book_schema,
    "profile.schema.json": profile_schema,
    "devices.schema.json": devices_schema,
}


def render(schema: Schema) -> str:
    """The text of a published schema."""
    return json.dumps(schema, indent=2) + "\n"


def _file(title: str, section: Schema) -> Schema:
    return {"$schema": _DRAFT, "title": title, **section}
