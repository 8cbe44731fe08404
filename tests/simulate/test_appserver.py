from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.sediment.compose import compose_alert, compose_data, evidence_endpoint
from gateway.sediment.wire import Reason
from gateway.simulate import appserver
from gateway.simulate.appserver import Flow, SurrogateAppServer
from gateway.simulate.keys import Keys
from gateway.simulate.sockets import Peer

SOMEBODY = Peer("127.0.77.11", 40000)


def data(keys: Keys, device: str = "cam-1", *, key: bytes | None = None, payload: bytes = b"x; 1") -> bytes:
    return compose_data(
        device=device.encode(),
        timestamp=int(time.time()),
        nonce=secrets.token_bytes(32),
        payload=payload,
        iv=secrets.token_bytes(16),
        hmac_key=key or keys.hmac[device],
    )


def test_counts_and_times_grow(keys: Keys) -> None:
    server, flow = SurrogateAppServer(keys.hmac), Flow("tcp", SOMEBODY)
    assert server.take(data(keys), flow)
    first = replace(server.of("cam-1"))
    assert server.take(data(keys), flow)
    assert server.of("cam-1").count == flow.count == 2
    assert server.of("cam-1").last_at >= first.last_at > 0
    assert server.of("cam-2").count == 0


def test_wrong_key_unknown_device_and_other_messages_are_refused(keys: Keys) -> None:
    server, flow = SurrogateAppServer(keys.hmac), Flow("tcp", SOMEBODY)
    alert = compose_alert(
        device=b"cam-1",
        verifier_id=b"RAP_Server",
        reason=Reason.PASS,
        endpoint=evidence_endpoint(b"127.0.0.1", 1),
        timestamp=1,
        nonce=bytes(32),
        signing_key=keys.signing,
        hmac_key=keys.hmac["cam-1"],
    )
    frames = [
        data(keys, key=keys.hmac["cam-2"]),
        data(keys, "cam-9", key=keys.hmac["cam-1"]),
        data(keys)[:-1] + b"\0",
        alert,
    ]
    # The last byte of a random checksum is zero once in 256: then that frame is not wrong.
    frames[2] = frames[2] if frames[2] != data(keys) else b""
    wrong = [frame for frame in frames if not server.take(frame, flow)]
    assert server.refused == len(wrong) >= 3
    assert flow.count == server.of("cam-1").count


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(keys: Keys, junk: bytes) -> None:
    server, flow = SurrogateAppServer(keys.hmac), Flow("udp", SOMEBODY)
    assert not server.take(junk, flow)
    assert (server.refused, server.heard) == (1, {})


async def test_segments_may_be_cut_anywhere(keys: Keys) -> None:
    async with SurrogateAppServer(keys.hmac) as server:
        (at,) = await server.open([Peer("127.0.0.1", 0)])
        _, writer = await asyncio.open_connection(*at)
        stream = data(keys) + data(keys) + data(keys, "cam-2")
        for byte in stream:
            writer.write(bytes([byte]))
            await writer.drain()
        async with asyncio.timeout(60):
            while server.of("cam-2").count < 1:
                await asyncio.sleep(0.001)
        assert server.of("cam-1").count == 2
        writer.close()
        await writer.wait_closed()


async def test_a_stream_that_is_no_sediment_is_cut_off(keys: Keys) -> None:
    async with SurrogateAppServer(keys.hmac) as server:
        (at,) = await server.open([Peer("127.0.0.1", 0)])
        reader, writer = await asyncio.open_connection(*at)
        writer.write(data(keys) + b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await writer.wait_closed()
        assert (server.of("cam-1").count, server.refused) == (1, 1)


async def test_both_families(keys: Keys) -> None:
    async with SurrogateAppServer(keys.hmac) as server:
        try:
            ports = await server.open([Peer("127.0.0.1", 0), Peer("::1", 0)])
        except OSError as error:
            pytest.skip(f"no IPv6 on loopback: {error}")
        for at in ports:
            _, writer = await asyncio.open_connection(*at)
            writer.write(data(keys))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(60):
            while server.of("cam-1").count < 2:
                await asyncio.sleep(0.001)
        assert {flow.peer.host for flow in server.flows_of("cam-1")} == {"127.0.0.1", "::1"}


def test_flows_are_bounded_and_the_quietest_goes_first(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appserver, "FLOWS_MAX", 3)
    server = SurrogateAppServer(keys.hmac)
    for port in (1, 2, 3):
        server.flow("tcp", Peer("127.0.0.1", port)).last_at = 10.0 - port
    server.flow("tcp", Peer("127.0.0.1", 4))
    assert sorted(peer.port for _, peer in server.flows) == [1, 2, 4]
