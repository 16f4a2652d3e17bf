"""All choices of one request while they are generated, merged into one stream of pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request as HTTPRequest
from starlette.types import Receive

from ingle.engine.request import Request, TokenEvent
from ingle.errors import InvalidRequestError
from ingle.server.explain import explained
from ingle.server.reply import Piece, Reply
from ingle.server.types import MAX_SEED, Sampling

if TYPE_CHECKING:
    from ingle.server.service import EngineService
    from ingle.server.stream import TokenStream
    from ingle.server.turn import Prepared


class Added(NamedTuple):
    """A piece and the choice it belongs to."""

    choice: int
    piece: Piece


@dataclass
class Generation:
    """The answers to one prompt: `replies[i]` grows with `streams[i]`."""

    id: str
    replies: list[Reply]
    streams: list[TokenStream] = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict)  # of the reply: the explained prefix

    async def pieces(self) -> AsyncGenerator[list[Added] | None, None]:
        """Yield what has come since the last time; None is a heartbeat.

        Raises as TokenStream.events; leaving early cancels all choices.
        """
        try:
            async with aclosing(_merged(self.streams)) as batches:
                async for index, events in batches:
                    push = self.replies[index].push
                    pieces = [Added(index, piece) for event in events for piece in push(event)]
                    yield pieces if events else None
        finally:
            self.cancel()

    async def collect(self, receive: Receive) -> list[Reply]:
        """Wait for all choices; they are cancelled if the client leaves before."""
        watch = asyncio.create_task(cancel_when_client_leaves(receive, self))
        try:
            async for _ in self.pieces():
                pass
        finally:
            watch.cancel()
        return self.replies

    def cancel(self) -> None:
        """Stop what still runs; harmless when all is done."""
        for stream in self.streams:
            stream.cancel()


def generate(
    service: EngineService,
    http: HTTPRequest,
    name: str,
    prepared: Prepared,
    sampling: Sampling,
    choices: int | None = None,
) -> Generation:
    """Submit one request per choice to the engine.

    name: the reply's id, from which the engine's request ids are made. choices: instead of the
    body's n. Raises what the engine's `submit` raises; nothing is left behind then.
    """
    prompt, params = prepared.prompt, prepared.params
    salt, client = cache_salt(http, sampling), http.scope.get("ingle.salt", b"")
    priority = sampling.priority or 0
    if client and priority < 0:
        raise InvalidRequestError(
            "priority must be 0 or more: this server has other keys to be fair to.", "priority"
        )
    streams: list[TokenStream] = []
    replies: list[Reply] = []
    headers = explained(service, http, prepared, salt)
    try:
        for index in range(sampling.choices if choices is None else choices):
            seed = params.seed
            own = params if seed is None else replace(params, seed=(seed + index) % (MAX_SEED + 1))
            request = Request(
                f"{name}-{index}",
                prompt,
                own,
                salt=salt,
                client=client,
                priority=priority,
            )
            streams.append(service.submit(request, whole=not sampling.stream))
            replies.append(Reply(prepared.parser(service), params.logprobs is not None))
    except BaseException:
        for stream in streams:
            stream.cancel()
        raise
    return Generation(name, replies, streams, headers)


def cache_salt(http: HTTPRequest, sampling: Sampling) -> bytes:
    """What keeps this client's cached prefixes from others: its key and the user it names."""
    key: bytes = http.scope.get("ingle.salt", b"")
    owner = sampling.cache_owner
    return sha256(key + owner.encode()).digest() if owner.strip("\0") else key


async def cancel_when_client_leaves(receive: Receive, generation: Generation) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    generation.cancel()


async def _merged(
    streams: list[TokenStream],
) -> AsyncGenerator[tuple[int, list[TokenEvent]], None]:
    """The events of several streams as they come, each with its stream's index."""
    if len(streams) == 1:  # by far the most, and free of tasks and queues
        async with aclosing(streams[0].events()) as batches:
            async for events in batches:
                yield 0, events
        return
    queue: asyncio.Queue[tuple[int, list[TokenEvent] | Exception | None]] = asyncio.Queue()

    async def forward(index: int, stream: TokenStream) -> None:
        try:
            async for events in stream.events():
                queue.put_nowait((index, events))
            queue.put_nowait((index, None))
        except Exception as error:
            queue.put_nowait((index, error))

    tasks = [asyncio.create_task(forward(i, stream)) for i, stream in enumerate(streams)]
    try:
        left = len(streams)
        while left:
            index, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield index, item
    finally:
        for task in tasks:
            task.cancel()
