"""TLS for the door: a context from files, made again when they change; listening sockets.

Whoever has another source of contexts gives the door any callable that returns the current one: a connection keeps
the context that it was made with and is asked to close after its next answer once there is a newer one.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

from gateway.core.errors import ConfigError

BACKLOG = 256  #: connections that the kernel keeps while we shake hands with others

Stamp = tuple[tuple[int, int, int], ...]


class TlsFiles:
    """Certificate, key, client CA and revocation list as files. Call it for the current context.

    Files that cannot be used leave the last good context in place; ``problem`` then says why, and ``told`` is
    called with it once. Raises ``ConfigError`` when they cannot be used at start.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        client_ca: Path | None = None,
        client_crl: Path | None = None,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._certificate, self._key = certificate, key
        self._client_ca, self._client_crl = client_ca, client_crl
        self._told = told
        self.problem = ""
        self._stamp = self._look()
        try:
            self._context = self._make()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(str(certificate), f"TLS cannot be set up: {error}", "check the files") from error

    def __call__(self) -> ssl.SSLContext:
        """The current context. Looks at the files' times: microseconds, beside a handshake's milliseconds."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = self._make()
            except (OSError, ssl.SSLError) as error:
                self.problem = f"changed TLS files cannot be used, the former ones stay: {error}"
                self._told(self.problem)
            else:
                self.problem = ""
        return self._context

    def _look(self) -> Stamp:
        found = []
        for path in (self._certificate, self._key, self._client_ca, self._client_crl):
            if path is None:
                continue
            try:
                stat = os.stat(path)  # noqa: PTH116 - Path.stat makes the same call with twice the work
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
        return tuple(found)

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._certificate, self._key)
        context.set_alpn_protocols(["http/1.1"])
        # A resumed session would skip the look at the client's certificate and at the revocation list.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        if self._client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self._client_ca)
            if self._client_crl is not None:
                context.load_verify_locations(self._client_crl)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        return context


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
