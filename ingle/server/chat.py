"""POST /v1/chat/completions: a typed body in, engine requests, replies whole or as events."""

from __future__ import annotations

import secrets
import time

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ingle.server.body import read_json_body, run_beside
from ingle.server.chat_render import ChatRenderer
from ingle.server.chat_types import ChatRequest, as_turn, decode_chat
from ingle.server.errors import json_response
from ingle.server.generation import generate
from ingle.server.service import EngineService
from ingle.server.sse import EventStream
from ingle.server.turn import Prepared, prepare
from ingle.server.types import sampling_params


class ChatCompletions:
    """The endpoint; one instance serves all requests of one service."""

    def __init__(self, service: EngineService) -> None:
        self._service = service

    async def __call__(self, http: HTTPRequest) -> Response:
        """Answer one request; every refusal is raised and written by the app's error handler."""
        body = await read_json_body(http)
        chat, prepared = await run_beside(self.prepare, body)
        name = f"chatcmpl-{secrets.token_hex(12)}"
        generation = generate(self._service, http, name, prepared, chat)
        renderer = ChatRenderer(
            id=name,
            created=int(time.time()),
            model=self._service.model.name,
            fingerprint=self._service.model.fingerprint,
            tokenizer=self._service.tokenizer,
            replies=generation.replies,
            thinking=prepared.thinking,
            logprobs=bool(chat.logprobs),
            include_usage=chat.include_usage,
        )
        headers = ignored_fields(self._service, as_effort=chat.reasoning_effort)
        if chat.stream:
            return EventStream(generation, renderer, headers)
        await generation.collect(http.receive)
        return json_response(renderer.completion(), headers=headers | generation.headers)

    def prepare(self, body: bytes) -> tuple[ChatRequest, Prepared]:
        """Everything that can be refused about a body; see `decode_chat` and `as_turn`."""
        chat = decode_chat(body)
        self._service.model.check_name(chat.model)
        params = sampling_params(
            chat,
            self._service.model.defaults,
            self._service.tokenizer.vocab_size,
            max_tokens=chat.token_limit,
            logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        )
        return chat, prepare(as_turn(chat), params, self._service)


def ignored_fields(service: EngineService, as_effort: str | None) -> dict[str, str]:
    """The header that names fields without effect on this model, so that nothing is silent."""
    ignored = as_effort not in (None, "none") and not service.model.encoder.has_effort
    return {"X-Ignored-Fields": "reasoning_effort"} if ignored else {}
