"""What our TLS servers and clients are built from, reloaded while they run.

``TlsMaterial`` holds the newest good set of files. Whoever makes a connection asks it then; what is open stays
open. New files are taken only as a whole and only when they fit together: authority, certificate by it, its key,
its list. What lives here: reading and judging those files, contexts for Python's ``ssl``. What must not: servers,
channels.
"""

from __future__ import annotations

import asyncio
import ssl
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gateway.certs.authority import key_fits
from gateway.certs.identity import (
    Identity,
    IdentityRefused,
    Role,
    identify,
    issued,
    parse,
    read_identity,
    read_revoked,
)
from gateway.certs.sealed import no_password
from gateway.certs.stamps import stamp_of
from gateway.core.errors import ConfigError

#: Seconds between looks at the files: a revocation holds for new links after this long at the most.
LOOK_SECONDS = 2.0
#: Part of its life that a certificate has left when it is said every day that it must be renewed.
SAY_LEFT = 0.2
SAY_EVERY = 86_400.0
#: Bytes of one file; a revocation list with every entry that an authority may revoke has half a megabyte.
FILE_BYTES = 1 << 20

Say = Callable[[str, str], None]
"""Told (subject, sentence) when something about certificates is worth a notice."""


class MaterialFiles(NamedTuple):
    """Where the files are. ``revoked`` None: no list is kept, nothing is revoked."""

    authority: Path
    certificate: Path
    key: Path
    revoked: Path | None = None


class Material(NamedTuple):
    """One set of files that fit together; PEM, and what they say."""

    authority: bytes
    certificate: bytes
    key: bytes
    revocations: bytes
    revoked: frozenset[int]
    identity: Identity


def load_material(files: MaterialFiles, role: Role | None) -> Material:
    """Read the files and judge whether they fit together. Raises ``ConfigError`` naming file and mend."""
    authority, certificate, key = (_read(path) for path in (files.authority, files.certificate, files.key))
    _check_key_rights(files.key)
    revocations = b"" if files.revoked is None else _read(files.revoked)
    where = files.certificate
    try:
        where = files.authority
        parse(authority)
        revoked: frozenset[int] = frozenset()
        if files.revoked is not None:
            where = files.revoked
            revoked = read_revoked(revocations, authority)
        where = files.certificate
        # Whether it is still good is for those to judge who are shown it: a service whose own certificate has
        # expired goes on enforcing on this host.
        identity = issued(certificate, authority)
        where = files.key
        if not key_fits(certificate, key):
            raise ConfigError(str(files.key), f"is not the key of {files.certificate}", "copy both of one making")
    except IdentityRefused as error:
        mend = "ragate certs issue or renew makes it; copy it here with its key"
        raise ConfigError(str(where), str(error), mend) from error
    if role is not None and identity.role is not role:
        what = f"is the certificate of {identity.role.value} {identity.name}; one with role {role.value} is needed"
        raise ConfigError(str(files.certificate), what, f"ragate certs issue {role.value} NAME")
    return Material(authority, certificate, key, revocations, revoked, identity)


class TlsMaterial:
    """The newest good set, and servers' contexts that follow it.

    ``poll`` looks for newer files and takes them when they are good; when they are not, the old set stays, and it
    is said once. ``run`` polls until cancelled.
    """

    def __init__(
        self,
        files: MaterialFiles,
        role: Role | None = None,
        *,
        say: Say | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Read the files. Raises ``ConfigError`` when they are not good now."""
        self.files = files
        self._role = role
        self._now = now
        self._say: Say = say or (lambda _subject, _sentence: None)
        self._seen = stamp_of(self.files)
        self.current = load_material(files, role)
        self._newest = self._context()
        self._listeners: list[Callable[[], None]] = []
        self._wrong = self._wrong_before = ""
        self._said = 0.0
        self.reloads = 0

    def set_say(self, say: Say) -> None:
        """Tell notices there from now on."""
        self._say = say

    @property
    def wrong(self) -> str:
        """Why newer files were not taken; "" when the newest are in use."""
        return self._wrong

    @property
    def revoked(self) -> frozenset[int]:
        """Revoked serial numbers."""
        return self.current.revoked

    def identify(self, pem: bytes) -> Identity:
        """Who holds a peer's certificate, judged now. Raises ``IdentityRefused``."""
        return identify(pem, self.current.authority, self.current.revoked, self._now())

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` each time after newer files were taken: open links are judged again then."""
        self._listeners.append(listener)

    def server_context(self) -> ssl.SSLContext:
        """A context for a server that asks every client for a certificate of the site (TLS 1.3), refuses revoked
        ones in the handshake, and takes renewed files by itself: what is open stays open.

        Raises ``ConfigError`` when the library refuses the files.
        """
        context = self._context()
        # Called at the beginning of every handshake, whether the client names a server or not: the handshake goes
        # on with the newest context. Adding to a standing one would leave older revocation lists in it.
        context.sni_callback = self._with_newest
        return context

    def _with_newest(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _old: object) -> None:
        connection.context = self._newest

    def _context(self) -> ssl.SSLContext:
        files = self.files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        # No tickets: a resumed session would not be asked for its certificate again.
        context.num_tickets = 0
        try:
            context.load_cert_chain(files.certificate, files.key, no_password)
            context.load_verify_locations(files.authority)
            if files.revoked is not None:
                context.load_verify_locations(files.revoked)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(str(files.certificate), f"TLS refuses it: {error}", "issue it anew") from error
        return context

    def poll(self) -> bool:
        """Look once; True when newer files were taken."""
        self._remind()
        stamp = stamp_of(self.files)
        if stamp == self._seen:
            return False
        try:
            fresh = load_material(self.files, self._role)
            newest = self._context()
        except ConfigError as error:
            # Looked at again next time: files are replaced one after the other.
            if str(error) != self._wrong and self._wrong_before == str(error):
                self._wrong = str(error)
                self._say("certificate", f"the renewed files are not used: {error}")
            self._wrong_before = str(error)
            return False
        self._seen, self._wrong, self._wrong_before = stamp, "", ""
        if fresh == self.current:
            return False
        self.current, self._newest = fresh, newest
        self.reloads += 1
        self._said = 0.0
        self._say("certificate", f"newer files were taken: {fresh.identity}, {len(fresh.revoked)} revoked")
        for listener in self._listeners:
            listener()
        return True

    def _remind(self) -> None:
        """Say once a day that the certificate in use is near its end."""
        now, identity = self._now(), self.current.identity
        left = identity.not_after - now
        if left <= (identity.not_after - identity.not_before) * SAY_LEFT and now - self._said >= SAY_EVERY:
            self._said = now
            words = f"expires in {left / 86_400:.1f} days" if left > 0 else "has expired"
            self._say("certificate", f"{self.files.certificate}: {words}; renew it with ragate certs renew")

    async def run(self) -> None:
        """Look every few seconds until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.poll()


def read_peer(pem: bytes) -> Identity:
    """Who a peer says to be, judged by nothing else: for messages about a refusal. Raises ``IdentityRefused``."""
    return read_identity(parse(pem))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as opened:
            data = opened.read(FILE_BYTES + 1)
    except OSError as error:
        mend = "make it with ragate certs and copy it here"
        raise ConfigError(str(path), f"cannot be read: {error.strerror}", mend) from error
    if len(data) > FILE_BYTES:
        raise ConfigError(str(path), f"is larger than {FILE_BYTES} bytes", "is this the right file?")
    return data


def _check_key_rights(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o037:
        what = f"others may read or change it (mode {mode:04o})"
        raise ConfigError(str(path), what, f"chmod 0600 {path}; 0640 lets a service's group read it")
