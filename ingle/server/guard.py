"""Who may come in: host names, origins and keys, decided before any route is looked at.

Browsers are the reason for the first two checks. Any page a person has open can send requests to
127.0.0.1; the Origin check refuses those. A foreign name that resolves to 127.0.0.1 (DNS rebinding)
would pass as same-origin; the Host check refuses that.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingle.errors import IngleError
from ingle.server.errors import HTTPError, error_response
from ingle.server.service import where

log = logging.getLogger("ingle.server")

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
MIN_KEY_LENGTH = 16


class KeyFileError(IngleError):
    """An API key file that cannot be trusted or read."""

    code = "invalid_key_file"


@dataclass(frozen=True)
class Access:
    """The rules of one server.

    bind_host: the address it listens on; a wildcard admits every IP literal as Host, since a
    rebinding attack needs a name. hosts: further names to answer to. key_digests: SHA-256 of each
    API key; empty means that no key is asked for. public: paths that never need one.
    """

    bind_host: str = "127.0.0.1"
    hosts: frozenset[str] = frozenset()
    key_digests: tuple[bytes, ...] = ()
    public: frozenset[str] = field(default_factory=frozenset)

    def allows_host(self, header: str) -> bool:
        name = host_name(header)
        if name is None:
            return False
        if name in LOOPBACK_NAMES | self.hosts | {self.bind_host.lower()}:
            return True
        return _is_ip(name) and _is_wildcard(self.bind_host)

    def key_digest(self, headers: dict[bytes, list[bytes]]) -> bytes | None:
        """Digest of the valid key a request carries; Bearer and x-api-key are treated alike."""
        for value in headers.get(b"authorization", []) + headers.get(b"x-api-key", []):
            key = value[7:] if value[:7].lower() == b"bearer " else value
            digest = sha256(key.strip()).digest()
            # every known key is compared, in constant time each: the clock tells nothing
            if any([hmac.compare_digest(digest, known) for known in self.key_digests]):
                return digest
        return None


class Guard:
    """ASGI middleware: checks every HTTP request against `Access`, and lets no exception out."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a permitted request on, with the prefix cache salt of its key in the scope."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        started = False

        async def tracked(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, tracked)
        except Exception as error:
            if not isinstance(error, HTTPError):
                log.error("A request failed: %s", where(error))
            if not started:
                await error_response(error)(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        self._check_host(headers)
        _check_origin(scope, headers)
        if self._access.key_digests:
            digest = self._access.key_digest(headers)
            if digest is None and scope["path"] not in self._access.public:
                raise HTTPError(
                    401,
                    "A valid API key is needed, as 'Authorization: Bearer KEY'.",
                    "invalid_api_key",
                    "authentication_error",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            scope["ingle.salt"] = digest or b""

    def _check_host(self, headers: dict[bytes, list[bytes]]) -> None:
        hosts = headers.get(b"host", [])
        if len(hosts) != 1:
            raise HTTPError(400, "Exactly one Host header is needed.", "invalid_host")
        if not self._access.allows_host(hosts[0].decode("latin-1")):
            raise HTTPError(421, "This server does not answer to that host name.", "unknown_host")


def _check_origin(scope: Scope, headers: dict[bytes, list[bytes]]) -> None:
    """Refuse what a page of another origin sends; opening the chat page by a link is fine."""
    if scope["method"] in ("GET", "HEAD") and scope["path"] == "/":
        return
    host = headers[b"host"][0].lower()
    own = (b"http://" + host, b"https://" + host)
    if any(origin.lower() not in own for origin in headers.get(b"origin", [])) or any(
        site not in (b"same-origin", b"none") for site in headers.get(b"sec-fetch-site", [])
    ):
        raise HTTPError(403, "Requests from other web pages are refused.", "foreign_origin")


def host_name(header: str) -> str | None:
    """Name or address of a Host header without its port, in lower case; None if malformed."""
    text = header.lower()
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        well_formed = bracket and _is_ip(name)
    else:
        name, _, port = text.partition(":")
        rest = text[len(name) :]
        well_formed = name != "" and all(c.isascii() and (c.isalnum() or c in "-._") for c in name)
    port = rest.removeprefix(":")
    if not well_formed or (rest and not (rest.startswith(":") and port.isdecimal())):
        return None
    return name.rstrip(".")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to the address."""
    if host.lower() == "localhost":
        return True
    return _is_ip(host) and ipaddress.ip_address(host).is_loopback


def read_key_file(path: Path) -> tuple[bytes, ...]:
    """SHA-256 digests of the keys in a file, one key a line, # for comments.

    Raises KeyFileError if the file is missing, open to other users, empty, or holds a short key.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            lines = [line.strip() for line in file.read().splitlines()]
    except OSError:
        raise KeyFileError("The API key file cannot be read.") from None
    if mode & 0o077:
        raise KeyFileError(
            f"The API key file is open to other users (mode {mode:04o}). Run chmod 600 on it."
        )
    keys = [line for line in lines if line and not line.startswith(b"#")]
    if not keys:
        raise KeyFileError("The API key file holds no key. Put one key on each line.")
    if any(len(key) < MIN_KEY_LENGTH for key in keys):
        raise KeyFileError(f"An API key has fewer than {MIN_KEY_LENGTH} characters.")
    return tuple(sha256(key).digest() for key in keys)


def clean_hosts(names: Iterable[str]) -> frozenset[str]:
    """Host names as they are compared: lower case, no trailing dot."""
    return frozenset(name.lower().rstrip(".") for name in names)


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_wildcard(host: str) -> bool:
    return host == "" or (_is_ip(host) and ipaddress.ip_address(host).is_unspecified)
