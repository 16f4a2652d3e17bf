"""Tokens per second of `ingle serve` over HTTP against transformers `generate`, same weights.

    python bench/serve_vs_transformers.py [MODEL] [--rounds 5] [--tokens 128] [--json]

Both sides answer the same prompts greedily with end-of-sequence forbidden, so that every request is
exactly `--tokens` long. Ours is timed from outside, HTTP and scheduling included; transformers'
side is its batched `generate` alone, in the fastest of its expert implementations and with every
prompt of the batch padded on the left and masked. Rounds alternate; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import torch

from ingle.models import read_config, resolve_model
from ingle.models.deepseek_v3 import DeepseekV3Config
from ingle.prompt.deepseek_r1 import DeepSeekR1
from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import sample

IMPLEMENTATIONS = ("eager", "batched_mm", "grouped_mm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    folder = resolve_model(args.model)
    tokenizer = Tokenizer.load(folder)
    rng = random.Random(1)
    questions = [sample(rng, task, 2, "test").question for task in ("sums", "gcd", "countdown",
                 "products") for _ in range(4)]  # fmt: skip
    out: dict[str, Any] = {}
    with Server(folder) as server:
        peer = Transformers(folder)
        for width in (1, 16):
            chosen = questions[:width]
            encode = DeepSeekR1().encode
            prompts = [encode([{"role": "user", "content": q}], tokenizer) for q in chosen]
            best = peer.choose(prompts, args.tokens)
            ours, theirs = [], []
            server.answer(chosen, args.tokens, tokenizer.eos_id)  # warm
            for _ in range(args.rounds):
                ours.append(server.answer(chosen, args.tokens, tokenizer.eos_id))
                theirs.append(peer.answer(prompts, args.tokens, best))
            mine, other = statistics.median(ours), statistics.median(theirs)
            out[f"concurrency_{width}"] = {
                "ingle_tokens_per_s": mine,
                "transformers_tokens_per_s": other,
                "transformers_experts": best,
                "ratio": mine / other,
                "ingle_rounds": ours,
                "transformers_rounds": theirs,
            }
        out["first_token_ms"] = server.first_token_ms(questions)
    out["limits"] = limits(read_config(folder), out)
    if args.json:
        print(json.dumps(out, indent=2))
        return
    for width in (1, 16):
        row = out[f"concurrency_{width}"]
        print(
            f"{width:>2} at a time: ingle {row['ingle_tokens_per_s']:,.0f} tok/s, transformers "
            f"({row['transformers_experts']}) {row['transformers_tokens_per_s']:,.0f} tok/s, "
            f"ratio {row['ratio']:.1f}"
        )
    first = out["first_token_ms"]
    print(f"first token of the warm server: median {first['median']:.1f} ms, worst of "
          f"{first['n']} {first['worst']:.1f} ms")  # fmt: skip
    for line in out["limits"]["lines"]:
        print(line)


class Server:
    """`ingle serve` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Server:
        command = [
            sys.executable,
            "-m",
            "ingle",
            "serve",
            str(self.folder),
            "--port",
            "0",
            "--json",
            "--log",
            "off",
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.client = httpx.Client(base_url=told["url"], timeout=120)
        self.pool = ThreadPoolExecutor(16)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def _one(self, question: str, tokens: int, eos: int, **extra: Any) -> Any:
        body = {
            "messages": [{"role": "user", "content": question}], "temperature": 0,
            "max_tokens": tokens, "logit_bias": {str(eos): -100}, **extra,
        }  # fmt: skip
        reply = self.client.post("/v1/chat/completions", json=body)
        reply.raise_for_status()
        return reply.json()["usage"]["completion_tokens"]

    def answer(self, questions: list[str], tokens: int, eos: int) -> float:
        """Tokens per second over all questions at once."""
        started = time.perf_counter()
        counts = list(self.pool.map(lambda q: self._one(q, tokens, eos), questions))
        seconds = time.perf_counter() - started
        assert counts == [tokens] * len(questions), counts
        return sum(counts) / seconds

    def first_token_ms(self, questions: list[str]) -> dict[str, float]:
        """From sending a request to the first streamed piece of text, prefix cache cold."""
        times = []
        for number, question in enumerate(questions * 2):
            body = {
                "messages": [{"role": "user", "content": f"{question} {number}"}],
                "temperature": 0, "max_tokens": 8, "stream": True,
            }  # fmt: skip
            started = time.perf_counter()
            with self.client.stream("POST", "/v1/chat/completions", json=body) as reply:
                for line in reply.iter_lines():
                    if not line.startswith("data: {"):
                        continue
                    choice = json.loads(line[6:])["choices"][0]
                    if choice["delta"].get("reasoning_content") or choice["delta"].get("content"):
                        times.append((time.perf_counter() - started) * 1000)
                        break
        times = times[2:]  # the first requests also open the connection
        return {"median": statistics.median(times), "worst": max(times), "n": len(times)}


class Transformers:
    """The peer: its own model class, cache and generate, fp32 as ours."""

    def __init__(self, folder: Path) -> None:
        from transformers import DeepseekV3ForCausalLM

        self.models = {
            name: DeepseekV3ForCausalLM.from_pretrained(
                folder, dtype=torch.float32, experts_implementation=name
            ).eval()
            for name in IMPLEMENTATIONS
        }

    def answer(self, prompts: list[list[int]], tokens: int, implementation: str) -> float:
        width = max(map(len, prompts))
        ids = torch.tensor([[2] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        started = time.perf_counter()
        with torch.inference_mode():
            out = self.models[implementation].generate(
                ids, attention_mask=mask, do_sample=False, pad_token_id=2,
                max_new_tokens=tokens, min_new_tokens=tokens,
            )  # fmt: skip
        seconds = time.perf_counter() - started
        assert out.shape[1] == width + tokens
        return len(prompts) * tokens / seconds

    def choose(self, prompts: list[list[int]], tokens: int) -> str:
        """The fastest expert implementation for this batch, each warmed up first."""
        speed = {}
        for name in IMPLEMENTATIONS:
            self.answer(prompts, 8, name)
            speed[name] = self.answer(prompts, tokens, name)
        return max(speed, key=lambda name: speed[name])


def limits(config: DeepseekV3Config, out: dict[str, Any]) -> dict[str, Any]:
    """Share of this machine's measured matrix-product rate that the served tokens used."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    rates = []
    for _ in range(10):
        started = time.perf_counter()
        a @ b
        rates.append(2 * 1024**3 / (time.perf_counter() - started))
    peak = max(rates)
    flops = 2 * active_parameters(config)
    lines = []
    for width in (1, 16):
        rate = out[f"concurrency_{width}"]["ingle_tokens_per_s"] * flops
        lines.append(
            f"{width:>2} at a time: {rate / 1e9:.1f} GFLOP/s of weights, {100 * rate / peak:.0f} % "
            f"of the {peak / 1e9:.0f} GFLOP/s fp32 product measured in this run"
        )
    return {"peak_gflops": peak / 1e9, "flops_per_token": flops, "lines": lines}


def active_parameters(c: DeepseekV3Config) -> int:
    """Weights one token is multiplied with (embedding look-up left out)."""
    query = c.hidden_size * c.num_attention_heads * c.qk_head_dim
    if c.q_lora_rank:
        query = c.q_lora_rank * (c.hidden_size + c.num_attention_heads * c.qk_head_dim)
    heads = c.num_attention_heads
    attention = query + c.hidden_size * c.cache_width + heads * c.v_head_dim * c.hidden_size
    attention += heads * (c.qk_nope_head_dim + c.v_head_dim) * c.kv_lora_rank
    dense = 3 * c.hidden_size * c.intermediate_size
    experts = c.num_experts_per_tok + c.n_shared_experts
    moe = 3 * c.hidden_size * c.moe_intermediate_size * experts
    moe += c.hidden_size * c.n_routed_experts
    first = c.first_k_dense_replace
    total = c.num_hidden_layers * attention + first * dense + (c.num_hidden_layers - first) * moe
    return total + c.vocab_size * c.hidden_size


if __name__ == "__main__":
    main()
