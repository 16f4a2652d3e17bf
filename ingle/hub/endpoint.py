"""A chat endpoint that speaks OpenAI's dialect, at an address the user names.

Used to ask peers what our models are asked, and teachers for answers. Standard library only; no
redirect is followed, so that the key goes to the named host and nowhere else.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from ingle.errors import IngleError

TRIES = 6
FIRST_WAIT_SECONDS = 1.0  # doubles with each try, unless the server says how long
LONGEST_WAIT_SECONDS = 120.0
TIMEOUT_SECONDS = 600.0  # for one answer, which comes whole
_LONGEST_SAID = 300  # characters
# how servers say that question and answer do not fit: OpenAI's and ours, llama.cpp's, vLLM's
_TOO_LONG = ("context_length_exceeded", "exceed_context_size", "maximum context length")
_RETRY_STATUS = (408, 409, 425, 429, 500, 502, 503, 504, 529)
_LONGEST_ERROR = 1 << 16
_LONGEST_REPLY = 16 << 20


class EndpointError(IngleError):
    """An endpoint that cannot be reached, refuses, or does not answer in OpenAI's dialect."""

    code = "endpoint_failed"


@dataclass(frozen=True)
class Reply:
    """One answer. tokens: generated ones as the endpoint counts them, 0 where it does not."""

    text: str
    reasoning: str
    tokens: int
    cut: bool  # at max_tokens


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, whom, and with which key.

    url: the base address, such as http://127.0.0.1:8765/v1. key: goes over https or to this machine
    only. Raises EndpointError for an address or a key that cannot be used.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            known = False
        if not known or "@" in parts.netloc or parts.query or parts.fragment:
            raise EndpointError(
                "The endpoint's address must look like https://host/v1 (a key belongs into a file)."
            )
        if self.key is not None and parts.scheme == "http" and not self.is_local:
            raise EndpointError("A key goes over https, or to this machine, and not over http.")

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.url).netloc

    @property
    def is_local(self) -> bool:
        """Whether the address is this machine's own, which no proxy should see."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def chat(
        self,
        bodies: Sequence[Mapping[str, Any]],
        at_a_time: int = 8,
        show: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Reply | None]:
        """Answers to Chat Completions bodies (the model's name is added), in their order.

        None: the endpoint says that question and answer together exceed its context. show is told
        (answers so far, of how many). Overload and lost connections are tried again, after as long
        as the endpoint asks for. Everything else raises EndpointError and begins no new request.
        """
        work = _Work(self, list(bodies))
        for _ in range(min(at_a_time, len(bodies))):  # daemons: Ctrl-C need not wait for answers
            threading.Thread(target=work.run, daemon=True).start()
        replies: dict[int, Reply | None] = {}
        try:
            while len(replies) < len(bodies):
                index, reply = work.done.get()
                if isinstance(reply, Exception):
                    raise reply
                replies[index] = reply
                show(len(replies), len(bodies))
        finally:
            work.stopped.set()
        return [replies[index] for index in range(len(bodies))]


def read_key(path: Path) -> str:
    """The key in a file, its only line; EndpointError quotes nothing of it."""
    try:
        key = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise EndpointError(f"The key file {path} cannot be read as text.") from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise EndpointError(f"The key file {path} must hold the key in one line and nothing else.")
    return key


class _TryAgainError(Exception):
    """A failure that may pass. wait: seconds the endpoint asked for, 0 if it did not say."""

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait


class _Work:
    """Bodies to be asked, shared by threads; what came of each goes into `done`."""

    def __init__(self, endpoint: Endpoint, bodies: list[Mapping[str, Any]]) -> None:
        self.endpoint = endpoint
        proxies = [ProxyHandler({})] if endpoint.is_local else []  # else as the environment says
        self.opener = build_opener(_NoRedirect, *proxies)
        self.todo: Iterator[tuple[int, Mapping[str, Any]]] = iter(enumerate(bodies))
        self.lock = threading.Lock()
        self.done: queue.SimpleQueue[tuple[int, Reply | Exception | None]] = queue.SimpleQueue()
        self.stopped = threading.Event()
        self.reached = False  # whether the endpoint ever answered: if not, it is not there

    def run(self) -> None:
        while not self.stopped.is_set():
            with self.lock:
                index, body = next(self.todo, (-1, {}))
            if index < 0:
                return
            try:
                self.done.put((index, self.ask(body)))
            except Exception as error:  # the caller's thread raises it
                self.done.put((index, error))
                return

    def ask(self, body: Mapping[str, Any]) -> Reply | None:
        """One answer, however many tries it takes."""
        data = json.dumps({"model": self.endpoint.model, **body}).encode()
        why = ""
        for attempt in range(TRIES):
            try:
                return self._try(data)
            except _TryAgainError as error:
                why, wait = str(error), error.wait or FIRST_WAIT_SECONDS * 2**attempt
            if wait > LONGEST_WAIT_SECONDS:
                raise EndpointError(
                    f"{self.endpoint.host} {why} and asks to come back in {wait:.0f} seconds; run "
                    "again then, with fewer requests at a time."
                )
            if attempt + 1 < TRIES and self.stopped.wait(wait):
                break
        raise EndpointError(
            f"{self.endpoint.host} {why}, {TRIES} times in a row; try again later, or with fewer "
            "requests at a time."
        )

    def _try(self, data: bytes) -> Reply | None:
        base = self.endpoint.url.rstrip("/").removesuffix("/chat/completions")
        headers = {"content-type": "application/json", "user-agent": "ingle"}
        if self.endpoint.key is not None:
            headers["authorization"] = f"Bearer {self.endpoint.key}"
        request = Request(f"{base}/chat/completions", data, headers, method="POST")
        try:
            with self.opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                self.reached = True
                return read_reply(response.read(_LONGEST_REPLY), self.endpoint.host)
        except HTTPError as error:
            self.reached = True
            self._refused(error)
            return None
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            raise self._lost(error) from None

    def _refused(self, error: HTTPError) -> None:
        """Raise what an error status means, but for a question that is too long."""
        host, status = self.endpoint.host, error.code
        with error:
            body = error.read(_LONGEST_ERROR).decode("utf-8", "replace")
        if status in _RETRY_STATUS:
            wait = error.headers.get("retry-after", "")
            raise _TryAgainError(f"answered {status}", float(wait) if wait.isdecimal() else 0.0)
        if status in (400, 413, 422) and any(word in body.lower() for word in _TOO_LONG):
            return
        if status in (401, 403):
            raise EndpointError(f"{host} refused the request ({status}): check the key file.")
        if 300 <= status < 400:
            raise EndpointError(f"{host} redirects elsewhere ({status}): give that address.")
        if status in (404, 405):
            raise EndpointError(
                f"{host} answered {status}: check the address, which ends before "
                f"/chat/completions, and the model's name. {_said(body)}"
            )
        raise EndpointError(f"{host} answered {status}. {_said(body)}")

    def _lost(self, error: Exception) -> Exception:
        host = self.endpoint.host
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return EndpointError(f"{host} shows a certificate that this machine does not trust.")
        if not self.reached and isinstance(reason, ConnectionRefusedError | socket.gaierror):
            return EndpointError(f"{host} cannot be reached: check the address and the server.")
        if isinstance(reason, TimeoutError):
            return _TryAgainError(f"sent no answer within {TIMEOUT_SECONDS:.0f} seconds")
        return _TryAgainError("lost the connection")


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def read_reply(body: bytes, host: str) -> Reply:
    """The first choice of a completion; a thought is `reasoning_content`, or `reasoning`, or what
    stands in the content before `</think>`. Raises EndpointError for anything else."""
    try:
        completion = json.loads(body)
        choice = completion["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        thought, mark, answer = text.rpartition("</think>")
        reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        if mark:
            reasoning, text = f"{reasoning}{thought.removeprefix('<think>')}", answer.lstrip()
        tokens = int((completion.get("usage") or {}).get("completion_tokens") or 0)
        return Reply(str(text), str(reasoning), tokens, choice.get("finish_reason") == "length")
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise EndpointError(
            f"{host} did not answer as OpenAI's Chat Completions do; check the address."
        ) from None


def _said(body: str) -> str:
    """The endpoint's own sentence, in one short printable line."""
    try:
        error = json.loads(body)["error"]
        said = error["message"] if isinstance(error, dict) else error
    except (ValueError, LookupError, TypeError):
        return ""
    line = "".join(c if c.isprintable() else " " for c in str(said))[:_LONGEST_SAID]
    return f"It says: {line}"
