"""Configured values of the doors for posted documents, and of the sources that post there. No files, no YAML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.certs import ServedFiles
from gateway.config.endpoint import Endpoint
from gateway.core.lifecycle import Rules
from gateway.core.model import SourceName
from gateway.verdicts import VerdictSource


@dataclass(frozen=True, slots=True)
class Poster:
    """One source that posts its results. ``rate``: verdicts a second that it may post for long."""

    verdicts: VerdictSource
    format: str
    certificates: tuple[str, ...] = ()
    rules: Rules = Rules()  # noqa: RUF009 - frozen value
    rate: float = 20_000.0

    @property
    def name(self) -> SourceName:
        """Its name."""
        return self.verdicts.name


@dataclass(frozen=True, slots=True)
class PostLimits:
    """``connections`` open in all, ``silent`` ones that have sent nothing yet, and ``connections_per_peer`` of one
    address; ``body`` bytes of one document; ``request_seconds`` for one document to arrive; ``idle_seconds``
    between two requests."""

    connections: int = 1_024
    silent: int = 16_384
    connections_per_peer: int = 64
    body: int = 1 << 20
    request_seconds: float = 15.0
    idle_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class PostDoor:
    """One door for posted documents, over TLS. ``client_ca``: who signs the clients' certificates; without it none
    is asked for. ``client_crl``: the certificates it has revoked."""

    listen: tuple[Endpoint, ...]
    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_crl: Path | None = None
    limits: PostLimits = PostLimits()

    @property
    def files(self) -> ServedFiles:
        """What it shows to clients and asks of them."""
        return ServedFiles(self.certificate, self.key, self.client_ca, self.client_crl)
