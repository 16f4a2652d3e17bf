"""`ingle generate [MODEL] -p TEXT`: one prompt, one answer on standard output."""

from __future__ import annotations

import argparse
import json
import sys

from ingle.cli.admitting import add_policy, admission
from ingle.cli.options import add_json, add_model, add_sampling, sampling, weights_options
from ingle.cli.terminal import DIM, Styled
from ingle.errors import InvalidRequestError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "-p", "--prompt", required=True, help="the question; - reads standard input"
    )
    parser.add_argument("--raw", action="store_true", help="continue the bare text, without a chat")
    parser.add_argument("--no-think", action="store_true", help="answer without thinking first")
    add_policy(parser)
    add_sampling(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from ingle.cli.answer import Answer
    from ingle.cli.loading import load

    text = sys.stdin.read() if args.prompt == "-" else args.prompt
    if not text.strip():
        raise InvalidRequestError("The prompt is empty; give a question with -p.", "prompt")
    loaded = load(args.model, **weights_options(args), **admission(args), max_sequences=1)
    tokenizer = loaded.tokenizer
    if args.raw:
        prompt = [tokenizer.bos_id, *tokenizer.encode(text)]
    else:
        question = [{"role": "user", "content": text}]
        prompt = loaded.encoder.encode(question, tokenizer, thinking=not args.no_think)
    answer = Answer(loaded, prompt, sampling(args, loaded.defaults), plain=args.raw)
    out, err = Styled(sys.stdout), Styled(sys.stderr)
    thought = False
    for piece in answer:
        if args.json:
            continue
        if piece.kind == "reasoning":  # beside the answer, so that a pipe gets the answer alone
            err.write(piece.text, DIM)
            thought = True
        else:
            if thought:
                err.line("\n")
                thought = False
            out.write(piece.text)
    if args.json:
        print(json.dumps(answer.as_json(), ensure_ascii=False))
        return 0
    out.line()
    err.line(answer.speed(), DIM)
    if loaded.mapped is not None:
        err.line(loaded.mapped.report(), DIM)
    return 0
