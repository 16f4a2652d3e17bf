"""POST /v1/chat/completions: a typed body in, an engine request, a reply whole or as events."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ingle.engine.request import Request, SamplingParams
from ingle.errors import IngleError, InvalidRequestError
from ingle.prompt.encoder import ends_in_reasoning
from ingle.server.body import read_json_body
from ingle.server.errors import envelope, json_response
from ingle.server.replies import Renderer, Reply
from ingle.server.service import EngineService, TokenStream
from ingle.server.types import ChatRequest, decode_chat

OFF_LOOP_BYTES = 1 << 16  # longer bodies are parsed and encoded beside the event loop
PLAIN_FIELDS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "seed",
)


class ChatCompletions:
    """The endpoint; one instance serves all requests of one service."""

    def __init__(self, service: EngineService) -> None:
        self._service = service

    async def __call__(self, http: HTTPRequest) -> Response:
        """Answer one request; every refusal is raised and written by the app's error handler."""
        body = await read_json_body(http)
        if len(body) > OFF_LOOP_BYTES:
            chat, request = await asyncio.to_thread(self._prepare, body)
        else:
            chat, request = self._prepare(body)
        tokenizer = self._service.tokenizer
        thinking = ends_in_reasoning(request.prompt, tokenizer)
        request.salt = http.scope.get("ingle.salt", b"")
        stream = self._service.submit(request, whole=not chat.stream)
        reply = Reply(tokenizer, thinking)
        renderer = self._renderer(chat, request.id, thinking)
        if chat.stream:
            return EventStream(stream, reply, renderer)
        await _collect(http.receive, stream, reply)
        return json_response(renderer.completion(reply))

    def _prepare(self, body: bytes) -> tuple[ChatRequest, Request]:
        chat = decode_chat(body)
        model, tokenizer = self._service.model, self._service.tokenizer
        model.check_name(chat.model)
        messages = [
            {"role": message.role, "content": message.text(index)}
            for index, message in enumerate(chat.messages)
        ]
        params = sampling_params(chat, model.defaults, tokenizer.vocab_size)
        prompt = model.encoder.encode(messages, tokenizer, thinking=chat.wants_thinking)
        self._service.check_length(len(prompt), params.max_tokens)
        return chat, Request(f"chatcmpl-{secrets.token_hex(12)}", prompt, params)

    def _renderer(self, chat: ChatRequest, request_id: str, thinking: bool) -> Renderer:
        return Renderer(
            id=request_id,
            created=int(time.time()),
            model=self._service.model.name,
            fingerprint=self._service.model.fingerprint,
            tokenizer=self._service.tokenizer,
            thinking=thinking,
            logprobs=bool(chat.logprobs),
            include_usage=chat.include_usage,
        )


def sampling_params(chat: ChatRequest, defaults: SamplingParams, vocab: int) -> SamplingParams:
    """The request's sampling over the model's defaults; InvalidRequestError names a bad field."""
    given: dict[str, Any] = {
        name: value for name in PLAIN_FIELDS if (value := getattr(chat, name)) is not None
    }
    if "top_k" in given:
        given["top_k"] = min(given["top_k"], vocab)
    limits = {chat.max_tokens, chat.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise InvalidRequestError(
            "max_tokens and max_completion_tokens differ; give one.", "max_completion_tokens"
        )
    if limits:
        given["max_tokens"] = limits.pop()
    if chat.stop is not None:
        given["stop"] = (chat.stop,) if isinstance(chat.stop, str) else tuple(chat.stop)
    if chat.stop_token_ids is not None:
        given["stop_token_ids"] = tuple(chat.stop_token_ids)
    if chat.logprobs:
        given["logprobs"] = chat.top_logprobs or 0
    for name in ("logit_bias", "stop_token_ids"):
        if any(not 0 <= token < vocab for token in given.get(name, ())):
            raise InvalidRequestError(f"{name} holds an id outside the vocabulary.", name)
    return replace(defaults, **given)


async def _collect(receive: Receive, stream: TokenStream, reply: Reply) -> None:
    watch = asyncio.create_task(_cancel_when_client_leaves(receive, stream))
    try:
        async for events in stream.events():
            for event in events:
                reply.push(event)
    finally:
        watch.cancel()


async def _cancel_when_client_leaves(receive: Receive, stream: TokenStream) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.cancel()


class EventStream(Response):
    """Server-sent events of one reply; ends the engine's work when the client is gone."""

    def __init__(self, stream: TokenStream, reply: Reply, renderer: Renderer) -> None:
        super().__init__(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
                "X-Content-Type-Options": "nosniff",
            },
        )
        del self.headers["content-length"]
        self._stream, self._reply, self._renderer = stream, reply, renderer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(_cancel_when_client_leaves(receive, self._stream))
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            with suppress(OSError):  # the client is gone
                async with aclosing(self._frames()) as frames:
                    async for frame in frames:
                        await send({"type": "http.response.body", "body": frame, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
        finally:
            watch.cancel()
            self._stream.cancel()

    async def _frames(self) -> AsyncGenerator[bytes, None]:
        renderer, reply = self._renderer, self._reply
        yield _frame(renderer.first_chunk())
        try:
            async with aclosing(self._stream.events()) as batches:
                async for events in batches:
                    pieces = (piece for event in events for piece in reply.push(event))
                    chunks = map(renderer.piece_chunk, pieces)
                    frames = [_frame(chunk) for chunk in chunks if chunk is not None]
                    if frames:
                        yield b"".join(frames)
                    elif not events:
                        yield b": keep-alive\n\n"
        except IngleError as error:  # too late for a status code
            yield _frame(envelope(error))
            return
        yield _frame(renderer.last_chunk(reply)) + b"data: [DONE]\n\n"


def _frame(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
