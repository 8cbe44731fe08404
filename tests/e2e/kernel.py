"""What stands in the path gate's table, as ``nft`` tells it: read beside the gateway, never through it."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.netns import run

TABLE = ("inet", "ragate")
TRIES = 100


def elements(name: str) -> dict[str, float | None]:
    """A set's elements: address to seconds left, None for an element without an end. Raises ``OSError``."""
    # nft reads in several steps and finds nothing when the table is laid anew between two of them.
    for tries_left in reversed(range(TRIES)):
        try:
            listed = json.loads(run("nft", "-j", "list", "set", *TABLE, name))
            break
        except OSError:
            if not tries_left:
                raise
            time.sleep(0.05)
    found: dict[str, float | None] = {}
    for one in listed["nftables"]:
        for element in one.get("set", {}).get("elem", []):
            plain = element["elem"] if isinstance(element, dict) and "elem" in element else element
            if isinstance(plain, dict):
                found[plain["val"]] = plain.get("expires")
            else:
                found[plain] = None
    return found


def tombstones() -> set[str]:
    """Addresses that negative evidence shut."""
    return {address for name in ("cut4", "cut6", "cut6n") for address in elements(name)}


def admitted() -> dict[str, float | None]:
    """Addresses in the profile ``admitted``, and the seconds until each ends by itself."""
    found: dict[str, float | None] = {}
    for name in ("admitted4", "admitted6", "admitted6n"):
        found |= elements(name)
    return found


def table_stands() -> bool:
    """Whether our table is there at all."""
    tables: list[dict[str, Any]] = json.loads(run("nft", "-j", "list", "tables"))["nftables"]
    return any(one.get("table", {}).get("name") == TABLE[1] for one in tables)
