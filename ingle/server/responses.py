"""The Responses API: a turn is asked for, streamed or not, kept, retrieved, cancelled, deleted.

A response is kept (unless store is false) when it is finished, and with it the items it answered,
so that the next request can name it instead of sending all again. A background response exists
from its start; another one cannot be retrieved or cancelled while it is being written, and one
whose client leaves is stopped and not kept.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ingle.errors import IngleError, InvalidRequestError
from ingle.server.body import read_json_body, run_beside
from ingle.server.chat import ignored_fields
from ingle.server.errors import HTTPError, RequestCancelledError, json_response
from ingle.server.generation import Generation, generate
from ingle.server.responses_items import Item, named, read_item
from ingle.server.responses_render import ResponseRenderer
from ingle.server.responses_store import Finder, Kept, ResponseStore
from ingle.server.responses_types import (
    ResponsesRequest,
    as_turn,
    decode_responses,
    in_own_words,
    settings,
)
from ingle.server.service import EngineService, where
from ingle.server.sse import EventStream
from ingle.server.turn import Prepared, prepare
from ingle.server.types import sampling_params

log = logging.getLogger("ingle.server")

DEFAULT_PAGE, MAX_PAGE = 20, 100


@dataclass
class Background:
    """A response that is written without anybody waiting for it."""

    generation: Generation
    renderer: ResponseRenderer
    items: bytes
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    async def write(self) -> None:
        """Wait for the end, whatever it is; the renderer hands it to the store."""
        try:
            async for _ in self.generation.pieces():
                pass
            self.renderer.whole()
        except RequestCancelledError:
            self.renderer.stopped("cancelled")
        except Exception as error:
            if not isinstance(error, IngleError):
                log.error("A background response failed: %s", where(error))
            self.renderer.stopped("failed", error)

    async def cancel(self) -> None:
        """Stop, and return when what was written until now is kept."""
        self.generation.cancel()
        if self.task is not None:
            await asyncio.wait([self.task])


class Responses:
    """All endpoints; one instance serves all requests of one service."""

    def __init__(self, service: EngineService, store: ResponseStore | None = None) -> None:
        self._service = service
        self._store = ResponseStore() if store is None else store
        self._running: dict[tuple[bytes, str], Background] = {}

    async def create(self, http: HTTPRequest) -> Response:
        """POST /v1/responses; every refusal is raised and written by the app's error handler."""
        body = await read_json_body(http)
        owner = _owner(http)
        asked, items, prepared = await run_beside(partial(self.prepare, owner), body)
        name = f"resp_{secrets.token_hex(16)}"
        stored = msgspec.json.encode(named(items, name)) if asked.stored else b""
        blank = settings(asked, prepared.params, self._service.model.name)
        generation = generate(self._service, http, name, prepared, asked)
        renderer = ResponseRenderer(
            blank | {"id": name, "created_at": int(time.time())},
            self._service.tokenizer,
            generation.replies[0],
            logprobs=asked.logprobs is not None,
            keep=partial(self._keep, owner, stored) if asked.stored else _forget,
        )
        headers = self._ignored(asked)
        if asked.background:
            self._start(owner, Background(generation, renderer, stored))
            return json_response(renderer.settings, headers=headers | generation.headers)
        if asked.stream:
            return EventStream(generation, renderer, headers)
        await generation.collect(http.receive)
        return json_response(renderer.whole(), headers=headers | generation.headers)

    def prepare(self, owner: bytes, body: bytes) -> tuple[ResponsesRequest, list[Item], Prepared]:
        """Everything that can be refused about a body, and the items it asks to be answered."""
        asked = decode_responses(body)
        service = self._service
        service.model.check_name(asked.model)
        earlier = self._earlier(owner, asked.previous_response_id)
        resolve = Finder(self._store, owner)
        items = [read_item(item, "previous_response_id", resolve) for item in earlier]
        items += [read_item(v, f"input[{i}]", resolve) for i, v in enumerate(asked.items)]
        params = sampling_params(
            asked,
            service.model.defaults,
            service.tokenizer.vocab_size,
            max_tokens=asked.max_output_tokens,
            logprobs=asked.logprobs,
        )
        turn = as_turn(asked, items, len(earlier))
        try:
            return asked, items, prepare(turn, params, service)
        except InvalidRequestError as error:
            raise in_own_words(error) from None

    async def retrieve(self, http: HTTPRequest) -> Response:
        """GET /v1/responses/{id}."""
        query = _query(http, ("stream", "include", "include[]", "include_obfuscation"))
        if query.get("stream", "false") != "false":
            raise InvalidRequestError("A response cannot be streamed afterwards.", "stream")
        if set(_all(http, "include")) - {"reasoning.encrypted_content"}:
            raise InvalidRequestError(
                "include cannot add to a response that is there; ask for it when creating one.",
                "include",
            )
        owner, id_ = _owner(http), http.path_params["id"]
        running = self._running.get((owner, id_))
        if running is not None:
            return json_response(running.renderer.settings)
        return _json(self._find(owner, id_).response)

    async def cancel(self, http: HTTPRequest) -> Response:
        """POST /v1/responses/{id}/cancel: stops a background response; harmless when it is done."""
        _query(http, ())
        owner, id_ = _owner(http), http.path_params["id"]
        running = self._running.get((owner, id_))
        if running is not None:
            await running.cancel()
        kept = self._find(owner, id_)
        if not kept.as_response()["background"]:
            raise InvalidRequestError("Only a background response can be cancelled.")
        return _json(kept.response)

    async def delete(self, http: HTTPRequest) -> Response:
        """DELETE /v1/responses/{id}; one that is being written is stopped first."""
        _query(http, ())
        owner, id_ = _owner(http), http.path_params["id"]
        running = self._running.get((owner, id_))
        if running is not None:
            await running.cancel()
        self._find(owner, id_)
        self._store.delete(owner, id_)
        return json_response({"id": id_, "object": "response", "deleted": True})

    async def input_items(self, http: HTTPRequest) -> Response:
        """GET /v1/responses/{id}/input_items: all items that were answered, page by page."""
        query = _query(http, ("order", "limit", "after", "include", "include[]"))
        if _all(http, "include"):
            raise InvalidRequestError("include has nothing to add to input items.", "include")
        owner, id_ = _owner(http), http.path_params["id"]
        running = self._running.get((owner, id_))
        items = msgspec.json.decode(running.items) if running else self._find(owner, id_).as_items()
        if _choice(query, "order", ("desc", "asc")) == "desc":
            items.reverse()
        after = query.get("after")
        if after is not None:
            places = [place for place, item in enumerate(items) if item["id"] == after]
            if not places:
                raise InvalidRequestError("after must be the id of one of the items.", "after")
            items = items[places[0] + 1 :]
        limit = _limit(query.get("limit"))
        page = items[:limit]
        return json_response(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
                "has_more": len(items) > limit,
            }
        )

    # --- its parts ---

    def _start(self, owner: bytes, run: Background) -> None:
        key = owner, run.renderer.settings["id"]
        self._running[key] = run
        run.task = asyncio.create_task(run.write())
        run.task.add_done_callback(lambda _: self._running.pop(key, None))

    def _keep(self, owner: bytes, items: bytes, response: dict[str, Any]) -> None:
        self._store.put(owner, response["id"], Kept(msgspec.json.encode(response), items))

    def _find(self, owner: bytes, id_: str) -> Kept:
        kept = self._store.get(owner, id_)
        if kept is None:
            raise HTTPError(404, "No such response is kept here.", "response_not_found")
        return kept

    def _earlier(self, owner: bytes, id_: str | None) -> list[dict[str, Any]]:
        """The items that a response answered, and its own."""
        if id_ is None:
            return []
        if (owner, id_) in self._running:
            raise InvalidRequestError(
                "The previous response is still being written.", "previous_response_id"
            )
        kept = self._store.get(owner, id_)
        if kept is None:
            raise HTTPError(
                400,
                "No such response is kept here. Send the whole conversation instead.",
                "previous_response_not_found",
                param="previous_response_id",
            )
        response = kept.as_response()
        if response["status"] not in ("completed", "incomplete"):
            raise InvalidRequestError(
                "The previous response failed or was cancelled.", "previous_response_id"
            )
        output: list[dict[str, Any]] = response["output"]
        return kept.as_items() + output

    def _ignored(self, asked: ResponsesRequest) -> dict[str, str]:
        """The header that names fields without effect, so that nothing is silent."""
        names = ["reasoning.effort"] if ignored_fields(self._service, asked.effort) else []
        names += ["reasoning.summary"] if asked.wants_summary else []
        return {"X-Ignored-Fields": ", ".join(names)} if names else {}


def _owner(http: HTTPRequest) -> bytes:
    """Whose responses a request is about: those of its API key."""
    owner: bytes = http.scope.get("ingle.salt", b"")
    return owner


def _forget(response: dict[str, Any]) -> None:
    """What is done with a response that shall not be kept."""


def _json(content: bytes) -> Response:
    return json_response(msgspec.Raw(content))


def _query(http: HTTPRequest, known: Iterable[str]) -> dict[str, str]:
    """The query parameters; InvalidRequestError names one that is not known."""
    for name in http.query_params:
        if name not in known:
            param = name if re.fullmatch(r"[\w\[\]-]{1,64}", name) else None
            raise InvalidRequestError("The query has an unknown parameter.", param)
    return dict(http.query_params)


def _all(http: HTTPRequest, name: str) -> list[str]:
    """All values of a list in the query, in both spellings."""
    return http.query_params.getlist(name) + http.query_params.getlist(f"{name}[]")


def _choice(query: dict[str, str], name: str, values: tuple[str, ...]) -> str:
    """One of the values, the first if nothing is said."""
    value = query.get(name, values[0])
    if value not in values:
        raise InvalidRequestError(f"{name} must be {' or '.join(values)}.", name)
    return value


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_PAGE
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= MAX_PAGE:
        raise InvalidRequestError(f"limit must lie in [1, {MAX_PAGE}].", "limit")
    return int(text)
