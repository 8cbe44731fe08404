"""Settings and limits of the REST door. Values only."""

from __future__ import annotations

from dataclasses import dataclass

PATH = "/v1/verdicts"
DESCRIPTION = "/v1/openapi.json"


@dataclass(frozen=True, slots=True)
class RestSettings:
    """Limits; a relying party needs one connection, kept alive.

    ``connections``           open at once, handshakes included; each costs about 40 KiB, 27 of them OpenSSL's.
    ``silent``                at once on which nothing has come yet: 1 KiB each. Beyond, the oldest gives way.
    ``connections_per_peer``  of one address, both kinds together.
    ``handshake_seconds``     for TLS: 2 ms of work and a few round trips.
    ``idle_seconds``          without a first byte; without a complete request head after the handshake, and between
                              requests.
    ``request_seconds``       from a request's head to the end of its body.
    ``body``                  bytes of one document.
    ``line_bytes`` ``field_bytes`` ``headers``  of a request; ours have seven short headers.
    ``stop_seconds``          that answers under way get when the service stops.
    """

    connections: int = 1_024
    silent: int = 16_384
    connections_per_peer: int = 64
    handshake_seconds: float = 5.0
    idle_seconds: float = 60.0
    request_seconds: float = 15.0
    body: int = 1 << 20
    line_bytes: int = 2_048
    field_bytes: int = 4_096
    headers: int = 32
    stop_seconds: float = 2.0
