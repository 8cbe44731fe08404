"""Copies of PASSPORT_RESPONSE for the verifier, as SEDIMENT's relying party sends them.

It connects, sends, waits for an acknowledgement whose content says nothing, and only then answers the device
(``servers/firewall/Firewall.cpp`` lines 339-363). So is it done here, but nobody else waits meanwhile, and a
verifier that does not answer holds a device up for seconds, not for half a minute.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Callable

from gateway.relying.settings import COPIES, COPY_ACK_BYTES, COPY_SECONDS

RESULTS = ("acknowledged", "failed", "skipped")
"""What became of a copy: ``skipped``, because too many were under way."""


class Copies:
    """Sends copies to one verifier. ``results`` counts them by ``RESULTS``."""

    def __init__(self, where: tuple[str, int], tasks: asyncio.TaskGroup) -> None:
        self._where = where
        self._family = socket.AF_INET6 if ipaddress.ip_address(where[0]).version == 6 else socket.AF_INET
        self._tasks = tasks
        self._running: set[asyncio.Task[None]] = set()
        self.results: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))

    def send(self, answer: bytes, done: Callable[[], None]) -> None:
        """Send one copy; ``done`` is called on the loop when it is acknowledged or given up."""
        if len(self._running) >= COPIES:
            self.results["skipped"] += 1
            asyncio.get_running_loop().call_soon(done)
            return
        task = self._tasks.create_task(self._copy(answer, done), name="relying-copy")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def stop(self) -> None:
        """Give up what is under way."""
        for task in self._running:
            task.cancel()

    async def _copy(self, answer: bytes, done: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        result = "failed"
        try:
            with socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
                async with asyncio.timeout(COPY_SECONDS):
                    await loop.sock_connect(sock, self._where)
                    await loop.sock_sendall(sock, answer)
                    if await loop.sock_recv(sock, COPY_ACK_BYTES):
                        result = "acknowledged"
        except OSError:  # includes TimeoutError: the device is answered all the same, as SEDIMENT does
            pass
        self.results[result] += 1
        done()
