"""A relying party on loopback: devices, an app server and a verifier that do as the test says."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from gateway.core.model import DeviceId, SourceName
from gateway.relying import RelyingDoor, RelyingSettings
from gateway.sediment.authenticate import SedimentSource
from gateway.sediment.bodies import decode, encode_body, encode_passport_signed
from gateway.sediment.compose import compose_data, compose_message
from gateway.sediment.messages import (
    Acceptance,
    ConfigMessage,
    Dummy,
    KeyBox,
    KeyChange,
    KeyPurpose,
    KeyType,
    Message,
    Passport,
    PassportCheck,
    PassportRequest,
    Result,
)
from gateway.sediment.relying import Conversation, Party
from gateway.sediment.replay import ReplayMemory
from gateway.sediment.wire import Endpoint, Header, MessageId, Protocol, Reason
from tests.fakes.admission import FakeAdmission
from tests.fakes.clock import ManualClock
from tests.fakes.standings import FakeStandings
from tests.sediment.recorded import VERIFIER_ID, private_key

VERIFIER = "127.0.0.2"
SOURCE = SourceName("verifier")
CAM, OTHER = DeviceId("cam-1"), DeviceId("cam-2")
KEYS = {device: hashlib.sha256(device.encode()).digest() for device in (CAM, OTHER)}
TEXT = b"report_interval 2\nauth_enabled true\0"
AHEAD = 2.0
WAIT = 60.0  #: seconds that anything awaited may take on a starved machine
HELD = (CAM, OTHER)


@dataclass
class Peer:
    """Somebody who listens: what came on each connection, and what is sent back."""

    answer: Callable[[bytes], bytes] = lambda data: b""
    reading: bool = True
    closing: bool = False  # after the first bytes, as an app server may that takes one message a connection
    got: list[bytearray] = field(default_factory=list)
    ended: int = 0
    where: tuple[str, int] = ("127.0.0.1", 0)

    @property
    def bytes(self) -> bytes:
        """Everything, in the order of connections."""
        return b"".join(bytes(one) for one in self.got)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = bytearray()
        self.got.append(mine)
        try:
            while self.reading and (data := await reader.read(65_536)):
                mine += data
                if back := self.answer(data):
                    writer.write(back)
                if self.closing:
                    break
            while not self.reading:
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        finally:
            self.ended += 1
            writer.close()


@dataclass
class Site:
    """Everything around one door."""

    door: RelyingDoor
    standings: FakeStandings
    admission: FakeAdmission
    clock: ManualClock
    app: Peer
    verifier: Peer
    passed_on: list[bytes]
    port: int
    devices: list[Device] = field(default_factory=list)
    stamps: int = 0

    def stamp(self) -> int:
        """A second that is newer than everything before the start, and no later than now."""
        return int(self.clock.wall)

    def data(
        self, device: DeviceId = CAM, *, nonce: bytes = b"", stamp: int | None = None, size: int = 48
    ) -> bytes:
        """A DATA that was never sent before, unless told otherwise."""
        self.stamps += 1
        return compose_data(
            device=device.encode(),
            timestamp=self.stamp() if stamp is None else stamp,
            nonce=nonce or hashlib.sha256(b"%d" % self.stamps).digest(),
            payload=bytes(size),
            iv=bytes(16),
            hmac_key=KEYS[device],
        )

    def message(self, build: Callable[[Header], Message], kind: MessageId, device: DeviceId = CAM) -> bytes:
        """Any other message of a device."""
        self.stamps += 1
        nonce = hashlib.sha256(b"%d" % self.stamps).digest()
        header = Header(0, bytes(32), nonce, kind, self.stamp(), device.encode())
        tail = bytes((len(device),)) + device.encode() + encode_body(build(header))
        return compose_message(
            message_id=kind, timestamp=header.timestamp, nonce=nonce, tail=tail, hmac_key=KEYS[device]
        )

    def config(self) -> bytes:
        return self.message(lambda header: ConfigMessage(header, b""), MessageId.CONFIG)

    def request(self, device: DeviceId = CAM) -> bytes:
        return self.message(lambda header: PassportRequest(header, Reason.INIT), MessageId.PASSPORT_REQUEST, device)

    def check(self, passport: Passport | None = None, device: DeviceId = CAM) -> bytes:
        shown = passport if passport is not None else self.passport(device)
        return self.message(lambda header: PassportCheck(header, shown), MessageId.PASSPORT_CHECK, device)

    def key_change(self, device: DeviceId = CAM) -> bytes:
        box = KeyBox(KeyPurpose.ENCRYPTION, KeyType.JEDI, b"wrapped")
        return self.message(lambda header: KeyChange(header, box, box, ()), MessageId.KEY_CHANGE, device)

    def dummy(self, device: DeviceId = CAM) -> bytes:
        return self.message(Dummy, MessageId.DUMMY, device)

    def passport(self, device: DeviceId = CAM, *, issued: int | None = None, life: int = 600) -> Passport:
        """A genuine passport."""
        at = self.stamp() if issued is None else issued
        return sign(Passport(device.encode(), VERIFIER_ID, at, at + life, b""))


def sign(passport: Passport) -> Passport:
    """Sign as the verifier does."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    signature = private_key().sign(encode_passport_signed(passport), PKCS1v15(), SHA256())
    return passport._replace(signature=signature)


class Device:
    """One connection to the door."""

    def __init__(self, site: Site, host: str = "127.0.0.1") -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.bind((host, 0))
        self.sock.connect(site.door.addresses[0])
        self.sock.setblocking(False)
        site.devices.append(self)
        self._rest = b""

    async def send(self, data: bytes) -> Device:
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self.sock, data), WAIT)
        return self

    async def answer(self) -> Message:
        """The next whole message."""
        return decode(await self.frame())

    async def frame(self) -> bytes:
        """The bytes of the next whole message. Raises ``EOFError`` at the end of the connection."""
        loop = asyncio.get_running_loop()
        while len(self._rest) < 2 or len(self._rest) < int.from_bytes(self._rest[:2], "big"):
            data = await asyncio.wait_for(loop.sock_recv(self.sock, 65_536), WAIT)
            if not data:
                raise EOFError
            self._rest += data
        size = int.from_bytes(self._rest[:2], "big")
        frame, self._rest = self._rest[:size], self._rest[size:]
        return frame

    async def result(self) -> Acceptance:
        message = await self.answer()
        assert isinstance(message, Result)
        return message.acceptance

    async def told(self, data: bytes) -> Acceptance:
        """Send DATA, return the RESULT."""
        return await (await self.send(data)).result()

    async def ended(self) -> bytes:
        """Wait until the door has closed the connection; what came before. A reset raises ``ConnectionError``."""
        loop = asyncio.get_running_loop()
        while data := await asyncio.wait_for(loop.sock_recv(self.sock, 65_536), WAIT):
            self._rest += data
        return self._rest

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


async def until(what: Callable[[], bool]) -> None:
    """Let the loop run until ``what`` holds."""
    async with asyncio.timeout(WAIT):
        while not what():
            await asyncio.sleep(0.002)


async def settle() -> None:
    """Let the loop see everything that has happened on sockets so far."""
    for _ in range(8):
        await asyncio.sleep(0.003)


@asynccontextmanager
async def listening(peer: Peer) -> AsyncIterator[Peer]:
    """Let ``peer`` listen on loopback."""
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.where = server.sockets[0].getsockname()[:2]
    try:
        yield peer
    finally:
        peer.reading = True
        server.close()


@asynccontextmanager
async def relying(
    app: Peer | None = None,
    verifier: Peer | None = None,
    *,
    settings: bytes | None = TEXT,
    copy_to: tuple[str, int] | None = None,
    **changes: object,
) -> AsyncIterator[Site]:
    """A door that serves until the block is left; ``changes`` are of its settings."""
    app, verifier = app or Peer(), verifier or Peer(answer=lambda data: b"ack")
    async with listening(app), listening(verifier):
        listen = socket.create_server(("127.0.0.1", 0))
        listen.setblocking(False)
        here = Endpoint(Protocol.TCP, b"127.0.0.1", listen.getsockname()[1])
        party = Party(Endpoint(Protocol.TCP, b"127.0.0.2", 8100), here, settings)
        clock, standings, admission = ManualClock(), FakeStandings(), FakeAdmission()
        passed_on: list[bytes] = []
        source = SedimentSource(SOURCE, private_key().public_key(), VERIFIER_ID)
        chosen = RelyingSettings(
            service="feed",
            onward=app.where,
            verifiers={ipaddress.ip_network(f"{VERIFIER}/32"): SOURCE},
            verifier=copy_to or verifier.where,
            source=SOURCE,
        )
        chosen = replace(chosen, **changes)  # type: ignore[arg-type]
        memory = ReplayMemory(clock.wall - 10, AHEAD)
        door = RelyingDoor(
            [listen],
            Conversation(party, KEYS, dict.fromkeys(KEYS, source)),
            memory,
            standings,
            admission,
            clock,
            chosen,
            passed_on.append if chosen.beside else None,
        )
        task = asyncio.create_task(door.run())
        await asyncio.sleep(0)
        site = Site(door, standings, admission, clock, app, verifier, passed_on, here.port)
        try:
            yield site
        finally:
            for device in site.devices:
                device.close()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
