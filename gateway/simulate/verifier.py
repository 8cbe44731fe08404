"""A surrogate verifier: appraises devices and sends ALERT as SEDIMENT's verifier does.

What lives here: reference measurements, the judgement, and the alert's way out. What must not: the gateway's
view of what an alert means.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hmac import compare_digest

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from gateway.sediment.compose import compose_alert, evidence_endpoint
from gateway.sediment.wire import Reason
from gateway.simulate.device import SilentError, SurrogateDevice, measure
from gateway.simulate.sockets import Peer, SocketMaker, own_namespace

VERIFIER_ID = b"RAP_Server"
"""The id that SEDIMENT's verifier signs with in its own configuration."""

SEND_SECONDS = 10.0
"""The longest one alert may take to leave. SEDIMENT's verifier has no such bound and then hangs."""


@dataclass(frozen=True)
class Attestation:
    """One appraisal and what became of its alert.

    ``issued_at`` UNIX seconds as signed for; ``sent_at`` ``time.monotonic()`` when the alert had been handed to
    the kernel whole; ``lost`` why it could not be sent (empty: it was).
    """

    device: str
    reason: Reason
    issued_at: int
    sent_at: float
    lost: str = ""


@dataclass
class SurrogateVerifier:
    """Holds the signing key, the devices' keys and their reference firmware."""

    signing: RSAPrivateKey
    keys: Mapping[str, bytes]
    references: Mapping[str, bytes]
    consumer: Peer
    sockets: SocketMaker = own_namespace
    source: str = ""
    """Address to send from; empty: whatever the kernel chooses."""

    def appraise(self, device: SurrogateDevice) -> Reason:
        """Challenge ``device`` with a fresh nonce and judge the answer. Raises ``SilentError``."""
        nonce = secrets.token_bytes(32)
        return self.judge(device.id, nonce, device.evidence(nonce))

    def judge(self, device: str, nonce: bytes, evidence: bytes) -> Reason:
        """What this answer to this challenge says of the firmware of a device that is known here."""
        expected = measure(self.references[device], nonce, self.keys[device])
        return Reason.PASS if compare_digest(evidence, expected) else Reason.FAILED_ATTEST

    def alert(self, device: SurrogateDevice, reason: Reason, issued_at: int) -> bytes:
        """The signed ALERT about ``device``; ``issued_at`` in whole UNIX seconds of this verifier's clock."""
        return self.alert_about(device.id, Peer(device.addresses[0], device.endpoint_port), reason, issued_at)

    def alert_about(self, device: str, seen_at: Peer, reason: Reason, issued_at: int) -> bytes:
        """The same where only the device's id and the endpoint of its evidence are known."""
        return compose_alert(
            device=device.encode(),
            verifier_id=VERIFIER_ID,
            reason=reason,
            endpoint=evidence_endpoint(seen_at.host.encode(), seen_at.port),
            timestamp=issued_at,
            nonce=secrets.token_bytes(32),
            signing_key=self.signing,
            hmac_key=self.keys[device],
        )

    async def attest(self, device: SurrogateDevice) -> Attestation | None:
        """Appraise ``device`` and send the alert. None: the device is silent, so there is nothing to tell."""
        try:
            reason = self.appraise(device)
        except SilentError:
            return None
        issued_at = int(time.time())
        data = self.alert(device, reason, issued_at)
        try:
            await self.send(data)
        except (OSError, TimeoutError) as error:
            # As in SEDIMENT: no retry, no queue; the alert is lost for good.
            return Attestation(device.id, reason, issued_at, time.monotonic(), repr(error))
        return Attestation(device.id, reason, issued_at, time.monotonic())

    async def send(self, data: bytes) -> None:
        """A connection per alert, one send of the whole, closed at once, never read from.

        Raises ``OSError`` or ``TimeoutError``.
        """
        loop = asyncio.get_running_loop()
        with self.sockets(self.consumer.family, socket.SOCK_STREAM) as connection:
            if self.source:
                connection.bind((self.source, 0))
            async with asyncio.timeout(SEND_SECONDS):
                await loop.sock_connect(connection, tuple(self.consumer))
                await loop.sock_sendall(connection, data)
