"""How a cluster's API server is reached: from a kubeconfig, or from inside the cluster.

Facts: the form of a kubeconfig and of a pod's service account (kubernetes.io/docs, "Organizing Cluster Access Using
kubeconfig Files" and "Accessing the API from a Pod"). Programs that a kubeconfig names are never run.
What must not live here: requests.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from gateway.certs.sealed import no_password
from gateway.core.errors import BackendError
from gateway.enforce.kubernetes.settings import NAME

#: Where a pod finds its service account.
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: Bytes of a kubeconfig with some hundred clusters and their certificates.
MOST_FILE = 1024 * 1024
#: What reading YAML raises: tags such as ``!!int`` before text that is none come as whatever the conversion raised.
_UNREADABLE = (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError)
#: A name of a host (RFC 1123, 2.1), of whole length at most.
_NAME = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?\Z"
)
_MAX_NAME = 253
#: Bytes of a token; a projected one has about 1 KiB.
MOST_TOKEN = 64 * 1024


class AccessRefused(BackendError):
    """A kubeconfig, or a pod's service account, that cannot be used: what is wrong, and the mend."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(NAME, f"{what}; {mend}", transient=True)
        self.mend = mend
        self.wrong = what


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is and who we are to it.

    ``token_file`` is read for every request, because tokens in it are replaced while we run; ``name`` is the one
    that the server's certificate must have, where it is not the address's.
    """

    server: str
    tls: ssl.SSLContext | None = None
    name: str | None = None
    token: str = field(default="", repr=False)
    token_file: Path | None = None

    def bearer(self) -> str:
        """The token to show now; "" when a certificate says who we are. Raises ``AccessRefused``."""
        if self.token_file is None:
            return self.token
        return _token(_read(self.token_file, MOST_TOKEN), str(self.token_file))


def from_cluster(environment: Mapping[str, str], account: Path = ACCOUNT) -> Access:
    """Return the access of the pod that we run in. Raises ``AccessRefused`` when this is no pod."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        mend = "run it there, or write kubeconfig: with the path of a file"
        raise AccessRefused("in_cluster is set, and this process does not run in a cluster's pod", mend)
    bracketed = f"[{host}]" if ":" in host else host
    authority = _read(account / "ca.crt", MOST_FILE)
    access = Access(f"https://{bracketed}:{port}", _context(authority, str(account)), token_file=account / "token")
    access.bearer()
    return access


def from_kubeconfig(path: Path, context: str | None = None) -> Access:
    """Return the access that a kubeconfig's ``context`` describes (None: its current one).

    Raises ``AccessRefused`` for a file that cannot be read or used, or that everybody may read.
    """
    data = _read(path, MOST_FILE)
    if path.stat().st_mode & stat.S_IROTH:
        raise AccessRefused(f"{path} may be read by everybody, and it says who we are", f"chmod 600 {path}")
    top = _mapping(_yaml(data, path), str(path))
    name = context or _text(top, "current-context", str(path))
    if not name:
        raise AccessRefused(f"{path} has no current context", "write context: with the name of one")
    chosen = _named(top, "contexts", name, "context", path)
    cluster = _named(top, "clusters", _text(chosen, "cluster", str(path)), "cluster", path)
    user = _named(top, "users", _text(chosen, "user", str(path)), "user", path)
    return _access(path, cluster, user)


def _access(path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> Access:
    server = _server(_text(cluster, "server", str(path)), path)
    if cluster.get("insecure-skip-tls-verify"):
        raise AccessRefused(
            f"{path}: insecure-skip-tls-verify: anybody could be the API server", "write certificate-authority"
        )
    if cluster.get("proxy-url"):
        raise AccessRefused(f"{path}: proxy-url is not supported", "reach the API server without a proxy")
    for key in ("exec", "auth-provider", "username"):
        if user.get(key):
            what = f"{path}: the user says who it is by {key}, which is not done here"
            raise AccessRefused(what, "give it a tokenFile, a token, or a client certificate")
    tls = None
    if server.startswith("https:"):
        authority = _material(cluster, "certificate-authority", path)
        tls = _context(authority, str(path))
        _identity(tls, _material(user, "client-certificate", path), _material(user, "client-key", path), path)
    name = _text(cluster, "tls-server-name", str(path))
    if name and not (_is_name(name) or _is_address(name)):
        raise AccessRefused(
            f"{path}: tls-server-name {name[:80]!r} is no name of a host", "write the certificate's"
        )
    file = _text(user, "tokenFile", str(path))
    token = _text(user, "token", str(path))
    access = Access(
        server,
        tls,
        name or None,
        _token(token.encode(), str(path)) if token and not file else "",
        path.parent / file if file else None,
    )
    access.bearer()
    return access


def _server(url: str, path: Path) -> str:
    try:
        parts = urlsplit(url)
        scheme, host, _ = parts.scheme, parts.hostname or "", parts.port
    except ValueError:  # a bracket too many, a port that is none
        scheme = host = ""
    if scheme not in ("https", "http") or not (_is_name(host) or _is_address(host)):
        raise AccessRefused(f"{path}: server {url[:80]!r} is no address", "write https://HOST:6443")
    if scheme == "http" and not _is_loopback(host):
        what = f"{path}: server {url[:80]!r} is plaintext beyond this host"
        raise AccessRefused(what, "write https://; http is for a proxy on loopback")
    return url.rstrip("/")


def _is_name(text: str) -> bool:
    """Whether a TLS library takes this as the name of a host."""
    return len(text) <= _MAX_NAME and _NAME.match(text) is not None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _context(authority: bytes | None, where: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=authority.decode("ascii"))
        except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
            raise AccessRefused(
                f"{where}: its certificate authority cannot be read: {error}", "write PEM"
            ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _identity(tls: ssl.SSLContext, certificate: bytes | None, key: bytes | None, path: Path) -> None:
    """Load a client certificate, from memory: what a kubeconfig holds inside must not come to a disk again."""
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        raise AccessRefused(f"{path}: a client certificate without its key, or a key without it", "give both")
    number = os.memfd_create("ragate-identity")
    try:
        os.write(number, certificate + b"\n" + key)
        tls.load_cert_chain(f"/proc/self/fd/{number}", password=no_password)
    except (ssl.SSLError, OSError) as error:
        raise AccessRefused(f"{path}: its client certificate cannot be used: {error}", "write PEM") from error
    finally:
        os.close(number)


def _material(mapping: Mapping[str, Any], key: str, path: Path) -> bytes | None:
    """What ``key-data`` holds, or the file that ``key`` names; None: neither."""
    inline = _text(mapping, f"{key}-data", str(path))
    if inline:
        try:
            return base64.b64decode(inline, validate=True)
        except ValueError as error:
            raise AccessRefused(
                f"{path}: {key}-data is no base64", "write the file's base64, all in one"
            ) from error
    file = _text(mapping, key, str(path))
    return _read(path.parent / file, MOST_FILE) if file else None


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:  # a path with a zero byte is no path
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise AccessRefused(f"{path} cannot be read: {why}", "correct the path or its rights") from error
    if len(data) > most:
        raise AccessRefused(f"{path} has more than {most} bytes", "name the right file")
    return data


def _token(data: bytes, where: str) -> str:
    text = data.strip().decode("ascii", "replace")
    if not text or not text.isprintable() or " " in text or "\ufffd" in text:
        raise AccessRefused(f"{where}: the token is empty or no token", "write one line of plain characters")
    return text


def _yaml(data: bytes, path: Path) -> object:
    try:
        return yaml.load(data, Loader=yaml.CSafeLoader)
    except _UNREADABLE as error:
        first = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise AccessRefused(f"{path} is no YAML: {first}", "name a kubeconfig") from error


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise AccessRefused(f"{where}: not a mapping where one belongs", "name a kubeconfig")
    return value


def _text(mapping: Mapping[str, Any], key: str, where: str) -> str:
    value = mapping.get(key, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise AccessRefused(f"{where}: {key} is no text", "name a kubeconfig")
    return value


def _named(top: Mapping[str, Any], key: str, name: str, inner: str, path: Path) -> Mapping[str, Any]:
    listed = top.get(key)
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and each.get("name") == name:
            return _mapping(each.get(inner), str(path))
    raise AccessRefused(f"{path} has no {inner} {name[:64]!r}", f"name one that stands under {key}")
