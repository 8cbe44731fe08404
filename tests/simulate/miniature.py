"""A gateway in miniature, for telling the story without the product: it can be made to misbehave.

Door, relay and API in the test's own process; authentication by the protocol library, standings by a few lines.
Each ``Flaw`` breaks one promise that the story claims to check.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import cast

from gateway.sediment.wire import Reason, decode_alert
from gateway.simulate.ground import Entrance
from gateway.simulate.service import Api, Seen
from gateway.simulate.site import Site

MAX_AGE = 4
"""Seconds for which a pass counts here: enough for two re-attestations."""


class Flaw(Enum):
    """What is wrong with this gateway."""

    NONE = auto()
    OPEN_FROM_START = auto()
    ADMITS_NOBODY = auto()
    SAYS_IT_CUTS_BUT_DOES_NOT = auto()
    KEEPS_LIVE_CONNECTIONS = auto()
    IGNORES_FAILURES = auto()
    ONE_PASS_IS_ENOUGH = auto()
    NEVER_LETS_BACK_IN = auto()
    NEVER_LAPSES = auto()
    LAPSES_IN_WORDS_ONLY = auto()
    LAPSES_EARLY = auto()
    CUTS_EVERYBODY = auto()


@dataclass
class _State:
    standing: str = "unknown"
    event: str = ""
    issued_at: int = 0
    deadline: float | None = None
    owed: int = 0
    verified_ms: float | None = None


@dataclass
class Miniature:
    """Stands between the devices and the app server of ``site``."""

    site: Site
    flaw: Flaw = Flaw.NONE
    states: dict[str, _State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.states = {name: _State() for name in self.site.devices}
        self._live: dict[str, set[asyncio.StreamWriter]] = {name: set() for name in self.states}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Api:
        door = self.site.ground.door
        self._servers.append(await asyncio.start_server(self._alert, *door))
        for entrance in self.site.ground.entrances:
            self._servers.append(await asyncio.start_server(self._relay_to(entrance), *entrance.dial))
        return cast("Api", self)

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for writers in self._live.values():
            for writer in writers:
                writer.transport.abort()
        await asyncio.gather(*self._tasks)

    async def device(self, name: str) -> Seen:
        """As ``Api.device``."""
        state = self.states[name]
        return Seen(
            state.standing,
            state.event,
            state.issued_at,
            "",
            state.deadline,
            verified=True,
            verified_ms=state.verified_ms,
            targets="",
        )

    async def _alert(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()
        writer.close()
        if not data:
            return  # whoever came gave up before it sent anything
        alert = decode_alert(data)
        name = alert.header.device.decode()
        state = self.states[name]
        state.issued_at = alert.header.timestamp
        state.verified_ms = (state.verified_ms or 1.0) + 0.1
        if alert.reason is Reason.PASS:
            self._passed(name, state)
        elif self.flaw is not Flaw.IGNORES_FAILURES:
            state.event, state.standing, state.deadline, state.owed = "failed", "distrusted", None, 1
            if self.flaw is Flaw.ONE_PASS_IS_ENOUGH:
                state.owed = 0
            if self.flaw is not Flaw.SAYS_IT_CUTS_BUT_DOES_NOT:
                self._cut(name)
            if self.flaw is Flaw.CUTS_EVERYBODY:
                for other in self.states:
                    self._cut(other)

    def _lapse(self, name: str, deadline: float) -> None:
        state = self.states[name]
        if state.deadline == deadline and self.flaw is not Flaw.NEVER_LAPSES:
            state.standing, state.event = "lapsed", "lapsed"
            if self.flaw is not Flaw.LAPSES_IN_WORDS_ONLY:
                self._cut(name)

    def _passed(self, name: str, state: _State) -> None:
        state.event = "passed"
        if state.standing == "distrusted" and state.owed:
            state.owed -= 1
        elif state.standing != "distrusted" or self.flaw is not Flaw.NEVER_LETS_BACK_IN:
            state.standing, deadline = "trusted", float(state.issued_at + MAX_AGE)
            state.deadline = deadline
            # Only the device that goes silent, and late enough for its next attestation to come in time until then.
            early = 2.5 if self.flaw is Flaw.LAPSES_EARLY and name == "sensor-2" else 0.0
            left = deadline - time.time() - early
            asyncio.get_running_loop().call_later(left, self._lapse, name, deadline)

    def _cut(self, name: str) -> None:
        if self.flaw is not Flaw.KEEPS_LIVE_CONNECTIONS:
            for writer in self._live[name]:
                writer.transport.abort()

    def _admits(self, name: str) -> bool:
        if self.flaw is Flaw.OPEN_FROM_START:
            return True
        return self.flaw is not Flaw.ADMITS_NOBODY and self.states[name].standing == "trusted"

    def _relay_to(self, entrance: Entrance):  # type: ignore[no-untyped-def] # a callback for start_server
        by_address = {address: one.id for one in self.site.devices.values() for address in one.addresses}

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            name = by_address[writer.get_extra_info("peername")[0]]
            try:
                if self._admits(name):
                    await self._forward(name, reader, writer, entrance)
            finally:
                self._live[name].discard(writer)
                self._tasks.discard(task)
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()

        return relay

    async def _forward(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, entrance: Entrance
    ) -> None:
        self._live[name].add(writer)
        _, onward = await asyncio.open_connection(*entrance.server)
        try:
            with suppress(ConnectionError):
                while chunk := await reader.read(65536):
                    onward.write(chunk)
                    await onward.drain()
        finally:
            onward.close()
            with suppress(ConnectionError):
                await onward.wait_closed()
