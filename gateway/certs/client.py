"""The PEM files with which a program of this host is spoken to over mutual TLS, where its CA is not the site's own.

What lives here: reading and judging them. What must not: connections; the site's own certificates.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from gateway.core.errors import ConfigError

#: Bytes of one file of certificates or a key: a chain has a few kilobytes.
FILE_BYTES = 1 << 20


class ClientPem(NamedTuple):
    """What a TLS library is given."""

    authority: bytes
    key: bytes
    certificate: bytes


class ClientFiles(NamedTuple):
    """The other program's CA, and a certificate of that CA with its key. ``name``: whom the other program's
    certificate is for, an IP address or a host name; "": the address that is dialled."""

    authority: Path
    certificate: Path
    key: Path
    name: str = ""

    def read(self) -> ClientPem:
        """Return the files' content. Raises ``ConfigError`` naming the file."""
        return ClientPem(_read(self.authority), _read(self.key), _read(self.certificate))

    def check(self) -> None:
        """Raise ``ConfigError`` for files that no connection could be made with, naming the file and the mend."""
        pem = self.read()
        _certificate(self.authority, pem.authority)
        certified = _certificate(self.certificate, pem.certificate).public_key()
        try:
            own = load_pem_private_key(pem.key, None).public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            mend = "name the unencrypted PEM file of the certificate's key"
            raise ConfigError(
                str(self.key), f"is no private key that can be used: {_brief(error)}", mend
            ) from error
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if own.public_bytes(*form) != certified.public_bytes(*form):
            raise ConfigError(
                str(self.key), f"is not the key of {self.certificate}", "name the two that belong together"
            )


def _certificate(path: Path, data: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(data)[0]
    except ValueError as error:
        raise ConfigError(str(path), f"holds no certificate: {_brief(error)}", "name a file in PEM") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES + 1)
    except OSError as error:
        mend = "name a file that this service may read"
        raise ConfigError(str(path), f"cannot be read: {error.strerror or error}", mend) from error
    if len(data) > FILE_BYTES:
        raise ConfigError(str(path), f"is larger than {FILE_BYTES} bytes", "name a file in PEM")
    return data


def _brief(error: Exception) -> str:
    return str(error).partition("\n")[0][:120]
