"""What the doctor looks at: SEDIMENT's files, compose files, KubeArmor's settings, this host's sockets and clock.

What lives here: reading, without judging. What must not: writing, or opening a connection. Other people's files are
read as they are; one that cannot be read is an error that names it.
"""

from __future__ import annotations

import ctypes
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gateway.config.document import DEPTH, SMALL_FILE, read_bytes, read_text
from gateway.config.values import Config, Places
from gateway.core.errors import ConfigError
from gateway.sediment.inventory import DEVICE_QUERY, SedimentDevice, read_sediment_devices

#: First bytes of an SQLite file (file format, section 1.3), and of any PEM.
_SQLITE, _PEM = b"SQLite format 3\x00", b"-----BEGIN "
#: Seconds to wait for a verifier that is writing its database.
_BUSY = 2.0
#: Files looked at in a folder of SEDIMENT's: its repository has some tens of settings, keys and databases.
FILES_MOST = 200
#: Where its folder keeps them (v1.0.0).
_FOLDERS = ("configs/boards", "data", ".")
#: The kernel's TCP sockets (proc(5)), and its word for listening.
_TABLES, _LISTEN = (Path("/proc/net/tcp"), Path("/proc/net/tcp6")), "0A"


class Board(NamedTuple):
    """One of SEDIMENT's settings files: ``key value`` lines, or ``component key:value``."""

    path: Path
    values: Mapping[str, str]


class Compose(NamedTuple):
    """One compose file's services by name, as they stand there."""

    path: Path
    services: Mapping[str, Mapping[str, Any]]


class KubeArmorFile(NamedTuple):
    """One kubearmor.yaml; keys in lower case, as its reader takes them."""

    path: Path
    values: Mapping[str, Any]


class Database(NamedTuple):
    """One of SEDIMENT's databases; ``newest`` is its newest attestation (UNIX seconds, 0: none)."""

    path: Path
    devices: Sequence[SedimentDevice]
    newest: int


class Pem(NamedTuple):
    """A key file, public or private."""

    path: Path
    data: bytes


class Listening(NamedTuple):
    """A TCP socket of this host that takes connections."""

    address: IPv4Address | IPv6Address
    port: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was found. ``None`` and empty: nothing was given, or it could not be had.

    ``synchronised`` whether the kernel says that the clock follows another; ``stale`` how many alerts of the last
    day the journal has as refused for their time (None: there is no journal); ``now`` UNIX seconds.
    """

    now: float
    config: Config | None = None
    boards: tuple[Board, ...] = ()
    databases: tuple[Database, ...] = ()
    pems: tuple[Pem, ...] = ()
    composes: tuple[Compose, ...] = ()
    kubearmor: tuple[KubeArmorFile, ...] = ()
    sockets: tuple[Listening, ...] | None = field(default=None)
    synchronised: bool | None = None
    stale: int | None = None


def gather(places: Places, config: Config | None, now: float, stale: int | None = None) -> Evidence:
    """Read everything that ``places`` names, and this host. Raises ``ConfigError`` for a file that cannot be
    read."""
    boards: list[Board] = []
    databases: list[Database] = []
    pems: list[Pem] = []
    for path, given in _sediment_files(places.sediment):
        data = read_bytes(path, SMALL_FILE) if not _is_database(path) else _SQLITE
        if data.startswith(_SQLITE):
            databases.append(_database(path))
        elif data.startswith(_PEM):
            pems.append(Pem(path, data))
        elif given or path.parent.name == "boards":
            boards.append(_board(path, data))
    return Evidence(
        now,
        config,
        tuple(boards),
        tuple(databases),
        tuple(pems),
        tuple(map(_compose, places.compose)),
        tuple(map(_kubearmor, places.kubearmor)),
        listening(_TABLES),
        _synchronised(),
        stale,
    )


def _sediment_files(named: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Each file to read, and whether it was named itself: in a folder, what is no file of theirs is left out."""
    for path in named:
        if not path.is_dir():
            yield path, True
            continue
        found = [
            file
            for folder in _FOLDERS
            for file in sorted((path / folder).glob("*"))
            if file.is_file() and (folder == _FOLDERS[0] or file.suffix in {".pem", ".db"})
        ]
        if not found:
            mend = "name the folder that has configs/boards and data, or single files"
            raise ConfigError(str(path), "has none of SEDIMENT's files", mend)
        yield from ((file, False) for file in found[:FILES_MOST])


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be read: {error.strerror}", "check the path and its rights"
        ) from error


def _database(path: Path) -> Database:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY)) as opened:
            opened.text_factory = lambda data: data.decode("utf-8", "replace")
            rows = opened.execute(DEVICE_QUERY).fetchall()
    except sqlite3.Error as error:
        raise ConfigError(str(path), f"is no SEDIMENT database: {error}", "name its sediment.db") from error
    newest = max((row[3] for row in rows if isinstance(row[3], int)), default=0)
    return Database(path, read_sediment_devices(rows), newest)


def _board(path: Path, data: bytes) -> Board:
    values: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        key, _, value = line.strip().partition(" ")
        if ":" in value and key in {"verifier", "firewall", "prover", "app_server", "revocation"}:
            key, value = f"{key} {value.partition(':')[0]}", value.partition(":")[2]
        if key and not key.startswith("#"):
            values[key] = value.strip()
    return Board(path, values)


def _compose(path: Path) -> Compose:
    found = _mapping(path)
    services = found.get("services")
    if not isinstance(services, dict) or not all(isinstance(each, dict) for each in services.values()):
        raise ConfigError(str(path), "has no services: it is no compose file", "name the compose file")
    return Compose(path, {str(name): service for name, service in services.items()})


def _kubearmor(path: Path) -> KubeArmorFile:
    return KubeArmorFile(path, {str(key).lower(): value for key, value in _mapping(path).items()})


class _Loader(yaml.CSafeLoader):
    """Refuses depth before the C reader's own stack ends."""

    depth = 0

    def descend_resolver(self, _node: yaml.Node | None, _index: object) -> None:
        self.depth += 1
        if self.depth > DEPTH:
            raise yaml.composer.ComposerError(None, None, "it is nested too deeply", None)

    def ascend_resolver(self) -> None:
        self.depth -= 1


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.load(read_text(path, SMALL_FILE), Loader=_Loader)  # noqa: S506 - derived from the safe one
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(str(path), f"is not YAML: {str(error).splitlines()[0]}", "name another file") from error
    if not isinstance(found, dict):
        raise ConfigError(str(path), "is no mapping of settings", "name another file")
    return found


def listening(tables: Sequence[Path]) -> tuple[Listening, ...] | None:
    """The listening sockets of this network namespace; None where the kernel does not tell."""
    found: list[Listening] = []
    known = False
    for table in tables:
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        known = True
        for line in lines:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTEN:
                found.append(_socket(fields[1]))
    return tuple(found) if known else None


def _socket(text: str) -> Listening:
    """``0100007F:1F90``: words of four bytes in the host's order, as the kernel prints them."""
    address, _, port = text.partition(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    found = ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return Listening(mapped or found, int(port, 16))


#: adjtimex(2): what it returns and what stands in ``status`` when nothing corrects the clock.
_TIME_ERROR, _STA_UNSYNC = 5, 0x40
#: struct timex of linux/timex.h begins with modes (unsigned), offset, freq, maxerror, esterror (long), status
#: (int).
_STATUS_AT = struct.calcsize("@Illll")


def _synchronised() -> bool | None:
    """Whether the kernel believes its clock to be right; None when it does not tell."""
    buffer = ctypes.create_string_buffer(512)  # modes 0: only asks; the structure has 208 bytes
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    if state < 0:
        return None
    (status,) = struct.unpack_from("@i", buffer, _STATUS_AT)
    return state != _TIME_ERROR and not status & _STA_UNSYNC
