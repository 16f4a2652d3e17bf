"""What a table of routes is made of: one `Endpoint` a line, from which everything else follows.

Starlette's routes, who needs a key, what is limited, the names in metrics and logs and
`/openapi.json` are all read off the same table, so that none of them can forget a route.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

Handler = Callable[[Request], Awaitable[Response]]

GET = ("GET",)
POST = ("POST",)
DELETE = ("DELETE",)


@dataclass(frozen=True)
class Endpoint:
    """One thing the server does.

    path: its documented place; a `{name:path}` at the end is a parameter. body: what a request must
    hold; endpoints with one count against a client's limits. public: answered without a key.
    aliases: further paths. api: every path is served with and without `/v1`, and the endpoint is
    described in /openapi.json; the files of the chat page are no API. reply, media_type: of the
    answer.
    """

    path: str
    methods: tuple[str, ...]
    handler: Handler
    body: type[Struct] | None = None
    summary: str = ""
    public: bool = False
    aliases: tuple[str, ...] = ()
    api: bool = True
    reply: type[Struct] | None = None
    media_type: str = "application/json"

    @property
    def paths(self) -> list[str]:
        """All its paths, the documented one first, none twice."""
        named = [self.path, *self.aliases]
        twins = [_twin(path) for path in named] if self.api else []
        return list(dict.fromkeys([*named, *twins]))

    @property
    def streams(self) -> bool:
        """Whether a client may ask for server-sent events."""
        return self.body is not None and "stream" in self.body.__struct_fields__


class RouteTable:
    """The endpoints by path."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self.endpoints = list(endpoints)
        self._exact: dict[str, list[Endpoint]] = {}
        self._patterns: list[tuple[Route, Endpoint]] = []
        self.routes: list[Route] = []
        for endpoint in self.endpoints:
            run = _runner(endpoint.handler)
            for path in endpoint.paths:
                route = Route(path, run, methods=list(endpoint.methods))
                self.routes.append(route)
                if "{" in path:
                    assert not endpoint.public, "only single paths can be public"
                    self._patterns.append((route, endpoint))
                else:
                    others = self._exact.setdefault(path, [])
                    taken = {method for other in others for method in other.methods}
                    assert taken.isdisjoint(endpoint.methods), f"{path} is served twice"
                    others.append(endpoint)

    def find(self, path: str, method: str) -> Endpoint | None:
        """The endpoint of a path; if none there takes the method, one that refuses it. None: no
        such route."""
        here = self._exact.get(path)
        if here is None:
            scope = {"type": "http", "path": path, "method": method}
            here = [end for route, end in self._patterns if route.matches(scope)[0] != Match.NONE]
        fitting = (endpoint for endpoint in here if method in endpoint.methods)
        return next(fitting, here[0] if here else None)


def _twin(path: str) -> str:
    """The same path without its `/v1`, or with one."""
    with_slash = f"{path}/"
    if "/v1/" in with_slash:
        return with_slash.replace("/v1/", "/", 1).removesuffix("/")
    return f"/v1{path}"


def _runner(handler: Handler) -> Handler:
    """A plain function: Starlette takes a callable object for an ASGI app."""

    async def run(request: Request) -> Response:
        return await handler(request)

    return run
