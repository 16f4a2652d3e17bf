"""The X-Explain-Prefix header: where a prompt's cached beginning ended, and why.

A client that sends it gets the reply header X-Prefix, JSON: `prompt_tokens`, `cached_tokens` (found
in the cache just before this request), `matched_tokens` (how far the prompt equals the most similar
recent one of the same key and user), `reason` (see `ingle.engine.explain.PrefixReport`) and the
place of the first token that did not match: `message`, an index in the request's messages, `offset`
tokens into it, or `in_tools`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request as HTTPRequest

from ingle.prompt.divergence import place

if TYPE_CHECKING:
    from ingle.server.service import EngineService
    from ingle.server.turn import Prepared

ASKED, TOLD = "x-explain-prefix", "X-Prefix"


def explained(
    service: EngineService, http: HTTPRequest, prepared: Prepared, salt: bytes
) -> dict[str, str]:
    """The reply header, or none for a client that did not ask; call it before submitting."""
    if ASKED not in http.headers:
        return {}
    report = service.explain(prepared.prompt, salt)
    facts = asdict(report)
    if report.matched_tokens < report.prompt_tokens:
        where = place(report.matched_tokens, prepared.starts)
        facts |= {"message": where.message, "in_tools": where.in_tools, "offset": where.offset}
    return {TOLD: msgspec.json.encode(facts).decode()}
