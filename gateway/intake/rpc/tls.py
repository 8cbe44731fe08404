"""TLS for the door: certificate, key and client CA from files, read again when they change, for each new handshake.

gRPC's library looks at no revocation list, so the door itself compares serial numbers; see ``revoked``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.control.reception import Identity
from gateway.core.errors import ConfigError

CERTIFICATE = 65_536  #: bytes of a client's certificate; the library has verified it by then


class Credentials:
    """What the server shows and asks for. ``told`` gets a sentence when changed files cannot be used; the former
    ones then stay. Raises ``ConfigError`` when they cannot be used at start."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        client_ca: Path | None = None,
        client_crl: Path | None = None,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._paths = (certificate, key, client_ca)
        self._crl = client_crl
        self._told = told
        self._stamp: object = None
        self._crl_stamp: object = None
        self._revoked: frozenset[int] = frozenset()
        try:
            self._current = self._read()
            self._look_at_list()
        except (OSError, ValueError) as error:
            raise ConfigError(str(certificate), f"TLS cannot be set up: {error}", "check the files") from error

    def server(self) -> grpc.ServerCredentials:
        """Credentials that are looked up anew for each connection."""
        return grpc.dynamic_ssl_server_credentials(
            self._current,
            self._fetch,  # type: ignore[arg-type]  # None is taken: nothing has changed
            require_client_authentication=self._paths[2] is not None,
        )

    def revoked(self, serial: int) -> bool:
        """Whether the CA has revoked the certificate of this serial number."""
        try:
            self._look_at_list()
        except (OSError, ValueError) as error:
            self._told(f"the changed revocation list cannot be used, the former one stays: {error}")
        return serial in self._revoked

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by the library, on a thread of its own, before each handshake; None: nothing has changed."""
        if _stamp(*self._paths) == self._stamp:
            return None
        try:
            self._current = self._read()
        except OSError as error:
            self._told(f"changed TLS files cannot be used, the former ones stay: {error}")
            return None
        return self._current

    def _read(self) -> grpc.ServerCertificateConfiguration:
        self._stamp = _stamp(*self._paths)
        certificate, key, client_ca = self._paths
        assert certificate is not None
        assert key is not None
        roots = None if client_ca is None else client_ca.read_bytes()
        return grpc.ssl_server_certificate_configuration([(key.read_bytes(), certificate.read_bytes())], roots)

    def _look_at_list(self) -> None:
        if self._crl is None:
            return
        stamp = _stamp(self._crl)
        if stamp == self._crl_stamp:
            return
        self._crl_stamp = stamp
        found = x509.load_pem_x509_crl(self._crl.read_bytes())
        self._revoked = frozenset(entry.serial_number for entry in found)


def _stamp(*paths: Path | None) -> tuple[tuple[int, int, int], ...]:
    found = []
    for path in paths:
        if path is None:
            continue
        try:
            seen = os.stat(path)  # noqa: PTH116 - Path.stat makes the same call with twice the work
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((seen.st_mtime_ns, seen.st_ino, seen.st_size))
    return tuple(found)


def identity_of(pem: Sequence[bytes]) -> tuple[Identity, int] | None:
    """The identity in a verified client certificate, and its serial number; None: there was none."""
    if not pem or len(pem[0]) > CERTIFICATE:
        return None
    certificate = x509.load_pem_x509_certificate(pem[0])
    der = certificate.public_bytes(Encoding.DER)
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names: tuple[str, ...] = ()
    else:
        names = (
            *(f"dns:{name.lower()}" for name in found.get_values_for_type(x509.DNSName)),
            *(f"uri:{name}" for name in found.get_values_for_type(x509.UniformResourceIdentifier)),
        )
    ends = certificate.not_valid_after_utc.timestamp()
    return Identity(hashlib.sha256(der).hexdigest(), names, ends), certificate.serial_number
