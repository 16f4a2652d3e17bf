"""Finds the verb, imports only its file, runs it and turns errors into one line and an exit code.

Exit codes: 0 done, 1 refused or failed, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ingle import __version__
from ingle.errors import IngleError

# verb: (module, help line). The modules are imported when their verb runs, so that help is instant.
VERBS = {
    "serve": ("ingle.cli.serve", "serve a model: chat page and OpenAI-compatible API"),
    "key": ("ingle.cli.key", "make an API key for serve"),
    "chat": ("ingle.cli.chat", "talk to a model in the terminal"),
    "generate": ("ingle.cli.generate", "answer one prompt"),
    "batch": ("ingle.cli.batch", "answer a file of requests in OpenAI's batch format"),
    "explain": ("ingle.cli.explain", "where the prompts of two requests part, and so their cache"),
    "pull": ("ingle.cli.pull", "download a model from the Hugging Face hub"),
    "ls": ("ingle.cli.ls", "list the models on this machine"),
    "doctor": ("ingle.cli.doctor", "does a model fit, and how fast can it be"),
    "train": ("ingle.cli.train", "pre-train a model from nothing"),
    "sft": ("ingle.cli.sft", "fine-tune a model on worked problems"),
    "eval": ("ingle.cli.evaluate", "measure a model on problems it has never seen"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (argparse itself exits with 2 on wrong usage)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0].startswith("-"):
        return _no_verb(arguments)
    verb, *rest = arguments
    if verb not in VERBS:
        print(f"ingle: no verb {verb!r}; choose from {', '.join(VERBS)}", file=sys.stderr)
        return 2
    module_name, help_line = VERBS[verb]
    module = import_module(module_name)
    parser = argparse.ArgumentParser(prog=f"ingle {verb}", description=_sentence(help_line))
    module.add_arguments(parser)
    args = parser.parse_args(rest)
    try:
        code: int = module.run(args)
        sys.stdout.flush()
        return code
    except IngleError as error:
        if getattr(args, "json", False):
            print(json.dumps({"error": {"code": error.code, "message": str(error)}}))
        print(f"ingle: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("ingle: interrupted", file=sys.stderr)
    except BrokenPipeError:  # the reader of our output is gone; say nothing more to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _no_verb(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="ingle",
        usage="ingle VERB [options]",
        description="DeepSeek's recipe on your own hardware: serve, chat with and train models.",
        epilog="\n".join(["verbs:", *(f"  {verb:<10}{line}" for verb, (_, line) in VERBS.items())])
        + "\n\nMODEL is a folder in Hugging Face layout, or nothing: the shipped reasoner.\n"
        "'ingle VERB --help' tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ingle {__version__}")
    parser.parse_args(arguments)
    parser.print_help(sys.stderr)
    return 2


def _sentence(line: str) -> str:
    return line[0].upper() + line[1:] + "."
