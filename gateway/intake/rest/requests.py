"""One request at a time: read within limits, submitted, answered.

What lives here: the paths, and what becomes of a request. What must not: connections, and documents beyond their
size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import msgspec
from aiohttp import web

from gateway.certs import ServedTls
from gateway.control.ports import Clock
from gateway.control.reception import Denied, Reception, Submission
from gateway.core.errors import Refusal
from gateway.intake.rest import answers, heads, openapi
from gateway.intake.rest.answers import Reply
from gateway.intake.rest.connections import Connection, Refuse
from gateway.intake.rest.heads import BadRequestError
from gateway.intake.rest.settings import DESCRIPTION, PATH, RestSettings

#: On every answer: nothing here is for a cache or a browser.
HEADERS = {"Cache-Control": "no-store", "Server": "ragate", "X-Content-Type-Options": "nosniff"}


class Requests:
    """Answers requests. ``count`` of them; ``connection_of`` tells by the library's handler where one came in."""

    def __init__(
        self,
        connection_of: Callable[[object], Connection | None],
        reception: Reception,
        clock: Clock,
        tls: ServedTls,
        settings: RestSettings,
        refuse: Refuse,
    ) -> None:
        self._connection_of = connection_of
        self._reception = reception
        self._clock = clock
        self._tls = tls
        self._settings = settings
        self._refuse = refuse
        self._description = msgspec.json.encode(openapi.document()) + b"\n"
        self.count = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        self.count += 1
        connection = self._connection_of(request.protocol)
        if connection is None:  # it ended while the request waited its turn
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE)
        connection.busy += 1
        try:
            reply = await self._answer(request, connection)
        except BadRequestError as bad:
            reply = bad.reply
        except TimeoutError:
            reply = self._own_refusal(Refusal.TIMEOUT, "the request took too long to arrive", connection.peer)
        except web.RequestPayloadError:
            reply = self._own_refusal(Refusal.FRAMING, "the request's body is broken", connection.peer)
        finally:
            connection.busy -= 1
            connection.since = asyncio.get_running_loop().time()
        response = web.Response(
            status=reply.status,
            body=reply.body,
            headers={**HEADERS, **reply.headers},
            content_type=reply.media_type,
        )
        if connection.authorities != self._tls.current.client_ca or not request.content.at_eof():
            # What was not read could be taken for the next request; and who vouches for clients has changed.
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest, connection: Connection) -> Reply:
        if request.path == DESCRIPTION:
            if request.method != "GET":
                return heads.not_allowed("GET")
            return Reply(HTTPStatus.OK, self._description)
        if request.path != PATH:
            return answers.problem(HTTPStatus.NOT_FOUND, f"there is nothing at this path; post to {PATH}")
        if request.method != "POST":
            return heads.not_allowed("POST")
        wait = heads.wait(request)
        submission = Submission(
            data=b"",
            peer=connection.peer,
            received=self._clock.now(),
            source=heads.header(request, "Ragate-Source", heads.NAME),
            identity=connection.identity,
            key_id=heads.header(request, "Ragate-Key", heads.NAME),
            signature=heads.signature(request),
            media_type=heads.media_type(request),
            wait=wait,
        )
        # Only the sender's part is timed: once the document is here, the answer comes within the reception's time.
        async with asyncio.timeout(self._settings.request_seconds):
            data = await self._body(request, connection)
        found = await self._reception.receive(submission._replace(data=data, received=self._clock.now()))
        return answers.denied(found) if isinstance(found, Denied) else answers.taken(found, wait=wait)

    async def _body(self, request: web.BaseRequest, connection: Connection) -> bytes:
        most = self._settings.body
        if (request.content_length or 0) > most:
            raise BadRequestError(self._too_large(connection.peer))
        if request.headers.get("Expect", "").lower() == "100-continue":
            connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts: list[bytes] = []
        size = 0
        async for part in request.content.iter_any():
            size += len(part)
            if size > most:
                raise BadRequestError(self._too_large(connection.peer))
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self, peer: str) -> Reply:
        return self._own_refusal(Refusal.LENGTHS, f"at most {self._settings.body} bytes are taken at once", peer)

    def _own_refusal(self, refusal: Refusal, detail: str, peer: str) -> Reply:
        self._refuse(refusal, detail, peer)
        return answers.denied(Denied(refusal, detail))
