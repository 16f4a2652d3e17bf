"""The receipt: every request that was made, as the HTTP client itself reports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request. status: None if no answer came. received: bytes of the body, as transferred."""

    method: str
    host: str  # with the port, if it is not the scheme's own
    path: str  # without the query: in a redirect to storage that is a signature
    status: int | None
    received: int


class Receipt:
    """Collects requests through the event hooks of an HTTP client; redirects count one by one."""

    def __init__(self) -> None:
        self._sent: list[_Sent] = []

    def on_request(self, request: Any) -> None:
        self._sent.append(_Sent(request))

    def on_response(self, response: Any) -> None:
        # other threads append in between, so it is not always the last one
        for sent in reversed(self._sent):
            if sent.request is response.request:
                sent.response = response
                return

    def requests(self) -> list[Request]:
        """In the order they were sent; the bytes of open responses are those received by now."""
        return [sent.line() for sent in self._sent]


@dataclass
class _Sent:
    request: Any
    response: Any = None

    def line(self) -> Request:
        url, answer = self.request.url, self.response
        return Request(
            method=self.request.method,
            host=url.netloc.decode("ascii", "replace"),  # without user and password
            path=url.raw_path.partition(b"?")[0].decode("ascii", "replace"),
            status=None if answer is None else answer.status_code,
            received=0 if answer is None else answer.num_bytes_downloaded,
        )
