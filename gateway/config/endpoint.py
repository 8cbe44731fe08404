"""A place to listen at or to connect to. Nothing else, so that every module of values may have it."""

from __future__ import annotations

from typing import NamedTuple


class Endpoint(NamedTuple):
    """A host (address text, or a name where names are allowed) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
