"""A server under load from another process: fairness, latency between tokens, memory, clean 429s.

    python bench/load.py [MODEL] [--clients 200] [--seconds 120] [--beyond 1000] [--json]

Starts `ingle serve`, then keeps `--clients` streams open for `--seconds`, each client asking its
next question as soon as its answer is complete. Afterwards it fills the queue and opens `--beyond`
more requests, each of which must be refused with 429 and Retry-After. Speaks HTTP itself: a client
library would need more of the two cores than the server.

Prints tokens per client (max/min), tokens/s, the median and 99th percentile of the time between two
tokens of a stream, the server's resident memory over time, errors by kind. Exit code 1 if there was
an error, a client that starved (ratio above 2) or a refusal of another kind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingle.models import resolve_model
from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import TASKS, sample

QUEUE = 256
LONG = 400  # tokens of the answers that fill the queue
SETTLE_SECONDS = 10.0  # of the run, before memory is called flat or not


@dataclass
class Client:
    """What one client has seen."""

    tokens: int = 0
    answers: int = 0
    gaps: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)


@dataclass
class Load:
    host: str
    port: int
    eos: int
    errors: Counter[str] = field(default_factory=Counter)

    async def ask(self, question: str, client: Client, length: int | None = None) -> int:
        """Stream one answer, exactly `length` tokens long if that is given, and note its times.

        Returns the HTTP status, 0 if the connection broke.
        """
        asked: dict[str, Any] = {
            "messages": [{"role": "user", "content": question}],
            "stream": True,
            "temperature": 0.6,
        }
        if length is not None:
            asked |= {"max_tokens": length, "logit_bias": {str(self.eos): -100}}
        body = json.dumps(asked).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        started = last = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            self.errors["no connection"] += 1
            return 0
        try:
            writer.write(head.encode() + body)
            status = int((await reader.readline()).split()[1])
            headers = await reader.readuntil(b"\r\n\r\n")
            if status != 200:
                if status == 429 and b"retry-after" not in headers.lower():
                    self.errors["429 without Retry-After"] += 1
                return status
            chunks, done = 0, False
            async for line in reader:
                if not line.startswith(b"data: "):
                    continue
                if line.startswith(b"data: [DONE]"):
                    done = True
                    break
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    self.errors["error in stream"] += 1
                    return status
                if chunk.get("usage"):
                    client.tokens += chunk["usage"]["completion_tokens"]
                now = time.perf_counter()
                chunks += 1  # the first comes at once and holds nothing, the second the first token
                if chunks == 2:
                    client.firsts.append(now - started)
                elif chunks > 2:
                    client.gaps.append(now - last)
                last = now
            client.answers += done
            if not done:
                self.errors["stream broke off"] += 1
            return status
        except (OSError, ValueError, IndexError, asyncio.IncompleteReadError):
            self.errors["connection broke"] += 1
            return 0
        finally:
            writer.close()

    async def keep_asking(self, client: Client, seed: int, until: float) -> None:
        rng = random.Random(seed)
        names = [name for name in TASKS if name != "small_talk"]
        while time.perf_counter() < until:
            question = sample(rng, rng.choice(names), 2, "test").question
            status = await self.ask(question, client)
            if status not in (0, 200):
                self.errors[f"status {status}"] += 1
                await asyncio.sleep(0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--beyond", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    command = [sys.executable, "-m", "ingle", "serve", "--port", "0", "--json", "--log", "off"]
    command += ["--max-waiting", str(QUEUE)] + ([args.model] if args.model else [])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            facts = json.loads(server.stdout.readline())
            out = asyncio.run(_run(facts, server.pid, args))
        finally:
            server.terminate()
        out["exit_code"] = server.wait(60)
    print(json.dumps(out, indent=2) if args.json else _report(out))
    good = (
        not out["errors"]
        and out["most_over_least_tokens"] <= 2
        and out["beyond"]["other"] == {}
        and out["exit_code"] == 0
    )
    return 0 if good else 1


async def _run(facts: dict[str, Any], pid: int, args: argparse.Namespace) -> dict[str, Any]:
    port = int(facts["url"].rstrip("/").rsplit(":", 1)[1])
    load = Load("127.0.0.1", port, Tokenizer.load(resolve_model(args.model)).eos_id)
    clients = [Client() for _ in range(args.clients)]
    started = time.perf_counter()
    until = started + args.seconds
    memory: list[tuple[float, int]] = []

    async def watch() -> None:
        while time.perf_counter() < until:
            memory.append((time.perf_counter() - started, _resident(pid)))
            await asyncio.sleep(1.0)

    work = [load.keep_asking(client, seed, until) for seed, client in enumerate(clients)]
    await asyncio.gather(watch(), *work)
    seconds = time.perf_counter() - started
    gaps = sorted(gap for client in clients for gap in client.gaps)
    firsts = sorted(first for client in clients for first in client.firsts)
    tokens = [client.tokens for client in clients]
    settled = [size for at, size in memory if at >= SETTLE_SECONDS] or [size for _, size in memory]
    beyond = await _beyond(load, args.beyond)
    return {
        "clients": args.clients,
        "seconds": seconds,
        "answers": sum(client.answers for client in clients),
        "tokens_per_s": sum(tokens) / seconds,
        "most_over_least_tokens": max(tokens) / max(1, min(tokens)),
        "gap_ms": {"median": _ms(gaps, 0.5), "p99": _ms(gaps, 0.99), "max": _ms(gaps, 1.0)},
        "first_token_ms": {"median": _ms(firsts, 0.5), "p99": _ms(firsts, 0.99)},
        "resident_mb": {
            "settled": settled[0] / 1e6,
            "end": settled[-1] / 1e6,
            "growth": settled[-1] / settled[0],
        },
        "errors": dict(load.errors),
        "beyond": beyond,
        "resident_mb_after_all": _resident(pid) / 1e6,
    }


async def _beyond(load: Load, count: int) -> dict[str, Any]:
    """Fill batch and queue with long answers, then ask more: all of these must be refused."""
    fill = [
        asyncio.create_task(load.ask("Sort 3, 1, 2.", Client(), LONG)) for _ in range(QUEUE + 32)
    ]
    await asyncio.sleep(1.0)
    statuses: Counter[int] = Counter()
    for first in range(0, count, 100):
        batch = [load.ask("1+1=", Client(), LONG) for _ in range(min(100, count - first))]
        statuses.update(await asyncio.gather(*batch))
    filled = Counter(await asyncio.gather(*fill))
    after = await load.ask("1+1=", Client())
    other = {str(status): n for status, n in statuses.items() if status not in (200, 429)}
    return {
        "refused_429": statuses[429],
        "answered": statuses[200] + filled[200],
        "next_answer": after,
        "other": other | ({} if after == 200 else {"next answer": after}),
    }


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def _ms(values: list[float], share: float) -> float:
    if not values:
        return float("nan")
    return values[min(len(values) - 1, int(share * len(values)))] * 1000


def _report(out: dict[str, Any]) -> str:
    gap, memory, beyond = out["gap_ms"], out["resident_mb"], out["beyond"]
    first = out["first_token_ms"]
    return (
        f"{out['clients']} streams for {out['seconds']:.0f} s: {out['answers']:,} answers, "
        f"{out['tokens_per_s']:,.0f} tokens/s\n"
        f"tokens per client, most over least: {out['most_over_least_tokens']:.2f}\n"
        f"between tokens: median {gap['median']:.1f} ms, p99 {gap['p99']:.1f} ms, "
        f"longest {gap['max']:.0f} ms\n"
        f"until the first token: median {first['median']:.0f} ms, p99 {first['p99']:.0f} ms\n"
        f"memory {memory['settled']:.0f} MB, at the end {memory['end']:.0f} MB "
        f"({memory['growth']:.3f} times)\n"
        f"errors: {out['errors'] or 'none'}\n"
        f"beyond the queue: {beyond['refused_429']} refused with 429, {beyond['answered']} "
        f"answered, others {beyond['other'] or 'none'}; the next answer: {beyond['next_answer']}\n"
        f"the server's exit code: {out['exit_code']}"
    )


if __name__ == "__main__":
    sys.exit(main())
