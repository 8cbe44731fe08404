"""What an operator may ask for over the socket: that a device attests again, and where devices are seen.

What lives here: the two routes. What must not: asking a verifier, or making a binding of a claim.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from aiohttp import web

from gateway.console.api import as_json, unknown_device
from gateway.console.operator import actor_of, parse_act
from gateway.console.problems import Problem
from gateway.core.errors import SourceError
from gateway.core.model import DeviceId


class Asking(NamedTuple):
    """``attest`` a device, for an actor and a reason: what became of it at each source, or ``KeyError`` or
    ``SourceError``. ``claims``: where devices are seen and not bound."""

    attest: Callable[[DeviceId, str, str], Awaitable[Sequence[Mapping[str, Any]]]]
    claims: Callable[[], Iterable[Mapping[str, Any]]]

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_post("/v1/devices/{id}/attest", self._attest)
        app.router.add_get("/v1/claims", self._claims, allow_head=False)

    async def _attest(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        reason = parse_act(await request.read())
        actor = await actor_of(request)
        device = DeviceId(request.match_info["id"])
        try:
            asked = await self.attest(device, actor, reason)
        except KeyError:
            raise unknown_device(device) from None
        except SourceError as error:
            raise Problem(HTTPStatus.CONFLICT, str(error)) from error
        return as_json({"device": device, "asked": asked})

    async def _claims(self, _request: web.Request) -> web.Response:
        return as_json({"claims": list(self.claims())})
