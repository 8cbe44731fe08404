"""An API server for KubeArmor's four kinds, over real HTTP: server-side apply, watches, and its ways to say no.

What it does follows the API's documentation and was compared with a real kube-apiserver by the contract suite. It
leaves out what the product never meets: conversion, finalizers, admission by webhooks, other groups.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiohttp import web

from tests.ports import free_place

GROUP = "security.kubearmor.com"
KINDS = {
    "kubearmorpolicies": "KubeArmorPolicy",
    "kubearmorhostpolicies": "KubeArmorHostPolicy",
    "kubearmornetworkpolicies": "KubeArmorNetworkPolicy",
    "kubearmorclusterpolicies": "KubeArmorClusterPolicy",
}
#: Fields of a spec, as the published schema of all four kinds together has them.
_FIELDS = """
    action apparmor capabilities device egress file ingress level message network nodeSelector presets process
    selector severity syscalls tags
"""
FIELDS = frozenset(_FIELDS.split())
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}

Object = dict[str, Any]
Path = tuple[str, ...]
Place = tuple[str, str, str]  # plural, namespace, name


class No(Exception):
    """An answer that is a Status."""

    def __init__(self, code: int, message: str, causes: list[Object] | None = None, after: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.causes = causes or []
        self.after = after

    def body(self) -> Object:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": REASONS[self.code],
            "details": {"causes": self.causes, **({"retryAfterSeconds": self.after} if self.after else {})},
            "code": self.code,
        }

    def response(self) -> web.Response:
        headers = {"Retry-After": str(self.after)} if self.after else {}
        return web.json_response(self.body(), status=self.code, headers=headers)


@dataclass
class Kept:
    """One stored object, and who manages which of its fields: (manager, operation) to paths."""

    thing: Object
    managers: dict[tuple[str, str], set[Path]] = field(default_factory=dict)

    def shown(self) -> Object:
        whole = copy.deepcopy(self.thing)
        whole["metadata"]["managedFields"] = [
            {"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": {}}
            for manager, operation in self.managers
        ]
        return whole


@dataclass
class FakeKubernetes:
    """``tokens``: who may ask, by token; an empty one lets everybody. ``refuse`` (verb, plural) is forbidden."""

    tokens: set[str] = field(default_factory=set)
    refuse: set[tuple[str, str]] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    namespaces: set[str] = field(default_factory=lambda: {"default", "sediment"})
    throttled: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    bookmark_every: float = 60.0
    requests: list[tuple[str, str]] = field(default_factory=list)
    objects: dict[Place, Kept] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.host, self.port = free_place()
        self._version = 100
        self._forgotten = 0
        self._history: list[tuple[int, str, str, Object]] = []
        self._news = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._pages: dict[str, tuple[list[Object], int]] = {}
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=3 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, reuse_address=True).start()

    async def stop(self) -> None:
        """The server is down; what it stores stays."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeKubernetes]:
        await self.start()
        try:
            yield self
        finally:
            await self.stop()

    # --- what tests do and look at ----------------------------------------------------------------------

    def forget(self) -> None:
        """History up to now is compacted: watches from before it, and pages begun before it, are gone."""
        self._forgotten = self._version
        self._history.clear()
        self._pages.clear()

    def vanish(self, plural: str, name: str, namespace: str = "") -> None:
        """An object is deleted and nobody is told."""
        del self.objects[plural, namespace, name]
        self._version += 1

    def stored(self, plural: str, name: str, namespace: str = "") -> Object | None:
        kept = self.objects.get((plural, namespace, name))
        return None if kept is None else kept.thing

    def count(self, verb: str) -> int:
        """Requests of one kind so far: list, watch, get, patch, delete."""
        return sum(each == verb for each, _ in self.requests)

    # --- requests ---------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except No as no:
            return no.response()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.tokens and request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            raise No(401, "Unauthorized")
        plural, namespace, name = self._place(request.path)
        query = request.query
        verb = request.method.lower()
        if verb == "get" and not name:
            verb = "watch" if query.get("watch") in ("1", "true") else "list"
        self.requests.append((verb, plural))
        if self.broken:
            raise No(self.broken.pop(0), "the server is currently unable to handle the request")
        if self.throttled:
            raise No(429, "Too many requests, please try again later.", after=self.throttled.pop(0))
        if (verb, plural) in self.refuse:
            raise No(403, f'{plural}.{GROUP} is forbidden: User "ragate" cannot {verb} resource "{plural}"')
        if plural in self.missing:
            raise No(404, "the server could not find the requested resource")
        if verb == "watch":
            return await self._watch(request, plural, namespace)
        if verb == "list":
            return web.json_response(self._list(plural, namespace, query))
        if verb == "get":
            return web.json_response(self._kept((plural, namespace, name)).shown())
        body = await request.json()
        manager = query.get("fieldManager", "unknown")
        place = (plural, namespace, name)
        if verb == "post":
            place = (plural, namespace, body["metadata"]["name"])
            if place in self.objects:
                raise No(409, f"{plural} {place[2]!r} already exists")
            return web.json_response(await self._change(place, None, body, manager), status=201)
        if verb == "delete":
            return web.json_response(await self._delete(place, body))
        if verb != "patch":
            raise No(400, f"{verb} is not done here")
        if request.content_type == "application/apply-patch+yaml":
            new = place not in self.objects
            done = await self._apply(place, body, manager, force=query.get("force") == "true")
            return web.json_response(done, status=201 if new else 200)
        assert request.content_type == "application/merge-patch+json"
        kept = self._kept(place)
        wanted = body.get("metadata", {}).pop("resourceVersion", None)
        if wanted not in (None, kept.thing["metadata"]["resourceVersion"]):
            raise No(409, "the object has been modified; please apply your changes to the latest version")
        return web.json_response(await self._change(place, kept, _merged(kept.thing, body), manager))

    def _place(self, path: str) -> Place:
        parts = path.strip("/").split("/")
        if parts[:3] != ["apis", GROUP, "v1"]:
            raise No(404, "the server could not find the requested resource")
        rest, namespace = parts[3:], ""
        if rest[:1] == ["namespaces"]:
            namespace, rest = rest[1], rest[2:]
        plural = rest[0]
        if plural not in KINDS or (plural == "kubearmorpolicies") is not bool(namespace):
            raise No(404, "the server could not find the requested resource")
        return plural, namespace, rest[1] if len(rest) > 1 else ""

    def _kept(self, place: Place) -> Kept:
        kept = self.objects.get(place)
        if kept is None:
            raise No(404, f'{place[0]}.{GROUP} "{place[2]}" not found')
        return kept

    # --- lists and watches ------------------------------------------------------------------------------

    def _selected(self, plural: str, namespace: str, selector: str) -> list[Object]:
        return [
            kept.shown()
            for place, kept in sorted(self.objects.items())
            if place[:2] == (plural, namespace) and _matches(kept.thing, selector)
        ]

    def _list(self, plural: str, namespace: str, query: Any) -> Object:
        token, limit = query.get("continue", ""), int(query.get("limit", "500"))
        if token:
            if token not in self._pages:
                raise No(410, "The provided continue parameter is too old to display a consistent list result.")
            items, version = self._pages.pop(token)
        else:
            items, version = self._selected(plural, namespace, query.get("labelSelector", "")), self._version
        metadata: Object = {"resourceVersion": str(version)}
        if len(items) > limit:
            metadata["continue"] = f"page-{next(self._numbers)}"
            self._pages[metadata["continue"]] = (items[limit:], version)
        return {
            "kind": f"{KINDS[plural]}List",
            "apiVersion": f"{GROUP}/v1",
            "metadata": metadata,
            "items": items[:limit],
        }

    async def _watch(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        query = request.query
        version = int(query.get("resourceVersion", "0"))
        bookmarks = query.get("allowWatchBookmarks") == "true"
        loop = asyncio.get_running_loop()
        end = loop.time() + float(query.get("timeoutSeconds", "1800"))
        if version < self._forgotten:
            gone = No(410, f"too old resource version: {version} ({self._forgotten})").body()
            await _say(response, "ERROR", gone)
            return response
        while (left := end - loop.time()) > 0:
            for number, word, thing in self._since(version, plural, namespace, query.get("labelSelector", "")):
                await _say(response, word, thing)
                version = number
            version = max(version, self._version)
            try:
                async with asyncio.timeout(min(left, self.bookmark_every)), self._news:
                    await self._news.wait_for(lambda: self._version > version)  # noqa: B023 - awaited here
            except TimeoutError:
                if bookmarks:
                    mark = {"kind": KINDS[plural], "apiVersion": f"{GROUP}/v1"}
                    await _say(response, "BOOKMARK", {**mark, "metadata": {"resourceVersion": str(version)}})
        return response

    def _since(self, version: int, plural: str, namespace: str, selector: str) -> Iterator[tuple[int, str, Object]]:
        """Events after a version, as one who selects sees them: what ceases to match is deleted for him."""
        matched: dict[str, bool] = {}
        for number, place, word, thing in self._history:
            if place != f"{plural}/{namespace}":
                continue
            name, now = thing["metadata"]["name"], _matches(thing, selector)
            before = matched.get(name, _matches(thing.get("was", {}), selector))
            matched[name] = now
            if number <= version:
                continue
            shown = {key: value for key, value in thing.items() if key != "was"}
            if word == "DELETED" and before:
                yield number, word, shown
            elif word != "DELETED" and (now or before):
                yield number, ("MODIFIED" if before else "ADDED") if now else "DELETED", shown

    async def _tell(self, place: Place, word: str, thing: Object, was: Object | None) -> None:
        self._history.append(
            (self._version, f"{place[0]}/{place[1]}", word, {**copy.deepcopy(thing), "was": was or {}})
        )
        async with self._news:
            self._news.notify_all()

    # --- writes -----------------------------------------------------------------------------------------

    async def _store(self, place: Place, kept: Kept | None, thing: Object, managers: Any) -> Object:
        """Store a new state; one that is no change leaves the version as it is."""
        _valid(place, thing)
        if place[1] and place[1] not in self.namespaces:
            raise No(404, f'namespaces "{place[1]}" not found')
        managers = {who: paths for who, paths in managers.items() if paths}
        old = None if kept is None else kept.thing
        if kept is not None and old is not None and _bare(old) == _bare(thing):
            kept.managers = managers
            return kept.shown()
        self._version += 1
        metadata = dict(thing["metadata"])
        before = {} if old is None else old["metadata"]
        metadata["uid"] = before.get("uid", str(uuid4()))
        changed = old is None or old.get("spec") != thing.get("spec")
        metadata["generation"] = before.get("generation", 0) + changed
        metadata["resourceVersion"] = str(self._version)
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
        stored = {**thing, "kind": KINDS[place[0]], "apiVersion": f"{GROUP}/v1", "metadata": metadata}
        self.objects[place] = Kept(copy.deepcopy(stored), managers)
        await self._tell(place, "ADDED" if old is None else "MODIFIED", stored, old)
        return self.objects[place].shown()

    async def _apply(self, place: Place, body: Object, manager: str, *, force: bool) -> Object:
        kept = self.objects.get(place)
        who = (manager, "Apply")
        wanted = dict(_leaves({"metadata": _labelled(body), "spec": body.get("spec", {})}))
        managers = {} if kept is None else {each: set(paths) for each, paths in kept.managers.items()}
        thing = {"metadata": {"name": place[2]}, "spec": {}} if kept is None else copy.deepcopy(kept.thing)
        if place[1]:
            thing["metadata"]["namespace"] = place[1]
        conflicts = []
        for other, paths in managers.items():
            taken = [
                path
                for path in paths
                for mine in wanted
                if (mine[: len(path)] == path or path[: len(mine)] == mine)
                and (mine != path or _at(thing, mine) != wanted[mine])
            ]
            if other != who and taken:
                conflicts += [
                    {
                        "reason": "FieldManagerConflict",
                        "message": f'conflict with "{other[0]}"',
                        "field": f".{'.'.join(each)}",
                    }
                    for each in taken
                ]
                if force:
                    paths -= set(taken)
        if conflicts and not force:
            raise No(409, f"Apply failed with {len(conflicts)} conflict: conflict with another manager", conflicts)
        others = set().union(*(paths for each, paths in managers.items() if each != who))
        for path in managers.get(who, set()) - wanted.keys() - others:
            _drop(thing, path)
        for path, value in wanted.items():
            _put(thing, path, value)
        managers[who] = set(wanted)
        return await self._store(place, kept, thing, managers)

    async def _change(self, place: Place, kept: Kept | None, thing: Object, manager: str) -> Object:
        """Store what somebody wrote without applying: what he changed is his from then on."""
        old = {} if kept is None else dict(_leaves({"metadata": _labelled(kept.thing), "spec": kept.thing["spec"]}))
        new = dict(_leaves({"metadata": _labelled(thing), "spec": thing.get("spec", {})}))
        managers = {} if kept is None else {each: paths & new.keys() for each, paths in kept.managers.items()}
        changed = {path for path, value in new.items() if path not in old or old[path] != value}
        managers = {each: paths - changed for each, paths in managers.items()}
        managers[manager, "Update"] = managers.get((manager, "Update"), set()) | changed
        if place[1]:
            thing["metadata"]["namespace"] = place[1]
        return await self._store(place, kept, thing, managers)

    async def _delete(self, place: Place, body: Object) -> Object:
        kept = self._kept(place)
        uid, wanted = kept.thing["metadata"]["uid"], body.get("preconditions", {}).get("uid")
        if wanted not in (None, uid):
            raise No(409, f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}")
        del self.objects[place]
        self._version += 1
        last = copy.deepcopy(kept.thing)
        last["metadata"]["resourceVersion"] = str(self._version)
        await self._tell(place, "DELETED", last, kept.thing)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success", "details": {"uid": uid}}


async def _say(response: web.StreamResponse, word: str, thing: Object) -> None:
    await response.write(json.dumps({"type": word, "object": thing}).encode() + b"\n")


def _matches(thing: Object, selector: str) -> bool:
    labels = thing.get("metadata", {}).get("labels", {})
    asked = [each.partition("=") for each in selector.split(",") if each]
    return bool(thing) and all(labels.get(key) == value for key, _, value in asked)


def _labelled(thing: Object) -> Object:
    metadata = thing.get("metadata", {})
    return {key: metadata[key] for key in ("labels", "annotations") if key in metadata}


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every field with its value; a list is one value, an empty mapping too."""
    if isinstance(value, dict) and (value or not path):
        for key, each in value.items():
            yield from _leaves(each, (*path, key))
    else:
        yield path, value


def _at(thing: Any, path: Path) -> Any:
    for key in path:
        if not isinstance(thing, dict) or key not in thing:
            return None
        thing = thing[key]
    return thing


def _put(thing: Object, path: Path, value: Any) -> None:
    for key in path[:-1]:
        thing = thing.setdefault(key, {})
    thing[path[-1]] = copy.deepcopy(value)


def _drop(thing: Object, path: Path) -> None:
    """Take a field away, and the mappings that are empty without it."""
    above = _at(thing, path[:-1])
    if isinstance(above, dict):
        above.pop(path[-1], None)
        if not above and len(path) > 2:
            _drop(thing, path[:-1])


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    made = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), value)
    return made


def _bare(thing: Object) -> Object:
    return {"metadata": {"name": thing["metadata"]["name"], **_labelled(thing)}, "spec": thing.get("spec")}


def _valid(place: Place, thing: Object) -> None:
    """The part of the published schema that tests break."""
    spec, kind = thing.get("spec", {}), KINDS[place[0]]
    head = f'{kind}.{GROUP} "{place[2]}" is invalid: '
    for key in spec:
        if key not in FIELDS:
            raise No(500, f"failed to create typed patch object: .spec.{key}: field not declared in schema")
    action = spec.get("action")
    if action not in (None, "Allow", "Audit", "Block"):
        raise No(
            422, f'{head}spec.action: Unsupported value: "{action}": supported values: "Allow", "Audit", "Block"'
        )
    severity = spec.get("severity")
    if severity is not None and not 1 <= severity <= 10:
        raise No(422, f"{head}spec.severity: Invalid value: {severity}: should be less than or equal to 10")
    if spec.get("selector") and spec.get("nodeSelector"):
        raise No(422, f"{head}spec: Invalid value: A policy cannot target both containers and host nodes.")
