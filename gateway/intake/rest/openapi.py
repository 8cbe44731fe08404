"""The published description (OpenAPI 3.1), made from the types that requests and answers are read and written
by."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.intake.rest.answers import STATUSES, Problem, Taken
from gateway.intake.rest.settings import DESCRIPTION, PATH
from gateway.verdicts import FORMATS, PostedVerdicts

VERSION = "1.0.0"


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    types = (PostedVerdicts, Taken, Problem)
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ragate: attestation results",
            "version": VERSION,
            "description": "Where relying parties and verifiers post what they found.",
        },
        "paths": {
            PATH: {"post": _post()},
            DESCRIPTION: {"get": _get()},
        },
        "components": {"schemas": components},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _post() -> dict[str, Any]:
    taken = {"content": {"application/json": {"schema": _ref("Taken")}}}
    bodies: dict[str, Any] = {
        media_type: {"schema": {"type": "string", "format": "binary"}}
        for form in FORMATS.values()
        for media_type in form.media_types
    }
    bodies["application/json"] = {"schema": {"anyOf": [_ref("PostedVerdicts"), {"type": "object"}]}}
    return {
        "operationId": "postVerdicts",
        "summary": "Post one or many attestation results.",
        "parameters": [
            {
                "name": "wait",
                "in": "query",
                "description": "Answer when enforced and read back, not already when durable.",
                "schema": {"enum": ["verified"]},
            },
            _header(
                "Ragate-Source", "The sender's name in ragate.yaml; may be left out with a client certificate.", 64
            ),
            _header("Ragate-Key", "Id of the key of a detached signature.", 64),
            _header("Ragate-Signature", "Detached signature over the exact body, base64.", 2_048),
        ],
        "requestBody": {"required": True, "content": bodies},
        "responses": {
            "200": {"description": "Taken, enforced at every target and read back.", **taken},
            "202": {"description": "Taken and durable.", **taken},
            **{str(status): _problem(status) for status in sorted({400, 405, *map(int, STATUSES.values())})},
        },
    }


def _get() -> dict[str, Any]:
    return {
        "operationId": "describe",
        "summary": "This document.",
        "responses": {"200": {"description": "OpenAPI 3.1.", "content": {"application/json": {"schema": {}}}}},
    }


def _header(name: str, what: str, longest: int) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "description": what,
        "schema": {"type": "string", "maxLength": longest, "pattern": r"^[\x21-\x7e]*$"},
    }


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": "Nothing was taken." if status != 405 else "Another method is taken here.",
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }
