"""`ingle batch IN.jsonl OUT.jsonl`: a file of requests in OpenAI's batch format, offline.

Each input line is `{"custom_id", "method": "POST", "url", "body"}`, url being any endpoint of the
server that answers at once; each output line is OpenAI's. Lines are written in the order in which
they finish. Stopped and run again, it goes on with what OUT does not have yet.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from ingle.cli.admitting import add_policy, admission
from ingle.cli.options import add_json, add_quant, weights_options
from ingle.cli.sealing import enter
from ingle.errors import ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

URLS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")
MAX_LINE = 4 << 20


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """One request of the input file."""

    custom_id: str
    url: str
    body: dict[str, Any]
    method: str = "POST"


@dataclass
class Tally:
    """What this run did; `kept` was in the output file before."""

    answered: int = 0
    refused: int = 0
    kept: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="IN", help="requests, one JSON object a line")
    parser.add_argument("output", type=Path, metavar="OUT", help="answers are added to this file")
    parser.add_argument("--model", metavar="MODEL", help="default: the shipped reasoner")
    add_quant(parser)
    add_policy(parser)
    parser.add_argument(
        "--max-sequences", type=int, default=32, metavar="N", help="answers at a time (%(default)s)"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Check the whole input first (a bad last line should not cost a night), then load and run."""
    lines = read_lines(args.input)
    done = repair(args.output)
    todo = deque(line for line in lines if line.custom_id not in done)
    tally = Tally(kept=len(lines) - len(todo))
    if todo:
        args.output.touch()
        enter(args, args.output)
        from ingle.cli.loading import load, make_service
        from ingle.engine.progress import progress
        from ingle.server.app import create_app

        loaded = load(
            args.model, **weights_options(args), **admission(args),
            max_sequences=args.max_sequences,
        )  # fmt: skip
        service = make_service(loaded)
        app = create_app(service)

        async def all_() -> None:
            await service.start()
            try:
                await _run(app, todo, out, tally, args.max_sequences, lambda n: show(n, len(lines)))
            finally:
                await service.stop(0.0)

        with args.output.open("ab") as out, progress("batch") as show:
            asyncio.run(all_())
    _report(tally, args)
    return 1 if tally.refused else 0


def read_lines(path: Path) -> list[Line]:
    """All requests of a file; ConfigError names the first bad line by its number."""
    lines: list[Line] = []
    seen: set[str] = set()
    try:
        with path.open("rb") as file:
            for number, text in enumerate(_texts(file), 1):
                if text.strip():
                    line = _read(text, number)
                    if line.custom_id in seen:
                        raise ConfigError(f"Line {number}: its custom_id was used before.")
                    seen.add(line.custom_id)
                    lines.append(line)
    except OSError as error:
        raise ConfigError(f"The input cannot be read: {error.strerror}.") from None
    if not lines:
        raise ConfigError("The input holds no request.")
    return lines


def repair(path: Path) -> set[str]:
    """The custom_ids an output file has already; a line that a crash cut short is taken off it."""
    if not path.exists():
        return set()
    done: set[str] = set()
    complete = 0
    with path.open("rb+") as file:
        for text in file:
            if not text.endswith(b"\n"):
                break
            try:
                done.add(json.loads(text)["custom_id"])
            except (ValueError, KeyError, TypeError):
                raise ConfigError(
                    "The output file holds something else than batch answers; name another."
                ) from None
            complete += len(text)
        file.truncate(complete)
    return done


def _texts(file: BinaryIO) -> Iterator[bytes]:
    while text := file.readline(MAX_LINE + 1):
        if len(text) > MAX_LINE:
            raise ConfigError(f"A line is longer than {MAX_LINE >> 20} MiB.")
        yield text


def _read(text: bytes, number: int) -> Line:
    try:
        line = msgspec.json.decode(text, type=Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ConfigError(
            f"Line {number} is no batch request: it needs custom_id, method, url and body."
        ) from None
    if line.method != "POST" or line.url not in URLS:
        raise ConfigError(f"Line {number}: method must be POST and url one of {', '.join(URLS)}.")
    if line.body.get("stream"):
        raise ConfigError(f"Line {number}: a batch does not stream; leave stream out.")
    return line


async def _run(
    app: ASGIApp,
    todo: deque[Line],
    out: BinaryIO,
    tally: Tally,
    width: int,
    show: Callable[[int], None],
) -> None:
    """Keep the engine's batch full: a few more requests than it can run wait at its door."""
    from ingle.server.inprocess import post

    async def work() -> None:
        while todo:
            line = todo.popleft()
            status, body = await post(app, line.url, msgspec.json.encode(line.body))
            out.write(_answer(line, status, body))
            out.flush()
            if status == 200:
                tally.answered += 1
            else:
                tally.refused += 1
            show(tally.kept + tally.answered + tally.refused)

    workers = [asyncio.create_task(work()) for _ in range(min(len(todo), width + 4))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        os.fsync(out.fileno())


def _answer(line: Line, status: int, body: bytes) -> bytes:
    """OpenAI's output line; a refusal stands in the response, as its body says best why."""
    number = secrets.token_hex(8)
    response = {
        "status_code": status,
        "request_id": f"req_{number}",
        "body": msgspec.Raw(body),
    }
    content = {
        "id": f"batch_req_{number}",
        "custom_id": line.custom_id,
        "response": response,
        "error": None,
    }
    return msgspec.json.encode(content) + b"\n"


def _report(tally: Tally, args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps(tally.__dict__))
        return
    kept = f", {tally.kept} were there already" if tally.kept else ""
    refused = f", {tally.refused} refused (their lines say why)" if tally.refused else ""
    print(f"{tally.answered} answered{refused}{kept}.", file=sys.stderr)
