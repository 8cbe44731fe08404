"""How a KubeArmor daemon on this host is reached: loopback TCP, plaintext or with mutual TLS, or a Unix socket.

What must not live here: which calls are made, and when.

With ``tlsEnabled`` the daemon demands a client certificate of its CA and shows a certificate whose only name is the
node's IP address (``KubeArmor/cert/tls.go`` and ``feeder/feeder.go`` of kubearmor/KubeArmor at commit 510cee31). It
listens on every interface, so it is dialled over loopback and the name is checked against that IP address.
"""

from __future__ import annotations

import ipaddress

import grpc
import grpc.aio

from gateway.certs.client import ClientFiles
from gateway.core.errors import BackendError, ConfigError

NAME = "kubearmor"

#: Milliseconds between the library's own attempts to connect. Ours are jittered and further apart; without these a
#: channel would wait up to 2 minutes although the daemon is there again.
RECONNECT = (("grpc.min_reconnect_backoff_ms", 500), ("grpc.max_reconnect_backoff_ms", 5_000))


def is_unix(address: str) -> bool:
    """Whether an address is a Unix socket's."""
    return address.startswith("unix:")


def is_local(address: str) -> bool:
    """Whether an address is one of this host alone: ``unix:/PATH``, or loopback with a port."""
    if is_unix(address):
        return address.startswith("unix:/") and len(address) > len("unix:/")
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        return False
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host == "localhost"


def connect(address: str, tls: ClientFiles | None, max_receive: int) -> grpc.aio.Channel:
    """Return a channel on a connection of its own; ``max_receive`` in bytes of one message.

    The files of ``tls`` are read for each channel, so that renewed ones are taken; a Unix socket is guarded by its
    rights and takes none. Raises ``BackendError`` when they cannot be read now.

    No client keepalive: KubeArmor keeps the library's least interval of 5 minutes and closes the connection of a
    client that pings more often (interface 1.8). No transparent retry: one call is one sending.
    """
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", max_receive),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        *RECONNECT,
    ]
    if tls is None or is_unix(address):
        return grpc.aio.insecure_channel(address, options=options)
    try:
        pem = tls.read()
    except ConfigError as error:
        raise BackendError(NAME, str(error), transient=True) from error
    if tls.name:
        options.append(("grpc.ssl_target_name_override", tls.name))
    credentials = grpc.ssl_channel_credentials(pem.authority, pem.key, pem.certificate)
    return grpc.aio.secure_channel(address, credentials, options=options)
