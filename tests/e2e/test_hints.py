"""Hook, feed and API of a running service, with a scripted verifier beside it: the whole way, on real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.intake.hook.door import KIND
from gateway.intake.hook.send import EXIT_NO_GATEWAY, EXIT_REFUSED, VARIABLE
from gateway.sediment.wire import Reason
from tests.e2e.installed import Installed, Running, until, written
from tests.fakes.verifier import ApiServer, FeedServer, listening
from tests.ports import free_place, free_port

SCRIPT = Path(sys.executable).with_name("ragate-hook")
ADDRESSES = {"cam-1": "127.7.0.1", "cam-2": "127.7.0.2"}


class Verifier:
    """The scripted services, on a loop and a thread of their own."""

    def __init__(self) -> None:
        self.api = ApiServer()
        self.feed = FeedServer()
        self.places: dict[str, tuple[str, int]] = {}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        async with listening(self.api) as api, listening(self.feed) as feed:
            self.places = {"api": api, "feed": feed}
            self._ready.set()
            await self._stop.wait()

    def remembers(self, address: str, at: float) -> None:
        self.api.answers[address] = f"{int(at)} 1".encode()

    def publish(self, device: str, word: str) -> None:
        self._loop.call_soon_threadsafe(self.feed.publish, device, word)

    def send(self, data: bytes) -> None:
        self._loop.call_soon_threadsafe(self.feed.send, data)

    @contextmanager
    def running(self) -> Iterator[Verifier]:
        self._thread.start()
        assert self._ready.wait(60)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(60)


@pytest.fixture
def verifier() -> Iterator[Verifier]:
    with Verifier().running() as running:
        yield running


@pytest.fixture
def gate(tmp_path: Path, verifier: Verifier) -> Installed:
    port = free_port()
    site = Installed(
        tmp_path,
        devices={name: (address,) for name, address in ADDRESSES.items()},
        services=[{"name": "feed", "address": "127.0.0.1", "port": port, "protocol": "tcp", "path": "routed"}],
        target={"path_gate": "relay", "relay": [{"service": "feed", "listen": written(free_place())}]},
        source={name: written(place) for name, place in verifier.places.items()},
        door=free_place(),
        console=free_place(),
    )
    allow(site, os.getuid())
    return site


def allow(site: Installed, *uids: int) -> None:
    site.settings["doors"]["hook"] = {"socket": "var/hook.sock", "users": list(uids)}
    site.write("ragate.yaml", site.settings)


def hint(site: Installed, *arguments: str) -> int:
    environment = {VARIABLE: str(site.folder / "var" / "hook.sock")}
    return subprocess.run([SCRIPT, *arguments], env=environment, timeout=90, check=False).returncode


def passes(site: Installed, verifier: Verifier, device: str) -> None:
    """An attestation as the verifier does it: its database first, then the alert from the device's own address."""
    now = time.time()
    verifier.remembers(ADDRESSES[device], now)
    site.send(site.alert(device, Reason.PASS, issued_at=now, endpoint=ADDRESSES[device]))


def passes_after_suspicion(site: Installed, verifier: Verifier, service: Running, device: str) -> None:
    since = service.device(device)["records"]["verifier"]["suspected_since"]
    until(lambda: time.time() > since + 3.5)
    passes(site, verifier, device)
    service.wait(device, "trusted")


def inquiries(service: Running, kind: str, result: str) -> float:
    return service.metric("ragate_inquiries_total", source="verifier", inquiry=kind, result=result)


def hints(service: Running, source: str, result: str) -> float:
    return service.metric("ragate_hints_total", source=source, result=result)


def test_a_hint_makes_suspect_asks_the_verifier_and_a_pass_brings_back(gate: Installed, verifier: Verifier) -> None:
    with gate.running() as service:
        assert service.device("cam-1")["replayable"] == ["verifier"]
        passes(gate, verifier, "cam-1")
        service.wait("cam-1", "trusted")
        until(lambda: service.device("cam-1")["replayable"] == [])
        assert verifier.api.asked == [b"ip 127.7.0.1"]
        assert service.metric("ragate_replayable_devices", source="verifier") == 1  # cam-2
        assert inquiries(service, "confirm", "agrees") == 1

        assert hint(gate, "cam-1", "127.7.0.1", "PASS") == 0
        until(lambda: hints(service, "hook", "ignored") == 1)
        assert service.standing("cam-1") == "trusted"
        assert hint(gate, "cam-1", "127.7.0.1", "FAILED_ATTEST") == 0
        found = service.wait("cam-1", "suspect", verified=False)
        assert "hook: FAILED_ATTEST" in found["last"]["why"]
        until(lambda: verifier.api.asked[-1] == b"id cam-1")
        assert hints(service, "hook", "lowered") == 1

        passes_after_suspicion(gate, verifier, service, "cam-1")
        until(lambda: verifier.api.asked.count(b"ip 127.7.0.1") == 2)
        until(lambda: service.metric("ragate_feed_connected", source="verifier.feed") == 1)
        verifier.publish("cam-1", "correct")
        verifier.publish("cam-1", "incorrect")
        service.wait("cam-1", "suspect", verified=False)
        assert hints(service, "verifier.feed", "lowered") == 1
        assert hints(service, "verifier.feed", "ignored") == 1
        assert service.stop() == 0
    assert not (gate.folder / "var" / "hook.sock").exists()


def test_hostile_hints_change_nothing_and_are_counted(gate: Installed, verifier: Verifier) -> None:
    with gate.running() as service:
        passes(gate, verifier, "cam-1")
        service.wait("cam-1", "trusted")
        for arguments in (
            ("cam-2;reboot", "127.7.0.1", "FAILED_ATTEST"),
            ("\u0441am-1", "127.7.0.1", "FAILED_ATTEST"),
            ("cam-9", "127.7.0.1", "FAILED_ATTEST"),
        ):
            assert hint(gate, *arguments) == 0
        until(lambda: service.rejections("device", "hook") == 3)
        assert hint(gate, "cam-1", "127.7.0.2", "FAILED_ATTEST") == 0  # a neighbour's address
        until(lambda: service.rejections("binding", "hook") == 1)
        assert hint(gate, "cam-1", "127.7.0.1", "$(reboot)") == 0
        until(lambda: service.rejections("lengths", "hook") == 1)
        with socket.socket(socket.AF_UNIX, KIND) as client:
            client.connect(str(gate.folder / "var" / "hook.sock"))
            client.send(b"a" * 10_000)
            until(lambda: service.rejections("framing", "hook") == 1)
        until(lambda: service.metric("ragate_feed_connected", source="verifier.feed") == 1)
        verifier.send(b"GET / HTTP/1.1\r\n\r\n")
        until(lambda: service.rejections("framing", "verifier.feed") == 1)
        assert service.standing("cam-1") == "trusted"


def test_a_flood_of_hints_is_bounded_and_counted(gate: Installed, verifier: Verifier) -> None:
    with gate.running() as service:
        passes(gate, verifier, "cam-1")
        service.wait("cam-1", "trusted")
        payload = b"cam-1\x00127.7.0.1\x00FAILED_ATTEST"
        sent = 0
        until(lambda: (gate.folder / "var" / "hook.sock").exists())
        for _ in range(300):
            with socket.socket(socket.AF_UNIX, KIND) as client:
                client.settimeout(60)
                client.connect(str(gate.folder / "var" / "hook.sock"))
                client.send(payload)
                sent += client.recv(256) == b"taken"

        def taken() -> float:
            return sum(hints(service, "hook", each) for each in ("lowered", "no-effect"))

        until(lambda: taken() + service.rejections("rate", "hook") == sent)
        assert service.rejections("rate", "hook") > 0
        assert 6 <= taken() <= 12  # one window's, or two when the minute turned
        passes(gate, verifier, "cam-2")  # and the doors for verdicts stand open
        service.wait("cam-2", "trusted")


def test_another_user_is_refused(gate: Installed) -> None:
    allow(gate, os.getuid() + 1)
    with gate.running() as service:
        assert hint(gate, "cam-1", "127.7.0.1", "FAILED_ATTEST") == EXIT_REFUSED
        assert service.rejections("peer", "hook") == 1


def test_without_a_gateway_the_script_says_so(gate: Installed) -> None:
    assert hint(gate, "cam-1", "127.7.0.1", "FAILED_ATTEST") == EXIT_NO_GATEWAY


def test_an_operator_has_a_device_attest_and_its_deadline_is_cut_to_the_grace(
    gate: Installed, verifier: Verifier
) -> None:
    verifier.api.on_id = lambda device: gate.send(gate.alert(device, Reason.REQUESTED))
    with gate.running() as service:
        passes(gate, verifier, "cam-1")
        before = service.wait("cam-1", "trusted")
        assert before["deadline"] > time.time() + 600
        gate.tell("cam-1", Reason.REQUESTED)  # anybody can have one signed: it cuts nothing
        until(lambda: service.device("cam-1")["last"]["event"] == "requested")
        assert service.device("cam-1")["deadline"] == before["deadline"]

        asked = gate.ask("devices", "attest", "cam-1", "--reason", "seen with its case open", "-o", "json")
        assert asked.exit_code == 0, asked.output
        assert [each["state"] for each in json.loads(asked.output)["asked"]] == ["asked"]
        until(lambda: service.device("cam-1")["deadline"] < time.time() + 301)
        assert service.device("cam-1")["standing"] == "trusted"
        service.says("seen with its case open")
        unknown = gate.ask("devices", "attest", "cam-9", "--reason", "x")
        assert unknown.exit_code == 1
        assert "not in the inventory" in unknown.output


def test_check_and_explain_show_what_is_replayable(gate: Installed, verifier: Verifier) -> None:
    with gate.running() as service:
        passes(gate, verifier, "cam-1")
        service.wait("cam-1", "trusted")
        until(lambda: service.device("cam-1")["replayable"] == [])
        told = json.loads(gate.ask("check", "-o", "json").output)
        parts = {part["part"]: part["detail"] for part in told["service"]["parts"]}
        assert {"hook", "hints verifier.feed", "inquiries verifier"} <= set(parts)
        assert not any("replayable" in finding["what"] for finding in told["findings"])
        assert "Replayable" not in gate.ask("explain", "cam-1").output
        assert "Replayable: at verifier" in gate.ask("explain", "cam-2").output
    source: dict[str, Any] = gate.settings["sources"][0]
    del source["api"]
    gate.write("ragate.yaml", gate.settings)
    told = json.loads(gate.ask("check", "-o", "json").output)
    assert [finding["subject"] for finding in told["findings"] if "replayable" in finding["what"]] == [
        "source verifier"
    ]


def test_where_a_device_is_seen_is_shown_and_binds_nothing(gate: Installed, verifier: Verifier) -> None:
    with gate.running() as service:
        gate.send(gate.alert("cam-1", Reason.PASS, endpoint="127.7.0.77"))
        service.wait("cam-1", "trusted")
        assert service.device("cam-1")["addresses"] == ["127.7.0.1"]
        assert service.get("/v1/claims").status == 404  # of operators alone
