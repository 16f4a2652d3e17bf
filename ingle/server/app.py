"""The route table and the app around it: one list of what is served, one handler for errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ingle.errors import IngleError
from ingle.server.chat import ChatCompletions
from ingle.server.errors import HTTPError, error_response, json_response
from ingle.server.guard import Access, Guard
from ingle.server.page import load_static, page_routes
from ingle.server.service import EngineService
from ingle.server.tokens import Tokens


def create_app(
    service: EngineService,
    access: Access | None = None,
    on_ready: Callable[[], None] | None = None,
    drain_seconds: float = 10.0,
) -> ASGIApp:
    """The whole server as an ASGI app; the service starts and stops with its lifespan.

    access: who may come in; the default is loopback without a key. on_ready: called once requests
    are accepted. drain_seconds: how long open answers may take to end at shutdown.
    """
    static = load_static()
    chat, tokens = ChatCompletions(service), Tokens(service)

    async def complete(request: Request) -> Response:
        return await chat(request)

    async def models(request: Request) -> Response:
        return json_response({"object": "list", "data": [model_card(service)]})

    async def model(request: Request) -> Response:
        service.model.check_name(request.path_params["id"])
        return json_response(model_card(service))

    async def health(request: Request) -> Response:
        return _health(service, private=bool(access and access.key_digests))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await service.start()
        if on_ready is not None:
            on_ready()
        yield
        await service.stop(drain_seconds)

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", complete, methods=["POST"]),
            Route("/chat/completions", complete, methods=["POST"]),
            Route("/v1/models", models, methods=["GET"]),
            Route("/models", models, methods=["GET"]),
            Route("/v1/models/{id:path}", model, methods=["GET"]),
            Route("/models/{id:path}", model, methods=["GET"]),
            Route("/tokenize", tokens.tokenize, methods=["POST"]),
            Route("/detokenize", tokens.detokenize, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
            *page_routes(static),
        ],
        exception_handlers={
            HTTPException: _handle_http,
            HTTPError: _handle,
            IngleError: _handle,
            Exception: _handle,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    public = frozenset({"/health", *static})
    return Guard(app, replace(access or Access(), public=public))


def model_card(service: EngineService) -> dict[str, Any]:
    """The model as GET /v1/models lists it; fields after owned_by are ours, for the chat page."""
    model = service.model
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "ingle",
        "context_length": service.context,
        "examples": list(model.examples),
    }


def _health(service: EngineService, private: bool) -> Response:
    """Status; with keys in force, nothing else is told to those who ask without one."""
    body: dict[str, Any] = {"status": service.state}
    if not private:
        body |= {"model": service.model.name, "open_requests": service.open_requests}
    return json_response(body, 200 if service.state == "ok" else 503)


def _handle(request: Request, error: Exception) -> Response:
    return error_response(error)


def _handle_http(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, in our words."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(HTTPError(404, "No such route.", "not_found"))
    if error.status_code == 405:
        allow = dict(error.headers or {})
        refusal = HTTPError(405, "This route takes another method.", "method_not_allowed")
        return error_response(replace(refusal, headers=allow))
    return error_response(HTTPError(error.status_code, "The request is malformed.", "bad_request"))
