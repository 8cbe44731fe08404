"""Reading what stands beside a request's body: strictly, each thing once. No sockets."""

from __future__ import annotations

import base64
import binascii
from http import HTTPStatus

from aiohttp import web

from gateway.intake.rest import answers
from gateway.intake.rest.answers import Reply

SIGNATURE = 2_048  #: characters of a detached signature in base64
NAME = 64  #: characters of a source's name or a key's id


class BadRequestError(Exception):
    """The request is answered at once, with ``reply``."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def _bad(detail: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> BadRequestError:
    return BadRequestError(answers.problem(status, detail))


def not_allowed(method: str) -> Reply:
    """405 for every method but this one."""
    detail = f"only {method} is taken here"
    return answers.problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, headers={"Allow": method})


def wait(request: web.BaseRequest) -> bool:
    """Whether the sender waits until what it posts is enforced. Raises ``BadRequestError``, as all below do."""
    query = request.query
    if not query:
        return False
    if set(query) != {"wait"} or query.getall("wait") != ["verified"]:
        raise _bad("the only query taken is wait=verified")
    return True


def header(request: web.BaseRequest, name: str, longest: int) -> str:
    """A header of printable ASCII that stands there at most once; "": it does not."""
    values = request.headers.getall(name, [])
    if not values:
        return ""
    value = values[0]
    if len(values) > 1 or len(value) > longest or not value.isascii() or not value.isprintable():
        raise _bad(f"{name} must stand there once, with at most {longest} ASCII characters")
    return value


def signature(request: web.BaseRequest) -> bytes:
    """The detached signature; empty: there is none."""
    text = header(request, "Ragate-Signature", SIGNATURE)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad("Ragate-Signature must be base64") from error


def media_type(request: web.BaseRequest) -> str:
    """The one media type, in small letters and without parameters."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _bad("send the document as it is, without Content-Encoding", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    values = request.headers.getall("Content-Type", [])
    if len(values) != 1:
        raise _bad("exactly one Content-Type is needed", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    return values[0].partition(";")[0].strip().lower()
