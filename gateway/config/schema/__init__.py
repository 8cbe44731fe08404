"""JSON Schema (draft 2020-12) of the four files, for editors that complete and mark while one writes.

What lives here: the schemas by their published names, each made from the same keys and words as its reader has.
What must not: reading. A schema sees less than the readers: names that refer to one another, positions,
contradictions.
"""

from __future__ import annotations

import json

from gateway.config.schema.book import book_schema, profile_schema
from gateway.config.schema.inventory import devices_schema
from gateway.config.schema.settings import settings_schema
from gateway.config.schema.shapes import Schema

__all__ = ["SCHEMAS", "Schema", "book_schema", "devices_schema", "profile_schema", "render", "settings_schema"]

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
