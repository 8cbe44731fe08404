"""The relying party's port on the real clockwork: devices, lifecycle, admission and authentication of a site."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.control.admit import Admit
from gateway.control.standings import DeviceStandings, Reach
from gateway.core.model import DeviceId, Standing
from gateway.relying import RelyingDoor, RelyingSettings
from gateway.sediment.authenticate import SedimentAuthenticator, SedimentSource
from gateway.sediment.relying import Conversation, Party
from gateway.sediment.replay import ReplayMemory
from gateway.sediment.wire import Endpoint, Protocol, Reason
from tests.control.world import SOURCE, World, running
from tests.fakes.backend import FakeBackend
from tests.fakes.clock import ManualClock
from tests.fakes.journal import Disk
from tests.fakes.standings import FakeStandings
from tests.relying.site import AHEAD, KEYS, TEXT, VERIFIER, Device, Peer, Site, listening, until
from tests.sediment.recorded import VERIFIER_ID, make_alert, private_key


@dataclass
class Real:
    """A door and the world behind it."""

    site: Site
    world: World
    standings: DeviceStandings

    async def alert(
        self, reason: Reason, device: str = "cam-1", *, issued: int | None = None, nonce: bytes = b""
    ) -> bytes:
        """The verifier sends an alert to the relying party's port; returns its bytes once it is judged."""
        self.site.stamps += 1
        frame = make_alert(
            reason,
            self.site.stamp() if issued is None else issued,
            nonce or self.site.stamps.to_bytes(32, "big"),
            device=device.encode(),
            hmac_key=KEYS[DeviceId(device)],
        )
        await self.send(frame)
        return frame

    async def send(self, frame: bytes, host: str = VERIFIER) -> None:
        """Any bytes from any address; returns when the clockwork has come to rest."""
        before = len(self.world.facts.all)
        device = await Device(self.site, host).send(frame)
        await until(lambda: len(self.world.facts.all) > before)
        await self.world.settle()
        device.close()

    def standing(self, device: str = "cam-1") -> Standing:
        return self.world.standing(device)

    def later(self, seconds: float = 1.0) -> None:
        """The clocks move on, and deadlines come."""
        self.site.clock.advance(seconds)
        self.world.clockwork.turn()


@asynccontextmanager
async def real(
    clock: ManualClock | None = None, disk: Disk | None = None, **changes: object
) -> AsyncIterator[Real]:
    """Everything as ``serve`` wires it, around a manual clock; the service of the book is ``feed``."""
    clock = clock or ManualClock()
    app, verifier = Peer(), Peer(answer=lambda data: b"ack")
    backend = FakeBackend(clock)
    async with running(clock=clock, disk=disk, backend=backend) as world, listening(app), listening(verifier):
        source = SedimentSource(SOURCE, private_key().public_key(), VERIFIER_ID)
        authenticator = SedimentAuthenticator(source, KEYS)
        admit = Admit({SOURCE: authenticator}, world.devices, world.journal, [world.facts], clock)
        standings = DeviceStandings(
            lambda profile: Reach(frozenset({"feed"} if profile == "admitted" else ())), clock
        )
        listen = socket.create_server(("127.0.0.1", 0))
        listen.setblocking(False)
        port = listen.getsockname()[1]
        party = Party(Endpoint(Protocol.TCP, b"127.0.0.2", 8100), Endpoint(Protocol.TCP, b"127.0.0.1", port), TEXT)
        settings = RelyingSettings(
            service="feed",
            onward=app.where,
            verifiers={ipaddress.ip_network(VERIFIER): SOURCE},
            verifier=verifier.where,
            source=SOURCE,
            patience_seconds=0.3,
            **changes,  # type: ignore[arg-type]
        )
        door = RelyingDoor(
            [listen],
            Conversation(party, KEYS, dict.fromkeys(KEYS, source)),
            ReplayMemory(clock.wall, AHEAD),
            standings,
            admit,
            clock,
            settings,
        )
        world.devices.tell_standings(standings)
        clock.advance(AHEAD + 1)
        task = asyncio.create_task(door.run())
        await asyncio.sleep(0)
        site = Site(door, FakeStandings(), admit, clock, app, verifier, [], port)  # type: ignore[arg-type]
        try:
            yield Real(site, world, standings)
        finally:
            for device in site.devices:
                device.close()
            task.cancel()
            await asyncio.wait([task])
