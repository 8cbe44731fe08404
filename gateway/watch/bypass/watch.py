"""The watch for ways around the path gate: looks at start, when links or routes change, and every few seconds.

What lives here: when to look, and telling what came and went. What must not: judging, doing anything about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence

from gateway.watch.bypass.judge import Bypass
from gateway.watch.bypass.look import Looker
from gateway.watch.bypass.rtnetlink import LookError, changes

LOOK_SECONDS = 5.0
"""Seconds between looks: flowtables tell of themselves only among every other change of the ruleset."""

SETTLE_SECONDS = 0.5
"""Seconds from a change to the look it asks for: changes come in bursts."""

ANEW_SHARE = 0.05
"""Share of the time that asking for the devices' routes may take: on a host whose links come and go all day
(containers), 100,000 devices would else be asked for without end. The rest is looked at after each change."""

REST_SECONDS = 0.002
"""Seconds given to verdicts between two handfuls of questions about routes."""

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
            earliest = loop.time()
            due: float | None = earliest  # when to ask for the devices' routes again
            while True:
                began = loop.time()
                anew = due is not None and due <= began
                looked = await self._look(anew=anew)
                if anew:
                    earliest = loop.time() + (loop.time() - began) / ANEW_SHARE
                    due = None if looked else earliest
                wait = LOOK_SECONDS if due is None else min(LOOK_SECONDS, max(0.0, due - loop.time()))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                        await asyncio.sleep(SETTLE_SECONDS)
                if self._changed.is_set():
                    self._changed.clear()
                    due = max(earliest, loop.time())
        finally:
            loop.remove_reader(listening.fileno())
            listening.close()
            self._looker.close()

    async def _look(self, *, anew: bool) -> bool:
        try:
            found = await asyncio.to_thread(self._looker.look, anew=anew, rest=REST_SECONDS)
        except LookError as error:
            self.looked = True
            new, self.trouble = not self.trouble, f"ways around the path gate cannot be looked for: {error}"
            if new:
                self._tell(self.trouble)
            return False
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
        return True

    def _drain(self, listening: socket.socket) -> None:
        """Something changed; a burst too long for the socket's buffer (ENOBUFS) says the same."""
        try:
            listening.recv(DRAIN_BYTES)
        except BlockingIOError:
            return
        except OSError:
            pass
        self._changed.set()
