"""What the door answers: the types of its JSON, and which status each refused step becomes. No sockets.

A problem document (RFC 9457) names the step that failed and what to do; it never shows keys, other sources' names
or what is expected of a signature.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec

from gateway.control.reception import Answer, Denied, Result
from gateway.core.errors import Refusal

Step = Annotated[str, msgspec.Meta(description="The step of the verification plan that refused it.")]


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one verdict, in the order of the document."""

    device: str
    accepted: bool
    standing: Annotated[str, msgspec.Meta(description="Of the device in this source, after the verdict.")] = ""
    effect: str = ""
    why: str = ""
    journal: Annotated[int, msgspec.Meta(description="Number of its row in the journal.")] = 0
    milliseconds: Annotated[
        float | None, msgspec.Meta(description="From the request's last byte to verified at every target.")
    ] = None
    failed: Annotated[str, msgspec.Meta(description="Which target has not enforced it yet, and why.")] = ""
    step: Step = ""
    detail: str = ""


class Taken(msgspec.Struct, frozen=True):
    """A document that was taken, in whole or in part."""

    receipt: Annotated[str, msgspec.Meta(description="The same for the same bytes, source and proof.")]
    source: str
    state: Annotated[
        Literal["durable", "verified"],
        msgspec.Meta(description="durable: journalled. verified: and read back at every target."),
    ]
    results: list[Outcome]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = ""
    step: Step = ""
    results: list[Outcome] = []


#: What the steps become. Anything not listed is the client's mistake in form.
STATUSES = {
    Refusal.SOURCE: HTTPStatus.FORBIDDEN,
    Refusal.ALGORITHM: HTTPStatus.FORBIDDEN,
    Refusal.KEY: HTTPStatus.FORBIDDEN,
    Refusal.SIGNATURE: HTTPStatus.FORBIDDEN,
    Refusal.DEVICE: HTTPStatus.UNPROCESSABLE_ENTITY,
    Refusal.FRESHNESS: HTTPStatus.UNPROCESSABLE_ENTITY,
    Refusal.REPLAY: HTTPStatus.CONFLICT,
    Refusal.ORDER: HTTPStatus.CONFLICT,
    Refusal.RETIRED: HTTPStatus.CONFLICT,
    Refusal.KIND: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Refusal.LIMIT: HTTPStatus.TOO_MANY_REQUESTS,
    Refusal.LENGTHS: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Refusal.TIMEOUT: HTTPStatus.REQUEST_TIMEOUT,
    Refusal.DEGRADED: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Reply(msgspec.Struct, frozen=True):
    """One answer: status, JSON, media type, headers."""

    status: HTTPStatus
    body: bytes
    media_type: str = "application/json"
    headers: dict[str, str] = {}


def taken(answer: Answer, *, wait: bool) -> Reply:
    """200 when it was to be verified and is, otherwise 202."""
    verified = answer.verified
    status = HTTPStatus.OK if wait and verified else HTTPStatus.ACCEPTED
    results = list(map(_outcome, answer.results))
    body = Taken(answer.receipt, answer.source, "verified" if verified else "durable", results)
    return Reply(status, msgspec.json.encode(body) + b"\n")


def denied(found: Denied) -> Reply:
    """The problem document of a document of which nothing was taken."""
    status = STATUSES.get(found.step, HTTPStatus.BAD_REQUEST)
    headers = {"Retry-After": str(math.ceil(found.retry))} if found.retry else {}
    return problem(status, found.detail, found.step.value, headers, list(map(_outcome, found.results)))


def problem(
    status: HTTPStatus,
    detail: str,
    step: str = "",
    headers: dict[str, str] | None = None,
    results: list[Outcome] | None = None,
) -> Reply:
    """A problem document."""
    kind = f"urn:ragate:step:{step}" if step else "about:blank"
    body = Problem(kind, status.phrase, status.value, detail, step, results or [])
    return Reply(status, msgspec.json.encode(body) + b"\n", "application/problem+json", headers or {})


def _outcome(result: Result) -> Outcome:
    milliseconds = None if result.milliseconds is None else round(result.milliseconds, 3)
    return Outcome(
        result.device,
        result.accepted,
        result.standing,
        result.effect,
        result.why,
        result.journal,
        milliseconds,
        result.failed,
        result.step,
        result.detail,
    )
