"""The table of what is served and the app around it: one list, one guard, one error handler."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from ingle.errors import IngleError
from ingle.server import metrics, openapi
from ingle.server.access_log import AccessLog
from ingle.server.anthropic import Messages
from ingle.server.anthropic_types import CountRequest, MessagesRequest
from ingle.server.chat import ChatCompletions
from ingle.server.chat_types import ChatRequest
from ingle.server.completions import CompletionRequest, Completions
from ingle.server.errors import HTTPError, error_response, json_response
from ingle.server.guard import Access, Guard
from ingle.server.page import load_static, page_endpoints
from ingle.server.responses import Responses
from ingle.server.responses_types import ResponsesRequest
from ingle.server.routes import DELETE, GET, POST, Endpoint, RouteTable
from ingle.server.service import EngineService
from ingle.server.status import SealReport, model_endpoints, probes, seal_endpoint
from ingle.server.tokens import DetokenizeRequest, TokenizeRequest, Tokens
from ingle.server.wire import Wire


def create_app(
    service: EngineService,
    access: Access | None = None,
    on_ready: Callable[[], None] | None = None,
    drain_seconds: float = 10.0,
    wire: Wire | None = None,
    log: AccessLog | None = None,
    seal: SealReport | None = None,
) -> ASGIApp:
    """The whole server as an ASGI app; the service starts and stops with its lifespan.

    access: who may come in; the default is loopback without a key. on_ready: called once requests
    are accepted. drain_seconds: how long open answers may take to end at shutdown. wire: the
    connections it is served on, for its metrics. log: gets a line for each request. seal: of this
    process, if it is the server's own.
    """
    access, wire = access or Access(), wire or Wire()

    async def measure(request: Request) -> Response:
        page = metrics.page(
            service.metrics,
            service.stats(),
            service.open_requests,
            (wire.open, wire.refused),
            service.bandwidth,
        )
        return Response(
            page, media_type=metrics.CONTENT_TYPE, headers={"Cache-Control": "no-store"}
        )

    @cache
    def description() -> dict[str, Any]:
        return openapi.document(table, keyed=bool(access.keys))

    async def describe(request: Request) -> Response:
        return json_response(description())

    table = RouteTable([
        *_endpoints(service, access, seal),
        Endpoint("/metrics", GET, measure, None, "Counters and times.", media_type="text/plain"),
        Endpoint("/openapi.json", GET, describe, None, "This description."),
        *page_endpoints(load_static()),
    ])  # fmt: skip

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await service.start()
        if on_ready is not None:
            on_ready()
        yield
        await service.stop(drain_seconds)

    app = Starlette(
        routes=table.routes,
        exception_handlers={
            HTTPException: _handle_http,
            HTTPError: _handle,
            IngleError: _handle,
            Exception: _handle,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Guard(app, access, table, lambda: service.state, service.metrics, log)


def _endpoints(service: EngineService, access: Access, seal: SealReport | None) -> list[Endpoint]:
    chat, completions = ChatCompletions(service), Completions(service)
    messages, responses, tokens = Messages(service), Responses(service), Tokens(service)
    count, under = messages.count_tokens, "/v1/responses/{id}"
    everyone_may_know = None if access.keys else lambda: (service.model.name, service.open_requests)
    return [
        Endpoint("/v1/chat/completions", POST, chat, ChatRequest, "Answer a conversation.",
                 aliases=("/beta/chat/completions",)),
        Endpoint("/v1/completions", POST, completions, CompletionRequest, "Continue a text.",
                 aliases=("/beta/completions",)),
        Endpoint("/v1/messages", POST, messages, MessagesRequest, "Answer as Anthropic does.",
                 aliases=("/anthropic/v1/messages",)),
        Endpoint("/v1/messages/count_tokens", POST, count, CountRequest, "How long a prompt is.",
                 aliases=("/anthropic/v1/messages/count_tokens",)),
        Endpoint("/v1/responses", POST, responses.create, ResponsesRequest, "Answer and keep."),
        Endpoint(under, GET, responses.retrieve, None, "A response that was kept."),
        Endpoint(under, DELETE, responses.delete, None, "Forget a response."),
        Endpoint(f"{under}/cancel", POST, responses.cancel, None, "Stop a background response."),
        Endpoint(f"{under}/input_items", GET, responses.input_items, None, "What it answered."),
        Endpoint("/tokenize", POST, tokens.tokenize, TokenizeRequest, "Text to token ids."),
        Endpoint("/detokenize", POST, tokens.detokenize, DetokenizeRequest, "Token ids to text."),
        *model_endpoints(service),
        seal_endpoint(seal or SealReport("unsealed")),
        *probes(lambda: service.state, everyone_may_know, seal),
    ]  # fmt: skip


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
