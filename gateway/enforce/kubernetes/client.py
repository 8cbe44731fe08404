"""The API server's five verbs that are needed, with a deadline each, and its errors as declared ones.

Facts: kubernetes.io/docs/reference/using-api, "API Concepts" (watches, bookmarks, 410 Gone, chunked lists) and
"Server-Side Apply". What must not live here: when to call, what for.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from enum import Enum
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp

from gateway.core.errors import BackendError
from gateway.enforce.kubernetes import objects
from gateway.enforce.kubernetes.access import Access
from gateway.enforce.kubernetes.objects import Key, Kind, Object
from gateway.enforce.kubernetes.settings import NAME, KubernetesSettings

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"

#: What an apply of a field that a schema does not have is answered with, as an internal error that never passes
#: (``managedfields/internal/structuredmerge.go`` of kubernetes/apimachinery).
_UNTYPED = "failed to create typed patch object"

#: Characters of the API server's own words that are repeated.
_MAX_DETAIL = 240
#: Bytes of an answer that is an error.
_MAX_ERROR = 256 * 1024
#: Seconds. A dead peer is noticed after the first and three of the second, between the bookmarks of a quiet watch.
_KEEP_IDLE, _KEEP_EVERY, _KEEP_COUNT = 10, 5, 3


class Trouble(Enum):
    """What a failed call means, and so what is done about it."""

    DOWN = "down"  # not reached, or no answer: tried again soon
    BROKEN = "broken"  # the server failed (5xx): tried again soon
    THROTTLED = "throttled"  # too many requests: tried again when it says
    DENIED = "unauthorized"  # it does not know us: our credentials are read anew and tried again
    FORBIDDEN = "forbidden"  # it knows us, and we may not: an administrator must mend it
    MISSING = "missing"  # no such kind, namespace or object
    CONFLICT = "conflict"  # another manager has the field, or the object changed meanwhile
    GONE = "gone"  # our place in history is forgotten: list anew
    INVALID = "invalid"  # it does not take the document
    ODD = "odd"  # an answer that none of these covers

    __hash__ = object.__hash__


class ApiError(BackendError):
    """A call failed. ``fields`` are those that another manager has; ``after`` seconds to wait, where it says so."""

    def __init__(self, trouble: Trouble, what: str, *, fields: tuple[str, ...] = (), after: float = 0.0) -> None:
        super().__init__(NAME, what, transient=trouble is not Trouble.INVALID)
        self.trouble = trouble
        self.fields = fields
        self.after = after


_STATUSES = {
    400: Trouble.INVALID,
    401: Trouble.DENIED,
    403: Trouble.FORBIDDEN,
    404: Trouble.MISSING,
    409: Trouble.CONFLICT,
    410: Trouble.GONE,
    413: Trouble.INVALID,
    415: Trouble.INVALID,
    422: Trouble.INVALID,
    429: Trouble.THROTTLED,
    503: Trouble.BROKEN,
    504: Trouble.BROKEN,
}


class Listed(NamedTuple):
    """Objects of ours of one kind, and the version of the list, from which a watch goes on."""

    objects: Mapping[Key, Object]
    version: str


class Change(NamedTuple):
    """One event of a watch. ``key`` None: a bookmark, which only moves the version."""

    gone: bool
    key: Key | None
    object: Object
    version: str


def declared(status: int, body: Mapping[str, Any], call: str, after: float = 0.0) -> ApiError:
    """Return the error that a ``Status`` object of the API with this HTTP status is."""
    trouble = _STATUSES.get(status, Trouble.BROKEN if status >= 500 else Trouble.ODD)
    details = body.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    fields = tuple(
        objects.text_of(each.get("field"))[:_MAX_DETAIL]
        for each in (causes if isinstance(causes, list) else ())
        if isinstance(each, dict) and each.get("reason") == "FieldManagerConflict"
    )
    said = objects.text_of(body.get("message")) or objects.text_of(body.get("reason"))
    message = " ".join(said.split())[:_MAX_DETAIL]
    if trouble is Trouble.BROKEN and message.startswith(_UNTYPED):
        trouble = Trouble.INVALID
    return ApiError(trouble, f"{call}: {status} {message}".rstrip(), fields=fields, after=after)


class Api:
    """One connection pool to one API server, as one owner. Enter it before use."""

    def __init__(self, access: Access, settings: KubernetesSettings) -> None:
        self._access = access
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=len(Kind) + 2, socket_factory=_kept)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "ragate", "Accept": _JSON, "Accept-Encoding": "identity"},
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    # --- verbs ------------------------------------------------------------------------------------------

    async def list(self, kind: Kind) -> Listed:
        """Return everything of ours of a kind, in pages, as it is now. Raises ``ApiError``."""
        found: dict[Key, Object] = {}
        query = {"labelSelector": objects.selector(self._settings.owner), "limit": str(self._settings.page)}
        while True:
            answer = await self._call("GET", self._path(kind), f"list {kind.value}", query)
            items, metadata = answer.get("items"), answer.get("metadata")
            for item in items if isinstance(items, list) else ():
                # The items of a list do not repeat what the list has said of all of them.
                whole = {"kind": kind.word, **item} if isinstance(item, dict) else {}
                found[objects.key_of(whole)] = objects.lean(whole)
            more = metadata.get("continue") if isinstance(metadata, dict) else None
            if not isinstance(more, str) or not more:
                return Listed(found, objects.version_of(answer))
            query["continue"] = more

    async def watch(self, kind: Kind, version: str) -> AsyncGenerator[Change, None]:
        """Tell what happens to ours after ``version``, until the server ends it. Raises ``ApiError``: GONE when
        that version is forgotten."""
        query = {
            "labelSelector": objects.selector(self._settings.owner),
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(int(self._settings.watch)),
        }
        call = f"watch {kind.value}"
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._settings.timeout, sock_read=self._settings.quiet
        )
        try:
            async with self._request("GET", self._path(kind), query, None, None, timeout) as response:
                if response.status != 200:
                    raise await self._refused(response, call)
                async for line in _lines(response.content, self._settings.line):
                    yield _change(objects.decode(line), call)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(Trouble.DOWN, f"{call}: {_why(error)}") from error

    async def get(self, key: Key) -> Object | None:
        """Return one object with its managers, or None. Raises ``ApiError``."""
        try:
            return await self._call("GET", self._path(key.kind, key.name), f"get {key}")
        except ApiError as error:
            if error.trouble is Trouble.MISSING:
                return None
            raise

    async def apply(self, thing: Object, *, force: bool = False) -> Object:
        """Apply an object server-side and return what is stored now. ``force``: take fields from other managers.

        Unknown fields are refused, not dropped. Raises ``ApiError``: CONFLICT with the fields of others.
        """
        key = objects.key_of(thing)
        query = {"fieldManager": objects.manager(self._settings.owner), "fieldValidation": "Strict"}
        if force:
            query["force"] = "true"
        body = objects.encode(thing)
        return await self._call("PATCH", self._path(key.kind, key.name), f"apply {key}", query, body, _APPLY)

    async def strip(self, key: Key, spec: Mapping[str, Any], version: str) -> Object:
        """Take fields away from a spec, unless the object has changed since ``version``; return what is stored.
        Raises ``ApiError``: CONFLICT when it has."""
        body = objects.encode({"metadata": {"resourceVersion": version}, "spec": spec})
        query = {"fieldManager": objects.manager(self._settings.owner)}
        return await self._call("PATCH", self._path(key.kind, key.name), f"patch {key}", query, body, _MERGE)

    async def delete(self, key: Key, uid: str) -> None:
        """Delete this very object; one that is gone, or another one of its name, is left. Raises ``ApiError``."""
        body = objects.encode(
            {
                "kind": "DeleteOptions",
                "apiVersion": "v1",
                "preconditions": {"uid": uid},
                "propagationPolicy": "Background",
            }
        )
        try:
            await self._call("DELETE", self._path(key.kind, key.name), f"delete {key}", None, body, _JSON)
        except ApiError as error:
            # 409 for a uid that differs: the one that was meant is gone.
            if error.trouble not in (Trouble.MISSING, Trouble.CONFLICT):
                raise

    # --- requests ---------------------------------------------------------------------------------------

    def _path(self, kind: Kind, name: str = "") -> str:
        return objects.collection(kind, self._settings.namespace) + (f"/{name}" if name else "")

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None,
        content: str | None,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.client._RequestContextManager:
        assert self._session is not None
        access = self._access
        token = access.bearer()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if content is not None:
            headers["Content-Type"] = content
        return self._session.request(
            method,
            access.server + path,
            params=query,
            data=body,
            headers=headers,
            ssl=True if access.tls is None else access.tls,
            server_hostname=access.name,
            timeout=timeout,
            allow_redirects=False,
        )

    async def _call(
        self,
        method: str,
        path: str,
        call: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content: str | None = None,
    ) -> Object:
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout)
        try:
            async with self._request(method, path, query, body, content, timeout) as response:
                if response.status not in (200, 201, 202):
                    raise await self._refused(response, call)
                data = await _whole(response.content, self._settings.answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(Trouble.DOWN, f"{call}: {_why(error)}") from error
        return objects.decode(data)

    async def _refused(self, response: aiohttp.ClientResponse, call: str) -> ApiError:
        try:
            body = objects.decode(await _whole(response.content, _MAX_ERROR))
        except BackendError:  # a proxy in between answers in words of its own; the status says enough
            body = {}
        return declared(response.status, body, call, _retry_after(response.headers.get("Retry-After", "")))


def _change(event: Object, call: str) -> Change:
    word, thing = event.get("type"), event.get("object")
    if not isinstance(thing, dict):
        raise ApiError(Trouble.ODD, f"{call}: an event without an object")
    if word == "ERROR":
        code = thing.get("code")
        raise declared(code if isinstance(code, int) else 500, thing, call)
    if word == "BOOKMARK":
        return Change(gone=False, key=None, object={}, version=objects.version_of(thing))
    if word not in ("ADDED", "MODIFIED", "DELETED"):
        raise ApiError(Trouble.ODD, f"{call}: an event of type {objects.text_of(word)[:32]!r}")
    return Change(word == "DELETED", objects.key_of(thing), objects.lean(thing), objects.version_of(thing))


def _retry_after(text: str) -> float:
    """Seconds; the API server writes no dates here."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0


async def _whole(content: aiohttp.StreamReader, most: int) -> bytearray:
    data = bytearray()
    while part := await content.readany():
        data += part
        if len(data) > most:
            raise ApiError(Trouble.ODD, f"an answer of more than {most} bytes")
    return data


async def _lines(content: aiohttp.StreamReader, most: int) -> AsyncIterator[bytes]:
    rest = bytearray()
    while part := await content.readany():
        rest += part
        if b"\n" in part:
            *lines, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            for line in lines:
                if line.strip():
                    yield line
        if len(rest) > most:
            raise ApiError(Trouble.ODD, f"an event of more than {most} bytes")


def _why(error: Exception) -> str:
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return "no answer in time"
    return " ".join(str(error).split())[:_MAX_DETAIL] or type(error).__name__


def _kept(address: Any) -> socket.socket:  # noqa: ANN401 - an entry of getaddrinfo
    """A socket that notices when its peer is gone."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_IDLE)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEP_EVERY)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEP_COUNT)
    made.setblocking(False)
    return made
