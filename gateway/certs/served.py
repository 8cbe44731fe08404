"""What a TLS server of ours shows to clients of any authority, reloaded while it runs.

``ServedTls`` holds the newest good set of four files: certificate, key, the authorities of clients, the list of
what those have revoked. Unlike the material of our own links they may come from anywhere: the certificate from a
public authority, the clients' from their owner's. What lives here: reading and judging those files, and saying that
one is near its end. What must not: servers, connections, who a client is.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.certs.sealed import no_password
from gateway.certs.stamps import stamp_of
from gateway.core.errors import ConfigError

LOOK_SECONDS = 2.0
"""Between looks at the files: a revocation holds for open connections after this long at the most."""

SAY_LEFT = 0.2  #: part of its life that a certificate has left when it is said every day that it must be renewed
SAY_EVERY = 86_400.0
FILE_BYTES = 1 << 20  #: of one file: a bundle of authorities or a list of 10,000 revoked certificates fits

_END_OF_LIST = b"-----END X509 CRL-----"

Mark = tuple[bytes, int]
"""A client's certificate in the eyes of a revocation list: its issuer's name (DER) and its serial number."""


class ServedFiles(NamedTuple):
    """Where the files are. Without ``client_ca`` clients are not asked for a certificate."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_crl: Path | None = None


class Served(NamedTuple):
    """One set that fits together. Times are UNIX seconds; PEM as the files have it."""

    certificate: bytes
    key: bytes
    client_ca: bytes
    revoked: frozenset[Mark]
    list_ends: float | None  # the first of its lists: from then on every client is refused
    not_before: float
    not_after: float
    context: ssl.SSLContext

    def left(self, now: float) -> float:
        """Seconds until the certificate ends."""
        return self.not_after - now


def load_served(files: ServedFiles) -> Served:
    """Read the files and judge whether they fit together. Raises ``ConfigError`` naming file and mend."""
    certificate, key = _read(files.certificate), _read(files.key)
    client_ca = b"" if files.client_ca is None else _read(files.client_ca)
    leaf = _certificates(files.certificate, certificate)[0]
    revoked: frozenset[Mark] = frozenset()
    list_ends = None
    if files.client_ca is not None:
        authorities = _certificates(files.client_ca, client_ca)
        if files.client_crl is not None:
            revoked, list_ends = _revoked(files.client_crl, authorities)
    return Served(
        certificate,
        key,
        client_ca,
        revoked,
        list_ends,
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
        _context(files),
    )


class ServedTls:
    """The newest good set of one server. ``name`` is the server's, for notices and metrics.

    ``look`` takes newer files when they are good; when they are not, the old set stays and ``told`` is called with
    the reason once. ``run`` looks until cancelled. ``changed`` is called after newer files were taken. Raises
    ``ConfigError`` when the files are not good at start.
    """

    def __init__(
        self,
        files: ServedFiles,
        name: str,
        told: Callable[[str], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.files = files
        self.name = name
        self.changed: Callable[[], None] = lambda: None
        self.reloads = 0
        self._told = told
        self._now = now
        self._seen = stamp_of(files)
        self._said = 0.0
        self.wrong = ""  #: why newer files were not taken; "" when the newest are in use
        self.current = load_served(files)

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        return self.current.context

    def revoked(self, mark: Mark) -> bool:
        """Whether a client's certificate is on the list in use, or that list has ended and vouches for nobody."""
        return mark in self.current.revoked or self._list_ended()

    def _list_ended(self) -> bool:
        ends = self.current.list_ends
        return ends is not None and ends <= self._now()

    def state(self) -> str:
        """One line for people."""
        if self.wrong:
            return f"changed TLS files are not used: {self.wrong}"
        now = self._now()
        if self._list_ended():
            return "the clients' revocation list has ended: every client is refused until there is a newer one"
        left = self.current.left(now)
        return f"certificate ends in {left / 86_400:.1f} days" if left > 0 else "its certificate has expired"

    def look(self) -> bool:
        """Look once; True when newer files were taken. Microseconds while nothing has changed."""
        seen = stamp_of(self.files)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.current = load_served(self.files)
        except ConfigError as error:
            self.wrong = str(error)
            self._told(f"{self.name}: changed TLS files cannot be used, the former ones stay: {error}")
            return False
        self.wrong, self._said = "", 0.0
        self.reloads += 1
        self.changed()
        return True

    def remind(self) -> None:
        """Say once a day that the certificate in use is near its end."""
        now, current = self._now(), self.current
        left = current.left(now)
        if left > (current.not_after - current.not_before) * SAY_LEFT or now - self._said < SAY_EVERY:
            return
        self._said = now
        words = f"expires in {left / 86_400:.1f} days" if left > 0 else "has expired"
        self._told(f"{self.name}: {self.files.certificate} {words}; put a new one there, it is taken at once")

    async def run(self) -> None:
        """Look every few seconds until cancelled."""
        ended = False
        while True:
            self.remind()
            await asyncio.sleep(LOOK_SECONDS)
            if not self.look() and self._list_ended() != ended:
                self.changed()
            ended = self._list_ended()


def mark_of(certificate: x509.Certificate) -> Mark:
    """How a revocation list names a certificate."""
    return certificate.issuer.public_bytes(), certificate.serial_number


def _context(files: ServedFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # A resumed session would skip the look at the client's certificate and at the revocation list.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(files.certificate, files.key, no_password)
        if files.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(files.client_ca)
            if files.client_crl is not None:
                context.load_verify_locations(files.client_crl)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (OSError, ssl.SSLError) as error:
        what = f"TLS cannot be set up: {error}"
        raise ConfigError(str(files.certificate), what, "give certificate and key of one making, as PEM") from error
    return context


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as opened:
            data = opened.read(FILE_BYTES + 1)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise ConfigError(str(path), what, "check the path and its rights") from error
    if len(data) > FILE_BYTES:
        raise ConfigError(str(path), f"is larger than {FILE_BYTES} bytes", "is this the right file?")
    return data


def _certificates(path: Path, pem: bytes) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigError(str(path), f"holds no certificate in PEM: {str(error)[:80]}", "give it as PEM") from error


def _revoked(path: Path, authorities: Iterable[x509.Certificate]) -> tuple[frozenset[Mark], float | None]:
    """What the lists of a file revoke, and when the first of them ends (RFC 5280 section 5.1.2.5).

    Each must be signed by an authority that clients' certificates may have.
    """
    found: set[Mark] = set()
    ends: list[float] = []
    parts = _read(path).split(_END_OF_LIST)[:-1]
    if not parts:
        raise ConfigError(str(path), "holds no revocation list in PEM", "give it as PEM")
    for part in parts:
        try:
            listed = x509.load_pem_x509_crl(part + _END_OF_LIST)
            signed = any(_signed_by(listed, authority) for authority in authorities)
        except ValueError as error:
            what = f"holds no revocation list in PEM: {str(error)[:80]}"
            raise ConfigError(str(path), what, "give it as PEM") from error
        if not signed:
            what = "has a list that none of the clients' authorities has signed"
            raise ConfigError(str(path), what, "give the list of the CA named in client_ca")
        issuer = listed.issuer.public_bytes()
        found.update((issuer, entry.serial_number) for entry in listed)
        if listed.next_update_utc is not None:
            ends.append(listed.next_update_utc.timestamp())
    return frozenset(found), min(ends, default=None)


def _signed_by(listed: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    key = authority.public_key()
    if listed.issuer != authority.subject or not isinstance(
        key, EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey
    ):
        return False
    try:
        return listed.is_signature_valid(key)
    except (InvalidSignature, TypeError):
        return False
