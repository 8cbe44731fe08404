"""What a site has whose verifiers post: a CA and certificates, keys, documents of every format, and a client.

What lives here: the senders' side, independent of the readers it is tested with (JOSE and COSE structures are put
together by hand). What must not: asserts.
"""

from __future__ import annotations

import base64
import datetime as dt
import http.client
import json
import secrets
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PATIENCE = 90.0
PROFILE = "tag:ietf.org,2026:rats/ear#04"

Private = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey


# --- keys ---------------------------------------------------------------------------------------------------------


def key_for(name: str, kind: str = "Ed25519") -> Any:
    """A private key, the same for the same name within this process."""
    return _key(name, kind)


@cache
def _key(name: str, kind: str) -> Any:
    if kind == "Ed25519":
        return Ed25519PrivateKey.generate()
    if kind in ("ES256", "ES384"):
        return generate_private_key(SECP256R1() if kind == "ES256" else SECP384R1())
    return generate_rsa_key(65537, 2048)


def public_pem(key: Private) -> bytes:
    """The public half."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sign(key: Private, kind: str, message: bytes) -> bytes:
    """A signature as JOSE and COSE write it, or as Keylime makes it."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, EllipticCurvePrivateKey):
        half = 32 if kind == "ES256" else 48
        r, s = decode_dss_signature(key.sign(message, ECDSA(SHA256() if kind == "ES256" else SHA384())))
        return r.to_bytes(half, "big") + s.to_bytes(half, "big")
    padding = PSS(MGF1(SHA256()), PSS.MAX_LENGTH) if kind == "Keylime" else PKCS1v15()
    return key.sign(message, padding, SHA256())


# --- documents ----------------------------------------------------------------------------------------------------


def verdict(device: str, result: str = "passed", **more: object) -> dict[str, Any]:
    """One verdict of our own format, issued now."""
    now = int(time.time())
    made: dict[str, Any] = {"device": device, "result": result, "issued_at": now, "nonce": secrets.token_hex(8)}
    if result == "passed":
        made["expires_at"] = now + 600
    made.update(more)
    return {name: value for name, value in made.items() if value is not None}


def posted(source: str, *verdicts: Mapping[str, object]) -> bytes:
    """A document of our own format."""
    return json.dumps({"source": source, "verdicts": list(verdicts)}).encode()


def ear(status: object = "affirming", submod: str = "cam-1", **more: object) -> dict[str, Any]:
    """An EAR claims set for JSON, issued now."""
    made: dict[str, Any] = {
        "eat_profile": PROFILE,
        "iat": int(time.time()),
        "ear_verifier_id": {"developer": "https://verifier.example", "build": "1"},
        "submods": {
            submod: {"ear_status": status, "ear_trustworthiness_vector": {"executables": 2, "hardware": 2}}
        },
        "jti": secrets.token_hex(8),
    }
    made.update(more)
    return made


def ear_cbor(status: object = 2, submod: str = "cam-1", **more: object) -> dict[object, Any]:
    """The same for CBOR."""
    made: dict[object, Any] = {
        265: PROFILE,
        6: int(time.time()),
        1004: {0: "https://verifier.example", 1: "1"},
        266: {submod: {1000: status, 1001: {2: 2, 4: 2}}},
        7: secrets.token_bytes(8),
    }
    made.update(more)
    return made


def base64url(data: bytes) -> bytes:
    """Without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def jwt(key: Private, alg: str, claims: object, kid: str = "k1", **header: object) -> bytes:
    """A compact JWS. ``claims``: bytes as they are, or a value for JSON."""
    head: dict[str, object] = {"alg": alg, "kid": kid, "typ": "JWT", **header}
    head = {name: value for name, value in head.items() if value is not None}
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = base64url(json.dumps(head).encode()) + b"." + base64url(payload)
    return signed + b"." + base64url(sign(key, alg, signed))


COSE = {"ES256": -7, "ES384": -35, "Ed25519": -8, "RS256": -257}


def cwt(
    key: Private,
    alg: str,
    claims: object,
    *,
    protected: Mapping[int, object] | None = None,
    unprotected: Mapping[int, object] | None = None,
    tagged: bool = True,
) -> bytes:
    """A COSE_Sign1. ``claims``: bytes as they are, or a value for CBOR."""
    head = cbor2.dumps({1: COSE[alg], 4: b"k1"} if protected is None else dict(protected))
    payload = claims if isinstance(claims, bytes) else cbor2.dumps(claims)
    signature = sign(key, alg, cbor2.dumps(["Signature1", head, b"", payload]))
    message = [head, dict(unprotected or {}), payload, signature]
    return cbor2.dumps(cbor2.CBORTag(18, message) if tagged else message)


def revocation(key: Private | None, agent: str, **more: object) -> bytes:
    """A notification as Keylime's verifier posts it, of now in UTC."""
    inner: dict[str, object] = {
        "type": "revocation",
        "ip": "10.0.0.9",
        "agent_id": agent,
        "port": 9002,
        "tpm_policy": '{"mask": "0x408000"}',
        "meta_data": "{}",
        "event_time": time.asctime(time.gmtime()),
        "event_id": "ima.validation",
        "severity_label": "CRITICAL",
        "context": {"message": "a file was changed", "data": secrets.token_hex(4)},
    }
    inner.update(more)
    message = json.dumps(inner)
    signature = "" if key is None else base64.b64encode(sign(key, "Keylime", message.encode())).decode()
    return json.dumps({"msg": message, "signature": signature}).encode()


def status(agent: str, **more: object) -> bytes:
    """An agent's status as Keylime's verifier answers it, with the agent's id beside."""
    now = int(time.time())
    results: dict[str, object] = {
        "operational_state": 3,
        "ip": "10.0.0.9",
        "attestation_count": 240,
        "last_received_quote": now,
        "last_successful_attestation": now,
        "attestation_status": "PASS",
    }
    results.update(more)
    answer = {"code": 200, "status": "Success", "results": results}
    return json.dumps({"agent_id": agent, "answer": answer}).encode()


# --- certificates -------------------------------------------------------------------------------------------------


@dataclass
class Authority:
    """A CA and what it has signed, as files in a folder."""

    folder: Path
    key: EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, folder: Path, name: str = "site") -> Authority:
        """Make one; its certificate is ``NAME-ca.pem``."""
        folder.mkdir(parents=True, exist_ok=True)
        key = key_for(f"ca-{name}", "ES256")
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} CA")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=False,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=True,
                    crl_sign=True,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(key, SHA256())
        )
        (folder / f"{name}-ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        return cls(folder, key, certificate)

    def issue(
        self,
        name: str,
        *,
        server: str = "",
        since: float = -3_600.0,
        until: float = 86_400.0,
        names: Sequence[x509.GeneralName] | None = None,
    ) -> x509.Certificate:
        """A certificate ``NAME.pem`` with its key ``NAME.key``; for a server of that address, or for a client."""
        key = key_for(f"certificate-{name}", "ES256")
        now = dt.datetime.now(dt.UTC)
        if names is None:
            names = [x509.IPAddress(ip_address(server))] if server else [x509.DNSName(f"{name}.example")]
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(seconds=since))
            .not_valid_after(now + dt.timedelta(seconds=until))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, SHA256())
        )
        (self.folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        place = self.folder / f"{name}.key"
        place.touch(mode=0o600)
        place.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate

    def revoke(self, *revoked: x509.Certificate, name: str = "site") -> None:
        """Write the revocation list ``NAME.crl``."""
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - dt.timedelta(hours=1))
            .next_update(now + dt.timedelta(days=1))
        )
        for each in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(each.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now).build())
        made = builder.sign(self.key, SHA256())
        (self.folder / f"{name}.crl").write_bytes(made.public_bytes(Encoding.PEM))


def client_context(folder: Path, name: str = "", ca: str = "site") -> ssl.SSLContext:
    """A client's context, with the certificate of that name or none."""
    context = ssl.create_default_context(cafile=str(folder / f"{ca}-ca.pem"))
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


# --- a client -----------------------------------------------------------------------------------------------------


class Reply:
    """Status, headers and body of one answer."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def step(self) -> str:
        return str(self.json.get("step", ""))

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:600]!r}"


class Client:
    """One sender. ``keep``: it keeps its connection alive until it is closed."""

    def __init__(self, place: tuple[str, int], context: ssl.SSLContext, *, keep: bool = False) -> None:
        self._connection = http.client.HTTPSConnection(*place, timeout=PATIENCE, context=context)
        self._keep = keep

    def request(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        try:
            self._connection.request(method, path, body=body, headers=dict(headers or {}))
            answer = self._connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            if not self._keep:
                self._connection.close()

    def post(
        self,
        body: bytes,
        *,
        source: str = "",
        media_type: str = "application/json",
        key: Private | None = None,
        key_id: str = "",
        wait: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        sent = {"Content-Type": media_type, **(headers or {})}
        if source:
            sent["Ragate-Source"] = source
        if key_id:
            sent["Ragate-Key"] = key_id
        if key is not None:
            sent["Ragate-Signature"] = base64.b64encode(sign(key, "Ed25519", body)).decode()
        return self.request("POST", "/v1/verdicts" + ("?wait=verified" if wait else ""), body, sent)

    def close(self) -> None:
        self._connection.close()


def raw(place: tuple[str, int], context: ssl.SSLContext, data: bytes, seconds: float = PATIENCE) -> bytes:
    """Send bytes over TLS as they are; return everything that comes until the peer closes."""
    parts: list[bytes] = []
    with (
        socket.create_connection(place, timeout=seconds) as plain,
        context.wrap_socket(plain, server_hostname=place[0]) as connection,
    ):
        connection.sendall(data)
        try:
            while part := connection.recv(65_536):
                parts.append(part)
        except (ssl.SSLError, ConnectionError):
            pass
    return b"".join(parts)
