"""The folder that certificates live in: what is where, with which rights, and the register of what was issued.

What lives here: files of the authority. What must not: connections; which services use which certificate.

``ca.pem`` ``ca.key`` the authority; ``ca.crl`` the revocation list; ``issued.json`` what was issued, so that it can
be renewed and revoked by name; ``ROLE-NAME.pem`` ``ROLE-NAME.key`` the certificates. Private keys have mode 0600.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gateway.certs.authority import LEAF_DAYS, Authority, Leaf, Revoked, make_authority
from gateway.certs.identity import IdentityRefused, Role, parse, read_identity
from gateway.core.errors import ConfigError

#: Part of its life that a certificate has left when it is renewed.
RENEW_LEFT = 1 / 3
#: Bytes of the register: tens of thousands of certificates.
REGISTER_BYTES = 16_000_000

PUBLIC, PRIVATE = 0o644, 0o600


class Issued(NamedTuple):
    """One certificate of the register. Times are UNIX seconds; ``revoked`` 0: it is not."""

    role: Role
    name: str
    serial: int
    hosts: tuple[str, ...]
    not_before: float
    not_after: float
    days: int
    revoked: float = 0.0
    requested: bool = False  # its holder made the key: it cannot be renewed here without a new request

    def due(self, at: float) -> bool:
        """Whether it is in the last third of its life."""
        return self.not_after - at <= (self.not_after - self.not_before) * RENEW_LEFT


class Folder:
    """A site's folder of certificates. Every method raises ``ConfigError`` naming file and mend."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def authority(self) -> Path:
        """The authority's certificate."""
        return self.path / "ca.pem"

    @property
    def revocations(self) -> Path:
        """The revocation list."""
        return self.path / "ca.crl"

    def certificate(self, role: Role, name: str) -> Path:
        """Where the certificate of one holder lies."""
        return self.path / f"{role.value}-{name}.pem"

    def key(self, role: Role, name: str) -> Path:
        """Where the private key of one holder lies, unless the holder keeps it."""
        return self.path / f"{role.value}-{name}.key"

    def init(self, site: str, at: float) -> None:
        """Make the authority. Refuses when there is one: every certificate of the site hangs on it."""
        if self._file("ca.key").exists() or self.authority.exists():
            raise ConfigError(str(self.path), "has an authority already", "use another folder for another one")
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(str(self.path), f"cannot be made: {error.strerror}", "name another folder") from error
        made = make_authority(site, at)
        self._write(self._file("ca.key"), made.key, PRIVATE)
        self._write(self.authority, made.certificate, PUBLIC)
        self._register([])
        self._write(self.revocations, made.revocations([], at), PUBLIC)

    def issue(self, role: Role, name: str, hosts: Sequence[str], at: float, days: int = LEAF_DAYS) -> Issued:
        """Make key and certificate of one holder; refuses when that name has one that is still good."""
        known = self._without(role, name, at)
        leaf = self._authority().issue(role, name, hosts, at, days)
        return self._keep(leaf, known, role, name, tuple(hosts), days, requested=False)

    def sign(
        self, request: bytes, role: Role, name: str, hosts: Sequence[str], at: float, days: int = LEAF_DAYS
    ) -> Issued:
        """Make the certificate for a request whose holder keeps the key."""
        known = self._without(role, name, at)
        leaf = self._authority().sign(request, role, name, hosts, at, days)
        return self._keep(leaf, known, role, name, tuple(hosts), days, requested=True)

    def renew(self, at: float, *, everything: bool = False) -> list[Issued]:
        """Make anew, with fresh keys, what is in the last third of its life; returns what was made.

        Older certificates of the same holder stay good until their end: nothing is cut off by a renewal.
        """
        known = self.register()
        authority = self._authority()
        made: list[Issued] = []
        newest = {(one.role, one.name): one for one in known if not one.revoked}
        for old in newest.values():
            if old.requested or not (everything or old.due(at)):
                continue
            leaf = authority.issue(old.role, old.name, old.hosts, at, old.days)
            made.append(self._keep(leaf, known, old.role, old.name, old.hosts, old.days, requested=False))
            known = self.register()
        return made

    def revoke(self, role: Role, name: str, at: float) -> list[Issued]:
        """Revoke every certificate of one holder that is still valid, and write the list anew."""
        known = self.register()
        hit = [
            one for one in known if (one.role, one.name) == (role, name) and not one.revoked and one.not_after > at
        ]
        if not hit:
            names = (
                ", ".join(sorted({f"{one.role.value} {one.name}" for one in known if not one.revoked})) or "none"
            )
            raise ConfigError(f"{role.value} {name}", "has no valid certificate here", f"there are: {names}")
        changed = [one._replace(revoked=at) if one in hit else one for one in known]
        listed = [Revoked(one.serial, one.revoked) for one in changed if one.revoked and one.not_after > at]
        # The list first: should writing stop in between, the certificate is already refused.
        self._write(self.revocations, self._authority().revocations(listed, at), PUBLIC)
        self._register(changed)
        return [one._replace(revoked=at) for one in hit]

    def register(self) -> list[Issued]:
        """What was issued, oldest first."""
        text = self._read("issued.json", REGISTER_BYTES)
        try:
            return [_issued(one) for one in json.loads(text)]
        except (ValueError, TypeError, KeyError) as error:
            what = f"is no register of certificates: {str(error)[:80]}"
            raise ConfigError(str(self._file("issued.json")), what, "put back a copy") from error

    def _authority(self) -> Authority:
        return Authority(self._read("ca.pem", 65_536), self._read("ca.key", 65_536))

    def _without(self, role: Role, name: str, at: float) -> list[Issued]:
        known = self.register()
        for one in known:
            if (one.role, one.name) == (role, name) and not one.revoked and not one.due(at):
                what = f"{role.value} {name} has a certificate already, serial {one.serial:x}"
                raise ConfigError(str(self.path), what, "ragate certs renew makes a new one, revoke ends it")
        return known

    def _keep(
        self,
        leaf: Leaf,
        known: Sequence[Issued],
        role: Role,
        name: str,
        hosts: tuple[str, ...],
        days: int,
        *,
        requested: bool,
    ) -> Issued:
        found = read_identity(parse(leaf.certificate))
        made = Issued(role, name, found.serial, hosts, found.not_before, found.not_after, days, requested=requested)
        # Registered before it exists: what is not in the register could never be revoked.
        self._register([*known, made])
        if leaf.key:
            self._write(self.key(role, name), leaf.key, PRIVATE)
        self._write(self.certificate(role, name), leaf.certificate, PUBLIC)
        return made

    def _register(self, issued: Sequence[Issued]) -> None:
        rows = [one._asdict() | {"serial": f"{one.serial:x}"} for one in issued]
        self._write(self._file("issued.json"), (json.dumps(rows, indent=1) + "\n").encode(), PRIVATE)

    def _file(self, name: str) -> Path:
        return self.path / name

    def _read(self, name: str, limit: int) -> bytes:
        file = self._file(name)
        try:
            with file.open("rb") as opened:
                data = opened.read(limit + 1)
        except OSError as error:
            mend = "make the authority with ragate certs init, or name its folder with --folder"
            raise ConfigError(str(file), f"cannot be read: {error.strerror}", mend) from error
        if len(data) > limit:
            raise ConfigError(str(file), f"is larger than {limit} bytes", "is this the right folder?")
        return data

    def _write(self, file: Path, data: bytes, mode: int) -> None:
        write_whole(file, data, mode)


def write_whole(file: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all, never readable by others before it has its rights.

    Raises ``ConfigError``.
    """
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
        try:
            with open(descriptor, "wb", closefd=False) as opened:
                opened.write(data)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(file)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise ConfigError(str(file), f"cannot be written: {error.strerror}", "check folder and rights") from error


def _issued(row: dict[str, Any]) -> Issued:
    return Issued(
        Role(row["role"]),
        str(row["name"]),
        int(row["serial"], 16),
        tuple(map(str, row["hosts"])),
        float(row["not_before"]),
        float(row["not_after"]),
        int(row["days"]),
        float(row["revoked"]),
        bool(row["requested"]),
    )


def read_certificate(path: Path) -> tuple[Role, str, float]:
    """Role, name and end (UNIX seconds) of the certificate in a file. Raises ``ConfigError``."""
    try:
        found = read_identity(parse(path.read_bytes()))
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}", "check path and rights") from error
    except IdentityRefused as error:
        raise ConfigError(str(path), str(error), "make it with ragate certs") from error
    return found.role, found.name, found.not_after
