"""Values that several sections of the main file have alike.

What lives here: readers of spans of time within bounds, networks, and endpoints that may be host names. What must
not: sections, and what only one of them has.
"""

from __future__ import annotations

from gateway.config.document import Value
from gateway.config.endpoint import Endpoint
from gateway.config.parsing import parse_duration, parse_endpoint, parse_network
from gateway.config.values import Network


def parse_named_endpoint(text: str) -> Endpoint:
    """``HOST:PORT``, where a host name is taken, too. Raises ``ValueError``."""
    return parse_endpoint(text, names=True)


def read_networks(value: Value) -> tuple[Network, ...]:
    """A list of addresses and prefixes."""
    return value.gather(lambda item: item.parsed(parse_network))


def read_seconds(value: Value, least: float, most: float) -> float:
    """A span of time in seconds, from ``least`` to ``most``."""
    seconds = value.parsed(parse_duration)
    if not least <= seconds <= most:
        what = f"{value.name} of {seconds:g} seconds is out of range"
        raise value.wrong(what, f"write {least:g} to {most:g} seconds")
    return seconds
