"""A site's certificate authority: one key, one self-signed certificate, leaves directly below it.

What lives here: making and signing, in memory. Time is an argument; keys and serial numbers are random. What must
not: files. Keys are NIST P-256: every TLS library of the site has it, and a signature takes 0.1 ms.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.certs.identity import NAME, IdentityRefused, Role, urn
from gateway.core.errors import ConfigError

#: Days that an authority lasts: as long as a site's hardware.
AUTHORITY_DAYS = 3_650
#: Days that a certificate lasts unless said otherwise; ``renew`` makes a new one in the last third.
LEAF_DAYS = 90
LEAST_DAYS, MOST_DAYS = 1, 398
#: A certificate is valid from this long before it was made: clocks of a site differ.
BACKDATED = timedelta(minutes=5)
#: Entries of a revocation list; more would mean that the authority itself should be replaced.
REVOKED = 10_000

_SERVES = frozenset({Role.GATEWAY})


class Leaf(NamedTuple):
    """A certificate and its private key, both PEM. ``key`` is empty when the holder made it."""

    certificate: bytes
    key: bytes


class Revoked(NamedTuple):
    """One revoked serial number, and when (UNIX seconds)."""

    serial: int
    at: float


class Authority(NamedTuple):
    """Certificate and private key of the authority, PEM."""

    certificate: bytes
    key: bytes

    def issue(
        self, role: Role, name: str, hosts: Sequence[str], at: float, days: int = LEAF_DAYS, key: bytes = b""
    ) -> Leaf:
        """Make a certificate with a key: a fresh one, or ``key`` (PEM). ``hosts``: names and addresses under which
        a server is reached. Raises ``ConfigError``."""
        pem = key or _new_key()
        public = _load_key(pem).public_key()
        return Leaf(self._sign(public, role, name, hosts, at, days), pem)

    def sign(self, request: bytes, role: Role, name: str, hosts: Sequence[str], at: float, days: int) -> Leaf:
        """Make a certificate for the key of a request (PEM, PKCS #10), whose holder keeps it.

        Nothing that the request asks for is taken but the key: role, name and hosts are the caller's.
        Raises ``ConfigError``.
        """
        try:
            asked = x509.load_pem_x509_csr(request)
        except ValueError as error:
            what = "is no certificate request in PEM"
            raise ConfigError("the request", what, "make it with ragate certs request") from error
        public = asked.public_key()
        if not asked.is_signature_valid or not isinstance(public, ec.EllipticCurvePublicKey):
            what = "its signature is wrong, or its key is not of an elliptic curve"
            raise ConfigError("the request", what, "make it with ragate certs request")
        return Leaf(self._sign(public, role, name, hosts, at, days), b"")

    def revocations(self, revoked: Iterable[Revoked], at: float) -> bytes:
        """The signed list of revoked serial numbers, PEM. It is valid for as long as the authority: it is a file
        of this site, and one that is merely old must not shut every link at once."""
        issuer = x509.load_pem_x509_certificate(self.certificate)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(_when(at))
            .next_update(issuer.not_valid_after_utc)
            .add_extension(x509.CRLNumber(int(at * 1_000)), critical=False)
        )
        for entry in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(entry.serial)
                .revocation_date(_when(entry.at))
                .build()
            )
        return builder.sign(_load_key(self.key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _sign(
        self,
        public: ec.EllipticCurvePublicKey,
        role: Role,
        name: str,
        hosts: Sequence[str],
        at: float,
        days: int,
    ) -> bytes:
        if not NAME.match(name):
            raise ConfigError(f"name {name[:64]!r}", "is no name", "use 1 to 64 of A-Z a-z 0-9 . _ -")
        if not LEAST_DAYS <= days <= MOST_DAYS:
            raise ConfigError(f"days {days}", "is out of range", f"use {LEAST_DAYS} to {MOST_DAYS}")
        issuer = x509.load_pem_x509_certificate(self.certificate)
        end = min(_when(at) + timedelta(days=days), issuer.not_valid_after_utc)
        if end <= _when(at):
            raise ConfigError("the authority", "has expired", "make a new one with ragate certs init")
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if role in _SERVES:
            usage.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ragate {role.value} {name}"[:64])]))
            .issuer_name(issuer.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_when(at) - BACKDATED)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(_names(role, name, hosts), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(_authority_key(issuer), critical=False)
            .sign(_load_key(self.key), hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


def make_authority(site: str, at: float) -> Authority:
    """Make a site's authority. Raises ``ConfigError`` for a name that is none."""
    if not NAME.match(site):
        raise ConfigError(f"site {site[:64]!r}", "is no name", "use 1 to 64 of A-Z a-z 0-9 . _ -")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ragate site {site}"[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_when(at) - BACKDATED)
        .not_valid_after(_when(at) + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def make_request(name: str) -> tuple[bytes, bytes]:
    """Make a key for this host and the request to sign its public half; both PEM: request, key."""
    pem = _new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(_load_key(pem), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM), pem


def key_fits(certificate: bytes, key: bytes) -> bool:
    """Whether the private key is that of the certificate (both PEM). Raises ``IdentityRefused``."""
    try:
        ours = _load_key(key).public_key()
        theirs = x509.load_pem_x509_certificate(certificate).public_key()
    except ValueError as error:
        msg = f"no certificate can be read: {str(error)[:80]}"
        raise IdentityRefused(msg) from error
    except ConfigError as error:
        raise IdentityRefused(error.what) from error
    return ours == theirs


def _names(role: Role, name: str, hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    found: list[x509.GeneralName] = [x509.UniformResourceIdentifier(urn(role, name))]
    for host in hosts:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            if not host.isascii() or not host.replace("-", "").replace(".", "").isalnum():
                what = "is neither an address nor a host name"
                raise ConfigError(f"host {host[:64]!r}", what, "such as 10.77.3.1 or gateway.site") from None
            found.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(found)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    found = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _when(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).replace(microsecond=0)


def _new_key() -> bytes:
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise ConfigError("the private key", "cannot be read", "make it with ragate certs") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("the private key", "is not of an elliptic curve", "make it with ragate certs")
    return key
