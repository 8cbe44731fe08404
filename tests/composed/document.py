"""The compose file as data, and what it says of one service in one form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "compose" / "compose.yaml"
DOCKERFILE = ROOT / "compose" / "Dockerfile"
OUR_IMAGE = "ragate:0.1.0"


def read() -> dict[str, Any]:
    """The file, anchors and merges resolved."""
    document: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return document


def services(document: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Its services by name."""
    found: Mapping[str, Mapping[str, Any]] = document["services"]
    return found


def mounts(service: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """What a service mounts: the volume's name or a path, where, and whether read-only."""
    for written in service.get("volumes", ()):
        source, target, *mode = written.split(":")
        yield source, target, mode == ["ro"]


def memory(service: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Its memory-backed folders and their options."""
    for written in service.get("tmpfs", ()):
        target, _, options = written.partition(":")
        yield target, dict(pair.split("=", 1) for pair in options.split(",") if pair)


def space_of(name: str, service: Mapping[str, Any]) -> str:
    """The service whose network namespace this one lives in; "" for none at all."""
    mode = service.get("network_mode", "")
    if mode == "none":
        return ""
    return mode.removeprefix("service:") if mode else name


def in_order(document: Mapping[str, Any]) -> list[str]:
    """Its services, each after those that it depends on. Raises ``ValueError`` for a circle."""
    left = {name: set(service.get("depends_on", {})) for name, service in services(document).items()}
    order: list[str] = []
    while left:
        free = [name for name, needs in left.items() if needs <= set(order)]
        if not free:
            msg = f"these wait for one another: {', '.join(left)}"
            raise ValueError(msg)
        order += free
        for name in free:
            del left[name]
    return order
