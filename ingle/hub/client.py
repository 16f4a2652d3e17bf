"""With endpoint.py the only code that talks to another machine: a hub's files and their bytes.

It goes through the HTTP client of huggingface_hub, so that proxies, certificates and tokens work
as everywhere else, with hooks that write the receipt. Bytes come over plain HTTP, not through
huggingface_hub's own download: that one starts over after an interruption, and its Xet library
opens connections that no receipt would show.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.parse import quote, urlsplit

from ingle import __version__
from ingle.errors import (
    AccessDeniedError,
    MissingExtraError,
    NetworkError,
    PullError,
    RepositoryNotFoundError,
)
from ingle.hub.listing import Listing, sort_out
from ingle.hub.receipt import Receipt

TIMEOUT_SECONDS = 10.0  # without a byte; also the longest that Ctrl-C waits for a stalled transfer
_LONGEST_ERROR = 1 << 16
_RETRY_STATUS = (408, 429, 500, 502, 503, 504)


class TryAgainError(Exception):
    """A failure that may pass. wait: seconds the hub asked for, 0 if it did not say."""

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait


class Hub:
    """A hub and the token for it; made by `connect`."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self.endpoint = endpoint
        self.host = _host(endpoint)
        self._token = token

    def listing(self, repo: str, revision: str) -> Listing:
        """The files of a repository at a revision; raises the PullErrors."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi(
            self.endpoint, token=self._token or False,
            library_name="ingle", library_version=__version__,
        )  # fmt: skip
        try:
            info = api.model_info(
                repo, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS
            )
            entries = info.siblings or []
        except HfHubHTTPError as error:
            raise self._refused(error.response, repo, revision) from error
        except _request_errors() as error:
            raise self._unreachable() from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # a login page, say
            raise PullError(
                f"{self.host} did not answer as a hub does; check HF_ENDPOINT, or whether this "
                "network wants a login first."
            ) from error
        return sort_out(repo, info.sha, entries)

    @contextmanager
    def open(self, repo: str, commit: str, name: str, start: int) -> Iterator[tuple[int, Any]]:
        """Yield (first byte, iterator of chunks) of a file: from `start` on, or from 0 if the hub
        ignores ranges. Raises TryAgainError for what may pass, else the PullErrors.
        """
        from huggingface_hub import get_session

        headers = {"accept-encoding": "identity", "user-agent": f"ingle/{__version__}"}
        if start:
            headers["range"] = f"bytes={start}-"
        if self._token:  # the client drops it on a redirect to another host
            headers["authorization"] = f"Bearer {self._token}"
        url = f"{self.endpoint}/{repo}/resolve/{commit}/{quote(name)}"
        try:
            with get_session().stream(
                "GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT_SECONDS
            ) as response:
                if response.status_code not in (200, 206):
                    _drain(response)
                if response.status_code in _RETRY_STATUS:
                    wait = response.headers.get("retry-after", "")
                    raise TryAgainError(
                        f"{self.host} answered {response.status_code}",
                        float(wait) if wait.isdecimal() else 0.0,
                    )
                if response.status_code not in (200, 206):
                    raise self._refused(response, repo, commit)
                yield _first_byte(response, start), response.iter_bytes()
        except _request_errors() as error:
            raise TryAgainError(f"the connection to {self.host} was lost") from error

    def _refused(self, response: Any, repo: str, revision: str) -> PullError:
        """What an error status means. Texts from the hub are not passed on."""
        status, code = response.status_code, response.headers.get("x-error-code")
        token = "check HF_TOKEN, its account and its rights" if self._token else "set HF_TOKEN"
        if code == "GatedRepo":
            return AccessDeniedError(
                f"{repo} is gated: accept its terms on its page at {self.host}, then {token}."
            )
        if status == 401:  # also the answer to a stranger who asks for what does not exist
            return AccessDeniedError(
                f"{self.host} refused ({status}): {repo} is gated or private, or does not exist. "
                f"Check the id, or {token}."
            )
        if status == 403:
            return AccessDeniedError(f"{self.host} refused ({status}) access to {repo}: {token}.")
        if code == "RevisionNotFound":
            return RepositoryNotFoundError(
                f"{repo} has no revision {revision!r}; give --revision a branch, tag or commit."
            )
        if status == 404:
            return RepositoryNotFoundError(
                f"{self.host} knows no {repo}, or not all of it; check owner and name."
            )
        return PullError(f"{self.host} answered {status} for {repo}; try again later.")

    def _unreachable(self) -> NetworkError:
        return NetworkError(
            f"{self.host} cannot be reached; check the network, a proxy (HTTPS_PROXY), and "
            "HF_ENDPOINT if it is set. Models that are here already: ingle ls."
        )


@contextmanager
def connect(receipt: Receipt) -> Iterator[Hub]:
    """The hub that HF_ENDPOINT names, with the token of HF_TOKEN or of `hf auth login`.

    Every request made inside is on the receipt. Raises MissingExtraError, NetworkError, PullError.
    """
    # Read when huggingface_hub is first imported; telemetry would ask for more than files.
    os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    try:
        from huggingface_hub import constants, get_token, set_client_factory
        from huggingface_hub.utils._http import default_client_factory
    except ImportError as error:
        raise MissingExtraError(
            "ingle pull needs huggingface_hub 1.0 or newer: pip install 'ingle[hub]'"
        ) from error
    constants.HF_HUB_DISABLE_TELEMETRY = True  # where something else imported it earlier
    if constants.HF_HUB_OFFLINE:
        raise NetworkError("HF_HUB_OFFLINE is set, which forbids downloads: unset it to pull.")

    def recording_client() -> Any:
        client = default_client_factory()
        client.event_hooks["request"].append(receipt.on_request)
        client.event_hooks["response"].append(receipt.on_response)
        return client

    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    _host(endpoint)
    set_client_factory(recording_client)
    try:
        yield Hub(endpoint, _checked(get_token()))
    finally:
        set_client_factory(default_client_factory)


def _host(endpoint: str) -> str:
    """Host and port, without the user and password that an address may hold."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise PullError("HF_ENDPOINT is no address; expected something like https://host.")
    return f"{host}:{port}" if port else host


def _checked(token: str | None) -> str | None:
    """The token, if it can be sent; the client's own error would show it."""
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise AccessDeniedError("HF_TOKEN holds characters that no token has; set it again.")
    return token


def _request_errors() -> type[Exception]:
    """Base of what goes wrong on the way: huggingface_hub 1 is built on httpx, 2 on httpx2."""
    from huggingface_hub import get_session

    library = import_module(type(get_session()).__module__.partition(".")[0])
    errors: type[Exception] = library.RequestError
    return errors


def _drain(response: Any) -> None:
    """Read an error's short text, so that the receipt counts it and the connection stays usable."""
    for _ in response.iter_bytes():
        if response.num_bytes_downloaded > _LONGEST_ERROR:
            return


def _first_byte(response: Any, start: int) -> int:
    """Position of the first byte of an answer; raises TryAgainError for a range not asked for."""
    if response.status_code == 200:
        return 0
    said = response.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
    if said != str(start):
        raise TryAgainError("the hub sent another part of the file than was asked for")
    return start
