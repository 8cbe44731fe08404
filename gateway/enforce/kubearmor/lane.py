"""The one lane to a daemon: one call at a time (interface 1.4), and what seems to end it is left alone for a while.

What must not live here: what to send, when.
"""

from __future__ import annotations

import asyncio

from gateway.enforce.kubearmor.client import Daemon
from gateway.kubearmor.names import Kind
from gateway.kubearmor.pb import policy_pb2

#: Sendings of one name in a row without an answer before it is left alone for a while: should our policy be what
#: ends the daemon, the host must not lose its other protection again and again.
MAX_UNANSWERED = 3


class Lane:
    """``shun``: seconds for which a name is left alone."""

    def __init__(self, shun: float) -> None:
        self._shun = shun
        self._lock = asyncio.Lock()
        self._unanswered: dict[str, int] = {}
        self._shunned_until: dict[str, float] = {}

    async def probe(self, daemon: Daemon) -> policy_pb2.ProbeResponse:
        """Ask what the daemon has in memory. Raises ``DaemonError``."""
        async with self._lock:
            return await daemon.probe()

    async def delete(self, daemon: Daemon, kind: Kind, event: bytes) -> int:
        """Send a deletion. Raises ``DaemonError``."""
        async with self._lock:
            return await daemon.send(kind, event)

    async def send(self, daemon: Daemon, name: str, kind: Kind, event: bytes) -> int | None:
        """Send one event, alone; None when sending this ``name`` had no answer several times in a row. Raises
        ``DaemonError``."""
        now = asyncio.get_running_loop().time
        async with self._lock:
            if now() < self._shunned_until.get(name, 0.0):
                return None
            self._unanswered[name] = self._unanswered.get(name, 0) + 1
            if self._unanswered[name] >= MAX_UNANSWERED:
                self._shunned_until[name] = now() + self._shun
            status = await daemon.send(kind, event)
        self._unanswered.pop(name)
        self._shunned_until.pop(name, None)
        return status
