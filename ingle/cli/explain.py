"""`ingle explain FIRST.json SECOND.json`: how much of a request's prompt an earlier one cached.

Reads two bodies of Chat Completions, encodes them as the model would see them and shows where they
part: a line of a system prompt that changes with each request spoils all that follows it. Needs the
model's tokenizer, not its weights, and no server.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.cli.options import add_json
from ingle.cli.terminal import BOLD, DIM, EMBER, Styled
from ingle.errors import ConfigError

if TYPE_CHECKING:
    from ingle.prompt.encoder import Encoder
    from ingle.prompt.tokenizer import Tokenizer

Marked = tuple[list[int], list[tuple[int, int]]]
MAX_BYTES = 4 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, metavar="FIRST", help="body of the earlier request")
    parser.add_argument("second", type=Path, metavar="SECOND", help="body of the later request")
    parser.add_argument("--model", metavar="MODEL", help="default: the shipped reasoner")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compare two prompts; exit code 0 whatever the outcome, 1 for bodies that cannot be read."""
    from ingle.models import resolve_model
    from ingle.prompt.select import encoder_of
    from ingle.prompt.tokenizer import Tokenizer

    folder = resolve_model(args.model)
    tokenizer = Tokenizer.load(folder)
    encoder = encoder_of(folder, tokenizer)
    first, second = (_encode(path, encoder, tokenizer) for path in (args.first, args.second))
    facts = compare(first, second, tokenizer)
    if args.json:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        _show(facts, Styled(sys.stdout))
    return 0


def compare(first: Marked, second: Marked, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the second prompt shares with the first, in tokens, pages and words."""
    from ingle.models.batch import PAGE_TOKENS
    from ingle.prompt.divergence import around, common_prefix, place

    (ids_1, _), (ids_2, starts_2) = first, second
    shared = common_prefix(ids_1, ids_2)
    facts: dict[str, Any] = {
        "prompt_tokens": len(ids_2),
        "shared_tokens": shared,
        "cacheable_tokens": min(shared, len(ids_2) - 1) // PAGE_TOKENS * PAGE_TOKENS,
        "page_tokens": PAGE_TOKENS,
        "diverges_at": None,
    }
    if shared < len(ids_2) and shared < len(ids_1):
        where = place(shared, starts_2)
        before, behind = around(ids_2, shared, tokenizer)
        facts["diverges_at"] = {
            "token": where.token,
            "message": where.message,
            "in_tools": where.in_tools,
            "in_words": str(where),
            "before": before,
            "first": around(ids_1, shared, tokenizer)[1],
            "second": behind,
        }
    return facts


def _encode(path: Path, encoder: Encoder, tokenizer: Tokenizer) -> Marked:
    from ingle.server.chat_types import as_turn, decode_chat

    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path.name} is larger than {MAX_BYTES >> 20} MiB.")
        body = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read: {error.strerror}.") from None
    turn = as_turn(decode_chat(body))
    return encoder.encode_marked(
        turn.messages,
        tokenizer,
        tools=turn.tools or None,
        thinking=turn.thinking,
        effort=turn.effort,
        response_schema=turn.output.schema if turn.output else None,
    )


def _show(facts: dict[str, Any], out: Styled) -> None:
    shared, total = facts["shared_tokens"], facts["prompt_tokens"]
    out.line(f"{shared:,} of the second prompt's {total:,} tokens are the first one's.", BOLD)
    out.line(
        f"{facts['cacheable_tokens']:,} of them can come from the cache, which keeps whole pages "
        f"of {facts['page_tokens']} tokens."
    )
    if (where := facts["diverges_at"]) is None:
        out.line("The prompts do not part: one begins with the whole of the other.")
        return
    out.line(f"They part at {where['in_words']}:\n")
    out.line(f"  both    ...{where['before']!r}", DIM)
    out.line(f"  first   {where['first']!r}")
    out.line(f"  second  {where['second']!r}", EMBER)
