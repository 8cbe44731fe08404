"""Whole recorded sessions against the relying party's port: every answer is SEDIMENT's, but for what is listed
here.

Real door, conversation, admission, devices and journal; the devices and the verifier are scripted by the recording,
the clock stands at the moment at which each message was captured. An answer is the recorded one when, with nonce
and second (which are the sender's to choose) put in, not a byte differs, the digest included.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.control.standings import DeviceStandings, Reach
from gateway.core.model import DeviceId
from gateway.relying import RelyingDoor, RelyingSettings
from gateway.sediment.bodies import decode
from gateway.sediment.compose import compose_message
from gateway.sediment.messages import Result
from gateway.sediment.replay import ReplayMemory
from tests.e2e.inside import VERIFIER, Gate, gate
from tests.fakes.clock import ManualClock
from tests.relying.site import WAIT, Peer, listening
from tests.sediment.recorded import SOURCE, Message, messages, published_hmac_keys
from tests.sediment.test_relying import recorded_party

SESSIONS = ("pass", "full-session", "failed-record-altered-on-demand")


class Port(NamedTuple):
    """The relying party's port on a gateway of real parts, with the two that stand behind it."""

    inside: Gate
    door: RelyingDoor
    app: Peer
    verifier: Peer


@asynccontextmanager
async def port(folder: Path, begin: float) -> AsyncIterator[Port]:
    """Everything as ``serve`` wires it; the service of the book is ``feed``."""
    clock = ManualClock(wall=begin)
    app, verifier = Peer(), Peer(answer=lambda data: b"ack")
    async with gate(folder / "journal.db", clock) as inside, listening(app), listening(verifier):
        inside.set_clock(begin)
        standings = DeviceStandings(
            lambda profile: Reach(frozenset({"feed"} if profile == "admitted" else ())), clock
        )
        inside.devices.tell_standings(standings)
        listen = socket.create_server(("127.0.0.1", 0))
        listen.setblocking(False)
        settings = RelyingSettings(
            service="feed",
            onward=app.where,
            verifiers={ipaddress.ip_network(VERIFIER): SOURCE},
            verifier=verifier.where,
            source=SOURCE,
        )
        memory = ReplayMemory(begin - 10, 2.0)
        door = RelyingDoor([listen], recorded_party(), memory, standings, inside.admit, clock, settings)
        task = asyncio.create_task(door.run())
        await asyncio.sleep(0)
        try:
            yield Port(inside, door, app, verifier)
        finally:
            task.cancel()
            await asyncio.wait([task])


class Line:
    """One recorded connection of a device to its relying party, opened anew here."""

    def __init__(self, to: Port) -> None:
        self.sock = socket.socket()
        self.sock.connect(to.door.addresses[0])
        self.sock.setblocking(False)

    async def ask(self, frame: bytes, size: int) -> bytes:
        """Send; return ``size`` bytes of answer, fewer when the connection is closed before."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.sock, frame)
        got = b""
        while len(got) < size and (data := await asyncio.wait_for(loop.sock_recv(self.sock, size), WAIT)):
            got += data
        return got


def as_answered(recorded: bytes, ours: bytes) -> bytes:
    """The recorded answer with our nonce and second in it."""
    header = decode(ours).header
    recorded_header = decode(recorded).header
    key = published_hmac_keys()[DeviceId(recorded_header.device.decode())]
    return compose_message(
        message_id=recorded_header.message_id,
        timestamp=header.timestamp,
        nonce=header.nonce,
        tail=recorded[75:],
        hmac_key=key,
    )


def answer_to(asked: Message, lines: tuple[Message, ...]) -> Message | None:
    """What SEDIMENT's relying party answered next on that connection."""
    after = lines[lines.index(asked) + 1 :]
    same = [one for one in after if one.about["conn"] == asked.about["conn"]]
    return same[0] if same and same[0].about["from"] == "firewall" else None


async def replay(to: Port, file: str) -> list[tuple[str, str, str]]:
    """Play a session; return each difference as (message, SEDIMENT's answer, ours)."""
    lines = messages(file)
    opened: dict[int, Line] = {}
    differences = []
    forwarded = b""
    try:
        for message in lines:
            about = message.about
            to.inside.set_clock(float(about["captured_at"]))
            if message.kind == "ALERT":
                await tell(to, message.frame)
            elif (about["from"], about["to"]) == ("prover", "firewall"):
                line = opened.get(about["conn"]) or opened.setdefault(about["conn"], Line(to))
                recorded = answer_to(message, lines)
                ours = await line.ask(message.frame, 0 if recorded is None else len(recorded.frame))
                if recorded is None:
                    continue
                same = bool(ours) and as_answered(recorded.frame, ours) == ours
                if not same:
                    differences.append((message.kind, told(recorded.frame), told(ours) if ours else "closed"))
                if message.kind == "DATA" and told(ours) == "ACCEPT":
                    forwarded += message.frame
        async with asyncio.timeout(WAIT):
            while len(to.app.bytes) < len(forwarded):
                await asyncio.sleep(0.002)
        assert to.app.bytes == forwarded  # each as it was sent, and nothing else
    finally:
        for line in opened.values():
            line.sock.close()
    return differences


async def tell(to: Port, frame: bytes) -> None:
    """The verifier's alert, on the relying party's port; returns when it is judged, durable and enforced."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.bind((VERIFIER, 0))
        await loop.sock_connect(sock, to.door.addresses[0])
        await loop.sock_sendall(sock, frame)
    to.inside.handled += 1
    async with asyncio.timeout(WAIT):
        while to.inside.seen.judged < to.inside.handled:
            await asyncio.sleep(0.001)
    await to.inside.settled()


def told(frame: bytes) -> str:
    message = decode(frame)
    return message.acceptance.name if isinstance(message, Result) else message.header.message_id.name


@pytest.mark.parametrize("file", SESSIONS)
async def test_every_answer_of_a_recorded_session_is_sediments(tmp_path: Path, file: str) -> None:
    begin = float(messages(file)[0].about["captured_at"]) - 1.0
    async with port(tmp_path, begin) as to:
        differences = await replay(to, file)
        copies = [one for one in messages(file) if (one.kind, one.about["to"]) == ("PASSPORT_RESPONSE", "verifier")]
        assert to.door.copies() == {"acknowledged": len(copies), "failed": 0, "skipped": 0}
    assert differences == EXPECTED[file]


EXPECTED: dict[str, list[tuple[str, str, str]]] = {
    "pass": [],
    "full-session": [],
    "failed-record-altered-on-demand": [],
}
"""Every difference between SEDIMENT's answer and ours in these sessions: none. Those that are demanded (replays,
old passports, unauthenticated messages) are in no honest session; each has its test beside the attacks."""
