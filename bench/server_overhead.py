"""What HTTP, JSON and parsing cost: tokens/s of `ingle serve` against its engine alone.

    python bench/server_overhead.py [MODEL] [--width 16] [--rounds 20] [--tokens 900] [--json]

Both sides write the same greedy answers to the same prompts, end-of-sequence forbidden. The engine
alone is `Engine.step` in a loop in one process. Neither drafts: whether drafts pay is decided by
the clock, and would differ from run to run. The server is asked over HTTP from another process,
streamed and whole; each round measures all three, in an order that turns, and what is compared is
the median of the rounds' ratios. The asking process shares the machine's cores with the server, so
part of what is measured is its own work.

Where a machine's speed swings by more than is to be shown, the other two figures say more: the
share of the machine's processor time that the server's event loop takes (HTTP, JSON, parsing), and
the asking process. The engine's threads have the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from time import perf_counter as now
from typing import Any

from compare import excess

from ingle.engine.llm import LLM
from ingle.engine.request import Request, SamplingParams
from ingle.tasks import sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=900)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rng = random.Random(1)
    names = ("sums", "gcd", "countdown", "products")
    questions = [sample(rng, names[i % 4], 2, "test").question for i in range(args.width)]
    llm = LLM(args.model, max_sequences=32, speculative="off")
    tokenizer = llm.tokenizer
    assert tokenizer is not None
    prompts = [llm.encoder.encode([{"role": "user", "content": q}], tokenizer) for q in questions]
    command = [sys.executable, "-m", "ingle", "serve", "--port", "0", "--json", "--log", "off",
               "--speculative", "off"]  # fmt: skip
    rows: dict[str, list[float]] = {"engine": [], "whole": [], "stream": []}
    with subprocess.Popen(
        command + ([args.model] if args.model else []), stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            url = json.loads(server.stdout.readline())["url"]
            port = int(url.rstrip("/").rsplit(":", 1)[1])
            eos = tokenizer.eos_id
            spent: dict[str, list[float]] = {"event loop": [], "asking": []}
            sides = {
                "engine": lambda round_: _engine(llm, prompts, args.tokens, eos, round_),
                "whole": lambda _: _served(port, questions, args.tokens, eos, False),
                "stream": lambda _: _served(port, questions, args.tokens, eos, True),
            }
            for round_ in range(args.rounds + 1):
                for turn in range(3):
                    name = list(sides)[(round_ + turn) % 3]
                    before, asking, started = loop_seconds(server.pid), time.process_time(), now()
                    value = sides[name](round_)
                    if not round_:  # the first one warms up
                        continue
                    rows[name].append(value)
                    if name == "stream":
                        machine = (now() - started) * (os.cpu_count() or 1)
                        spent["event loop"].append((loop_seconds(server.pid) - before) / machine)
                        spent["asking"].append((time.process_time() - asking) / machine)
        finally:
            server.terminate()
    medians = {name: statistics.median(values) for name, values in rows.items()}
    out = {
        "width": args.width,
        "tokens_per_s": medians,
        "overhead": {name: excess(rows["engine"], rows[name]) for name in ("whole", "stream")},
        "processor_share_streamed": {name: statistics.median(v) for name, v in spent.items()},
        "rounds": rows,
    }
    if args.json:
        print(json.dumps(out, indent=2))
        return
    print(f"{args.width} at a time, engine alone {medians['engine']:,.0f} tok/s")
    for name in ("whole", "stream"):
        cost, low, high = out["overhead"][name]
        print(f"{name:>7}: {medians[name]:,.0f} tok/s; the engine alone is {cost:+.1%} faster "
              f"({low:+.1%} to {high:+.1%})")  # fmt: skip
    for name, share in out["processor_share_streamed"].items():
        print(f"streamed, {name}: {share:.1%} of the machine's processor time")


def loop_seconds(pid: int) -> float:
    """Processor time of a process's main thread, in which the server's event loop runs."""
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _engine(llm: LLM, prompts: list[list[int]], tokens: int, eos: int, round_: int) -> float:
    params = SamplingParams(max_tokens=tokens, temperature=0.0, logit_bias={eos: -100.0})
    engine = llm.engine
    started = time.perf_counter()
    for index, prompt in enumerate(prompts):
        engine.submit(Request(f"{round_}-{index}", prompt, params))
    count = 0
    while engine.has_work:
        count += sum(len(event.tokens) for event in engine.step())
    return count / (time.perf_counter() - started)


def _served(port: int, questions: list[str], tokens: int, eos: int, stream: bool) -> float:
    async def one(question: str) -> int:
        body = json.dumps(
            {
                "messages": [{"role": "user", "content": question}],
                "max_tokens": tokens,
                "temperature": 0,
                "logit_bias": {str(eos): -100},
                "stream": stream,
            }
        ).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: "
            f"application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        reply = await reader.read()
        writer.close()
        assert reply.startswith(b"HTTP/1.1 200"), reply[:300]
        found = reply.rfind(b'"completion_tokens":')
        return int(reply[found + 20 :].split(b",", 1)[0])

    async def all_() -> list[int]:
        return await asyncio.gather(*map(one, questions))

    started = time.perf_counter()
    counts: list[Any] = asyncio.run(all_())
    return sum(counts) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
