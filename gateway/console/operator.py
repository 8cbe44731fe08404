"""The operator's window: the same questions plus hold, release, override and reload, over a Unix socket.

What lives here: the socket file, who is at the other end (``unix(7)``, SO_PEERCRED), and the acts. What must not:
deciding what an act means (the lifecycle does, or the book's trial). The file's mode is the lock: who may connect
may act.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Protocol

import msgspec
from aiohttp import web

from gateway.console.api import Reads, Windows, application, as_json, unknown_device
from gateway.console.problems import Problem
from gateway.console.server import HttpLimits, HttpServer
from gateway.console.views import acted, overridden
from gateway.control.ports import Operator, Overridden, Overriding
from gateway.core.errors import ConfigError, NotNow, RagateError
from gateway.core.model import DeviceId, Transition

#: Characters of a reason: a sentence or two for the auditor, not an attachment.
REASON_MOST = 500

#: Owner and group may connect, nobody else.
MODE = 0o660

#: The folder of the socket when we have to make it.
FOLDER_MODE = 0o750

#: Bytes of a socket's path, ``sun_path`` of ``unix(7)`` less the final zero.
PATH_MOST = 107

#: Seconds that a listener gets to answer our look whether it lives.
PROBE_SECONDS = 1.0

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


class Act(msgspec.Struct, forbid_unknown_fields=True):
    """The body of hold and release."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_MOST)]


class Word(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an override."""

    profile: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    seconds: float
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_MOST)]


def parse_override(body: bytes) -> Word:
    """What an override says. Raises ``Problem`` (400) saying what the body must be."""
    try:
        word = msgspec.json.decode(body, type=Word)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        shape = '{"profile": "maintenance", "seconds": 7200, "reason": "..."}'
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body must be like {shape}: {error}") from error
    return Word(word.profile, word.seconds, _reason(word.reason))


def parse_act(body: bytes) -> str:
    """The reason of an act. Raises ``Problem`` (400) saying what the body must be."""
    try:
        act = msgspec.json.decode(body, type=Act)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        detail = f'the body must be {{"reason": "1 to {REASON_MOST} characters"}}: {error}'
        raise Problem(HTTPStatus.BAD_REQUEST, detail) from error
    return _reason(act.reason)


def _reason(text: str) -> str:
    reason = text.strip()
    if not reason or not reason.isprintable():
        raise Problem(HTTPStatus.BAD_REQUEST, "the reason must be printable text on one line, and not blank")
    return reason


Reload = Callable[[str, str], int]
"""Asks for the book to be read again, as (actor, reason); returns the attempt's number. Raises ``RagateError``."""


Kept = Callable[[], Awaitable[str]]
"""Waits until everything said so far is durable; returns why it is not, "" when it is."""


class Acts:
    """The POST routes. ``reload`` None: the book stays as it is.

    What is answered with success outlives a crash: ``kept`` is waited for. None: nothing is kept.
    """

    def __init__(
        self, operator: Operator, overrides: Overriding, reload: Reload | None = None, kept: Kept | None = None
    ) -> None:
        self._operator = operator
        self._overrides = overrides
        self._reload = reload
        self._kept = kept

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_post("/v1/devices/{id}/hold", self.hold)
        app.router.add_post("/v1/devices/{id}/release", self.release)
        app.router.add_post("/v1/devices/{id}/override", self.override)
        app.router.add_post("/v1/devices/{id}/end-override", self.end_override)
        if self._reload is not None:
            app.router.add_post("/v1/book/reload", self.reload)

    async def hold(self, request: web.Request) -> web.Response:
        """Hold a device."""
        return await self._act(request, self._operator.hold)

    async def release(self, request: web.Request) -> web.Response:
        """Release a device."""
        return await self._act(request, self._operator.release)

    async def override(self, request: web.Request) -> web.Response:
        """Give a device a profile for some time."""
        _check_type(request)
        word = parse_override(await request.read())
        actor, device = await actor_of(request), DeviceId(request.match_info["id"])
        answer = _answered(
            lambda: self._overrides.override(device, word.profile, word.seconds, actor, word.reason), device
        )
        return await self._durable(answer)

    async def end_override(self, request: web.Request) -> web.Response:
        """End an override early."""
        reason, actor = await self._who(request)
        device = DeviceId(request.match_info["id"])
        return await self._durable(_answered(lambda: self._overrides.end_override(device, actor, reason), device))

    async def reload(self, request: web.Request) -> web.Response:
        """Have the book read again: 202 with the attempt's number, or 409 while another is under way."""
        reason, actor = await self._who(request)
        if self._reload is None:
            raise Problem(HTTPStatus.NOT_FOUND, "the book of this service stays as it is")
        try:
            number = self._reload(actor, reason)
        except RagateError as error:
            raise Problem(HTTPStatus.CONFLICT, str(error)) from error
        return as_json({"number": number}, HTTPStatus.ACCEPTED)

    async def _who(self, request: web.Request) -> tuple[str, str]:
        """The reason in the body, and whoever gives it."""
        _check_type(request)
        reason = parse_act(await request.read())
        return reason, await actor_of(request)

    async def _act(self, request: web.Request, act: Callable[[DeviceId, str, str], Transition]) -> web.Response:
        reason, actor = await self._who(request)
        device = DeviceId(request.match_info["id"])
        try:
            transition = act(device, actor, reason)
        except KeyError:
            raise unknown_device(device) from None
        return await self._durable(as_json(acted(transition)))

    async def _durable(self, answer: web.Response) -> web.Response:
        """The answer, once the act is durable. Raises ``Problem`` (503) when that cannot be said."""
        why = "" if self._kept is None else await self._kept()
        if why:
            what = f"what tightens is in force, what loosens waits, and neither would outlive a crash: {why}"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, what)
        return answer


def _check_type(request: web.Request) -> None:
    if request.content_type != "application/json":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")


def _answered(act: Callable[[], Overridden], device: DeviceId) -> web.Response:
    try:
        return as_json(overridden(act()))
    except KeyError:
        raise unknown_device(device) from None
    except ValueError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, str(error)) from error
    except NotNow as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error


async def actor_of(request: web.Request) -> str:
    """Who is at the other end: ``unix:alice``, or ``unix:1001`` when the user has no name."""
    sock = request.transport.get_extra_info("socket") if request.transport is not None else None
    if sock is None:
        raise Problem(HTTPStatus.FORBIDDEN, "the connection has gone, so nobody can be held to this act")
    _pid, uid, _gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    # A name service may ask the network: not on the loop's thread.
    return f"unix:{await asyncio.to_thread(_user_name, uid)}"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class Routes(Protocol):
    """Further routes of the window."""

    def add_to(self, app: web.Application) -> None:
        """Register them."""
        ...


class SocketFile:
    """A Unix socket's file at ``path``, for its owner and ``group`` (a name; ``None``: the process's).

    ``setting`` is what the operator calls it, for messages; ``kind`` as in ``socket(2)``.
    """

    def __init__(
        self, path: Path, group: str | None = None, setting: str = "operator", kind: int = socket.SOCK_STREAM
    ) -> None:
        self._path = path
        self._group = group
        self._setting = setting
        self._kind = kind
        self._identity: tuple[int, int] | None = None

    def open(self) -> socket.socket:
        """Open the socket. Raises ``ConfigError`` when the path is taken, too long or not ours to use."""
        sock = open_socket(self._path, self._group, self._setting, self._kind)
        found = self._path.lstat()
        self._identity = (found.st_dev, found.st_ino)
        return sock

    def remove(self) -> None:
        """Remove the file, if it is still the one that was made."""
        if self._identity is None:
            return
        try:
            found = self._path.lstat()
            if (found.st_dev, found.st_ino) == self._identity:
                self._path.unlink()
        except FileNotFoundError:
            pass
        self._identity = None


class OperatorWindow:
    """The window on a Unix socket at ``path``, for its owner and ``group`` (a name; ``None``: the process's)."""

    def __init__(
        self,
        windows: Windows,
        operator: Operator,
        overrides: Overriding,
        path: Path,
        group: str | None = None,
        limits: HttpLimits = HttpLimits(),  # noqa: B008 - frozen value
        reload: Reload | None = None,
        further: Sequence[Routes] = (),
        kept: Kept | None = None,
    ) -> None:
        self._file = SocketFile(path, group)
        app = application(Reads(windows, acts=True), limits)
        Acts(operator, overrides, reload, kept).add_to(app)
        for routes in further:
            routes.add_to(app)
        self._server = HttpServer(app, limits)

    async def start(self) -> None:
        """Open the window. Raises ``ConfigError`` when the path is taken, too long or not ours to use."""
        await self._server.start(self._file.open())

    async def stop(self) -> None:
        """Close the window and remove the file, if it is still the one that was made."""
        await self._server.stop()
        self._file.remove()


def open_socket(
    path: Path, group: str | None, setting: str = "operator", kind: int = socket.SOCK_STREAM
) -> socket.socket:
    """A bound Unix socket with mode 0660. Raises ``ConfigError`` naming the setting's ``socket`` or ``group``.

    Nobody can connect before ``listen``, and until then the file has no permissions at all: the mode that a
    socket has before ``bind`` is the mode its file is made with, so the process's umask need not change.
    """
    if len(os.fsencode(path)) > PATH_MOST:
        raise ConfigError(f"{setting}.socket", f"{path} is longer than {PATH_MOST} bytes", "choose a shorter path")
    gid = _group_id(group, setting)
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        if not path.parent.exists():
            path.parent.mkdir(mode=FOLDER_MODE, parents=True)
            os.chown(path.parent, -1, gid)
        if group is not None:
            _check_way(path, gid, group, setting)
        with _folder_lock(path.parent):
            _clear(path, setting, kind)
            os.fchmod(sock.fileno(), 0)
            sock.bind(os.fspath(path))
            os.chown(path, -1, gid, follow_symlinks=False)
            path.chmod(MODE)
            sock.listen()
    except OSError as error:
        sock.close()
        mend = "let the folder belong to the user that runs the service"
        if error.errno == errno.EPERM and group is not None:
            mend = f"run the service as a member of {group!r}, or as root"
        raise ConfigError(f"{setting}.socket", f"{path}: {error.strerror}", mend) from error
    except ConfigError:
        sock.close()
        raise
    return sock


def _group_id(group: str | None, setting: str) -> int:
    if group is None:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(
            f"{setting}.group", f"there is no group {group!r}", "groupadd it, or write null"
        ) from None


def _check_way(path: Path, gid: int, group: str, setting: str) -> None:
    """A group that may use the socket must also be able to get there."""
    for folder in path.absolute().parents:
        found = folder.stat()
        if not (found.st_mode & stat.S_IXOTH or (found.st_gid == gid and found.st_mode & stat.S_IXGRP)):
            what = f"group {group!r} cannot pass {folder} on its way to {path.name}"
            mend = f"give the socket a folder of its own, or: chgrp {group} {folder}; chmod g+x {folder}"
            raise ConfigError(f"{setting}.socket", what, mend)


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Only one service at a time looks at and replaces a socket here; the lock leaves nothing behind."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _clear(path: Path, setting: str, kind: int) -> None:
    """Remove a socket that nobody listens on any more; refuse anything else that is in the way."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(
            f"{setting}.socket", f"{path} exists and is no socket", "move it away or choose another path"
        )
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except FileNotFoundError:
            return
        except TimeoutError:
            pass  # its backlog is full: somebody listens
    raise ConfigError(f"{setting}.socket", f"another service listens on {path}", "stop it, or choose another path")
