"""What the seal costs: time to first token and tokens/s of a sealed server against an unsealed one.

    python bench/seal.py [MODEL] [--rounds 800] [--pairs 4] [--tokens 100] [--json]

Two servers of the same model stay up; each round asks both the same fresh question, end-of-sequence
forbidden, in an order that alternates; while one answers, the other sleeps. What is compared is the
median of the rounds' ratios. Servers are started anew several times, as two processes differ by
where their memory happens to lie.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from compare import excess

from ingle.engine.llm import LLM
from ingle.tasks import sample

WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--rounds", type=int, default=800)
    parser.add_argument("--pairs", type=int, default=4, help="times both are started")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    tokenizer = LLM(args.model, max_sequences=1).tokenizer
    assert tokenizer is not None
    rng = random.Random(1)
    first: dict[str, list[float]] = {"sealed": [], "unsealed": []}
    speed: dict[str, list[float]] = {"sealed": [], "unsealed": []}
    for _ in range(args.pairs):
        with server(args.model) as sealed, server(args.model, "--unsealed") as unsealed:
            ports = {"sealed": sealed[0], "unsealed": unsealed[0]}
            for round_ in range(args.rounds // args.pairs + WARM_UP):
                question = sample(rng, "countdown", 2, "test").question
                for name in sorted(ports, reverse=bool(round_ % 2)):
                    seconds, rate = ask(ports[name], question, args.tokens, tokenizer.eos_id)
                    if round_ >= WARM_UP:
                        first[name].append(seconds)
                        speed[name].append(rate)
    facts = {
        "rounds": args.rounds,
        "first_token_ms": {name: 1000 * statistics.median(first[name]) for name in first},
        "first_token_overhead": excess(first["sealed"], first["unsealed"]),
        "tokens_per_second": {name: statistics.median(speed[name]) for name in speed},
        "speed_overhead": excess(speed["unsealed"], speed["sealed"]),
    }
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    for what, unit in (("first_token_ms", "ms"), ("tokens_per_second", "tokens/s")):
        one, other = facts[what]["sealed"], facts[what]["unsealed"]
        share, low, high = facts[what.replace("_ms", "").replace("tokens_per_second", "speed")
                                 + "_overhead"]  # fmt: skip
        print(f"{unit:<10} sealed {one:9.2f}   unsealed {other:9.2f}   "
              f"cost {100 * share:+.2f} % ({100 * low:+.2f} to {100 * high:+.2f})")  # fmt: skip


@contextmanager
def server(model: str | None, *options: str) -> Iterator[tuple[int, int]]:
    """A server's port and process id."""
    command = [sys.executable, "-m", "ingle", "serve", "--port", "0", "--json", "--log", "off"]
    command += [*options, *([model] if model else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = json.loads(process.stdout.readline())["url"]
            yield int(url.rstrip("/").rsplit(":", 1)[1]), process.pid
        finally:
            process.terminate()


def ask(port: int, question: str, tokens: int, eos_id: int) -> tuple[float, float]:
    """Seconds to the first event with text, and tokens/s from then to the end."""
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": question}], "stream": True,
        "stream_options": {"include_usage": True}, "temperature": 0, "max_tokens": tokens,
        "logit_bias": {str(eos_id): -100},
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    started = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body),
                       {"Content-Type": "application/json"})  # fmt: skip
    reply = connection.getresponse()
    first, count = 0.0, 0
    for line in iter(reply.readline, b""):
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        if chunk.get("usage"):
            count = chunk["usage"]["completion_tokens"]
        delta = chunk["choices"][0]["delta"] if chunk["choices"] else {}
        if not first and (delta.get("content") or delta.get("reasoning_content")):
            first = time.perf_counter() - started
    seconds = time.perf_counter() - started
    connection.close()
    return first, (count - 1) / (seconds - first)


if __name__ == "__main__":
    main()
