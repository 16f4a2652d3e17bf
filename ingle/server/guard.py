"""Who may come in: host names, origins, keys and limits, decided before any route is looked at.

Browsers are the reason for the first two checks. Any page a person has open can send requests to
127.0.0.1; the Origin check refuses those. A foreign name that resolves to 127.0.0.1 (DNS rebinding)
would pass as same-origin; the Host check refuses that.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingle.errors import IngleError
from ingle.server.access_log import AccessLog
from ingle.server.errors import HTTPError, UnavailableError, error_response
from ingle.server.exchange import CLIENT_LEFT, CURRENT, Exchange
from ingle.server.keys import ApiKey
from ingle.server.limits import Account, Limits
from ingle.server.metrics import Metrics
from ingle.server.routes import Endpoint, RouteTable
from ingle.server.service import State, where

log = logging.getLogger("ingle.server")

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Access:
    """The rules of one server.

    bind_host: the address it listens on; a wildcard admits every IP literal as Host, since a
    rebinding attack needs a name. hosts: further names to answer to. keys: empty means that none is
    asked for. limits: of everyone together, if there are no keys.
    """

    bind_host: str = "127.0.0.1"
    hosts: frozenset[str] = frozenset()
    keys: tuple[ApiKey, ...] = ()
    limits: Limits = field(default_factory=Limits)

    def allows_host(self, header: str) -> bool:
        name = host_name(header)
        if name is None:
            return False
        if name in LOOPBACK_NAMES | self.hosts | {self.bind_host.lower()}:
            return True
        return _is_ip(name) and _is_wildcard(self.bind_host)

    def key(self, headers: dict[bytes, list[bytes]]) -> ApiKey | None:
        """The valid key a request carries; Bearer and x-api-key are treated alike."""
        for value in headers.get(b"authorization", []) + headers.get(b"x-api-key", []):
            text = value[7:] if value[:7].lower() == b"bearer " else value
            digest = sha256(text.strip()).digest()
            # every known key is compared, in constant time each: the clock tells nothing
            known = [key for key in self.keys if hmac.compare_digest(digest, key.digest)]
            if known:
                return known[0]
        return None


class Guard:
    """ASGI middleware: checks every HTTP request, keeps its books and lets no exception out.

    state: of the service; while it starts or stops, only public endpoints are answered. log: one
    line a request, if there is one.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        table: RouteTable,
        state: Callable[[], State],
        metrics: Metrics,
        log: AccessLog | None = None,
    ) -> None:
        self._app, self._access, self._table = app, access, table
        self._state, self._metrics, self._log = state, metrics, log
        self._accounts = {
            key.digest: Account(key.limits, metrics.limited)
            for key in access.keys
            if key.limits.any
        }
        if access.limits.any and not access.keys:
            self._accounts[b""] = Account(access.limits, metrics.limited)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a permitted request on, with the prefix cache salt of its key in the scope; what it
        does in the engine is booked to its exchange."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        endpoint = self._table.find(scope["path"], scope["method"])
        exchange = Exchange(scope["method"])
        if endpoint is not None:
            exchange.route = endpoint.path
        entered = False

        async def received() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and not exchange.complete:
                exchange.left = True
                exchange.status = exchange.status or CLIENT_LEFT
            return message

        async def tracked(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = exchange.status or message["status"]
                message = {**message, "headers": [*message["headers"], *self._headers(exchange)]}
            elif not message.get("more_body"):
                exchange.complete = True
            await send(message)

        token = CURRENT.set(exchange)
        try:
            self._check(scope, endpoint, exchange)
            if exchange.account is not None:
                exchange.account.enter()
                entered = True
            await self._app(scope, received, tracked)
        except Exception as error:
            if not isinstance(error, HTTPError | IngleError):
                log.error("A request failed: %s", where(error))
            if exchange.status is None:
                await error_response(error)(scope, received, tracked)
        finally:
            CURRENT.reset(token)
            self._settle(exchange, entered)

    def _check(self, scope: Scope, endpoint: Endpoint | None, exchange: Exchange) -> None:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        self._check_host(headers)
        _check_origin(scope, headers)
        key = self._access.key(headers) if self._access.keys else None
        public = endpoint is not None and endpoint.public
        if self._access.keys and key is None and not public:
            raise HTTPError(
                401,
                "A valid API key is needed, as 'Authorization: Bearer KEY'.",
                "invalid_api_key",
                "authentication_error",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if key is not None:
            exchange.key = key.name
        scope["ingle.salt"] = salt = b"" if key is None else key.digest
        if not public and self._state() in ("starting", "stopping"):
            raise UnavailableError(f"The server is {self._state()}. Try again later.")
        if endpoint is not None and endpoint.body is not None:
            exchange.account = self._accounts.get(salt)

    def _check_host(self, headers: dict[bytes, list[bytes]]) -> None:
        hosts = headers.get(b"host", [])
        if len(hosts) != 1:
            raise HTTPError(400, "Exactly one Host header is needed.", "invalid_host")
        if not self._access.allows_host(hosts[0].decode("latin-1")):
            raise HTTPError(421, "This server does not answer to that host name.", "unknown_host")

    def _headers(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        """What every answer carries: its id, what is left of the limits, when to go."""
        headers = [(b"x-request-id", exchange.id.encode())]
        if exchange.account is not None:
            headers += exchange.account.headers()
        if self._state() in ("starting", "stopping"):
            headers.append((b"connection", b"close"))
        return headers

    def _settle(self, exchange: Exchange, entered: bool) -> None:
        """Close the books of a request, however it ended."""
        if exchange.status is None:  # cut off by the end of the server
            exchange.status = 503
        if entered:
            exchange.leave()
        self._metrics.count_request(exchange)
        if self._log is not None:
            self._log.write(exchange)


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
