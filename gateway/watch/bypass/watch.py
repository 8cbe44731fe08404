"""The watch for ways around the path gate: looks at start, when links or routes change, and every few seconds.

What lives here: when to look, and telling what came and went. What must not: judging, doing anything about it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from gateway.watch.bypass.judge import Bypass
from gateway.watch.bypass.look import Looker
from gateway.watch.bypass.rtnetlink import LookError, changes

LOOK_SECONDS = 5.0
"""Seconds between looks: flowtables tell of themselves only among every other change of the ruleset."""

SETTLE_SECONDS = 0.5
"""Seconds from a change to the look it asks for: changes come in bursts."""

DRAIN_BYTES = 65_536


class BypassWatch:
    """Looks until cancelled. ``tell`` is called on the loop with one sentence for each way that opened or closed.

    ``services`` and ``devices`` are addresses as text.
    """

    def __init__(self, services: Sequence[str], devices: Sequence[str], tell: Callable[[str], None]) -> None:
        self._looker = Looker(services, devices)
        self._tell = tell
        self._changed = asyncio.Event()
        self.found: tuple[Bypass, ...] = ()
        self.trouble = ""
        #: Whether it has looked at all: before that nothing is known either way.
        self.looked = False

    @property
    def told(self) -> tuple[str, ...] | None:
        """One sentence for each way around, or why they cannot be looked for; None before the first look."""
        if not self.looked:
            return None
        return (self.trouble,) if self.trouble else tuple(f"{each.what}; {each.mend}" for each in self.found)

    @property
    def state(self) -> str:
        """What an operator should know; "" when no way around is known."""
        return self.trouble or "; ".join(f"bypass: {each.what}; {each.mend}" for each in self.found)

    def aim(self, services: Sequence[str]) -> None:
        """The gated services are these from now on: look at once."""
        self._looker.aim(services)
        self._changed.set()

    async def run(self) -> None:
        """Work until cancelled. Raises ``LookError`` when changes cannot be listened for at all."""
        loop = asyncio.get_running_loop()
        listening = changes()
        try:
            loop.add_reader(listening.fileno(), self._drain, listening)
            anew = True
            while True:
                await self._look(anew=anew)
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._changed.wait()
                except TimeoutError:
                    anew = False
                else:
                    await asyncio.sleep(SETTLE_SECONDS)
                    self._changed.clear()
                    anew = True
        finally:
            loop.remove_reader(listening.fileno())
            listening.close()

    async def _look(self, *, anew: bool) -> None:
        try:
            found = await asyncio.to_thread(self._looker.look, anew=anew)
        except LookError as error:
            self.looked = True
            new, self.trouble = not self.trouble, f"ways around the path gate cannot be looked for: {error}"
            if new:
                self._tell(self.trouble)
            return
        before, self.found = self.found, found
        self.looked = True
        recovered, self.trouble = bool(self.trouble), ""
        if recovered:
            self._tell("ways around the path gate are looked for again")
        for each in found:
            if each not in before:
                self._tell(f"{each.what}; {each.mend}")
        for each in before:
            if each not in found:
                self._tell(f"closed again: {each.what}")

    def _drain(self, listening: socket.socket) -> None:
        """Something changed; a burst too long for the socket's buffer (ENOBUFS) says the same."""
        try:
            listening.recv(DRAIN_BYTES)
        except BlockingIOError:
            return
        except OSError:
            pass
        self._changed.set()
