"""/openapi.json: OpenAPI 3.1 in structure, JSON Schema 2020-12 in its types, true to the server."""

from __future__ import annotations

import re

import jsonschema
import pytest

# What OpenAPI 3.1 asks of the parts used here, closed so that a misspelt field is seen.
TEXT = {"type": "string", "minLength": 1}
MEDIA = {
    "type": "object",
    "minProperties": 1,
    "propertyNames": {"pattern": r"^\w+/[\w-]+$"},
    "additionalProperties": {
        "type": "object",
        "required": ["schema"],
        "properties": {"schema": {"type": "object"}},
        "additionalProperties": False,
    },
}
RESPONSE = {
    "type": "object",
    "required": ["description"],
    "properties": {"description": TEXT, "headers": {"type": "object"}, "content": MEDIA},
    "additionalProperties": False,
}
PARAMETER = {
    "type": "object",
    "required": ["name", "in", "required", "schema"],
    "properties": {
        "name": TEXT,
        "in": {"const": "path"},
        "required": {"const": True},
        "schema": {"type": "object"},
    },
    "additionalProperties": False,
}
OPERATION = {
    "type": "object",
    "required": ["operationId", "summary", "responses", "security"],
    "properties": {
        "operationId": {"type": "string", "pattern": r"^\w+$"},
        "summary": TEXT,
        "description": TEXT,
        "parameters": {"type": "array", "items": PARAMETER, "minItems": 1},
        "requestBody": {
            "type": "object",
            "required": ["content"],
            "properties": {"required": {"const": True}, "content": MEDIA},
            "additionalProperties": False,
        },
        "responses": {
            "type": "object",
            "required": ["200", "default"],
            "patternProperties": {"^([1-5][0-9]{2}|default)$": RESPONSE},
            "additionalProperties": False,
        },
        "security": {
            "type": "array",
            "items": {"type": "object", "additionalProperties": {"type": "array", "maxItems": 0}},
        },
    },
    "additionalProperties": False,
}
DOCUMENT = {
    "type": "object",
    "required": ["openapi", "info", "paths", "components"],
    "properties": {
        "openapi": {"pattern": r"^3\.1\.\d+$"},
        "info": {
            "type": "object",
            "required": ["title", "version"],
            "properties": {"title": TEXT, "version": TEXT, "description": TEXT},
            "additionalProperties": False,
        },
        "paths": {
            "type": "object",
            "propertyNames": {"pattern": r"^/[\w/.{}-]+$"},
            "additionalProperties": {
                "type": "object",
                "propertyNames": {"enum": ["get", "post", "put", "delete"]},
                "additionalProperties": OPERATION,
            },
        },
        "components": {
            "type": "object",
            "properties": {
                "schemas": {
                    "type": "object",
                    "propertyNames": {"pattern": r"^[\w.-]+$"},
                    "additionalProperties": {"type": "object"},
                },
                "securitySchemes": {
                    "type": "object",
                    "additionalProperties": {
                        "oneOf": [
                            {"properties": {"type": {"const": "http"}}, "required": ["scheme"]},
                            {
                                "properties": {"type": {"const": "apiKey"}},
                                "required": ["in", "name"],
                            },
                        ]
                    },
                },
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def document(live) -> dict:
    reply = live.client.get("/openapi.json")
    assert reply.headers["content-type"] == "application/json"
    return reply.json()


def refs(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(refs, node.values()))
    return set().union(*map(refs, node)) if isinstance(node, list) else set()


def test_structure(document):
    jsonschema.Draft202012Validator.check_schema(DOCUMENT)
    jsonschema.validate(document, DOCUMENT)
    ids = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(ids) == len(set(ids))


def test_types_are_json_schema_and_all_references_lead_somewhere(document):
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert refs(document) == {f"#/components/schemas/{name}" for name in schemas}


def test_every_path_is_there_once_and_has_its_parameters(document):
    assert {"/v1/chat/completions", "/v1/models", "/v1/models/{id}", "/tokenize", "/metrics",
            "/health", "/ready", "/user/balance"} <= set(document["paths"])  # fmt: skip
    assert not {"/", "/static/app.js", "/chat/completions"} & set(document["paths"])
    for path, operations in document["paths"].items():
        for operation in operations.values():
            names = [each["name"] for each in operation.get("parameters", [])]
            assert names == re.findall(r"\{(\w+)\}", path)


def test_a_stream_is_announced_where_there_is_one(document):
    def kinds(path: str) -> set[str]:
        (operation,) = document["paths"][path].values()
        return set(operation["responses"]["200"]["content"])

    assert kinds("/v1/chat/completions") == {"application/json", "text/event-stream"}
    assert kinds("/tokenize") == {"application/json"}
    assert kinds("/metrics") == {"text/plain"}


def validator(document: dict, schema: dict) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]})


def test_the_server_answers_as_described(live, document):
    for path in ("/health", "/ready", "/v1/models", "/v1/models/test-model", "/user/balance"):
        described = document["paths"][path.replace("test-model", "{id}")]["get"]
        schema = described["responses"]["200"]["content"]["application/json"]["schema"]
        validator(document, schema).validate(live.client.get(path).json())
    refused = live.client.post("/v1/chat/completions", json={"messages": []})
    described = document["paths"]["/v1/chat/completions"]["post"]
    schema = described["responses"]["default"]["content"]["application/json"]["schema"]
    validator(document, schema).validate(refused.json())
    assert not validator(document, schema).is_valid({"error": "x"})


def test_the_server_takes_what_is_described(live, document):
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "stop": ["x"]}
    described = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    check = validator(document, described["content"]["application/json"]["schema"])
    assert check.is_valid(body) and live.chat(**body).status_code == 200
    for wrong in ({"messages": 1}, {"max_tokens": 1}, {**body, "stream": "yes"}):
        assert not check.is_valid(wrong)
        assert live.client.post("/v1/chat/completions", json=wrong).status_code == 400


def test_keys_are_asked_for_where_they_are_needed(tokenizer, scripted, start, document):
    from hashlib import sha256

    from ingle.server.guard import Access
    from ingle.server.keys import ApiKey

    key = ApiKey("1", sha256(b"correct-horse-battery").digest())
    with start(scripted(tokenizer), Access(keys=(key,))) as live:
        live.client.headers["x-api-key"] = "correct-horse-battery"
        keyed = live.client.get("/openapi.json").json()
        live.client.headers.pop("x-api-key")
        for path, operations in keyed["paths"].items():
            for method, operation in operations.items():
                status = live.client.request(method, path.replace("{id}", "x")).status_code
                assert (status == 401) == bool(operation["security"]), path
    for operations in document["paths"].values():
        assert all(operation["security"] == [] for operation in operations.values())
