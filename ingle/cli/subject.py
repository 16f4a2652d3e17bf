"""Who answers questions: a model of this machine, or another server where that is allowed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.cli.options import weights_options
from ingle.errors import InvalidRequestError

if TYPE_CHECKING:
    from ingle.training.evaluation.asking import Ask


def add_endpoint(parser: argparse.ArgumentParser, what: str) -> None:
    group = parser.add_argument_group(f"{what} (needs --unsealed)")
    group.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible: http://host:port/v1")
    group.add_argument("--endpoint-model", metavar="NAME", help="the model's name there")
    group.add_argument("--key-file", type=Path, metavar="F", help="file that holds the API key")
    group.add_argument(
        "--at-a-time", type=int, default=8, metavar="N", help="requests in flight (default 8)"
    )


def subject(args: argparse.Namespace) -> Ask:
    """Who answers."""
    from ingle.training.evaluation.asking import ask_endpoint, ask_model

    if args.endpoint is None:
        if args.endpoint_model or args.key_file:
            raise InvalidRequestError("--endpoint-model and --key-file belong to --endpoint.")
        from ingle.engine.llm import LLM

        return ask_model(LLM(args.model, **weights_options(args), max_sequences=32))
    from ingle.hub.endpoint import Endpoint, read_key

    if args.model is not None or not args.endpoint_model:
        raise InvalidRequestError(
            "--endpoint asks the model that --endpoint-model names, and no MODEL beside it."
        )
    if not args.unsealed:
        raise InvalidRequestError(
            "--endpoint opens connections, and the seal forbids every one, to this machine, too: "
            "add --unsealed to allow it."
        )
    key = None if args.key_file is None else read_key(args.key_file)
    endpoint = Endpoint(args.endpoint, args.endpoint_model, key)
    print(f"ingle: Questions go to {endpoint.host}, outside of this process.", file=sys.stderr)
    return ask_endpoint(endpoint, args.at_a_time)
