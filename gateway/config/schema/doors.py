"""The schemas of the doors in the main settings file.

What lives here: the section ``doors``, from the keys of its readers. What must not: the rest of the file.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config import doors, posting, relying
from gateway.config.schema.shapes import (
    DURATION,
    ENDPOINT,
    NAME,
    TEXT,
    Schema,
    choice,
    either,
    exactly,
    list_of,
    section,
    whole,
)


def doors_section() -> Schema:
    """``doors`` as a whole: at least one takes verdicts."""
    hook = {"socket": TEXT, "users": list_of(either(NAME, {"type": "integer", "minimum": 0})), "group": NAME}
    values: Mapping[str, Schema] = {
        "sediment": _sediment_door(),
        "relying": _relying_door(),
        "hook": exactly(hook, ("users",)),
        "rest": _post_door(),
        "rpc": _post_door(),
    }
    verdicts = [{"required": [door]} for door in doors.VERDICT_DOORS]
    return section(doors.DOORS_KEYS, values) | {"anyOf": verdicts}


def _sediment_door() -> Schema:
    """``doors.sediment``."""
    limits = {
        "connections": whole(doors.CONNECTIONS_MOST, doors.CONNECTIONS_LEAST),
        "connections_per_peer": whole(doors.CONNECTIONS_MOST),
        "frame_seconds": DURATION,
        "queue": whole(doors.QUEUE_MOST),
    }
    door = {
        "listen": either(ENDPOINT, list_of(ENDPOINT) | {"minItems": 1}),
        "peers": list_of(TEXT),
        "forward_to": ENDPOINT,
        "limits": exactly(limits),
    }
    return exactly(door, ("listen",))


def _post_door() -> Schema:
    """``doors.rest`` and ``doors.rpc``."""
    limits: Mapping[str, Schema] = {
        "connections": whole(posting.CONNECTIONS_MOST),
        "silent": whole(posting.CONNECTIONS_MOST),
        "connections_per_peer": whole(posting.CONNECTIONS_MOST),
        "body": whole(posting.BODY_MOST, posting.BODY_LEAST),
        "request_seconds": DURATION,
        "idle_seconds": DURATION,
    }
    door: Mapping[str, Schema] = {
        "listen": either(ENDPOINT, list_of(ENDPOINT) | {"minItems": 1, "uniqueItems": True}),
        **dict.fromkeys(("certificate", "key", "client_ca", "client_crl"), TEXT),
        "limits": section(posting.LIMIT_KEYS, limits),
    }
    return section(posting.DOOR_KEYS, door, ("listen", "certificate", "key"))


def _relying_door() -> Schema:
    """``doors.relying``."""
    forms: Mapping[str, Schema] = {
        relying.NUMBER: {"type": "integer"},
        relying.TRUTH: {"type": "boolean"},
        relying.WORD: TEXT,
    }
    most = whole(relying.CONNECTIONS_MOST)
    limits = {"connections": most, "connections_per_peer": most}
    limits |= dict.fromkeys(("frame_seconds", "idle_seconds", "onward_seconds"), DURATION)
    handed_out = {key: forms[form] for key, form in relying.DEVICE_SETTINGS.items()}
    port: Mapping[str, Schema] = {
        "listen": either(ENDPOINT, list_of(ENDPOINT) | {"minItems": 1}),
        "mode": choice(relying.MODES),
        "app_server": NAME,
        "verifier": ENDPOINT,
        "here": ENDPOINT,
        "relying_party": ENDPOINT,
        "connections": choice(relying.CONNECTIONS),
        "device_settings": exactly(handed_out) | {"minProperties": 1},
        "clock_ahead": DURATION,
        "limits": exactly(limits),
    }
    return section(relying.KEYS, port, ("listen", "app_server"))
