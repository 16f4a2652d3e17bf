"""Documents -> packed batches. A batch is a pure function of (seed, step), so that a resumed run
sees exactly the batches it would have seen, with no loader state to save.

Legend: T tokens of the packed stream.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ingle.prompt.deepseek_r1 import DeepSeekR1
from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import TASKS, Problem, sample

PAD = "<｜▁pad▁｜>"


@dataclass(frozen=True)
class Document:
    """Token ids and, for each, whether it is to be predicted."""

    tokens: list[int]
    train: list[bool]


@dataclass(frozen=True)
class PackedBatch:
    """Documents laid end to end in one stream.

    targets_T[t] is the token after t in the same document, or -100 where none is trained.
    starts_T[t] is the index of the first token of t's document; each token of padding is its own.
    """

    tokens_T: Tensor
    targets_T: Tensor
    starts_T: Tensor


def answer_text(problem: Problem) -> str:
    """What the model writes after `<think>\\n`, without the closing end-of-sequence token."""
    lines = problem.trace + "\n" if problem.trace else "\n"
    return f"{lines}</think>\n\n{problem.answer}"


def encode_answer(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """Tokens of `answer_text` plus end of sequence; `</think>` is the special token."""
    thinking, answer = answer_text(problem).split("</think>")
    close = tokenizer.special("</think>")
    return [*tokenizer.encode(thinking), close, *tokenizer.encode(answer), tokenizer.eos_id]


def pretrain_document(problem: Problem, tokenizer: Tokenizer) -> Document:
    """A worked example as plain text: question, thinking, answer; every token is trained."""
    opening = [tokenizer.bos_id, *tokenizer.encode(problem.question + "\n")]
    opening += [tokenizer.special("<think>"), *tokenizer.encode("\n")]
    tokens = opening + encode_answer(problem, tokenizer)
    return Document(tokens, [False] + [True] * (len(tokens) - 1))


def chat_document(history: list[Problem], problem: Problem, tokenizer: Tokenizer) -> Document:
    """A chat in the serving format; only the last answer is trained, earlier ones are context."""
    messages = []
    for turn in history:
        messages.append({"role": "user", "content": turn.question})
        messages.append({"role": "assistant", "content": turn.answer})
    messages.append({"role": "user", "content": problem.question})
    prompt = DeepSeekR1().encode(messages, tokenizer)
    answer = encode_answer(problem, tokenizer)
    return Document(prompt + answer, [False] * len(prompt) + [True] * len(answer))


class Documents(Protocol):
    """Where a run's documents come from; plain values only, as it is sent to other processes."""

    def documents(self, rng: random.Random, tokenizer: Tokenizer) -> Iterator[Document]:
        """Documents without end, in the order that rng decides."""


@dataclass(frozen=True)
class Mixture:
    """Which problems are drawn: a weight per task, levels uniform over those trained."""

    weights: dict[str, float]
    chat: bool  # chat format (fine-tuning) or plain worked examples (pre-training)
    history: float = 0.0  # share of chats with earlier turns

    def problem(self, rng: random.Random) -> Problem:
        task = rng.choices(list(self.weights), list(self.weights.values()))[0]
        return sample(rng, task, rng.choice(TASKS[task].LEVELS), "train")

    def documents(self, rng: random.Random, tokenizer: Tokenizer) -> Iterator[Document]:
        while True:
            problem = self.problem(rng)
            if not self.chat:
                yield pretrain_document(problem, tokenizer)
                continue
            turns = rng.randint(1, 4) if rng.random() < self.history else 0
            yield chat_document([self.problem(rng) for _ in range(turns)], problem, tokenizer)


def pack(documents: Iterator[Document], length: int, longest: int, pad_id: int) -> PackedBatch:
    """Fill a stream of `length` tokens with whole documents; the first that does not fit ends it.

    A document of more than `longest` tokens is skipped.
    """
    tokens = torch.full((length,), pad_id)
    targets = torch.full((length,), -100)
    starts = torch.arange(length, dtype=torch.int32)
    start = 0
    for document in documents:
        size = len(document.tokens)
        if size > longest:
            continue
        end = start + size
        if end > length:
            return PackedBatch(tokens, targets, starts)
        ids = torch.tensor(document.tokens)
        tokens[start:end] = ids
        trained = torch.tensor(document.train[1:])
        targets[start : end - 1] = torch.where(trained, ids[1:], -100)
        starts[start:end] = start
        start = end
    raise AssertionError("documents never end")


def batch_at(
    source: Documents, tokenizer: Tokenizer, seed: int, step: int, length: int, longest: int
) -> PackedBatch:
    """The batch of one step."""
    rng = random.Random(f"{seed}:{step}")
    return pack(source.documents(rng, tokenizer), length, longest, tokenizer.special(PAD))
