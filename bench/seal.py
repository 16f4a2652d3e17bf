"""What the seal costs: time to first token and tokens/s of a sealed server against an unsealed one.

    python bench/seal.py [MODEL] [--rounds 40] [--tokens 200] [--json]

Two servers of the same model stay up; each round asks both the same fresh question, end-of-sequence
forbidden, in an order that alternates; while one answers, the other sleeps. Medians of the rounds
are compared; the interval is that of their ratio over resampled rounds (bootstrap, 95 %).
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

from ingle.engine.llm import LLM
from ingle.tasks import sample

WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    tokenizer = LLM(args.model, max_sequences=1).tokenizer
    assert tokenizer is not None
    rng = random.Random(1)
    first: dict[str, list[float]] = {"sealed": [], "unsealed": []}
    speed: dict[str, list[float]] = {"sealed": [], "unsealed": []}
    with _server(args.model) as sealed, _server(args.model, "--unsealed") as unsealed:
        ports = {"sealed": sealed, "unsealed": unsealed}
        for round_ in range(args.rounds + WARM_UP):
            question = sample(rng, "countdown", 2, "test").question
            for name in sorted(ports, reverse=bool(round_ % 2)):
                seconds, rate = _ask(ports[name], question, args.tokens, tokenizer.eos_id)
                if round_ >= WARM_UP:
                    first[name].append(seconds)
                    speed[name].append(rate)
    facts = {
        "rounds": args.rounds,
        "first_token_ms": {name: 1000 * statistics.median(first[name]) for name in first},
        "first_token_overhead": _overhead(first["sealed"], first["unsealed"]),
        "tokens_per_second": {name: statistics.median(speed[name]) for name in speed},
        "speed_overhead": _overhead(speed["unsealed"], speed["sealed"]),
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
def _server(model: str | None, *options: str) -> Iterator[int]:
    """A server's port."""
    command = [sys.executable, "-m", "ingle", "serve", "--port", "0", "--json", "--log", "off"]
    command += [*options, *([model] if model else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = json.loads(process.stdout.readline())["url"]
            yield int(url.rstrip("/").rsplit(":", 1)[1])
        finally:
            process.terminate()


def _ask(port: int, question: str, tokens: int, eos_id: int) -> tuple[float, float]:
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


def _overhead(more: list[float], less: list[float]) -> tuple[float, float, float]:
    """How much larger the first's median is, as a share, with its 95 % interval."""
    rng = random.Random(2)
    pairs = list(zip(more, less, strict=True))
    ratios = []
    for _ in range(2000):
        drawn = rng.choices(pairs, k=len(pairs))
        ratios.append(
            statistics.median(a for a, _ in drawn) / statistics.median(b for _, b in drawn)
        )
    ratios.sort()
    return (statistics.median(more) / statistics.median(less) - 1, ratios[49] - 1, ratios[1949] - 1)


if __name__ == "__main__":
    main()
