from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from socket import SOCK_STREAM, socket

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.model import DeviceId, Envelope, Instant, Outcome, Record, SourceName, Timeliness, Verdict
from gateway.sediment.authenticate import SedimentAuthenticator, SedimentSource
from gateway.sediment.wire import Protocol, Reason, decode_alert
from gateway.simulate.device import Link, Route, SilentError, SurrogateDevice
from gateway.simulate.keys import Keys
from gateway.simulate.sockets import Peer, listener, own_namespace
from gateway.simulate.verifier import VERIFIER_ID, SurrogateVerifier

NOWHERE = Peer("127.0.0.1", 9)
SOURCE = SourceName("verifier")


def device(keys: Keys, port: int = 0, address: str = "127.0.0.1") -> SurrogateDevice:
    made = SurrogateDevice("cam-1", (address,), keys.hmac["cam-1"], b"firmware" * 64)
    if port:
        made.links.append(Link(Route(address, NOWHERE), connected=True, local_port=port))
    return made


def verifier(keys: Keys, consumer: Peer = NOWHERE) -> SurrogateVerifier:
    return SurrogateVerifier(keys.signing, keys.hmac, {"cam-1": b"firmware" * 64}, consumer)


@pytest.fixture
def consumer() -> Iterator[socket]:
    with listener(own_namespace, Peer("127.0.0.1", 0), 8) as made:
        yield made


async def read_all(consumer: socket) -> bytes:
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(consumer)
    with connection:
        data = b""
        while chunk := await loop.sock_recv(connection, 65536):
            data += chunk
        return data


def test_genuine_firmware_passes_and_tampered_firmware_fails(keys: Keys) -> None:
    judge, subject = verifier(keys), device(keys)
    assert judge.appraise(subject) is Reason.PASS
    subject.tamper()
    assert judge.appraise(subject) is Reason.FAILED_ATTEST
    subject.tamper()
    assert judge.appraise(subject) is Reason.FAILED_ATTEST
    subject.repair()
    assert judge.appraise(subject) is Reason.PASS


def test_any_other_firmware_fails(keys: Keys) -> None:
    judge, subject = verifier(keys), device(keys)
    for firmware in (b"", subject.firmware[:-1], subject.firmware + b"\0", subject.firmware[::-1]):
        subject.firmware = firmware
        assert judge.appraise(subject) is Reason.FAILED_ATTEST


def test_another_devices_key_fails(keys: Keys) -> None:
    subject = device(keys)
    subject.key = keys.hmac["cam-2"]
    assert verifier(keys).appraise(subject) is Reason.FAILED_ATTEST


def test_evidence_is_bound_to_the_nonce(keys: Keys) -> None:
    subject = device(keys)
    assert subject.evidence(b"a" * 32) == subject.evidence(b"a" * 32)
    assert subject.evidence(b"a" * 32) != subject.evidence(b"b" * 32)


async def test_a_silent_device_makes_no_alert(keys: Keys, consumer: socket) -> None:
    subject = device(keys)
    subject.go_silent()
    with pytest.raises(SilentError, match="cam-1"):
        verifier(keys).appraise(subject)
    assert await verifier(keys, Peer(*consumer.getsockname())).attest(subject) is None
    with pytest.raises(BlockingIOError):
        consumer.accept()


async def test_one_connection_per_alert_closed_at_once(keys: Keys, consumer: socket) -> None:
    judge = verifier(keys, Peer(*consumer.getsockname()))
    before = int(time.time())
    made = await judge.attest(device(keys))
    assert made is not None
    assert made.lost == ""
    alert = decode_alert(await read_all(consumer))
    assert alert.reason is made.reason is Reason.PASS
    assert before <= alert.header.timestamp == made.issued_at <= time.time()
    again = await judge.attest(device(keys))
    assert again is not None
    assert decode_alert(await read_all(consumer)).header.nonce != alert.header.nonce


async def test_an_absent_consumer_loses_the_alert(keys: Keys, consumer: socket) -> None:
    gone = Peer(*consumer.getsockname())
    consumer.close()
    made = await verifier(keys, gone).attest(device(keys))
    assert made is not None
    assert "ConnectionRefused" in made.lost


def test_the_endpoints_port_is_byte_swapped(keys: Keys) -> None:
    subject = device(keys, port=0x1234)
    alert = decode_alert(verifier(keys).alert(subject, Reason.PASS, 1))
    assert alert.endpoint == (Protocol.TCP, b"127.0.0.1", 0x3412)
    assert alert.verifier_id == VERIFIER_ID


@settings(deadline=None)
@given(
    reason=st.sampled_from(Reason),
    issued_at=st.integers(min_value=1_000, max_value=2**32 - 1),
    port=st.integers(min_value=0, max_value=0xFFFF),
    address=st.sampled_from(["10.77.1.11", "fd77:1::11", "127.0.77.11"]),
)
def test_every_alert_authenticates(keys: Keys, reason: Reason, issued_at: int, port: int, address: str) -> None:
    data = verifier(keys).alert(device(keys, port, address), reason, issued_at)
    now = Instant(float(issued_at), 1_000.0)
    verdict = authenticator(keys).authenticate(Envelope(data, SOURCE, "10.77.2.2", now), lambda _: Record())
    assert isinstance(verdict, Verdict)
    assert (verdict.device, verdict.reason, verdict.issued_at) == ("cam-1", reason.name, issued_at)
    assert (verdict.outcome is Outcome.PASSED) is (reason is Reason.PASS)
    assert verdict.timeliness is Timeliness.FRESH


def authenticator(keys: Keys) -> SedimentAuthenticator:
    public = keys.signing.public_key()
    source = SedimentSource(SOURCE, public, VERIFIER_ID)
    return SedimentAuthenticator(source, {DeviceId(name): key for name, key in keys.hmac.items()})


def test_the_written_public_key_is_the_one_that_verifies(keys: Keys, tmp_path: Path) -> None:
    keys.write(tmp_path)
    read = load_pem_public_key((tmp_path / "verifier.pem").read_bytes())
    assert read == keys.signing.public_key()


def test_sockets_are_non_blocking() -> None:
    with own_namespace(2, SOCK_STREAM) as made:
        assert made.getblocking() is False
