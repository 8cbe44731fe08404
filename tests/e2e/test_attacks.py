"""The attacks that the protocol notes list, against the running door of a real process with a real path gate."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.journal import SqliteHistory
from gateway.sediment.compose import compose_message
from gateway.sediment.wire import MessageId, Reason
from tests.e2e.installed import DEVICES, STRANGER, Installed, Running, until
from tests.e2e.kernel import admitted, tombstones
from tests.netns import in_namespaces

pytestmark = pytest.mark.netns

CAM_1, CAM_2 = DEVICES["cam-1"], DEVICES["cam-2"]

#: Ids that nobody lists: what SEDIMENT's own relying party would hand to a shell, SQL, a terminal, a file system.
HOSTILE_IDS = (
    b"cam-1;touch pwned",
    b"$(touch pwned)",
    b"`touch pwned`",
    b"cam-1' OR '1'='1",
    b"../../cam-1",
    b"cam-1\0cam-2",
    b"\x1b[2Jcam-1\r\n",
    b"\xff\xfe",
    b"A" * 255,
)


def refused(service: Running, reason: str, times: float) -> None:
    """Wait until so many were refused for this reason, and no more."""
    until(lambda: service.rejections(reason) >= times, lambda: service.get("/metrics").text)
    assert service.rejections(reason) == times


def test_attacks_are_refused_or_contained_and_the_door_stays_open(tmp_path: Path) -> None:
    gate = Installed(tmp_path)

    def body() -> None:
        with gate.running() as service:
            passed = replayed_pass(gate, service)
            without_the_devices_key(gate, service)
            reheaded(gate, service, passed)
            unknown_devices(gate, service)
            claimed_endpoint(gate, service)
            strangers(gate, service)
            pieces_and_garbage(gate, service)
            assert service.standing("cam-1") == "distrusted"
            gate.recover(service, "cam-1")
            assert set(admitted()) == {*CAM_1, *CAM_2}
            assert not list(tmp_path.rglob("*pwned*"))
            told = explained(gate)
            assert {"hmac", "device", "signature", "peer", "framing"} <= set(told)
            assert all(told.values()), "each reason has a sentence"
            assert service.stop() == 0, service.log
            assert "\x1b" not in service.log

    in_namespaces(body)


def explained(gate: Installed) -> dict[str, str]:
    """What the journal's file tells of refused input that is nobody's: reason, and a sample's sentence."""
    history = SqliteHistory(gate.journal)
    try:
        told: dict[str, str] = {}

        def read() -> int:
            rows = asyncio.run(history.refusals(1_000))
            told.update({row["refusal"]: row["detail"] for row in rows})
            return sum(row["times"] for row in rows)

        # written a moment later: nobody waits for them
        until(lambda: read() >= 4 + 1 + 3 * len(HOSTILE_IDS) + 1 + 3, lambda: told)
    finally:
        history.close()
    return told


def replayed_pass(gate: Installed, service: Running) -> bytes:
    """1: a whole ALERT again. The pass from before the failure does not re-open the device, however often."""
    passed = gate.tell("cam-1", Reason.PASS)
    service.wait("cam-1", "trusted")
    gate.send(passed)
    refused(service, "replay", 1)
    newest = service.device("cam-1")["records"]["verifier"]["newest"]
    failed = gate.tell("cam-1", Reason.FAILED_ATTEST, issued_at=newest)  # in the same second: the failure wins
    service.wait("cam-1", "distrusted")
    for _ in range(5):
        gate.send(passed)
    # the second is still the newest one and its nonces are remembered
    refused(service, "replay", 6)
    gate.send(failed)
    refused(service, "replay", 7)
    assert service.standing("cam-1") == "distrusted"
    assert tombstones() >= set(CAM_1)
    assert admitted() == {}
    return passed


def without_the_devices_key(gate: Installed, service: Running) -> None:
    """Signed by the verifier's key, but the digest is zero, or another device's."""
    for data in (
        gate.alert("cam-1", Reason.PASS, without_hmac=True),
        gate.alert("cam-1", Reason.PASS, hmac_key=gate.keys.hmac["cam-2"]),
        gate.alert("cam-2", Reason.PASS, without_hmac=True),
        gate.alert("cam-1", Reason.FAILED_ATTEST, without_hmac=True),
    ):
        gate.send(data)
    refused(service, "hmac", 4)
    assert service.standing("cam-2") == "unknown", "without its key nobody raises or lowers a device"


def reheaded(gate: Installed, service: Running, passed: bytes) -> None:
    """2: the device itself puts the old signed pass under a fresh header. One is not enough to come back."""
    issued = service.device("cam-1")["records"]["verifier"]["newest"] + 1
    fresh = compose_message(
        message_id=MessageId.ALERT,
        timestamp=issued,
        nonce=b"d" * 32,
        tail=passed[75:],
        hmac_key=gate.keys.hmac["cam-1"],
    )
    gate.send(fresh)
    until(lambda: service.device("cam-1")["records"]["verifier"]["newest"] == issued)
    assert service.standing("cam-1") == "distrusted"
    turned = bytearray(gate.alert("cam-2", Reason.FAILED_ATTEST)[75:])
    turned[turned.index(b"RAP_Server") + len(b"RAP_Server")] = Reason.PASS
    forged = compose_message(
        message_id=MessageId.ALERT,
        timestamp=issued,
        nonce=b"e" * 32,
        tail=bytes(turned),
        hmac_key=gate.keys.hmac["cam-2"],
    )
    gate.send(forged)
    refused(service, "signature", 1)
    assert service.standing("cam-2") == "unknown"


def unknown_devices(gate: Installed, service: Running) -> None:
    """7: the verifier signs REQUESTED, and so anything, for ids that anybody makes up."""
    for reason in (Reason.REQUESTED, Reason.PASS, Reason.FAILED_ATTEST):
        for wire_id in HOSTILE_IDS:
            gate.send(gate.alert("cam-1", reason, wire_id=wire_id, without_hmac=True))
    refused(service, "device", 3 * len(HOSTILE_IDS))
    ids = [one["id"] for one in service.get("/v1/devices").json["devices"]]
    assert ids == list(DEVICES)
    assert "pwned" not in service.get("/metrics").text


def claimed_endpoint(gate: Installed, service: Running) -> None:
    """3: the endpoint is a claim. A pass of cam-2 that names cam-1's address opens cam-2's own addresses only."""
    issued = int(service.device("cam-1")["records"]["verifier"]["newest"])
    for number, claim in enumerate((*CAM_1, "0.0.0.0/0", "10.77.1.0/24", "$(id)")):
        gate.send(gate.alert("cam-2", Reason.PASS, issued_at=issued - 10 + number, endpoint=claim))
    service.wait("cam-2", "trusted")
    until(lambda: service.device("cam-2")["records"]["verifier"]["newest"] == issued - 6)
    assert set(admitted()) == set(CAM_2)
    assert tombstones() >= set(CAM_1)


def strangers(gate: Installed, service: Running) -> None:
    """A genuine alert from an address that is no verifier's."""
    newest = service.device("cam-1")["records"]["verifier"]["newest"]
    data = gate.alert("cam-1", Reason.PASS, issued_at=newest + 1)
    with suppress(ConnectionError):  # it may be shut before everything was sent
        gate.send(data, peer=STRANGER)
    refused(service, "peer", 1)
    assert service.device("cam-1")["records"]["verifier"]["newest"] == newest


def pieces_and_garbage(gate: Installed, service: Running) -> None:
    """10: segments of one byte, two messages in one segment, silence, other protocols; and the console's hosts."""
    framing = service.rejections("framing")
    for garbage in (b"GET / HTTP/1.1\r\n\r\n" + b"x" * 80, b"\xff" * 400, b"\0" * 100):
        gate.send(garbage)
    refused(service, "framing", framing + 3)
    silent = socket.create_connection(gate.door, source_address=("127.0.0.2", 0))
    newest = service.device("cam-2")["records"]["verifier"]["newest"]
    two = [gate.alert("cam-2", Reason.PASS, issued_at=newest + n) for n in (1, 2)]
    with socket.create_connection(gate.door, source_address=("127.0.0.2", 0)) as slow:
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(100):
            slow.send(two[0][at : at + 1])
        slow.sendall(two[0][100:] + two[1])
    until(lambda: service.device("cam-2")["records"]["verifier"]["newest"] == newest + 2)
    silent.close()
    connection = http.client.HTTPConnection(*service.console, timeout=60)
    connection.request("GET", "/v1/devices", headers={"Host": "attacker.example"})
    answer = connection.getresponse()
    assert answer.status == 421, "a foreign name is not answered"
    assert "cam-1" not in json.dumps(json.loads(answer.read()))
    connection.close()
