"""JSON Schema (draft 2020-12) of the four files, for editors that complete and mark while one writes.

What lives here: the shape of each file, made from the same keys and words as the readers have. What must not:
reading. A schema sees less than the readers: names that refer to one another, positions, contradictions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from gateway.config import (
    book,
    book_levels,
    book_profiles,
    book_site,
    clusters,
    posting,
    relying,
    remotes,
    settings,
)
from gateway.config.entries import ENTRY_KEYS
from gateway.config.inventory import ADDRESSES, INTERFACE, LABEL, LABELS, MAC
from gateway.config.keyfiles import UNSAFE
from gateway.config.values import PASSES_MOST, Places
from gateway.core.model import AnchorKind
from gateway.core.policy import KINDS
from gateway.verdicts import FORMATS, Algorithm, Proof

Schema = dict[str, object]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
_DEVICE = "^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"
_PROFILE: Schema = {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,15}$"}
_TEXT: Schema = {"type": "string"}
_DURATION: Schema = {"type": ["number", "string"], "pattern": r"^[0-9]{1,9}(\.[0-9]{1,6})?(ms|s|m|h|d)?$"}
_PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65_535}
_WORDS: Schema = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}


#: ``HOST:PORT``; which hosts are taken, the reader says.
_ENDPOINT: Schema = {"type": "string", "pattern": "^.+:[0-9]{1,5}$"}
_TRUTH: Schema = {"type": "boolean"}


def _matching(pattern: re.Pattern[str]) -> Schema:
    """Text that a reader's pattern matches as a whole."""
    return {"type": "string", "pattern": f"^{pattern.pattern.removesuffix(chr(92) + 'Z')}$"}


def _whole(most: int, least: int = 1) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _choice(words: Sequence[str | bool]) -> Schema:
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
        {"severity": _whole(book_site.SEVERITY_MOST), "count": _whole(book_site.COUNT_MOST), "within": _DURATION},
        book_site.ALERT_THRESHOLD_KEYS,
    )
    share: Schema = {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,3})?%$"}
    resource = _section(
        book_site.RESOURCE_THRESHOLD_KEYS, {"above": share, "for": _DURATION}, book_site.RESOURCE_THRESHOLD_KEYS
    )
    return _section(
        book_site.THRESHOLD_KEYS,
        {
            "alerts": _section(book_site.ALERT_KEYS, dict.fromkeys(book_site.ALERT_KEYS, alert)),
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
            "source": _either(_NAME, _list(_NAME) | {"minItems": 1, "uniqueItems": True}),
            "addresses": _list(_TEXT) | {"minItems": 1, "maxItems": ADDRESSES},
            "anchor": _choice([anchor.value for anchor in AnchorKind]),
            "interface": _matching(INTERFACE),
            "mac": _matching(MAC),
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


def settings_schema() -> Schema:
    """The main settings file, ``ragate.yaml``."""
    api = {"address": _ENDPOINT, "requests": _whole(settings.REQUESTS_MOST), "per": _DURATION}
    hook = {"socket": _TEXT, "users": _list(_either(_NAME, {"type": "integer", "minimum": 0})), "group": _NAME}
    paths = _list(_TEXT)
    source = {
        "name": _NAME,
        "format": _choice(("sediment",)),
        "public_key": _TEXT,
        "verifier_id": _TEXT | {"minLength": 1, "maxLength": settings.VERIFIER_ID},
        "peers": _list(_TEXT),
        "max_age": _DURATION,
        "grace": _DURATION,
        "recovery_passes": _whole(PASSES_MOST),
        UNSAFE: _TRUTH,
        "feed": _ENDPOINT,
        "api": _either(_ENDPOINT, _exactly(api, ("address",))),
    }
    target = {
        "name": _NAME,
        "required": _choice((True,)),
        "path_gate": _choice(settings.GATES),
        "lease": _DURATION,
        "relay": _list(_exactly({"service": _NAME, "listen": _ENDPOINT}, ("service", "listen"))),
        "kubearmor": _kubearmor(),
    }
    values = {
        "journal": _TEXT,
        "console": _exactly({"listen": _ENDPOINT, "hosts": _list(_TEXT)}),
        "operator": _exactly({"socket": _TEXT, "group": _NAME}),
        "doors": _exactly(
            {
                "sediment": _sediment_door(),
                "relying": _relying_door(),
                "hook": _exactly(hook, ("users",)),
                "rest": _post_door(),
                "rpc": _post_door(),
            }
        )
        | {"anyOf": [{"required": [door]} for door in settings.VERDICT_DOORS]},
        "sources": _list(_either(_exactly(source, ("name", "format", "public_key", "verifier_id")), _poster()))
        | {"minItems": 1},
        # Of this host, of an agent's, or a cluster: which keys go together the reader says.
        "targets": _list(_exactly({**_remote(), **_cluster(), **target, "required": _TRUTH}, ("name",)))
        | {"minItems": 1},
        "inventory": _TEXT,
        "book": _TEXT,
        "management": _list(_TEXT),
        "sealing": _exactly({"file": _TEXT, "credential": _TEXT}) | {"minProperties": 1, "maxProperties": 1},
        "doctor": _exactly(dict.fromkeys(Places._fields, paths)),
        "agents": _exactly({"listen": _ENDPOINT}, ("listen",)),
        "certificates": _exactly(dict.fromkeys(remotes.CERTIFICATE_KEYS, _TEXT), remotes.CERTIFICATE_KEYS[:3]),
    }
    need = ("doors", "sources", "targets", "inventory", "book")
    return _file("The main settings file of ragate", _exactly(values, need))


def _remote() -> dict[str, Schema]:
    """A target that an agent enforces on."""
    return {
        "name": _NAME,
        "agent": _NAME,
        "required": _TRUTH,
        "lease": _DURATION,
        "services": _list(_NAME) | {"minItems": 1},
        "relays": _list(_TEXT),
    }


def _kubearmor() -> Schema:
    """KubeArmor on the same host."""
    tls = dict.fromkeys(remotes.KUBEARMOR_TLS_KEYS, _TEXT)
    values: Mapping[str, Schema] = {
        "address": _TEXT,
        "logs": _TEXT,
        "health": _TEXT,
        "tables": _choice(remotes.TABLES),
        "record": {"type": "string", "pattern": "^/"},
        "streams": _list(_choice(remotes.STREAMS)),
        "tls": _section(remotes.KUBEARMOR_TLS_KEYS, tls, remotes.KUBEARMOR_TLS_KEYS[:3]),
    }
    return _section(remotes.KUBEARMOR_KEYS, values)


def _cluster() -> dict[str, Schema]:
    """A target that is a cluster."""
    labels = {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": f"^{clusters.LABEL_KEY}$"},
        "additionalProperties": {"type": "string", "pattern": f"^{clusters.LABEL}$"},
    }
    values: Mapping[str, Schema] = {
        "kubeconfig": _TEXT,
        "in_cluster": _TRUTH,
        "context": _TEXT,
        "namespace": {"type": "string", "pattern": f"^{clusters.NAMESPACE}$"},
        "owner": {"type": "string", "pattern": f"^{clusters.LABEL}$"},
        "nodes": labels,
        "services": _list(_NAME) | {"minItems": 1},
    }
    return {"kubernetes": _section(clusters.KUBERNETES_KEYS, values, ("namespace",))}


def _sediment_door() -> Schema:
    limits = {
        "connections": _whole(settings.CONNECTIONS_MOST, settings.CONNECTIONS_LEAST),
        "connections_per_peer": _whole(settings.CONNECTIONS_MOST),
        "frame_seconds": _DURATION,
        "queue": _whole(settings.QUEUE_MOST),
    }
    door = {
        "listen": _either(_ENDPOINT, _list(_ENDPOINT) | {"minItems": 1}),
        "peers": _list(_TEXT),
        "forward_to": _ENDPOINT,
        "limits": _exactly(limits),
    }
    return _exactly(door, ("listen",))


def _poster() -> Schema:
    """A source that posts its results. What its format, proof and keys must be to one another the reader says."""
    key = {"id": _TEXT, "algorithm": _choice([each.value for each in Algorithm]), "file": _TEXT}
    subjects = dict.fromkeys(word for form in FORMATS.values() for word in form.subjects)
    values: Mapping[str, Schema] = {
        "name": _NAME,
        "format": _choice(list(FORMATS)),
        "proof": _choice([each.value for each in Proof]),
        "keys": _list(_exactly(key, ("id", "file"))) | {"maxItems": posting.KEYS},
        "certificates": _list(_TEXT | {"pattern": posting.CERTIFICATE}),
        "subject": _choice(list(subjects)),
        "zone": _TEXT,
        "max_age": _DURATION,
        "grace": _DURATION,
        "recovery_passes": _whole(PASSES_MOST),
        "rate": _whole(posting.RATE_MOST),
    }
    return _section(posting.POSTER_KEYS, values, ("name", "format"))


def _post_door() -> Schema:
    limits: Mapping[str, Schema] = {
        "connections": _whole(posting.CONNECTIONS_MOST),
        "silent": _whole(posting.CONNECTIONS_MOST),
        "connections_per_peer": _whole(posting.CONNECTIONS_MOST),
        "body": _whole(posting.BODY_MOST, posting.BODY_LEAST),
        "request_seconds": _DURATION,
        "idle_seconds": _DURATION,
    }
    door: Mapping[str, Schema] = {
        "listen": _either(_ENDPOINT, _list(_ENDPOINT) | {"minItems": 1, "uniqueItems": True}),
        **dict.fromkeys(("certificate", "key", "client_ca", "client_crl"), _TEXT),
        "limits": _section(posting.LIMIT_KEYS, limits),
    }
    return _section(posting.DOOR_KEYS, door, ("listen", "certificate", "key"))


def _relying_door() -> Schema:
    forms: Mapping[str, Schema] = {
        relying.NUMBER: {"type": "integer"},
        relying.TRUTH: {"type": "boolean"},
        relying.WORD: _TEXT,
    }
    most = _whole(relying.CONNECTIONS_MOST)
    limits = {"connections": most, "connections_per_peer": most}
    limits |= dict.fromkeys(("frame_seconds", "idle_seconds", "onward_seconds"), _DURATION)
    handed_out = {key: forms[form] for key, form in relying.DEVICE_SETTINGS.items()}
    port: Mapping[str, Schema] = {
        "listen": _either(_ENDPOINT, _list(_ENDPOINT) | {"minItems": 1}),
        "mode": _choice(relying.MODES),
        "app_server": _NAME,
        "verifier": _ENDPOINT,
        "here": _ENDPOINT,
        "relying_party": _ENDPOINT,
        "connections": _choice(relying.CONNECTIONS),
        "device_settings": _exactly(handed_out) | {"minProperties": 1},
        "clock_ahead": _DURATION,
        "limits": _exactly(limits),
    }
    return _section(relying.KEYS, port, ("listen", "app_server"))


def _exactly(values: Mapping[str, Schema], need: Sequence[str] = ()) -> Schema:
    return _section(tuple(values), values, need)


#: The published files, by their place in the folder of policies.
SCHEMAS = {
    "book.schema.json": book_schema,
    "profile.schema.json": profile_schema,
    "devices.schema.json": devices_schema,
    "ragate.schema.json": settings_schema,
}


def render(schema: Schema) -> str:
    """The text of a published schema."""
    return json.dumps(schema, indent=2) + "\n"


def _file(title: str, section: Schema) -> Schema:
    return {"$schema": _DRAFT, "title": title, **section}
