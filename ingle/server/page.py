"""The chat page: a handful of static files, held in memory, under a policy that forbids the rest.

The policy admits nothing from elsewhere: no script, style, image, frame or connection leaves the
server's own origin, and no inline code runs, whatever a model writes into the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from ingle.server.routes import GET, Endpoint

PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "font-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": (
        "accelerometer=(), camera=(), display-capture=(), geolocation=(), "
        "gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), usb=()"
    ),
    "X-DNS-Prefetch-Control": "off",
    "Cache-Control": "no-cache",
}
MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True)
class StaticFile:
    content: bytes
    media_type: str
    etag: str


def load_static() -> dict[str, StaticFile]:
    """URL path to file, for everything the page consists of."""
    found: dict[str, StaticFile] = {}
    for file in files("ingle.server").joinpath("static").iterdir():
        media_type = MEDIA_TYPES.get(file.name.rpartition(".")[2])
        if media_type is not None:
            content = file.read_bytes()
            path = "/" if file.name == "index.html" else f"/static/{file.name}"
            found[path] = StaticFile(content, media_type, f'"{sha256(content).hexdigest()[:32]}"')
    return found


def page_endpoints(static: Mapping[str, StaticFile]) -> list[Endpoint]:
    """One exact path per file, open to all: no path from a request ever reaches the file system."""

    async def serve(request: Request) -> Response:
        file = static[request.scope["path"]]
        headers = PAGE_HEADERS | {"ETag": file.etag}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers | {"Content-Type": file.media_type})

    return [Endpoint(path, GET, serve, public=True, api=False) for path in static]
