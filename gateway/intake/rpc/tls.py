"""TLS for the door: what the library shows and asks for, from material that is reloaded; who a client is.

gRPC's library looks at no revocation list, so the door itself compares certificates with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.certs import Mark, Served, ServedTls, mark_of
from gateway.control.reception import Identity

CERTIFICATE = 65_536  #: bytes of a client's certificate; the library has verified it by then


class Listed(NamedTuple):
    """A verified client certificate: whose it is, and how a revocation list names it."""

    identity: Identity
    mark: Mark


def credentials(tls: ServedTls) -> grpc.ServerCredentials:
    """Credentials that follow the material: looked up anew for each connection, on threads of the library's."""
    shown = tls.current

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        newest = tls.current
        if newest is shown:
            return None  # nothing has changed
        shown = newest
        return _configuration(newest)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown),
        fetch,  # type: ignore[arg-type]  # None is taken: nothing has changed
        require_client_authentication=bool(shown.client_ca),
    )


def _configuration(served: Served) -> grpc.ServerCertificateConfiguration:
    pairs = [(served.key, served.certificate)]
    return grpc.ssl_server_certificate_configuration(pairs, served.client_ca or None)


def identity_of(pem: Sequence[bytes]) -> Listed | None:
    """The identity in a verified client certificate; None: there was none."""
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
    return Listed(Identity(hashlib.sha256(der).hexdigest(), names, ends), mark_of(certificate))
