"""POST /tokenize and /detokenize: text or a conversation to ids and back, as the model sees it."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from ingle.errors import InvalidRequestError
from ingle.server.body import read_json_body
from ingle.server.chat_types import Message
from ingle.server.errors import json_response
from ingle.server.service import EngineService
from ingle.server.tool_choice import check_tools
from ingle.server.types import decode


class TokenizeRequest(Struct, forbid_unknown_fields=True):
    """Either `prompt`, which is plain text (names of special tokens in it stay text), or
    `messages`, which are encoded as for a chat. add_special_tokens: begin a prompt with BOS."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None
    add_special_tokens: bool = True
    thinking: bool = True


class DetokenizeRequest(Struct, forbid_unknown_fields=True):
    """Ids, of which special tokens are written by name."""

    tokens: list[int]
    model: str | None = None


class Tokens:
    """Both endpoints of one service; long bodies are handled beside the event loop."""

    def __init__(self, service: EngineService) -> None:
        self._service = service

    async def tokenize(self, http: Request) -> Response:
        body = await read_json_body(http)
        return json_response(await asyncio.to_thread(self._tokenize, body))

    async def detokenize(self, http: Request) -> Response:
        body = await read_json_body(http)
        return json_response(await asyncio.to_thread(self._detokenize, body))

    def _tokenize(self, body: bytes) -> dict[str, Any]:
        asked = decode(body, TokenizeRequest)
        self._service.model.check_name(asked.model)
        if (asked.prompt is None) == (asked.messages is None):
            raise InvalidRequestError("Give either prompt or messages.", "prompt")
        tokenizer = self._service.tokenizer
        if asked.messages is not None:
            turns = [message.as_prompt(index) for index, message in enumerate(asked.messages)]
            encoder, tools = self._service.model.encoder, check_tools(asked.tools)
            ids = encoder.encode(turns, tokenizer, tools=tools or None, thinking=asked.thinking)
        else:
            ids = [tokenizer.bos_id] if asked.add_special_tokens else []
            ids += tokenizer.encode(asked.prompt or "")
        return {"tokens": ids, "count": len(ids), "max_model_len": self._service.context}

    def _detokenize(self, body: bytes) -> dict[str, Any]:
        asked = decode(body, DetokenizeRequest)
        self._service.model.check_name(asked.model)
        tokenizer = self._service.tokenizer
        if any(not 0 <= token < tokenizer.vocab_size for token in asked.tokens):
            raise InvalidRequestError("tokens holds an id outside the vocabulary.", "tokens")
        return {"prompt": tokenizer.decode(asked.tokens, skip_special=False)}
