"""The door's TLS files: read again when they change; what cannot be used leaves the former in place and is told."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.intake.rest.tls import TlsFiles, names, open_listener
from gateway.intake.rpc.tls import Credentials, identity_of
from tests.ports import OWN, free_place
from tests.posting import Authority


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority = Authority.make(tmp_path)
    authority.issue("gateway", server=OWN)
    authority.issue("other", server=OWN)
    authority.issue("rp")
    authority.revoke()
    return tmp_path


def files(folder: Path, told: list[str]) -> TlsFiles:
    return TlsFiles(
        folder / "gateway.pem", folder / "gateway.key", folder / "site-ca.pem", folder / "site.crl", told.append
    )


def replaced(path: Path, data: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    os.replace(beside, path)


def test_the_context_asks_for_certificates_and_is_made_again_only_when_files_change(folder: Path) -> None:
    told: list[str] = []
    made = files(folder, told)
    first = made()
    assert first is made()
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.minimum_version is ssl.TLSVersion.TLSv1_2
    assert first.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    replaced(folder / "gateway.key", (folder / "other.key").read_bytes())
    assert made() is first  # half of a change cannot be used
    assert told
    assert "the former ones stay" in told[0]
    replaced(folder / "gateway.pem", (folder / "other.pem").read_bytes())
    assert made() is not first
    assert not made.problem


def test_files_that_vanish_leave_the_former(folder: Path) -> None:
    told: list[str] = []
    made = files(folder, told)
    first = made()
    (folder / "site-ca.pem").unlink()
    assert made() is first
    assert made() is first
    assert len(told) == 1


def test_files_that_cannot_be_used_at_start_are_a_mistake(folder: Path) -> None:
    (folder / "gateway.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="TLS cannot be set up"):
        files(folder, [])


def test_without_a_client_ca_nobody_is_asked(folder: Path) -> None:
    assert TlsFiles(folder / "gateway.pem", folder / "gateway.key")().verify_mode is ssl.CERT_NONE


def test_names_are_written_as_in_the_configuration() -> None:
    found = names((("DNS", "RP.Example"), ("URI", "spiffe://Site/rp"), ("IP Address", "192.0.2.1")))
    assert found == ("dns:rp.example", "uri:spiffe://Site/rp")


def test_a_place_that_is_taken_is_a_mistake() -> None:
    host, port = free_place()
    with open_listener(host, port), pytest.raises(ConfigError, match="cannot listen here"):
        open_listener(host, port)


def test_rpc_reads_certificates_and_the_list_again(folder: Path) -> None:
    told: list[str] = []
    made = Credentials(
        folder / "gateway.pem", folder / "gateway.key", folder / "site-ca.pem", folder / "site.crl", told.append
    )
    assert made._fetch() is None
    found = identity_of([(folder / "rp.pem").read_bytes()])
    assert found is not None
    identity, serial = found
    assert identity.names == ("dns:rp.example",)
    assert not made.revoked(serial)
    authority = Authority.make(folder)
    certificate = authority.issue("rp")
    authority.revoke(certificate)
    assert made.revoked(certificate.serial_number)
    replaced(folder / "site.crl", b"nothing")
    assert made.revoked(certificate.serial_number)
    assert "the former one stays" in told[0]
    replaced(folder / "gateway.pem", (folder / "other.pem").read_bytes())
    assert made._fetch() is not None
    (folder / "gateway.key").unlink()
    assert made._fetch() is None
    assert len(told) == 2
    assert identity_of([]) is None
    with pytest.raises(ConfigError, match="TLS cannot be set up"):
        Credentials(folder / "gateway.pem", folder / "gateway.key")
