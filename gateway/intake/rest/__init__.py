"""The REST door: results posted over HTTPS by relying parties and verifiers.

What lives here: TLS and HTTP within limits, the shape of requests and answers, their published description. What
must not: reading documents beyond their size, deciding anything about a device.
"""

from __future__ import annotations

from gateway.intake.rest.door import RestDoor
from gateway.intake.rest.openapi import document
from gateway.intake.rest.settings import RestSettings
from gateway.intake.rest.tls import open_listener

__all__ = ["RestDoor", "RestSettings", "document", "open_listener"]
