"""How the service's processes log: JSON lines on standard error, which may be slow without hurting anybody."""

from __future__ import annotations

import sys
from typing import TextIO, cast

import structlog

from gateway.console.log import PatientFile


def configure_logging() -> None:
    """Set up the log of this process."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", PatientFile(sys.stderr))),
    )
