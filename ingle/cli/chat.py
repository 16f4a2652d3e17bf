"""`ingle chat [MODEL]`: a conversation in the terminal, or one answer per line of a pipe."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from ingle.cli.admitting import add_policy, admission
from ingle.cli.options import add_json, add_model, add_sampling, sampling, weights_options
from ingle.cli.terminal import BOLD, DIM, EMBER, Styled, interruptible
from ingle.errors import ContextLengthError, InvalidRequestError

if TYPE_CHECKING:
    from ingle.cli.loading import Loaded
    from ingle.engine.request import SamplingParams

HELP = """/new   forget the conversation and begin anew
/quit  leave (also Ctrl-D)
/help  this list
Ctrl-C stops an answer that is being written."""
SHOWN_EXAMPLES = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--no-think", action="store_true", help="answer without thinking first")
    add_policy(parser)
    add_sampling(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from ingle.cli.loading import load

    loaded = load(args.model, **weights_options(args), **admission(args), max_sequences=1)
    conversation = Conversation(loaded, sampling(args, loaded.defaults), not args.no_think)
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not args.json
    if interactive:
        _welcome(loaded, conversation.out)
    while (line := _read(conversation.out, interactive)) is not None:
        text = line.strip()
        if text == "/quit":
            break
        if text == "/new":
            conversation.messages.clear()
            conversation.out.line("A new conversation.", DIM)
        elif text == "/help":
            conversation.out.line(HELP, DIM)
        elif text:
            try:
                conversation.ask(text, args.json)
            except InvalidRequestError as error:
                _report(error, args.json)
    return 0


class Conversation:
    """The turns so far; only answers are kept of what the model said, never its thoughts."""

    def __init__(self, loaded: Loaded, params: SamplingParams, thinking: bool) -> None:
        self.messages: list[dict[str, str]] = []
        self.out = Styled(sys.stdout)
        self._loaded, self._params = loaded, params
        self._thinking = thinking

    def ask(self, text: str, as_json: bool) -> None:
        """Print the answer to one message; a refused message is not kept."""
        from ingle.cli.answer import Answer

        tokenizer = self._loaded.tokenizer
        messages = [*self.messages, {"role": "user", "content": text}]
        prompt = self._loaded.encoder.encode(messages, tokenizer, thinking=self._thinking)
        with interruptible() as interrupted:
            answer = Answer(self._loaded, prompt, self._params, interrupted=interrupted)
            last = None
            for piece in answer:
                if as_json:
                    continue
                if last == "reasoning" and piece.kind == "content":
                    self.out.line("\n")
                self.out.write(piece.text, DIM if piece.kind == "reasoning" else "")
                last = piece.kind
        if as_json:
            self.out.line(json.dumps(answer.as_json(), ensure_ascii=False))
        else:
            self.out.line(f"\n{answer.speed()}\n", DIM)
        reply = {"role": "assistant", "content": answer.reply.text("content")}
        self.messages = [*messages, reply]


def _welcome(loaded: Loaded, out: Styled) -> None:
    out.line(f"{loaded.name} · context {loaded.engine.context} tokens · /help for help", BOLD)
    for example in loaded.examples[:SHOWN_EXAMPLES]:
        out.line(f"  {example}", DIM)
    out.line()


def _read(out: Styled, interactive: bool) -> str | None:
    """The next line, None at the end of input. Ctrl-C at the prompt only clears the line."""
    if not interactive:
        return sys.stdin.readline() or None
    import readline  # noqa: F401  line editing and history for input()

    prompt = f"\x01{EMBER}\x02>\x01\x1b[0m\x02 " if out.colour else "> "
    while True:
        try:
            return input(prompt)
        except KeyboardInterrupt:
            out.line("  (/quit leaves)", DIM)
        except EOFError:
            out.line()
            return None


def _report(error: InvalidRequestError, as_json: bool) -> None:
    hint = " /new starts over." if isinstance(error, ContextLengthError) else ""
    if as_json:
        print(json.dumps({"error": {"code": error.code, "message": str(error)}}), flush=True)
    else:
        print(f"{error}{hint}", file=sys.stderr)
