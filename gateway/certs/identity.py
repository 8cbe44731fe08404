"""What a certificate of the site says of its holder, and the proof that somebody holds its key.

What lives here: roles, names, checks of one certificate against authority, revocation list and time. Pure: bytes
and time are arguments. What must not: files, connections.

An identity stands in the certificate as a URI among the subject's alternative names (RFC 5280, 4.2.1.6):
``urn:ragate:ROLE:NAME``. Names of hosts are DNS and IP entries beside it and say nothing of the role.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.core.errors import RagateError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
URN = "urn:ragate"

#: Bytes of one certificate in PEM: ours have about 900.
CERTIFICATE_BYTES = 16_384


class IdentityRefused(RagateError):
    """A certificate does not show who its holder is, or must not be trusted; the text says why."""


class Role(StrEnum):
    """What a certificate was made for."""

    GATEWAY = "gateway"
    AGENT = "agent"
    RELYING_PARTY = "relying-party"
    OPERATOR = "operator"


class Identity(NamedTuple):
    """Who holds a certificate, and the certificate's own marks. Times are UNIX seconds."""

    role: Role
    name: str
    serial: int
    not_before: float
    not_after: float

    def __str__(self) -> str:
        return f"{self.role.value} {self.name} (certificate {self.serial:x})"


def urn(role: Role, name: str) -> str:
    """The name under which a certificate carries its holder's identity."""
    return f"{URN}:{role.value}:{name}"


def parse(pem: bytes) -> x509.Certificate:
    """Return the first certificate of a PEM text. Raises ``IdentityRefused``."""
    if len(pem) > CERTIFICATE_BYTES:
        msg = f"a certificate of more than {CERTIFICATE_BYTES} bytes"
        raise IdentityRefused(msg)
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        msg = f"no certificate can be read: {str(error)[:80]}"
        raise IdentityRefused(msg) from error


def read_identity(certificate: x509.Certificate) -> Identity:
    """Return whose certificate it is. Raises ``IdentityRefused`` without exactly one name of ours in it."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith(URN)]
    except (x509.ExtensionNotFound, ValueError) as error:
        msg = "the certificate names no role: it was not made by ragate certs"
        raise IdentityRefused(msg) from error
    parts = uris[0].split(":") if len(uris) == 1 else []
    if len(parts) != 4 or parts[2] not in tuple(Role) or not NAME.match(parts[3]):
        msg = f"the certificate must carry exactly one name {URN}:ROLE:NAME, it has {uris[:3]}"
        raise IdentityRefused(msg)
    return Identity(
        Role(parts[2]),
        parts[3],
        certificate.serial_number,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def identify(pem: bytes, authority: bytes, revoked: frozenset[int], at: float) -> Identity:
    """Return who holds the certificate ``pem``: made by ``authority`` (PEM), not revoked, valid at ``at``.

    1. it can be read; 2. the authority signed it (RFC 5280, 6.1.3 (a)(1)); 3. its dates hold; 4. its serial number
    is not revoked; 5. it names one role. That its holder has the key is TLS's part, or that of ``verify_proof``.
    Raises ``IdentityRefused`` naming the step.
    """
    found = issued(pem, authority)
    check_standing(found, revoked, at)
    return found


def issued(pem: bytes, authority: bytes) -> Identity:
    """Return whose certificate it is if ``authority`` made it, whatever its dates. Raises ``IdentityRefused``."""
    certificate = parse(pem)
    try:
        certificate.verify_directly_issued_by(parse(authority))
    except (ValueError, TypeError, InvalidSignature) as error:
        msg = "the certificate was not made by this site's authority"
        raise IdentityRefused(msg) from error
    return read_identity(certificate)


def check_standing(identity: Identity, revoked: frozenset[int], at: float) -> None:
    """Raise ``IdentityRefused`` when the identity's certificate is revoked, or not valid at ``at``."""
    if identity.serial in revoked:
        msg = f"the certificate of {identity.role.value} {identity.name}, serial {identity.serial:x}, is revoked"
        raise IdentityRefused(msg)
    if at >= identity.not_after:
        when = datetime.fromtimestamp(identity.not_after, UTC).isoformat(timespec="seconds")
        msg = f"the certificate of {identity.role.value} {identity.name} expired at {when}: renew it"
        raise IdentityRefused(msg)
    if at < identity.not_before:
        msg = f"the certificate of {identity.role.value} {identity.name} is not valid yet: are the clocks right?"
        raise IdentityRefused(msg)


def read_revoked(pem: bytes, authority: bytes) -> frozenset[int]:
    """Return the revoked serial numbers of a list (PEM, RFC 5280 section 5).

    Raises ``IdentityRefused`` when it cannot be read or the authority did not sign it.
    """
    issuer = parse(authority)
    try:
        listed = x509.load_pem_x509_crl(pem)
    except ValueError as error:
        msg = f"no revocation list can be read: {str(error)[:80]}"
        raise IdentityRefused(msg) from error
    key = issuer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not listed.is_signature_valid(key):
        msg = "the revocation list was not signed by this site's authority"
        raise IdentityRefused(msg)
    return frozenset(entry.serial_number for entry in listed)


# --- the proof of a key
# ---------------------------------------------------------------------------------------------


def _said(purpose: str, parts: Iterable[bytes]) -> bytes:
    # Every part with its length before it: no two lists of parts read the same.
    return b"".join(len(part).to_bytes(4, "big") + part for part in (purpose.encode(), *parts))


def prove(key_pem: bytes, purpose: str, *parts: bytes) -> bytes:
    """Sign ``parts`` for one purpose (ECDSA, SHA-256). Raises ``IdentityRefused`` for a key that cannot."""
    try:
        key = serialization.load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as error:
        msg = f"no private key can be read: {str(error)[:80]}"
        raise IdentityRefused(msg) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        msg = "the private key is not of an elliptic curve: make it with ragate certs"
        raise IdentityRefused(msg)
    return key.sign(_said(purpose, parts), ec.ECDSA(hashes.SHA256()))


def verify_proof(pem: bytes, proof: bytes, purpose: str, *parts: bytes) -> None:
    """Raise ``IdentityRefused`` unless the holder of the certificate's key signed ``parts`` for this purpose."""
    key = parse(pem).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        msg = "the certificate's key is not of an elliptic curve"
        raise IdentityRefused(msg)
    try:
        key.verify(proof, _said(purpose, parts), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        msg = "the peer has not shown that it holds the key of its certificate"
        raise IdentityRefused(msg) from error
