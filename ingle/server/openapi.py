"""`/openapi.json`: the table of routes and the types of its bodies as OpenAPI 3.1.

Every endpoint is described once, at its documented path; that it is served with and without `/v1`
is said in words.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from ingle import __version__
from ingle.server.routes import Endpoint, RouteTable

REF = "#/components/schemas/{name}"
Refs = dict[type[Struct], dict[str, Any]]
PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"x-api-key": []}]


class ErrorBody(Struct):
    """param: the field that was wrong, where there is one. code: a stable word for programs.
    details: what a program may go on by."""

    message: str
    type: str
    param: str | None
    code: str
    details: dict[str, Any] | None = None


class ErrorEnvelope(Struct):
    """What every refusal looks like, whatever the route."""

    error: ErrorBody


def document(table: RouteTable, keyed: bool) -> dict[str, Any]:
    """The description of a server's API. keyed: whether keys are in force."""
    endpoints = [endpoint for endpoint in table.endpoints if endpoint.api]
    types: set[type[Struct]] = {ErrorEnvelope}
    types |= {kind for each in endpoints for kind in (each.body, each.reply) if kind is not None}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    named, schemas = msgspec.json.schema_components(ordered, ref_template=REF)
    refs = dict(zip(ordered, named, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operations = paths.setdefault(PARAMETER.sub(r"{\1}", endpoint.path), {})
        for method in endpoint.methods:
            operations[method.lower()] = _operation(endpoint, method, keyed, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ingle",
            "version": __version__,
            "description": "A language model on this machine. Every path is served with and "
            "without /v1.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _operation(endpoint: Endpoint, method: str, keyed: bool, refs: Refs) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", PARAMETER.sub(r"\1", endpoint.path)).strip("_")
    operation: dict[str, Any] = {
        "operationId": f"{method.lower()}_{name}",
        "summary": endpoint.summary,
        "responses": {"200": _success(endpoint, refs), "default": _failure(refs)},
        "security": SECURITY if keyed and not endpoint.public else [],
    }
    if endpoint.aliases:
        operation["description"] = f"Also served at {', '.join(endpoint.aliases)}."
    if names := PARAMETER.findall(endpoint.path):
        operation["parameters"] = [
            {"name": each, "in": "path", "required": True, "schema": {"type": "string"}}
            for each in names
        ]
    if endpoint.body is not None:
        content = {"application/json": {"schema": refs[endpoint.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _success(endpoint: Endpoint, refs: Refs) -> dict[str, Any]:
    schema = {"type": "object"} if endpoint.reply is None else refs[endpoint.reply]
    content: dict[str, Any] = {endpoint.media_type: {"schema": schema}}
    if endpoint.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    headers = {"x-request-id": {"schema": {"type": "string"}}}
    return {"description": "Done.", "headers": headers, "content": content}


def _failure(refs: Refs) -> dict[str, Any]:
    content = {"application/json": {"schema": refs[ErrorEnvelope]}}
    return {"description": "Refused or failed; the message says why.", "content": content}
