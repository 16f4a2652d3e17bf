"""The table of routes: every path with its twin, none twice, and what follows from it."""

from __future__ import annotations

import pytest
from starlette.responses import Response

from ingle.server.routes import GET, POST, Endpoint, RouteTable


async def nothing(request) -> Response:
    return Response()


@pytest.mark.parametrize(
    ("path", "twin"),
    [
        ("/v1/chat/completions", "/chat/completions"),
        ("/health", "/v1/health"),
        ("/beta/completions", "/v1/beta/completions"),
        ("/anthropic/v1/messages", "/anthropic/messages"),
        ("/v1/models/{id:path}", "/models/{id:path}"),
        ("/v1", ""),
    ],
)
def test_every_path_has_a_twin(path, twin):
    assert Endpoint(path, GET, nothing).paths == [path, twin]


def test_aliases_have_twins_too_and_pages_have_none():
    endpoint = Endpoint("/v1/a", POST, nothing, aliases=("/beta/a", "/a"))
    assert endpoint.paths == ["/v1/a", "/beta/a", "/a", "/v1/beta/a"]
    assert Endpoint("/static/a.js", GET, nothing, api=False).paths == ["/static/a.js"]


def test_a_path_finds_its_endpoint():
    exact = Endpoint("/v1/models", GET, nothing)
    tail = Endpoint("/v1/models/{id:path}", GET, nothing)
    table = RouteTable([exact, tail])
    assert table.find("/models", "GET") is exact and table.find("/v1/models", "POST") is exact
    assert table.find("/v1/models/a/b", "GET") is tail
    assert table.find("/models/x", "GET") is tail
    assert table.find("/v1/models2", "GET") is None and table.find("", "GET") is None


def test_methods_of_one_path_are_endpoints_of_their_own():
    get, delete = (Endpoint("/v1/a/{id}", (method,), nothing) for method in ("GET", "DELETE"))
    plain, made = Endpoint("/v1/a", GET, nothing), Endpoint("/v1/a", POST, nothing)
    table = RouteTable([get, delete, plain, made])
    assert table.find("/a/x", "DELETE") is delete and table.find("/a/x", "HEAD") is get
    assert table.find("/a", "POST") is made and table.find("/a", "GET") is plain


def test_a_path_served_twice_and_a_public_pattern_are_mistakes():
    with pytest.raises(AssertionError, match="twice"):
        RouteTable([Endpoint("/v1/a", GET, nothing), Endpoint("/a", GET, nothing)])
    with pytest.raises(AssertionError, match="public"):
        RouteTable([Endpoint("/v1/a/{id}", GET, nothing, public=True)])


def test_all_api_paths_answer_with_and_without_v1(live):
    for path in ("/models", "/health", "/ready", "/metrics", "/openapi.json", "/user/balance"):
        replies = [live.client.get(each) for each in (path, f"/v1{path}")]
        assert [reply.status_code for reply in replies] == [200, 200], path
    for path in ("/chat/completions", "/tokenize", "/detokenize"):
        replies = [live.client.post(each, json={}) for each in (path, f"/v1{path}")]
        assert [reply.status_code for reply in replies] == [400, 400], path
    assert live.client.get("/v1/static/app.js").status_code == 404
