"""POST /v1/messages and /v1/messages/count_tokens, with and without /anthropic before them."""

from __future__ import annotations

import secrets
from dataclasses import replace

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ingle.engine.request import SamplingParams
from ingle.server.anthropic_render import AnthropicRenderer
from ingle.server.anthropic_types import CountRequest, MessagesRequest, as_turn
from ingle.server.body import read_json_body, run_beside
from ingle.server.chat import ignored_fields
from ingle.server.errors import HTTPError, json_response
from ingle.server.generation import generate
from ingle.server.service import EngineService
from ingle.server.sse import EventStream
from ingle.server.turn import Prepared, Turn, prepare
from ingle.server.types import Sampling, decode, sampling_params


class Messages:
    """Both endpoints; one instance serves all requests of one service."""

    def __init__(self, service: EngineService) -> None:
        self._service = service

    async def __call__(self, http: HTTPRequest) -> Response:
        """Answer one request; every refusal is raised and written by the app's error handler."""
        body = await read_json_body(http)
        asked, sampling, prepared = await run_beside(self.prepare, body)
        name = f"msg_{secrets.token_hex(12)}"
        generation = generate(self._service, http, name, prepared, sampling)
        renderer = AnthropicRenderer(
            id=name,
            model=self._service.model.name,
            reply=generation.replies[0],
            thinking=prepared.thinking,
            prompt_tokens=len(prepared.prompt),
        )
        headers = self._ignored(asked)
        if asked.stream:
            return EventStream(generation, renderer, headers)
        await generation.collect(http.receive)
        return json_response(renderer.message(), headers=headers | generation.headers)

    async def count_tokens(self, http: HTTPRequest) -> Response:
        """How long the prompt of a request would be."""
        body = await read_json_body(http)
        return json_response({"input_tokens": await run_beside(self._count, body)})

    def prepare(self, body: bytes) -> tuple[MessagesRequest, Sampling, Prepared]:
        """Everything that can be refused about a body; see `as_turn`."""
        asked = decode(body, MessagesRequest)
        service = self._service
        self._check_name(asked.model)
        if asked.thread is not None:
            raise _no_threads()
        sampling = asked.sampling()
        params = sampling_params(sampling, service.model.defaults, service.tokenizer.vocab_size)
        prepared = prepare(self._turn(asked), params, service)
        if asked.max_tokens is not None:
            # required of clients, who set it without knowing the context: cut instead of refused
            limit = min(asked.max_tokens, service.context - len(prepared.prompt))
            prepared = replace(prepared, params=replace(prepared.params, max_tokens=limit))
        return asked, sampling, prepared

    def _count(self, body: bytes) -> int:
        asked = decode(body, CountRequest)
        self._check_name(asked.model)
        return len(prepare(self._turn(asked), SamplingParams(), self._service).prompt)

    def _check_name(self, name: str | None) -> None:
        """As everywhere; programs written for Claude ask for one, which DeepSeek answers, too."""
        if name is None or not name.startswith("claude"):
            self._service.model.check_name(name)

    def _turn(self, asked: CountRequest) -> Turn:
        return as_turn(asked, self._service.model.encoder.moves_systems)

    def _ignored(self, asked: MessagesRequest) -> dict[str, str]:
        effort = asked.output_config.effort if asked.output_config else None
        names = ["output_config.effort"] if ignored_fields(self._service, effort) else []
        if asked.thinking is not None and asked.thinking.budget_tokens is not None:
            names.append("thinking.budget_tokens")
        return {"X-Ignored-Fields": ", ".join(names)} if names else {}


def _no_threads() -> HTTPError:
    """The refusal of a conversation kept by the server, in the terms that tell Anthropic's packages
    to go on without: their tool runners ask for one unbidden."""
    return HTTPError(
        400,
        "thread: no conversations are kept here; send all messages.",
        "invalid_request_error",
        param="thread",
        details={"error_code": "thread_unsupported_request", "unsupported": ["thread"]},
    )
