"""Documents -> packed batches. A batch is a pure function of (seed, step), so that a resumed run
sees exactly the batches it would have seen, with no loader state to save.

Legend: T tokens of the packed stream.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ingle.errors import ConfigError
from ingle.prompt.deepseek_r1 import DeepSeekR1
from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import ALL_TASKS, Problem, sample
from ingle.tasks.slips import vary

PAD = "<｜▁pad▁｜>"
# Tasks that may be answered without a thought: every answer is one number, word or name, or needs
# none. Others could only be guessed; and by answer instead of by task, "there is no way" would be
# all that countdown's questions are ever answered at once.
AT_ONCE = (
    "sums", "products", "gcd", "base_conversion", "spell_backward", "letter_counting", "chat",
    "simple_equations", "number_sequence", "lcm", "fraction_simplification", "count_bits",
    "caesar_cipher", "maze", "syllogism", "leg_counting", "time_intervals", "calendar_days",
    "small_talk",
)  # fmt: skip
LENGTH_DRAWS = 40  # documents of a task and level
MOST_LOST = 0.2  # share of a task's documents that may be too long


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


def raw_prompt(question: str, tokenizer: Tokenizer) -> list[int]:
    """How a worked example begins: all that a raw base can be asked by."""
    opening = [tokenizer.bos_id, *tokenizer.encode(question + "\n")]
    return [*opening, tokenizer.special("<think>"), *tokenizer.line_end]


def pretrain_document(problem: Problem, tokenizer: Tokenizer) -> Document:
    """A worked example as plain text: question, thinking, answer; every token is trained."""
    tokens = raw_prompt(problem.question, tokenizer) + encode_answer(problem, tokenizer)
    return Document(tokens, [False] + [True] * (len(tokens) - 1))


def chat_document(
    history: list[Problem], problem: Problem, tokenizer: Tokenizer, thinking: bool = True
) -> Document:
    """A chat in the serving format; only the last answer is trained, earlier ones are context.

    Without thinking the prompt closes an empty thought, as where a request turns thinking off, and
    the answer follows at once: nothing teaches a model to leave its thought out by itself.
    """
    messages = []
    for turn in history:
        messages.append({"role": "user", "content": turn.question})
        messages.append({"role": "assistant", "content": turn.answer})
    messages.append({"role": "user", "content": problem.question})
    prompt = DeepSeekR1().encode(messages, tokenizer, thinking=thinking)
    if thinking:
        answer = encode_answer(problem, tokenizer)
    else:
        answer = [*tokenizer.encode(problem.answer), tokenizer.eos_id]
    return Document(prompt + answer, [False] * len(prompt) + [True] * len(answer))


class Described(Protocol):
    """Data that a run was made from."""

    def describes(self) -> str:
        """What they are, in one sentence for the bill of materials."""


class Documents(Described, Protocol):
    """Where a run's documents come from; plain values only, as it is sent to other processes."""

    def documents(self, rng: random.Random, tokenizer: Tokenizer) -> Iterator[Document]:
        """Documents without end, in the order that rng decides."""


@dataclass(frozen=True)
class Mixture:
    """Which problems are drawn: a weight per task, levels uniform over `levels` or the trained.

    chat: the chat format (fine-tuning), not plain worked examples (pre-training). history: share of
    chats with earlier turns. harder: share of problems from the levels beyond the trained ones.
    varied: now and then a trace checks itself or mends a slip (`tasks/slips.py`). no_think: share
    of the chats with a short answer that give it without a thought, where a request turned thinking
    off. hasty: share of all documents whose thought is left empty, so that the model itself will
    sometimes answer at once, which reinforcement can unlearn.
    """

    weights: dict[str, float]
    chat: bool
    history: float = 0.0
    levels: tuple[int, ...] = ()
    harder: float = 0.0
    varied: bool = False
    no_think: float = 0.0
    hasty: float = 0.0

    def problem(self, rng: random.Random) -> Problem:
        task = rng.choices(list(self.weights), list(self.weights.values()))[0]
        levels = self.levels or ALL_TASKS[task].LEVELS
        if self.harder and rng.random() < self.harder and ALL_TASKS[task].HARDER:
            levels = ALL_TASKS[task].HARDER
        problem = sample(rng, task, rng.choice(levels), "train")
        if self.hasty and rng.random() < self.hasty:
            return replace(problem, trace="")
        return vary(rng, problem) if self.varied else problem

    def shares_of_levels(self, task: str) -> dict[int, float]:
        """How often each level is drawn among the problems of a task."""
        levels, beyond = self.levels or ALL_TASKS[task].LEVELS, ALL_TASKS[task].HARDER
        harder = self.harder if beyond else 0.0
        shares = {level: (1 - harder) / len(levels) for level in levels}
        for level in beyond if harder else ():
            shares[level] = shares.get(level, 0.0) + harder / len(beyond)
        return shares

    def describes(self) -> str:
        form = "chats" if self.chat else "worked examples"
        tasks = ", ".join(sorted(self.weights))
        return f"Problems generated by ingle as {form}, from the training split of: {tasks}."

    def documents(self, rng: random.Random, tokenizer: Tokenizer) -> Iterator[Document]:
        while True:
            yield self.document(rng, self.problem(rng), tokenizer)

    def document(self, rng: random.Random, problem: Problem, tokenizer: Tokenizer) -> Document:
        """One problem as a document; rng draws what stands before it, and whether to think."""
        if not self.chat:
            return pretrain_document(problem, tokenizer)
        turns = rng.randint(1, 4) if rng.random() < self.history else 0
        history = [self.problem(rng) for _ in range(turns)]
        thinking = True
        if self.no_think and rng.random() < self.no_think:
            thinking = problem.task not in AT_ONCE
        return chat_document(history, problem, tokenizer, thinking)


def lost_shares(
    mixture: Mixture, tokenizer: Tokenizer, longest: int
) -> dict[str, dict[int, float]]:
    """Task -> level -> share of the documents that `pack` skips for their length, of those that
    lose any, among LENGTH_DRAWS drawn as training draws them."""
    lost: dict[str, dict[int, float]] = {}
    for task in mixture.weights:
        for level in mixture.shares_of_levels(task):
            rng = random.Random(f"lengths:{task}:{level}")
            alone = replace(mixture, weights={task: 1.0}, levels=(level,), harder=0.0)
            sizes = [
                len(mixture.document(rng, alone.problem(rng), tokenizer).tokens)
                for _ in range(LENGTH_DRAWS)
            ]
            if share := sum(size > longest for size in sizes) / LENGTH_DRAWS:
                lost.setdefault(task, {})[level] = share
    return lost


def check_lengths(
    mixture: Mixture, tokenizer: Tokenizer, longest: int
) -> dict[str, dict[int, float]]:
    """What `lost_shares` finds; ConfigError where a task loses more than MOST_LOST of its
    documents, each level counted as often as it is drawn."""
    lost = lost_shares(mixture, tokenizer, longest)
    shares = {
        task: sum(share * mixture.shares_of_levels(task)[level] for level, share in levels.items())
        for task, levels in lost.items()
    }
    if worst := {task: share for task, share in shares.items() if share > MOST_LOST}:
        named = ", ".join(f"{task} {100 * share:.0f} %" for task, share in worst.items())
        raise ConfigError(
            f"Documents of more than {longest} tokens are skipped, and of these tasks that is more "
            f"than {100 * MOST_LOST:.0f} %: {named}. Raise `longest`, or leave out levels."
        )
    return lost


def pack(documents: Iterator[Document], length: int, longest: int, pad_id: int) -> PackedBatch:
    """Fill a stream of `length` tokens with whole documents; the first that does not fit ends it.

    A document of more than `longest` tokens is skipped.
    """
    tokens: list[int] = []
    targets: list[int] = []
    starts: list[int] = []
    for document in documents:
        size, start = len(document.tokens), len(tokens)
        if not size or size > longest:
            continue
        if start + size > length:
            padding = length - start
            tokens += [pad_id] * padding
            targets += [-100] * padding
            starts += range(start, length)
            return PackedBatch(_tensor(tokens), _tensor(targets), _tensor(starts).int())
        tokens += document.tokens
        following = zip(document.tokens[1:], document.train[1:], strict=True)
        targets += [token if trained else -100 for token, trained in following]
        targets.append(-100)
        starts += [start] * size
    raise AssertionError("documents never end")


def _tensor(values: list[int]) -> Tensor:
    """torch.tensor(values), which takes a list six times as long as an array."""
    return torch.frombuffer(array("q", values), dtype=torch.int64)


def batch_at(
    source: Documents, tokenizer: Tokenizer, seed: int, step: int, length: int, longest: int
) -> PackedBatch:
    """The batch of one step."""
    rng = random.Random(f"{seed}:{step}")
    return pack(source.documents(rng, tokenizer), length, longest, tokenizer.special(PAD))
