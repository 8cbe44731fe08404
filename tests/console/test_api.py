"""The read-only window, over real TCP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.console import api, listing
from gateway.console.api import Console, bind
from gateway.console.problems import HEADERS, Problem
from gateway.console.server import HttpLimits
from gateway.control.ports import Health
from gateway.core.errors import ConfigError, JournalError
from gateway.core.model import DeviceId, Standing
from tests.console.conftest import ask, windows
from tests.fakes.directory import NOW, FakeSite, make_view

ROW_KEYS = {
    "id",
    "standing",
    "profile",
    "deadline",
    "lease_until",
    "addresses",
    "anchor",
    "labels",
    "last",
    "newest",
    "verified_ms",
    "replayable",
    "targets",
    "override",
    "held",
}


async def exchange(port: int, data: bytes) -> bytes:
    """Send raw bytes and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_devices_lists_all_with_counts(web: aiohttp.ClientSession) -> None:
    reply = await ask(web, "GET", "/v1/devices")
    assert reply.status == 200
    assert set(reply.json) == {"counts", "devices", "next"}
    assert reply.json["counts"] == {each.label: 0 for each in Standing} | {"trusted": 2, "distrusted": 1}
    assert [row["id"] for row in reply.json["devices"]] == ["cam-1", "cam-2", "cam:3.a"]
    assert reply.json["next"] is None
    row = reply.json["devices"][0]
    assert set(row) == ROW_KEYS
    assert row["deadline"] == NOW + 840
    assert row["addresses"] == ["10.77.1.11"]
    assert row["labels"] == {"class": "camera"}
    assert row["last"] == {
        "event": "passed",
        "issued_at": int(NOW) - 60,
        "at": NOW - 60,
        "effect": "raised",
        "why": "a signed pass from verifier",
        "before": "unknown",
        "after": "trusted",
    }
    assert row["targets"][0]["state"] == "verified"
    assert reply.json["devices"][1]["deadline"] is None
    assert reply.json["devices"][2]["addresses"] == ["fd77:1::/64"]


async def test_pages_follow_each_other(web: aiohttp.ClientSession) -> None:
    first = await ask(web, "GET", "/v1/devices?limit=2")
    assert [row["id"] for row in first.json["devices"]] == ["cam-1", "cam-2"]
    assert first.json["next"] == "cam-2"
    second = await ask(web, "GET", "/v1/devices?limit=2&after=cam-2")
    assert [row["id"] for row in second.json["devices"]] == ["cam:3.a"]
    assert second.json["next"] is None


async def test_standing_filters(web: aiohttp.ClientSession) -> None:
    reply = await ask(web, "GET", "/v1/devices?standing=distrusted")
    assert [row["id"] for row in reply.json["devices"]] == ["cam-2"]
    assert (await ask(web, "GET", "/v1/devices?standing=held")).json["devices"] == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=5001",
        "limit=x",
        "limit=-1",
        "limit=",
        "limit=1&limit=2",
        "standing=good",
        "after=nobody",
        "x=1",
    ],
)
async def test_bad_query_is_a_problem(web: aiohttp.ClientSession, query: str) -> None:
    reply = await ask(web, "GET", f"/v1/devices?{query}")
    assert reply.status == 400
    assert reply.headers["Content-Type"].startswith("application/problem+json")
    assert reply.json["title"] == "Bad Request"
    assert reply.json["status"] == 400
    assert reply.json["detail"]


async def test_page_of_a_large_site_looks_only_at_its_own_devices(console: Console, site: FakeSite) -> None:
    one = make_view("cam-1")
    for number in range(30_000):
        name = DeviceId(f"d{number}")
        site.all[name] = one
    site.order = tuple(site.all)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{console.address[1]}") as web:
        site.looked_at = 0
        reply = await ask(web, "GET", "/v1/devices?limit=10&after=d20000")
        assert len(reply.json["devices"]) == 10
        assert site.looked_at == 10
        assert reply.json["next"] == "d20010"
        site.looked_at = 0
        none = await ask(web, "GET", "/v1/devices?standing=held")
        assert none.json["devices"] == []
        assert none.json["next"] is None
        assert site.looked_at == 0, "devices of another standing cost no view"
        last = DeviceId("d29999")
        site.all[last] = make_view("d29999", Standing.HELD)
        held = await ask(web, "GET", "/v1/devices?standing=held&limit=1")
        assert [row["id"] for row in held.json["devices"]] == [last]
        assert (site.looked_at, held.json["next"]) == (1, None)


async def test_a_long_page_lets_others_have_the_loop(console: Console, site: FakeSite) -> None:
    one = make_view("cam-1")
    site.all = {DeviceId(f"d{n}"): one for n in range(2_000)}
    site.order = tuple(site.all)
    turns = 0
    done = asyncio.Event()

    async def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    async with aiohttp.ClientSession(f"http://127.0.0.1:{console.address[1]}") as web, asyncio.TaskGroup() as tasks:
        tasks.create_task(count())
        reply = await ask(web, "GET", "/v1/devices?limit=2000")
        done.set()
    assert len(reply.json["devices"]) == 2_000
    assert turns >= 2_000 // listing.SLICE


async def test_one_device_in_full(web: aiohttp.ClientSession) -> None:
    reply = await ask(web, "GET", "/v1/devices/cam:3.a")
    assert reply.status == 200
    assert set(reply.json) == ROW_KEYS | {"chain", "records", "verdicts"}
    assert reply.json["chain"] == ["built-in: deny", "node default: admitted"]
    record = reply.json["records"]["verifier"]
    assert set(record) == {"standing", "deadline", "newest", "epoch", "debt", "suspected_since", "hold"}
    assert [row["seq"] for row in reply.json["verdicts"]] == [7, 6]


async def test_a_proof_says_what_each_target_shows_and_whether_it_is_proven(web: aiohttp.ClientSession) -> None:
    reply = await ask(web, "GET", "/v1/devices/cam-1/proof")
    assert reply.status == 200
    assert set(reply.json) == {"id", "standing", "profile", "at", "proven", "lines"}
    assert reply.json["proven"] is True, "what never admits does not count"
    gate, layer = reply.json["lines"]
    assert (gate["result"], gate["read_at"], gate["element"][:11]) == ("verified", reply.json["at"], "inet ragate")
    assert (layer["part"], layer["result"], layer["read_at"]) == ("kubearmor host policy", "cannot be read", None)
    assert (await ask(web, "GET", "/v1/devices/nobody/proof")).status == 404


async def test_an_explanation_is_the_device_and_what_its_decision_rests_on(web: aiohttp.ClientSession) -> None:
    reply = await ask(web, "GET", "/v1/devices/cam-1/explanation")
    assert reply.status == 200
    more = {"own", "shared", "levels", "reaches", "rate", "rules"}
    assert set(reply.json) == ROW_KEYS | {"chain", "records", "verdicts"} | more
    assert reply.json["own"] == {"standing": "trusted", "deadline": NOW + 840}
    assert [(line["level"], line["name"], line["matched"], line["used"]) for line in reply.json["levels"]] == [
        ("built-in", "", True, False),
        ("node default", "", True, False),
        ("class", "cameras", True, True),
        ("class", "doors", False, False),
    ]
    assert reply.json["reaches"] == [{"name": "feed", "address": "10.77.3.2", "port": 8001, "protocol": "tcp"}]
    assert reply.json["rules"] == [
        {
            "target": "gateway",
            "backend": "nft",
            "address": "10.77.1.11",
            "wanted": "admitted",
            "until": NOW + 840,
            "stands": "admitted",
            "ends": None,
            "tombstone": False,
            "trouble": "",
        }
    ]
    assert (await ask(web, "GET", "/v1/devices/nobody/explanation")).status == 404


async def test_the_site(web: aiohttp.ClientSession) -> None:
    reply = await ask(web, "GET", "/v1/site")
    assert reply.status == 200
    assert set(reply.json) == {"profile", "since", "counts", "chain", "alarms"}
    assert (reply.json["profile"], reply.json["counts"]["trusted"]) == ("normal", 2)


async def test_after_a_restart_the_last_transition_comes_from_the_journal(
    web: aiohttp.ClientSession, site: FakeSite
) -> None:
    seen = make_view("cam-1")._replace(last=None)
    site.all[seen.device.id] = seen
    listed = (await ask(web, "GET", "/v1/devices?limit=1")).json["devices"][0]
    assert (listed["last"], listed["newest"]) == (None, int(NOW) - 60)
    told = (await ask(web, "GET", "/v1/devices/cam-1")).json
    assert told["last"] == {
        "event": "passed",
        "issued_at": int(NOW) - 60,
        "at": NOW - 60,
        "effect": "raised",
        "why": "a signed pass from verifier",
        "before": "unknown",
        "after": "trusted",
    }


async def test_a_transition_of_this_run_is_not_replaced_by_the_journal(
    web: aiohttp.ClientSession, site: FakeSite
) -> None:
    told = (await ask(web, "GET", "/v1/devices/cam-2")).json
    assert told["last"]["event"] == "failed"
    assert told["verdicts"][0]["event"] == "passed"


@pytest.mark.parametrize("name", ["nobody", "%2e%2e%2fetc%2fpasswd", "a%00b", "x" * 500, "%C3%A9"])
async def test_unknown_device_is_404(web: aiohttp.ClientSession, name: str) -> None:
    reply = await ask(web, "GET", f"/v1/devices/{name}")
    assert reply.status == 404
    assert reply.headers["Content-Type"].startswith("application/problem+json")
    assert len(reply.json["detail"]) < 200


async def test_journal_failure_is_503(web: aiohttp.ClientSession, site: FakeSite) -> None:
    site.failure = JournalError("disk gone")
    reply = await ask(web, "GET", "/v1/devices/cam-1")
    assert reply.status == 503
    assert "disk gone" in reply.json["detail"]


async def test_health_and_readiness(web: aiohttp.ClientSession, site: FakeSite) -> None:
    assert (await ask(web, "GET", "/healthz")).json == {"alive": True}
    ready = await ask(web, "GET", "/readyz")
    assert (ready.status, ready.json["ready"]) == (200, True)
    assert ready.json["parts"][0] == {"part": "journal", "ready": True, "detail": "writable"}
    site.parts.append(Health("door/sediment", False, "cannot listen"))
    unready = await ask(web, "GET", "/readyz")
    assert (unready.status, unready.json["ready"]) == (503, False)


async def test_metrics_content_type(web: aiohttp.ClientSession) -> None:
    reply = await ask(web, "GET", "/metrics")
    assert reply.headers["Content-Type"] == api.METRICS_TYPE
    assert reply.body == b"ragate_withheld_total 0.0\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/v1/devices", "/v1/devices/cam-1", "/metrics"])
async def test_only_get(web: aiohttp.ClientSession, method: str, path: str) -> None:
    async with web.request(method, path) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET"


async def test_acts_do_not_exist_here(web: aiohttp.ClientSession, site: FakeSite) -> None:
    reply = await ask(web, "POST", "/v1/devices/cam-1/hold", json={"reason": "x"})
    assert reply.status == 404
    assert site.acts == []


async def test_every_answer_carries_the_security_headers(web: aiohttp.ClientSession) -> None:
    for path in ("/", "/healthz", "/v1/devices", "/nothing", "/v1/devices/nobody", "/v1/devices?limit=0"):
        reply = await ask(web, "GET", path)
        for name, value in HEADERS.items():
            if path != "/" or name != "Content-Security-Policy":
                assert reply.headers[name] == value, (path, name)
    assert "default-src 'none'" in (await ask(web, "GET", "/")).headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST.:8080", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("gate.example", 200),
        ("Gate.Example:443", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("gate.example.evil", 421),
        ("0.0.0.0:8080", 421),
        ("10.1.2.3", 421),
        ("[::1", 200),
        ("@localhost", 421),
        ("", 400),
    ],
)
async def test_host_header(web: aiohttp.ClientSession, host: str, status: int) -> None:
    reply = await ask(web, "GET", "/healthz", headers={"Host": host})
    assert reply.status == status


async def test_two_host_headers_and_none_are_refused(console: Console, caplog: pytest.LogCaptureFixture) -> None:
    for lines in (b"Host: localhost\r\nHost: localhost\r\n", b""):
        answer = await exchange(
            console.address[1], b"GET /healthz HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n"
        )
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert caplog.records == []


async def test_arrival_address_is_accepted_on_a_wildcard(site: FakeSite) -> None:
    window = Console(windows(site), ("0.0.0.0", 0))
    await window.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.2:{window.address[1]}") as web:
            assert (await ask(web, "GET", "/healthz")).status == 200
            assert (await ask(web, "GET", "/healthz", headers={"Host": "127.0.0.3"})).status == 421
            assert (await ask(web, "GET", "/healthz", headers={"Host": "0.0.0.0"})).status == 421
    finally:
        await window.stop()


async def test_a_socket_can_be_handed_in(site: FakeSite) -> None:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    window = Console(windows(site), sock)
    await window.start()
    try:
        assert window.address == ("127.0.0.1", window.address[1])
        async with aiohttp.ClientSession(f"http://127.0.0.1:{window.address[1]}") as web:
            assert (await ask(web, "GET", "/healthz")).status == 200
    finally:
        await window.stop()


async def test_a_taken_port_is_a_config_error(console: Console, site: FakeSite) -> None:
    second = Console(windows(site), ("127.0.0.1", console.address[1]))
    with pytest.raises(ConfigError, match=r"console\.listen: cannot listen on 127\.0\.0\.1:"):
        await second.start()


async def test_a_port_taken_between_binding_and_listening_is_a_config_error(site: FakeSite) -> None:
    mine = await bind(("127.0.0.1", 0))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(mine.getsockname())
        other.listen()
        with pytest.raises(ConfigError, match=r"console\.listen: cannot listen on 127\.0\.0\.1:"):
            await Console(windows(site), mine).start()
    mine.close()


async def limited(site: FakeSite, **limits: Any) -> Console:
    window = Console(windows(site), ("127.0.0.1", 0), limits=HttpLimits(**limits))
    await window.start()
    return window


async def test_silent_and_dribbling_clients_are_let_go(site: FakeSite) -> None:
    window = await limited(site, idle_seconds=0.2)
    try:
        assert await exchange(window.address[1], b"") == b""
        assert b"200 OK" not in await exchange(window.address[1], b"GET /healthz HTTP/1.1\r\nHost: loc")
    finally:
        await window.stop()


async def test_oversized_headers_are_refused(console: Console) -> None:
    for head in (b"GET /" + b"a" * 100_000, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"b" * 100_000):
        answer = await exchange(console.address[1], head + b"\r\n\r\n")
        assert answer == b"" or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))


async def test_connections_are_bounded_and_come_back(site: FakeSite) -> None:
    window = await limited(site, connections=2)
    port = window.address[1]
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    try:
        held = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
            held.append(writer)
        assert await exchange(port, request) == b""
        held[0].close()
        await held[0].wait_closed()
        async with asyncio.timeout(60):
            while not (await exchange(port, request[:-2] + b"Connection: close\r\n\r\n")).startswith(
                b"HTTP/1.1 200"
            ):
                await asyncio.sleep(0.01)
        held[1].close()
    finally:
        await window.stop()


async def test_a_reader_that_never_reads_is_cut_off(site: FakeSite) -> None:
    site.all = {DeviceId(f"d{n}"): make_view(f"d{n}") for n in range(5_000)}
    site.order = tuple(site.all)
    listening, client = socket.socket(), socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
    listening.bind(("127.0.0.1", 0))
    client.setblocking(False)
    window = Console(windows(site), listening, limits=HttpLimits(request_seconds=0.2))
    await window.start()
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(client, window.address)
        await loop.sock_sendall(client, b"GET /v1/devices?limit=5000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(60):
            while not site.looked_at or window.connections:
                await asyncio.sleep(0.01)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := await loop.sock_recv(client, 65_536):
                received += chunk
        assert b'"next"' not in received
    finally:
        client.close()
        await window.stop()


async def test_a_handler_that_takes_too_long_is_503(site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forever(device: object, limit: int) -> list[Any]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(site, "verdicts", forever)
    window = await limited(site, request_seconds=0.1)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{window.address[1]}") as web:
            reply = await ask(web, "GET", "/v1/devices/cam-1")
            assert reply.status == 503
            assert reply.headers["Content-Type"].startswith("application/problem+json")
    finally:
        await window.stop()


@given(st.binary(max_size=200))
def test_host_name_never_raises_anything_undeclared(raw: bytes) -> None:
    try:
        name = api._host_name([raw.decode("latin-1")])
    except Problem:
        return
    assert name == name.lower()
