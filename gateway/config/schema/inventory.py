"""The schema of the inventory.

What lives here: its shape, from the keys and limits of its reader. What must not: the other files.
"""

from __future__ import annotations

from gateway.config.entries import ENTRY_KEYS
from gateway.config.inventory import ADDRESSES, INTERFACE, LABEL, LABELS, MAC
from gateway.config.schema.shapes import (
    DEVICE,
    DURATION,
    NAME,
    TEXT,
    WORDS,
    Schema,
    choice,
    either,
    file_of,
    list_of,
    matching,
    section,
    whole,
)
from gateway.config.values import PASSES_MOST
from gateway.core.model import AnchorKind


def devices_schema() -> Schema:
    """The inventory."""
    labels = WORDS | {"propertyNames": {"pattern": NAME["pattern"]}, "maxProperties": LABELS}
    labels["additionalProperties"] = {"type": ["string", "number", "boolean"], "maxLength": LABEL}
    device = section(
        ENTRY_KEYS,
        {
            "id": {"type": "string", "pattern": DEVICE},
            "source": either(NAME, list_of(NAME) | {"minItems": 1, "uniqueItems": True}),
            "addresses": list_of(TEXT) | {"minItems": 1, "maxItems": ADDRESSES},
            "anchor": choice([anchor.value for anchor in AnchorKind]),
            "interface": matching(INTERFACE),
            "mac": matching(MAC),
            "hmac_key_file": TEXT,
            "labels": labels,
            "max_age": DURATION,
            "recovery_passes": whole(PASSES_MOST),
        },
        ("id", "source", "addresses"),
    )
    return file_of(
        "The inventory of ragate",
        section(("hmac_keys", "devices"), {"hmac_keys": TEXT, "devices": list_of(device)}, ("devices",)),
    )
