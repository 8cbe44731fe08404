"""The files with which another program of this host is spoken to: what is wrong with them is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as forms

from gateway.certs import client
from gateway.certs.client import ClientFiles
from gateway.core.errors import ConfigError
from tests import posting


@pytest.fixture
def files(tmp_path: Path) -> ClientFiles:
    authority = posting.Authority.make(tmp_path)
    authority.issue("gateway", server="127.0.0.1")
    authority.issue("other", server="127.0.0.1")
    return ClientFiles(tmp_path / "site-ca.pem", tmp_path / "gateway.pem", tmp_path / "gateway.key", "10.0.0.5")


def test_files_that_fit_are_taken_and_read(files: ClientFiles) -> None:
    files.check()
    assert files.read() == (files.authority.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes())


@pytest.mark.parametrize(
    ("key", "content", "expected"),
    [
        ("authority", None, "cannot be read"),
        ("certificate", b"junk", "holds no certificate"),
        ("authority", b"", "holds no certificate"),
        ("key", b"junk", "is no private key"),
        ("key", "certificate", "is no private key"),
        ("key", "other.key", "is not the key of"),
        ("key", b"x" * (client.FILE_BYTES + 1), "is larger than"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    files: ClientFiles, tmp_path: Path, key: str, content: bytes | str | None, expected: str
) -> None:
    place = tmp_path / "another"
    if content == "certificate":
        content = files.certificate.read_bytes()
    elif isinstance(content, str):
        content = (tmp_path / content).read_bytes()
    if content is not None:
        place.write_bytes(content)
    with pytest.raises(ConfigError, match=expected) as caught:
        ClientFiles(**{**files._asdict(), key: place}).check()
    assert str(place) in str(caught.value)


def test_an_encrypted_key_is_refused(files: ClientFiles) -> None:
    key = forms.load_pem_private_key(files.key.read_bytes(), None)
    sealed = forms.BestAvailableEncryption(b"secret")
    files.key.write_bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, sealed))
    with pytest.raises(ConfigError, match="unencrypted PEM"):
        files.check()
