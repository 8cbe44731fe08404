"""Streams to the real service: the same rules as over REST, answers in order, attacks refused by name."""

from __future__ import annotations

import os
import queue
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.intake.rpc.pb import verdicts_pb2 as pb
from tests.e2e.installed import until
from tests.intake.rest.conftest import Site
from tests.intake.rest.site import client, place_of
from tests.posting import PATIENCE, Authority, ear, jwt, key_for, posted, sign, status, verdict

METHOD = "/ragate.v1.Verdicts/Submit"


@contextmanager
def channel(site: Site, name: str = "nobody") -> Iterator[grpc.Channel]:
    folder = site.files.folder
    key = (folder / f"{name}.key").read_bytes() if name else None
    chain = (folder / f"{name}.pem").read_bytes() if name else None
    credentials = grpc.ssl_channel_credentials((folder / "site-ca.pem").read_bytes(), key, chain)
    host, port = place_of(site.files, "rpc")
    with grpc.secure_channel(f"{host}:{port}", credentials, (("grpc.enable_retries", 0),)) as made:
        yield made


def submit(site: Site, submissions: Iterable[pb.Submission | bytes], name: str = "nobody") -> list[pb.Answer]:
    """Every answer of one stream. Raises ``grpc.RpcError`` when it ends with an error."""
    with channel(site, name) as connected:
        call = connected.stream_stream(METHOD, _encoded, pb.Answer.FromString)
        return list(call(iter(submissions), timeout=PATIENCE))


def _encoded(message: pb.Submission | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def signed(source: str, document: bytes, *, key: str = "", key_id: str = "k1", tag: int = 0) -> pb.Submission:
    signature = sign(key_for(key or source), "Ed25519", document)
    return pb.Submission(
        source=source, document=document, key_id=key_id, signature=signature, tag=tag, wait_verified=True
    )


def test_answers_come_in_order_and_verified(site: Site) -> None:
    documents = [posted("rp", verdict("cam-1" if n else "cam-4", "noted" if n else "passed")) for n in range(200)]
    answers = submit(site, [signed("rp", document, tag=n) for n, document in enumerate(documents)])
    assert [answer.tag for answer in answers] == list(range(200))
    assert all(answer.taken.verified for answer in answers)
    (result,) = answers[0].taken.results
    assert (result.device, result.accepted, result.standing) == ("cam-4", True, "trusted")
    assert result.milliseconds > 0


def test_a_document_is_the_same_through_both_doors(site: Site) -> None:
    document = posted("rp", verdict("cam-1", "noted"))
    (first,) = submit(site, [signed("rp", document)])
    again = client(site.files).post(document, source="rp", key=key_for("rp"), key_id="k1")
    assert again.json["receipt"] == first.taken.receipt
    assert again.json["results"][0]["journal"] == first.taken.results[0].journal


def test_the_certificate_is_the_source(site: Site) -> None:
    (answer,) = submit(site, [pb.Submission(document=status("cam-2"), wait_verified=True)], "status")
    assert answer.taken.source == "status", answer


REFUSED: dict[str, tuple[Callable[[], pb.Submission], str]] = {
    "no signature": (lambda: pb.Submission(source="rp", document=posted("rp", verdict("cam-1"))), "signature"),
    "key of another": (lambda: signed("other", posted("other", verdict("cam-3")), key="rp"), "signature"),
    "unknown key": (lambda: signed("rp", posted("rp", verdict("cam-1")), key_id="k9"), "key"),
    "another's device": (lambda: signed("rp", posted("rp", verdict("cam-3"))), "device"),
    "for another source": (lambda: signed("rp", posted("other", verdict("cam-3"))), "source"),
    "no source": (lambda: pb.Submission(document=b"{}"), "source"),
    "no such source": (lambda: pb.Submission(source="x", document=b"{}"), "source"),
    "certificate alone": (lambda: pb.Submission(source="status", document=status("cam-2")), "source"),
    "both demanded": (lambda: signed("strict", posted("strict", verdict("cam-3"))), "source"),
    "unsigned token": (
        lambda: pb.Submission(source="ear", document=b"eyJhbGciOiJub25lIn0.e30.AAAA"),
        "algorithm",
    ),
    "confused algorithm": (
        lambda: pb.Submission(source="ear", document=jwt(key_for("rp"), "EdDSA", ear())),
        "algorithm",
    ),
    "deep": (lambda: signed("rp", b"[" * 200_000), "format"),
    "deep CBOR": (lambda: pb.Submission(source="cwt", document=b"\x81" * 200_000), "format"),
    "huge CBOR": (lambda: pb.Submission(source="cwt", document=b"\x9b" + b"\xff" * 8), "format"),
    "double": (
        lambda: signed("rp", posted("rp", verdict("cam-1")).replace(b'"device"', b'"device":"x","device"')),
        "format",
    ),
    "look-alike": (lambda: signed("rp", posted("rp", verdict("c\u0430m-1"))), "format"),
    "future": (
        lambda: signed("rp", posted("rp", verdict("cam-1", issued_at=int(time.time()) + 10**6))),
        "freshness",
    ),
    "ancient": (lambda: signed("rp", posted("rp", verdict("cam-1", issued_at=1))), "freshness"),
    "empty": (lambda: signed("rp", b""), "format"),
    "long name": (lambda: pb.Submission(source="x" * 65), "framing"),
    "long signature": (lambda: pb.Submission(source="rp", signature=b"x" * 2_000), "lengths"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_attack_is_refused_by_name_and_the_stream_goes_on(site: Site, case: str) -> None:
    make, step = REFUSED[case]
    honest = signed("rp", posted("rp", verdict("cam-1", "noted")), tag=7)
    refused, served = submit(site, [make(), honest])
    assert refused.problem.step == step, refused
    assert not refused.HasField("taken")
    assert (served.tag, served.taken.verified) == (7, True)


def test_what_is_no_message_and_what_is_too_large(site: Site) -> None:
    honest = signed("rp", posted("rp", verdict("cam-1", "noted")))
    refused, served = submit(site, [b"\xff\xff\xff", honest])
    assert refused.problem.step == "framing"
    assert served.taken.verified
    with pytest.raises(grpc.RpcError) as caught:
        submit(site, [pb.Submission(source="rp", document=bytes(2 << 20))])
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert submit(site, [signed("rp", posted("rp", verdict("cam-1", "noted")))])[0].taken.verified


@pytest.mark.parametrize("name", ["", "expired", "stranger"])
def test_tls_without_a_certificate_or_with_a_bad_one(site: Site, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        submit(site, [signed("rp", posted("rp", verdict("cam-1", "noted")))], name)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_revoked_certificate_is_turned_away_also_while_the_service_runs(site: Site) -> None:
    def code(name: str) -> grpc.StatusCode | None:
        try:
            submit(site, [signed("rp", posted("rp", verdict("cam-1", "noted")))], name)
        except grpc.RpcError as error:
            return error.code()
        return None

    assert code("revoked") is grpc.StatusCode.UNAUTHENTICATED
    authority = replace(Authority.make(site.files.folder / "again"), folder=site.files.folder)
    certificate = authority.issue("soon")
    assert code("soon") is None
    asked: queue.SimpleQueue[pb.Submission | None] = queue.SimpleQueue()
    with channel(site, "soon") as connected:
        call = connected.stream_stream(METHOD, _encoded, pb.Answer.FromString)
        answers = call(iter(asked.get, None), timeout=PATIENCE)
        asked.put(signed("rp", posted("rp", verdict("cam-1", "noted"))))
        assert next(answers).taken.verified
        authority.revoke(certificate)
        until(lambda: code("soon") is grpc.StatusCode.UNAUTHENTICATED)
        # A stream that is open is judged again, too.
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        asked.put(None)


def test_noise_and_idle_connections_keep_nobody_out(site: Site) -> None:
    held = []
    try:
        for _ in range(100):
            plain = socket.create_connection(place_of(site.files, "rpc"), timeout=PATIENCE)
            plain.sendall(os.urandom(16))
            held.append(plain)
        assert submit(site, [signed("rp", posted("rp", verdict("cam-1", "noted")))])[0].taken.verified
    finally:
        for each in held:
            each.close()


def test_a_flood_of_connections_keeps_nobody_out(site: Site) -> None:
    """A thousand of them, as quickly as they can be made; some stay, and say nothing."""
    held = []
    try:
        for number in range(1_000):
            plain = socket.create_connection(place_of(site.files, "rpc"), PATIENCE, ("127.99.0.2", 0))
            if number % 10:
                plain.close()
            else:
                held.append(plain)
        assert submit(site, [signed("rp", posted("rp", verdict("cam-1", "noted")))])[0].taken.verified
    finally:
        for each in held:
            each.close()


def test_a_stream_that_says_nothing_holds_up_nobody(site: Site) -> None:
    asked: queue.SimpleQueue[pb.Submission | None] = queue.SimpleQueue()
    with channel(site) as connected:
        silent = connected.stream_stream(METHOD, _encoded, pb.Answer.FromString)
        answers = silent(iter(asked.get, None), timeout=PATIENCE)
        assert submit(site, [signed("rp", posted("rp", verdict("cam-1", "noted")))])[0].taken.verified
        asked.put(None)
        assert not list(answers)


def test_health_and_reflection(site: Site) -> None:
    with channel(site) as connected:
        health: Any = health_pb2_grpc.HealthStub(connected)
        found = health.Check(health_pb2.HealthCheckRequest(service="ragate.v1.Verdicts"), timeout=PATIENCE)
        assert found.status == health_pb2.HealthCheckResponse.SERVING
        described: Any = reflection_pb2_grpc.ServerReflectionStub(connected)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = described.ServerReflectionInfo(iter([asked]), timeout=PATIENCE)
        names = {service.name for service in answer.list_services_response.service}
        assert names == {"ragate.v1.Verdicts", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def test_generated_messages_are_those_of_the_protocol(tmp_path: Path) -> None:
    from grpc_tools import protoc  # type: ignore[import-untyped]

    proto = "gateway/intake/rpc/pb/verdicts.proto"
    assert protoc.main(["protoc", "-I", ".", f"--python_out={tmp_path}", proto]) == 0
    made = (tmp_path / proto.replace(".proto", "_pb2.py")).read_text()

    def shape(text: str) -> str:
        return text.partition("AddSerializedFile(")[2].partition("\n")[0]

    assert shape(made) == shape(Path(proto.replace(".proto", "_pb2.py")).read_text())
