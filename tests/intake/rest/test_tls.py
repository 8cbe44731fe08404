"""What the doors read of a client's certificate, and their listening sockets."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from cryptography import x509

from gateway.certs import ServedFiles, ServedTls, mark_of
from gateway.core.errors import ConfigError
from gateway.intake.rest.tls import identity_of, names, open_listener
from gateway.intake.rpc import tls as rpc
from tests.ports import OWN, free_place
from tests.posting import Authority


def test_names_are_written_as_in_the_configuration() -> None:
    found = names((("DNS", "RP.Example"), ("URI", "spiffe://Site/rp"), ("IP Address", "192.0.2.1")))
    assert found == ("dns:rp.example", "uri:spiffe://Site/rp")


def test_a_place_that_is_taken_is_a_mistake() -> None:
    host, port = free_place()
    with open_listener(host, port), pytest.raises(ConfigError, match="cannot listen here"):
        open_listener(host, port)


def test_a_client_is_known_by_its_verified_certificate(tmp_path: Path) -> None:
    certificate = Authority.make(tmp_path).issue("rp")
    found = rpc.identity_of([(tmp_path / "rp.pem").read_bytes()])
    assert found is not None
    assert found.identity.names == ("dns:rp.example",)
    assert found.identity.not_after == certificate.not_valid_after_utc.timestamp()
    assert found.mark == mark_of(certificate)
    assert rpc.identity_of([]) is None
    assert rpc.identity_of([b"x" * (rpc.CERTIFICATE + 1)]) is None
    assert identity_of(None) is None


def test_rpc_shows_the_newest_material_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority.make(tmp_path)
    authority.issue("gateway", server=OWN)
    files = ServedFiles(tmp_path / "gateway.pem", tmp_path / "gateway.key", tmp_path / "site-ca.pem")
    served = ServedTls(files, "doors.rpc")
    asked: list[object] = []
    monkeypatch.setattr(grpc, "dynamic_ssl_server_credentials", lambda *given, **_: asked.extend(given))
    rpc.credentials(served)
    fetch = asked[1]
    assert callable(fetch)
    assert fetch() is None
    before = x509.load_pem_x509_certificate(served.current.certificate).serial_number
    authority.issue("gateway", server=OWN)
    assert served.look()
    assert fetch() is not None
    assert fetch() is None
    assert x509.load_pem_x509_certificate(served.current.certificate).serial_number != before
