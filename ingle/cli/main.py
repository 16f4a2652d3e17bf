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
from ingle.cli.admitting import ask_audit
from ingle.cli.options import add_unsealed
from ingle.cli.sealing import enter
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
    "distill": ("ingle.cli.distill", "a student learns from a teacher's answers or probabilities"),
    "grpo": ("ingle.cli.grpo", "reinforcement learning on verifiable rewards"),
    "merge": ("ingle.cli.merge", "fold an adapter into a copy of its model"),
    "eval": ("ingle.cli.evaluate", "measure a model on problems it has never seen"),
    "audit": ("ingle.cli.audit", "what a model folder holds, and whether a policy admits it"),
    "audit behaviour": ("ingle.cli.behaviour", "what a model does with matched probes"),
    "sign": ("ingle.cli.sign", "sign a model folder with a key of your own"),
    "verify": ("ingle.cli.verify", "do a folder's files, signature and statement agree"),
    "prove": ("ingle.cli.prove", "show that nothing leaves: attack the seal, and a server's"),
}

# Every verb is sealed before it begins, but for these: pull is there for the network, prove needs
# listeners outside the seal it attacks; the others open something first and then seal themselves.
NEVER_SEALED = ("pull", "prove")
SEALED_LATER = ("serve", "batch", "train", "sft", "grpo", "distill", "merge", "sign", "eval")
RUNS_A_MODEL = ("serve", "chat", "generate", "batch")  # if the policy admits it
STOPS_CHILDREN = ("audit",)  # that a hostile file has caught in a loop


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (argparse itself exits with 2 on wrong usage).

    Without `argv` the line is the one this process was started with: the process is the command's
    own, and most verbs seal it for good (cli/sealing.py). With it, a Python program is calling.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0].startswith("-"):
        return _no_verb(arguments)
    words = 2 if " ".join(arguments[:2]) in VERBS else 1
    verb, rest = " ".join(arguments[:words]), arguments[words:]
    if verb not in VERBS:
        print(f"ingle: no verb {verb!r}; choose from {', '.join(VERBS)}", file=sys.stderr)
        return 2
    module_name, help_line = VERBS[verb]
    module = import_module(module_name)
    parser = argparse.ArgumentParser(prog=f"ingle {verb}", description=_sentence(help_line))
    module.add_arguments(parser)
    parser.set_defaults(own_process=argv is None)
    if verb not in NEVER_SEALED:
        add_unsealed(parser)
    args = parser.parse_args(rest)
    try:
        if verb in RUNS_A_MODEL:
            ask_audit(args, args.model)
        if verb not in NEVER_SEALED + SEALED_LATER:
            enter(args, starts="children" if verb in STOPS_CHILDREN else "nothing")
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
        epilog="\n".join(["verbs:", *(f"  {verb:<17}{line}" for verb, (_, line) in VERBS.items())])
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
