"""The parties of a site as processes of their own: verifier, devices, app server.

What lives here: putting one party together from its files, running it until it is told to end, and what it tells of
itself. What must not: the parties' behaviour, and any story.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.sediment.wire import Reason
from gateway.simulate import plan
from gateway.simulate.appserver import SurrogateAppServer
from gateway.simulate.device import Route, SilentError, SurrogateDevice
from gateway.simulate.ground import DevicePlan
from gateway.simulate.inquiry import Answer, answering
from gateway.simulate.keys import read_device_keys, read_signing_key
from gateway.simulate.sockets import Peer, family_of, listener, own_namespace
from gateway.simulate.verifier import SurrogateVerifier
from gateway.simulate.wired import BLOCK_BYTES, ConversationError, attest, examine

CONNECTIONS = 64
"""Attestations at a time; more devices wait in the kernel's queue."""

_BACKLOG = 128

STATES = ("genuine", "tampered", "silent")
"""What a device can be told to be."""


@asynccontextmanager
async def until_told(control: Path, answer: Answer) -> AsyncIterator[None]:
    """Answer questions at ``control``; SIGTERM or Ctrl-C cancels the calling task, which then ends in order."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with answering(control, answer):
        yield


def say(what: str) -> None:
    """A line for whoever reads the container's log."""
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


# --- the verifier ------------------------------------------------------------------------------------------------


@dataclass
class VerifierRole:
    """Listens for devices, judges them, and sends an alert about each to the gateway's door."""

    verifier: SurrogateVerifier
    keys: dict[str, bytes]
    addresses: Sequence[str] = plan.VERIFIER
    port: int = plan.ATTESTATION_PORT
    judged: dict[str, Counter[str]] = field(default_factory=dict)
    newest: dict[str, Reason] = field(default_factory=dict)
    refused: int = 0
    lost: int = 0

    @classmethod
    def of(cls, files: Path) -> VerifierRole:
        """From the folder that ``prepare`` made. Raises ``OSError`` or ``ValueError``."""
        keys = read_device_keys(files / "devices.keys")
        references = {device: (files / f"{device}.firmware").read_bytes() for device in keys}
        signing = read_signing_key(files / "verifier.key")
        return cls(SurrogateVerifier(signing, keys, references, plan.DOOR, source=plan.VERIFIER[0]), keys)

    def show(self, words: Sequence[str]) -> Mapping[str, Any]:
        """What it has judged so far."""
        _only_show(words)
        return {"judged": self.judged, "refused": self.refused, "alerts_lost": self.lost}

    async def run(self) -> None:
        """Until cancelled. Raises ``OSError`` when it cannot listen."""
        room = asyncio.Semaphore(CONNECTIONS)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with room:
                try:
                    await self._examine(reader, writer)
                except (OSError, TimeoutError, ConversationError) as error:
                    self.refused += 1
                    say(f"refused {writer.get_extra_info('peername')}: {error!r}")
                finally:
                    writer.close()

        servers = [
            await asyncio.start_server(serve, sock=listener(own_namespace, Peer(address, self.port), _BACKLOG))
            for address in self.addresses
        ]
        say(f"verifier at {', '.join(self.addresses)} port {self.port}, alerts to {self.verifier.consumer}")
        try:
            await asyncio.Event().wait()
        finally:
            for server in servers:
                server.close()

    async def _examine(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        blocks = max(len(image) for image in self.verifier.references.values()) // BLOCK_BYTES
        device, nonce, evidence = await examine(reader, writer, self.keys, blocks)
        reason = self.verifier.judge(device, nonce, evidence)
        host, port = writer.get_extra_info("peername")[:2]
        alert = self.verifier.alert_about(device, Peer(host, port), reason, int(time.time()))
        if self._note(device, reason):
            say(f"{device} from {host}: {reason.name}")
        try:
            await self.verifier.send(alert)
        except (OSError, TimeoutError) as error:  # as SEDIMENT's verifier: no retry, the alert is lost for good
            self.lost += 1
            say(f"alert about {device} lost: {error!r}")

    def _note(self, device: str, reason: Reason) -> bool:
        """Count it; whether it is another result than the last one."""
        self.judged.setdefault(device, Counter())[reason.name] += 1
        before = self.newest.get(device)
        self.newest[device] = reason
        return reason is not before


# --- the devices -------------------------------------------------------------------------------------------------


@dataclass
class DevicesRole:
    """Every device of the site: keeps sending data and attests from time to time, whatever becomes of either."""

    devices: Mapping[str, SurrogateDevice]
    verifiers: Sequence[str] = plan.VERIFIER
    port: int = plan.ATTESTATION_PORT
    period: float = plan.ATTEST_PERIOD
    attested: Counter[str] = field(default_factory=Counter)
    trouble: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Path) -> DevicesRole:
        """From the folder that ``prepare`` made. Raises ``OSError`` or ``ValueError``."""
        keys = read_device_keys(files / "devices.keys")
        return cls({each.id: _device(each, files, keys[each.id]) for each in plan.DEVICES})

    def answer(self, words: Sequence[str]) -> Mapping[str, Any]:
        """``show``, or ``tell DEVICE STATE``. Raises ``ValueError``."""
        match list(words):
            case ["show"]:
                pass
            case ["tell", device, state] if device in self.devices and state in STATES:
                _become(self.devices[device], state)
                say(f"{device} is now {state}")
            case _:
                msg = f"say show, or tell DEVICE STATE with {', '.join(self.devices)} and {', '.join(STATES)}"
                raise ValueError(msg)
        return {name: self._seen(device) for name, device in self.devices.items()}

    async def run(self) -> None:
        """Until cancelled."""
        say(f"devices {', '.join(self.devices)}")
        async with asyncio.TaskGroup() as group:
            for device in self.devices.values():
                group.create_task(device.run(), name=f"{device.id} data")
                group.create_task(self._keep_attesting(device), name=f"{device.id} attestation")

    async def _keep_attesting(self, device: SurrogateDevice) -> None:
        source = device.addresses[0]
        verifier = next(each for each in self.verifiers if family_of(each) == family_of(source))
        while True:
            if not device.silent:
                try:
                    await attest(device.id, device.key, source, Peer(verifier, self.port), device.evidence)
                    self.attested[device.id] += 1
                    self.trouble.pop(device.id, None)
                except (OSError, TimeoutError, ConversationError, SilentError) as error:
                    self.trouble[device.id] = repr(error)
            await asyncio.sleep(self.period)

    def _seen(self, device: SurrogateDevice) -> Mapping[str, Any]:
        return {
            "state": "silent" if device.silent else "tampered" if device.tampered else "genuine",
            "attested": self.attested[device.id],
            "trouble": self.trouble.get(device.id, ""),
            "streams": [
                {"way": str(link.route), "connected": link.connected, "connects": link.connects, "sent": link.sent}
                for link in device.links
            ],
        }


def _device(each: DevicePlan, files: Path, key: bytes) -> SurrogateDevice:
    image = (files / f"{each.id}.firmware").read_bytes()
    device = SurrogateDevice(each.id, each.addresses, key, image, period=plan.DATA_PERIOD)
    for address in each.addresses:
        for entrance in plan.entrances():
            if entrance.family == family_of(address):
                device.add_stream(Route(address, entrance))
                if each.udp:
                    device.add_stream(Route(address, entrance, udp=True))
    return device


def _become(device: SurrogateDevice, state: str) -> None:
    device.silent = state == "silent"
    if state == "tampered":
        device.tamper()
    elif state == "genuine":
        device.repair()


# --- the app server ----------------------------------------------------------------------------------------------


@dataclass
class AppServerRole:
    """Takes data on every entrance and knows who was heard, when, and on which stream."""

    server: SurrogateAppServer
    entrances: Sequence[Peer] = plan.entrances()

    @classmethod
    def of(cls, files: Path) -> AppServerRole:
        """From the folder that ``prepare`` made. Raises ``OSError`` or ``ValueError``."""
        return cls(SurrogateAppServer(read_device_keys(files / "devices.keys")))

    def show(self, words: Sequence[str]) -> Mapping[str, Any]:
        """What was heard of each stream of each device: messages, and seconds since the newest."""
        _only_show(words)
        now = time.monotonic()
        heard: dict[str, dict[str, Any]] = {device: {} for device in self.server.keys}
        for (device, stream), seen in self.server.streams.items():
            heard[device][stream] = {"messages": seen.count, "seconds_ago": round(now - seen.last_at, 3)}
        return {"heard": heard, "refused": self.server.refused}

    async def run(self) -> None:
        """Until cancelled. Raises ``OSError`` when it cannot listen."""
        async with self.server:
            await self.server.open(self.entrances, udp=True)
            say(f"app server at {', '.join(map(str, self.entrances))}, TCP and UDP")
            await asyncio.Event().wait()


def _only_show(words: Sequence[str]) -> None:
    if list(words) != ["show"]:
        msg = "say show: nothing here can be told anything"
        raise ValueError(msg)


async def _run(role: VerifierRole | DevicesRole | AppServerRole, answer: Answer, control: Path) -> None:
    async with until_told(control, answer):
        await role.run()


def play(name: str, files: Path, control: Path) -> None:
    """Be this party until told to end. Raises ``OSError``, ``ValueError`` or ``KeyError``."""
    makers: dict[str, Callable[[], tuple[VerifierRole | DevicesRole | AppServerRole, Answer]]] = {
        "verifier": lambda: (role := VerifierRole.of(files), role.show),
        "devices": lambda: (role := DevicesRole.of(files), role.answer),
        "appserver": lambda: (role := AppServerRole.of(files), role.show),
    }
    role, answer = makers[name]()
    try:
        asyncio.run(_run(role, answer, control))
    except asyncio.CancelledError:
        say("told to end")
