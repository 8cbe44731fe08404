"""Attacks on the REST door, as bytes on the wire: each is refused by name, raises nothing and stops nobody else."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import ssl
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from tests.e2e.installed import until
from tests.intake.rest.conftest import Site
from tests.intake.rest.site import client, place_of
from tests.posting import (
    Authority,
    base64url,
    client_context,
    cwt,
    ear,
    ear_cbor,
    jwt,
    key_for,
    posted,
    raw,
    sign,
    status,
    verdict,
)


def honest(site: Site) -> bool:
    """Whether an honest sender is served."""
    answer = client(site.files).post(
        posted("rp", verdict("cam-1", "noted")), source="rp", key=key_for("rp"), key_id="k1"
    )
    return answer.status in (200, 202)


@pytest.fixture(autouse=True)
def _nothing_is_raised_and_others_are_served(site: Site) -> object:
    before = site.service.standing("cam-3")
    yield
    after = site.service.standing("cam-3")
    assert after == before or after == "distrusted"
    assert honest(site)


# --- who speaks ---------------------------------------------------------------------------------------------------


def test_the_signature_is_stripped(site: Site) -> None:
    answer = client(site.files).post(posted("rp", verdict("cam-1")), source="rp", key_id="k1")
    assert (answer.status, answer.step) == (403, "signature")


def test_one_source_speaks_for_anothers_devices(site: Site) -> None:
    body = posted("rp", verdict("cam-3"))
    answer = client(site.files).post(body, source="rp", key=key_for("rp"), key_id="k1")
    assert (answer.status, answer.step) == (422, "device")


def test_key_ids_are_confused_between_sources(site: Site) -> None:
    """Every source here calls its key k1: the name of one must never lead to the key of another."""
    body = posted("other", verdict("cam-3"))
    sender = client(site.files)
    answer = sender.post(body, source="other", key=key_for("rp"), key_id="k1")
    assert (answer.status, answer.step) == (403, "signature")
    answer = sender.post(body, source="rp", key=key_for("rp"), key_id="k1")
    assert (answer.status, answer.step) == (403, "source")
    token = jwt(key_for("rp"), "EdDSA", ear(submod="cam-2"))
    answer = sender.post(token, source="ear", media_type="application/eat+jwt")
    assert (answer.status, answer.step) == (403, "algorithm")


def test_a_certificate_of_nobody_or_of_another_source(site: Site) -> None:
    answer = client(site.files, "nobody").post(status("cam-2"), source="status")
    assert (answer.status, answer.step) == (403, "source")
    assert client(site.files, "nobody").post(status("cam-2")).step == "source"
    answer = client(site.files, "status").post(
        posted("rp", verdict("cam-1")), source="rp", key=key_for("rp"), key_id="k1"
    )
    assert (answer.status, answer.step) == (403, "source")


def test_a_source_that_demands_both_takes_neither_alone(site: Site) -> None:
    body = posted("strict", verdict("cam-3", "noted"))
    assert client(site.files).post(body, source="strict", key=key_for("strict"), key_id="k1").step == "source"
    assert client(site.files, "strict").post(body).step == "signature"
    answer = client(site.files, "strict").post(body, key=key_for("strict"), key_id="k1")
    assert answer.status == 200, answer


def test_unknown_sources_are_not_told_apart(site: Site) -> None:
    answer = client(site.files).post(b"{}", source="verifier")  # SEDIMENT's: it does not post here
    assert (answer.status, answer.step) == (403, "source")
    assert answer.json == client(site.files).post(b"{}", source="no-such-one").json


def test_problem_documents_keep_secrets(site: Site) -> None:
    sender = client(site.files)
    for name in ("rp", "other", "strict", "no-such-one"):
        text = sender.post(posted(name, verdict("cam-1")), source=name, key=key_for("x"), key_id="k9").body.decode()
        assert str(site.files.folder) not in text
        assert "BEGIN" not in text
        assert not any(other in text for other in ("keylime", "cwt"))


# --- documents ----------------------------------------------------------------------------------------------------


def signed(site: Site, body: bytes) -> tuple[int, str]:
    answer = client(site.files).post(body, source="rp", key=key_for("rp"), key_id="k1")
    return answer.status, answer.step


def test_documents_that_are_too_large_too_deep_or_double(site: Site) -> None:
    assert signed(site, b"x" * 262_145)[0] == 413
    assert signed(site, b"[" * 200_000) == (400, "format")
    assert signed(site, b'{"a":' * 50_000) == (400, "format")
    good = posted("rp", verdict("cam-1"))
    assert signed(site, good.replace(b'"device"', b'"device":"cam-2","device"')) == (400, "format")
    assert signed(site, posted("rp", *[verdict("cam-1", "noted")] * 1_001)) == (400, "format")


@pytest.mark.parametrize(
    "document",
    [
        b"\x81" * 200_000,
        b"\xa1\x01" * 100_000,
        b"\xd8\x3d" * 50_000,
        b"\x9f" * 1_000,
        b"\x9b" + b"\xff" * 8,
        b"\x5b\x00\x00\x00\x01\x00\x00\x00\x00",
        cwt(key_for("cwt", "ES384"), "ES384", b"\xa2\x06\x01\x06\x01"),
        cwt(key_for("cwt", "ES384"), "ES384", ear_cbor(), protected={1: -7, 4: b"k1"}),
    ],
    ids=["arrays", "maps", "tags", "indefinite", "huge array", "huge string", "double member", "algorithm"],
)
def test_cbor_that_is_deep_large_double_or_of_another_algorithm(site: Site, document: bytes) -> None:
    answer = client(site.files).post(document, source="cwt", media_type="application/eat+cwt")
    assert (answer.status, answer.step) in {(400, "format"), (403, "algorithm")}, answer


def test_a_signature_by_one_key_under_the_name_of_another_algorithm(site: Site) -> None:
    """An EAR's header says what it likes: the algorithm is that of the configured key."""
    for kind, said in (("Ed25519", "ES256"), ("ES384", "ES256"), ("ES256", "none"), ("ES256", "HS256")):
        head = base64url(json.dumps({"alg": said, "kid": "k1"}).encode())
        text = head + b"." + base64url(json.dumps(ear()).encode())
        key = key_for("ear" if kind == "ES256" else "rp", kind)
        token = text + b"." + base64url(sign(key, kind, text))
        answer = client(site.files).post(token, source="ear", media_type="application/jwt")
        assert answer.status == 403, answer
        assert answer.step in ("algorithm", "signature")


@pytest.mark.parametrize(
    "device", ["c\u0430m-1", "\uff43am-1", "cam\u20111", "cam-1\u200d", "cam-1\u0000", "Cam-1"]
)
def test_ids_that_look_alike(site: Site, device: str) -> None:
    status, step = signed(site, posted("rp", verdict(device)))
    assert (status, step) in {(400, "format"), (422, "device")}
    token = jwt(key_for("ear", "ES256"), "ES256", ear(submod=device))
    answer = client(site.files).post(token, source="ear", media_type="application/jwt")
    assert (answer.status, answer.step) == (422, "device")


@pytest.mark.parametrize("age", [-86_400, -3, 121, 10**6])
def test_timestamps_of_tomorrow_and_of_long_ago(site: Site, age: int) -> None:
    now = int(time.time())
    extra = 0 if age > 0 else 30  # this machine may take its time
    body = posted("rp", verdict("cam-1", issued_at=now - age + extra, expires_at=now + 10**6))
    assert signed(site, body) == (422, "freshness")


def test_a_pass_that_was_overheard_raises_nothing_after_a_failure(site: Site) -> None:
    now = int(time.time())
    sender = client(site.files)

    def say(*verdicts: dict[str, object]) -> bytes:
        return posted("rp", *verdicts)

    overheard = say(verdict("both", issued_at=now))
    sender.post(overheard, source="rp", key=key_for("rp"), key_id="k1")
    failed = sender.post(
        say(verdict("both", "failed", issued_at=now + 1)), source="rp", key=key_for("rp"), key_id="k1"
    )
    assert failed.json["results"][0]["standing"] == "distrusted", failed
    again = sender.post(overheard, source="rp", key=key_for("rp"), key_id="k1")
    assert site.service.device("both")["records"]["rp"]["standing"] == "distrusted"
    assert again.json["results"][0]["journal"] < failed.json["results"][0]["journal"]  # the first answer again
    padded = sender.post(overheard + b"\n", source="rp", key=key_for("rp"), key_id="k1")
    assert (padded.status, padded.step) == (409, "order")


# --- HTTP ---------------------------------------------------------------------------------------------------------

HOST = b"Host: gateway\r\n"
SMUGGLED = (
    b"POST /v1/verdicts HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
)


def wire(site: Site, data: bytes) -> bytes:
    return raw(place_of(site.files), client_context(site.files.folder, "nobody"), data)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 5 5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b" Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Content-Length: 5\nTransfer-Encoding: chunked\r\n",
        b"X: \x00\r\n",
    ],
    ids=repr,
)
def test_a_request_is_smuggled_behind_another(site: Site, head: bytes) -> None:
    """However lengths contradict one another: at most the first request is answered, and never as taken."""
    before = site.service.metric("ragate_rejections_total", source="rp", reason="signature")
    data = b"POST /v1/verdicts HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n" + head
    data += b"\r\n0\r\n\r\n" + SMUGGLED
    answer = wire(site, data)
    assert answer.count(b"HTTP/1.1 ") <= 1, answer
    assert b"HTTP/1.1 2" not in answer
    assert site.service.metric("ragate_rejections_total", source="rp", reason="signature") == before


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 64,
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/verdicts HTTP/1.1\r\n" + HOST + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /v1/verdicts HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(500)) + b"\r\n",
        b"POST /v1/verdicts HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
        b"POST /v1/verdicts HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_is_not_http(site: Site, data: bytes) -> None:
    assert b"HTTP/1.1 2" not in wire(site, data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"POST /v1/verd",
        b"POST /v1/verdicts HTTP/1.1\r\nHost: x\r\n",
    ],
    ids=repr,
)
def test_a_head_that_never_ends_is_ended(site: Site, data: bytes) -> None:
    assert b"HTTP/1.1 2" not in wire(site, data)


def test_a_head_a_byte_at_a_time_is_ended_as_well(site: Site) -> None:
    context = client_context(site.files.folder, "nobody")
    place = place_of(site.files)
    ended: list[bool] = []
    with (
        socket.create_connection(place, timeout=90) as plain,
        context.wrap_socket(plain, server_hostname=place[0]) as tls,
    ):
        tls.settimeout(0.25)
        sent = b"POST /v1/verdicts HTTP/1.1\r\nX: " + b"a" * 3_000

        def drip() -> bool:
            try:
                tls.sendall(sent[len(ended) : len(ended) + 1])
                ended.append(True)
                return not tls.recv(1)
            except TimeoutError:
                return False
            except (OSError, ssl.SSLError):
                return True

        until(drip)


def test_a_body_that_never_comes_is_answered_408_and_the_connection_ends(site: Site) -> None:
    head = (
        b"POST /v1/verdicts HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    )
    answer = wire(site, head + b"{")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"Connection: close" in answer or b"connection: close" in answer.lower()


def test_a_body_larger_than_its_announcement_is_not_read_to_its_end(site: Site) -> None:
    head = b"POST /v1/verdicts HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    answer = wire(site, head + b"Content-Length: 999999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    answer = wire(site, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 5)
    assert answer.startswith(b"HTTP/1.1 413")


# --- TLS ----------------------------------------------------------------------------------------------------------


def shakes_hands(site: Site, context: ssl.SSLContext) -> bool:
    """Whether a request gets any answer at all."""
    try:
        return b"HTTP/1.1" in raw(
            place_of(site.files), context, b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
    except (ssl.SSLError, OSError):
        return False


@pytest.mark.parametrize("name", ["", "expired", "revoked", "stranger"])
def test_tls_without_a_certificate_or_with_a_bad_one(site: Site, name: str) -> None:
    assert shakes_hands(site, client_context(site.files.folder, "nobody"))
    assert not shakes_hands(site, client_context(site.files.folder, name))


def test_a_servers_certificate_is_no_clients(site: Site) -> None:
    assert not shakes_hands(site, client_context(site.files.folder, "gateway"))


def test_tls_of_former_times(site: Site) -> None:
    old = client_context(site.files.folder, "nobody")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    assert not shakes_hands(site, old)


def test_plain_http_and_noise_at_the_tls_port(site: Site) -> None:
    for data in (b"POST /v1/verdicts HTTP/1.1\r\n\r\n", os.urandom(512), b"\x16\x03\x01\xff\xff" + b"\x00" * 64):
        with socket.create_connection(place_of(site.files), timeout=90) as plain:
            plain.sendall(data)
            with suppress(ConnectionError):
                assert b"HTTP/1.1 2" not in plain.recv(4_096)


def test_many_idle_connections_do_not_keep_others_out(site: Site) -> None:
    """As many as one address may hold, within TLS and before it: others are served, and these are ended in the
    end."""
    place, context = place_of(site.files), client_context(site.files.folder, "nobody")
    held: list[socket.socket] = []

    def refused() -> float:
        return site.service.metric("ragate_rejections_total", source="other", reason="limit")

    def one_more() -> socket.socket:
        plain = socket.socket()
        held.append(plain)
        plain.settimeout(90)
        plain.bind(("127.99.0.1", 0))
        plain.connect(place)
        return plain

    def filled() -> bool:
        for _ in range(10):
            one_more()
        with suppress(OSError):  # at the limit
            held.append(context.wrap_socket(one_more(), server_hostname=place[0]))
        return refused() > before

    before = refused()
    try:
        until(filled)
        assert honest(site)
        until(lambda: site.service.metric("ragate_queue_depth", queue="rest") <= 2)
    finally:
        for each in held:
            each.close()


# --- keys that change ---------------------------------------------------------------------------------------------


def test_a_certificate_that_is_revoked_while_the_service_runs(site: Site) -> None:
    folder = site.files.folder
    # The key of the CA is the same for the same name: it may sign another list.
    authority = replace(Authority.make(folder / "again"), folder=folder)
    certificate = authority.issue("soon-revoked")
    assert shakes_hands(site, client_context(folder, "soon-revoked"))
    kept = client(site.files, "soon-revoked", keep=True)
    assert kept.request("GET", "/v1/openapi.json").status == 200
    authority.revoke(certificate)

    other = client(site.files, keep=True)

    def shut_out() -> bool:
        assert other.request("GET", "/v1/openapi.json").status == 200
        return not shakes_hands(site, client_context(folder, "soon-revoked"))

    until(shut_out)
    # What is open is judged again, too: of all connections that one alone is ended.
    with pytest.raises((http.client.HTTPException, OSError)):
        until(lambda: kept.request("GET", "/v1/openapi.json").status == 0)
    kept.close()
    answer = other.request("GET", "/v1/openapi.json")
    assert (answer.status, answer.headers.get("connection")) == (200, None)
    other.close()


def test_base64_and_signature_headers_are_hostile(site: Site) -> None:
    body = posted("rp", verdict("cam-1"))
    good = base64.b64encode(sign(key_for("rp"), "Ed25519", body)).decode()
    sender = client(site.files)
    makers: list[Callable[[str], str]] = [
        lambda text: text[:-4],
        lambda text: text + "AAAA",
        lambda text: text.replace("=", ""),
        lambda text: "A" * 2_000,
        lambda text: "",
    ]
    for make in makers:
        answer = sender.post(body, source="rp", key_id="k1", headers={"Ragate-Signature": make(good)})
        assert answer.status in (400, 403), answer
    assert json.loads(sender.post(body, source="rp", key_id="k1", headers={"Ragate-Signature": good}).body)["state"]
