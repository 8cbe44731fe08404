"""What the door reads of a client's certificate, and its listening sockets."""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple

from cryptography import x509

from gateway.certs import Mark, mark_of
from gateway.control.reception import Identity
from gateway.core.errors import ConfigError

BACKLOG = 4_096  #: connections that the kernel keeps until they are accepted: a burst of senders that come back


class Listed(NamedTuple):
    """A verified client certificate: whose it is, and how a revocation list names it."""

    identity: Identity
    mark: Mark


def identity_of(tls: ssl.SSLObject | None) -> Listed | None:
    """The verified client certificate of a connection, where one was asked for."""
    der = None if tls is None else tls.getpeercert(binary_form=True)
    if tls is None or not der:
        return None
    known: Any = tls.getpeercert()
    if not known:
        return None
    ends = ssl.cert_time_to_seconds(known["notAfter"])
    identity = Identity(hashlib.sha256(der).hexdigest(), names(known.get("subjectAltName", ())), float(ends))
    return Listed(identity, mark_of(x509.load_der_x509_certificate(der)))


def open_listener(host: str, port: int) -> socket.socket:
    """A socket bound to an address and port. Raises ``ConfigError``."""
    family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        where = f"{host}:{port}"
        raise ConfigError(
            where, f"cannot listen here: {error.strerror}", "choose another address or port"
        ) from error
    return sock


def names(alternatives: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The names of a certificate's SAN as the configuration writes them."""
    kinds = {"DNS": "dns", "URI": "uri"}
    return tuple(
        f"{kinds[kind]}:{name.lower() if kind == 'DNS' else name}" for kind, name in alternatives if kind in kinds
    )
