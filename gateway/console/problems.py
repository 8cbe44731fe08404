"""Problem documents (RFC 9457): how a window says no.

What lives here: the declared refusals of the HTTP windows and what every answer carries. What must not: routes.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.core.errors import JournalError, RagateError

#: Characters of a peer's own text that an answer repeats.
EXCERPT = 64

#: On every answer. Nothing here is for a cache or for another origin, and no page may frame it.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "ragate",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Problem(RagateError):
    """A request that gets no for an answer. ``detail`` is for people and says what to do instead."""

    def __init__(self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status.value} {status.phrase}: {detail}")
        self.status = status
        self.detail = detail
        self.headers = headers or {}

    def response(self) -> web.Response:
        """The document: ``type``, ``title``, ``status``, ``detail``."""
        body = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
        }
        return web.Response(
            status=self.status.value,
            body=msgspec.json.encode(body) + b"\n",
            content_type="application/problem+json",
            headers=self.headers,
        )


def answer_problems(seconds: float) -> Middleware:
    """Middleware: one deadline for every request, and every declared refusal as a problem document."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            async with asyncio.timeout(seconds):
                return await handler(request)
        except Problem as problem:
            return problem.response()
        except ConnectionError:
            # The peer has left; the server finds that out by itself when it writes, and ends quietly.
            return web.Response()
        except TimeoutError:
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"no answer within {seconds:g} s").response()
        except (JournalError, web.RequestPayloadError, web.HTTPException) as error:
            return problem_of(error, request.method).response()

    return guard


def problem_of(error: JournalError | web.RequestPayloadError | web.HTTPException, method: str) -> Problem:
    """What to answer for errors that others declare."""
    if isinstance(error, JournalError):
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"the journal cannot answer: {error}")
    if isinstance(error, web.RequestPayloadError):
        return Problem(HTTPStatus.BAD_REQUEST, "the request's body is broken")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        detail = f"{method[:EXCERPT]} is not taken here, only {allowed}"
        return Problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, {"Allow": allowed})
    status = HTTPStatus(error.status)
    if status is HTTPStatus.NOT_FOUND:
        return Problem(status, "there is nothing at this path; GET / lists what there is")
    return Problem(status, status.description or status.phrase)


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """``on_response_prepare``: what every answer carries."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = HEADERS["Server"]  # the library's own name and version stand there by now
