"""What a server shows to clients: taken as a whole, followed while it runs, kept where newer files are no good."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.certs import ServedFiles, ServedTls, mark_of, served
from gateway.core.errors import ConfigError
from tests.ports import OWN
from tests.posting import Authority


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority = Authority.make(tmp_path)
    authority.issue("gateway", server=OWN)
    authority.issue("other", server=OWN)
    authority.revoke()
    return tmp_path


def files(folder: Path) -> ServedFiles:
    return ServedFiles(folder / "gateway.pem", folder / "gateway.key", folder / "site-ca.pem", folder / "site.crl")


def replaced(path: Path, data: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    os.replace(beside, path)


def test_the_context_asks_for_certificates_and_is_made_again_only_when_files_change(folder: Path) -> None:
    told: list[str] = []
    made = ServedTls(files(folder), "doors.rest", told.append)
    first = made.context
    assert not made.look()
    assert first is made.context
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.minimum_version is ssl.TLSVersion.TLSv1_2
    assert first.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    assert first.num_tickets == 0
    replaced(folder / "gateway.key", (folder / "other.key").read_bytes())
    assert not made.look()  # half of a change cannot be used
    assert made.context is first
    assert "the former ones stay" in told[0]
    assert made.wrong in told[0]
    assert made.wrong in made.state()
    replaced(folder / "gateway.pem", (folder / "other.pem").read_bytes())
    assert made.look()
    assert made.context is not first
    assert (made.wrong, made.reloads, len(told)) == ("", 1, 1)


def test_files_that_vanish_leave_the_former_and_are_told_once(folder: Path) -> None:
    told: list[str] = []
    made = ServedTls(files(folder), "doors.rest", told.append)
    (folder / "site-ca.pem").unlink()
    assert not made.look()
    assert not made.look()
    assert len(told) == 1


@pytest.mark.parametrize("name", ["gateway.pem", "gateway.key", "site-ca.pem", "site.crl"])
@pytest.mark.parametrize("data", [b"nothing", b"", b"x" * (served.FILE_BYTES + 1)], ids=["noise", "empty", "long"])
def test_files_that_cannot_be_used_at_start_are_a_mistake(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        ServedTls(files(folder), "doors.rest")
    assert caught.value.mend


def test_without_a_client_ca_nobody_is_asked(folder: Path) -> None:
    made = ServedTls(ServedFiles(folder / "gateway.pem", folder / "gateway.key"), "doors.rest")
    assert made.context.verify_mode is ssl.CERT_NONE
    assert not made.revoked((b"", 1))


def test_a_list_counts_for_its_own_authority_alone(folder: Path) -> None:
    authority = Authority.make(folder)
    certificate = authority.issue("rp")
    made = ServedTls(files(folder), "doors.rest")
    assert not made.revoked(mark_of(certificate))
    authority.revoke(certificate)
    assert made.look()
    assert made.revoked(mark_of(certificate))
    issuer, serial = mark_of(certificate)
    assert not made.revoked((issuer + b"x", serial))
    # A list by somebody else is no list, and the former one stays.
    foreign = Authority.make(folder, "foreign")
    foreign.revoke(name="site")
    assert not made.look()
    assert "none of the clients' authorities has signed" in made.wrong
    assert made.revoked(mark_of(certificate))


def test_a_list_that_has_ended_vouches_for_nobody(folder: Path) -> None:
    now = [time.time()]
    made = ServedTls(files(folder), "doors.rest", now=lambda: now[0])
    mark = mark_of(Authority.make(folder).issue("rp"))
    assert not made.revoked(mark)
    now[0] += 2 * 86_400
    assert made.revoked(mark)
    assert "revocation list has ended" in made.state()


def test_lists_of_several_authorities_in_one_file(folder: Path) -> None:
    foreign = Authority.make(folder, "foreign")
    theirs = foreign.issue("stranger")
    foreign.revoke(theirs, name="foreign")
    both = (folder / "site-ca.pem").read_bytes() + (folder / "foreign-ca.pem").read_bytes()
    (folder / "site-ca.pem").write_bytes(both)
    (folder / "site.crl").write_bytes((folder / "site.crl").read_bytes() + (folder / "foreign.crl").read_bytes())
    made = ServedTls(files(folder), "doors.rest")
    assert made.revoked(mark_of(theirs))
    assert not made.revoked((mark_of(Authority.make(folder).issue("rp"))[0], theirs.serial_number))


def test_the_end_of_a_certificate_is_said_once_a_day(folder: Path) -> None:
    now, told = [time.time()], list[str]()
    made = ServedTls(files(folder), "doors.rest", told.append, now=lambda: now[0])
    made.remind()
    assert not told
    now[0] += 86_400 * 0.9
    made.remind()
    made.remind()
    assert len(told) == 1
    assert "expires in 0.1 days" in told[0]
    now[0] += 86_400
    made.remind()
    assert "has expired" in told[1]
    assert made.current.left(now[0]) < 0


async def test_run_takes_newer_files_and_tells_who_listens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "LOOK_SECONDS", 0.01)
    made = ServedTls(files(folder), "doors.rest")
    changed = asyncio.Event()
    made.changed = changed.set
    running = asyncio.create_task(made.run())
    authority = Authority.make(folder)
    certificate = authority.issue("rp")
    authority.revoke(certificate)
    await asyncio.wait_for(changed.wait(), 60)
    assert made.revoked(mark_of(certificate))
    running.cancel()
    await asyncio.wait((running,))


def test_a_forged_list_is_not_taken(folder: Path) -> None:
    """The right name, another key."""
    authority = Authority.make(folder)
    forger = Authority.make(folder / "forger", "forger")
    now = dt.datetime.now(dt.UTC)
    forged = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now)
        .next_update(now + dt.timedelta(days=1))
        .sign(forger.key, SHA256())
    )
    (folder / "site.crl").write_bytes(forged.public_bytes(Encoding.PEM))
    with pytest.raises(ConfigError, match="none of the clients' authorities"):
        ServedTls(files(folder), "doors.rest")
