"""Documents, packing and the determinism that resuming rests on."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ingle.cli.training import stage_folder
from ingle.errors import ConfigError
from ingle.models import build_model
from ingle.prompt.deepseek_r1 import DeepSeekR1
from ingle.prompt.messages import Message
from ingle.prompt.reply import encode_reply
from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import ALL_TASKS, FIRST, TRAINED, sample, split_of
from ingle.training.data import (
    AT_ONCE,
    Mixture,
    batch_at,
    chat_document,
    check_lengths,
    lost_shares,
    pack,
    pretrain_document,
    raw_prompt,
)
from ingle.training.presets import model_preset
from ingle.training.recipes import FIRST_WEIGHTS, TRAINED_WEIGHTS, pretrain_run, sft_run


def test_the_mixture_names_every_task() -> None:
    assert FIRST_WEIGHTS.keys() == set(FIRST)


def test_a_batch_depends_on_seed_and_step_only(tokenizer: Tokenizer) -> None:
    mixture = Mixture(FIRST_WEIGHTS, chat=True, history=0.3)
    first, again = (batch_at(mixture, tokenizer, 5, 7, 1024, 288) for _ in range(2))
    other = batch_at(mixture, tokenizer, 5, 8, 1024, 288)
    assert torch.equal(first.tokens_T, again.tokens_T)
    assert not torch.equal(first.tokens_T, other.tokens_T)


def test_only_the_answer_of_a_chat_is_trained(tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    earlier, problem = (sample(rng, "sums", 2, "train") for _ in range(2))
    document = chat_document([earlier], problem, tokenizer)
    trained = [t for t, on in zip(document.tokens, document.train, strict=True) if on]
    text = tokenizer.decode(trained)
    assert text == f"{problem.trace}\n\n\n{problem.answer}"
    assert trained[-1] == tokenizer.eos_id
    assert trained.count(tokenizer.special("</think>")) == 1
    untrained = [t for t, on in zip(document.tokens, document.train, strict=True) if not on]
    assert earlier.question in tokenizer.decode(untrained)
    assert earlier.trace not in tokenizer.decode(untrained)


def test_without_a_thought_the_prompt_closes_it_and_the_answer_follows(
    tokenizer: Tokenizer,
) -> None:
    """`<think>\\n\\n</think>\\n\\nanswer`, id by id; only the answer and its end are trained."""
    problem = sample(random.Random(0), "sums", 2, "train")
    document = chat_document([], problem, tokenizer, thinking=False)
    special, newline = tokenizer.special, tokenizer.encode("\n")
    assert len(newline) == 1
    prompt = [
        tokenizer.bos_id, special("<｜User｜>"), *tokenizer.encode(problem.question),
        special("<｜Assistant｜>"), special("<think>"), *newline * 2, special("</think>"),
        *newline * 2,
    ]  # fmt: skip
    answer = [*tokenizer.encode(problem.answer), tokenizer.eos_id]
    assert document.tokens == prompt + answer
    assert document.train == [False] * len(prompt) + [True] * len(answer)
    asked = [{"role": "user", "content": problem.question}]
    assert DeepSeekR1().encode(asked, tokenizer, thinking=False) == prompt  # as it is served
    said = Message(1, "assistant", problem.answer)
    assert encode_reply(DeepSeekR1(), tokenizer, prompt, said) == answer


def test_small_talk_is_the_same_text_with_and_without_a_thought(tokenizer: Tokenizer) -> None:
    problem = sample(random.Random(0), "chat", 1, "train")
    with_thought, without = (chat_document([], problem, tokenizer, on) for on in (True, False))
    assert with_thought.tokens == without.tokens
    assert sum(with_thought.train) > sum(without.train)


@pytest.mark.parametrize("task", TRAINED)
def test_what_is_answered_at_once_has_short_answers_always(task: str, tokenizer: Tokenizer) -> None:
    rng = random.Random(6)
    problems = [sample(rng, task, level, "train") for level in ALL_TASKS[task].LEVELS * 60]
    longest = max(len(tokenizer.encode(p.answer)) for p in problems)
    assert (longest <= 14 or not problems[0].trace) == (task in AT_ONCE)


def test_only_what_can_be_answered_at_once_goes_without_a_thought(tokenizer: Tokenizer) -> None:
    closed = [
        tokenizer.special("<think>"),
        *tokenizer.encode("\n\n"),
        tokenizer.special("</think>"),
    ]

    def share(task: str, no_think: float) -> float:
        mixture = Mixture({task: 1.0}, chat=True, no_think=no_think)
        documents = mixture.documents(random.Random(1), tokenizer)
        found = [next(documents).tokens for _ in range(400)]
        return sum(closed == t[i : i + 4] for t in found for i in range(len(t))) / 400

    assert 0.1 < share("sums", 0.15) < 0.2
    assert share("countdown", 0.5) == 0.0  # an expression could only be guessed
    assert share("sums", 0.0) == 0.0
    assert share("chat", 0.0) == 1.0  # which has no thought anyway


def test_a_mixture_that_always_thinks_draws_what_it_always_drew(tokenizer: Tokenizer) -> None:
    """Runs that were begun before `no_think` go on with the batches they would have seen."""
    mixture = Mixture(FIRST_WEIGHTS, chat=True, history=0.3, harder=0.1)
    documents = mixture.documents(random.Random(4), tokenizer)
    rng = random.Random(4)
    for _ in range(20):
        problem = mixture.problem(rng)
        turns = rng.randint(1, 4) if rng.random() < 0.3 else 0
        earlier = [mixture.problem(rng) for _ in range(turns)]
        assert next(documents) == chat_document(earlier, problem, tokenizer)


def test_a_hasty_answer_has_an_empty_thought_of_its_own(tokenizer: Tokenizer) -> None:
    """The prompt is the one that asks for a thought: what is trained is leaving it out."""
    always = Mixture({"sums": 1.0}, chat=True, hasty=1.0)
    rng = random.Random(3)
    problem = always.problem(rng)
    document = always.document(rng, problem, tokenizer)
    trained = [t for t, on in zip(document.tokens, document.train, strict=True) if on]
    assert tokenizer.decode(trained) == f"\n\n\n{problem.answer}"
    assert trained[:2] == [*tokenizer.encode("\n"), tokenizer.special("</think>")]
    half = replace(always, hasty=0.5)
    found = [half.problem(random.Random(seed)).trace == "" for seed in range(200)]
    assert 70 < sum(found) < 130


def test_a_raw_question_is_how_a_worked_example_begins(tokenizer: Tokenizer) -> None:
    problem = sample(random.Random(1), "gcd", 1, "train")
    prompt = raw_prompt(problem.question, tokenizer)
    assert pretrain_document(problem, tokenizer).tokens[: len(prompt)] == prompt
    assert tokenizer.decode(prompt) == f"{problem.question}\n\n"
    assert prompt[-2] == tokenizer.special("<think>")


def test_levels_are_drawn_as_often_as_is_said() -> None:
    mixture = Mixture({"gcd": 1.0, "small_talk": 1.0}, chat=True, harder=0.3)
    shares = mixture.shares_of_levels("gcd")
    assert shares == pytest.approx({1: 0.7 / 3, 2: 0.7 / 3, 3: 0.7 / 3, 4: 0.15, 5: 0.15})
    assert mixture.shares_of_levels("small_talk") == {1: 1.0}
    rng, counts = random.Random(2), Counter[int]()
    for _ in range(3000):
        problem = mixture.problem(rng)
        counts[problem.level] += problem.task == "gcd"
    for level, share in shares.items():
        assert counts[level] / counts.total() == pytest.approx(share, abs=0.03)


def test_documents_that_are_too_long_are_named_and_too_many_are_refused(
    tokenizer: Tokenizer,
) -> None:
    mixture = Mixture({"gcd": 1.0, "sums": 1.0}, chat=True, levels=(1, 5))
    assert lost_shares(mixture, tokenizer, 1024) == {}
    lost = lost_shares(mixture, tokenizer, 300)
    assert lost["sums"][5] > 0.8 and 1 not in lost["sums"]  # twelve terms and more
    with pytest.raises(ConfigError, match=r"300 tokens are skipped.* sums 4\d %"):
        check_lengths(mixture, tokenizer, 300)
    rare = replace(mixture, levels=(1,), harder=0.2)
    assert check_lengths(rare, tokenizer, 300)["sums"][5] == lost["sums"][5]  # a tenth of all


@pytest.mark.parametrize("tasks", ["first", "trained"])
def test_the_recipes_hold_their_tasks_and_lose_little(tasks: str, tmp_path: Path) -> None:
    weights = TRAINED_WEIGHTS if tasks == "trained" else FIRST_WEIGHTS
    run = sft_run("nano", tmp_path, tasks=tasks)
    assert isinstance(run.mixture, Mixture) and run.mixture.weights == weights
    folder = stage_folder("nano", "sft", None if tasks == "first" else tasks)
    assert folder == Path("out") / run.name
    first = pretrain_run("nano", tasks=tasks)
    assert isinstance(first.mixture, Mixture) and first.mixture.no_think == 0.0
    with pytest.raises(ConfigError, match="No tasks 'all'"):
        sft_run("nano", tmp_path, tasks="all")


def test_the_recipe_of_all_tasks_from_nothing() -> None:
    assert TRAINED_WEIGHTS.keys() == set(TRAINED)
    others = {t: w for t, w in TRAINED_WEIGHTS.items() if w != 1.0}
    assert others == {"countdown": 2.0, "countdown4": 3.0, "small_talk": 0.3}
    mixture = sft_run("nano", Path("x"), tasks="trained").mixture
    assert mixture == Mixture(
        TRAINED_WEIGHTS, chat=True, history=0.08, harder=0.01, varied=True, no_think=0.15
    )
    assert sft_run("nano", Path("x"), tasks="trained").longest == 640
    assert sft_run("nano", Path("x")).mixture == Mixture(FIRST_WEIGHTS, chat=True, history=0.08)


def test_packing_keeps_documents_whole_and_apart(tokenizer: Tokenizer) -> None:
    rng = random.Random(3)
    documents = [pretrain_document(sample(rng, "gcd", 2, "train"), tokenizer) for _ in range(200)]
    longest = 60
    packed = pack(iter(documents), length=600, longest=longest, pad_id=2)
    kept = [d.tokens for d in documents if len(d.tokens) <= longest]
    assert len(kept) < len(documents)
    place = 0
    for expected in kept:
        end = place + len(expected)
        if end > 600:
            break
        assert packed.tokens_T[place:end].tolist() == expected
        assert set(packed.starts_T[place:end].tolist()) == {place}
        # nothing is predicted across a document's end
        assert packed.targets_T[place:end].tolist() == [*expected[1:], -100]
        place = end
    assert place > 480
    assert packed.tokens_T[place:].unique().tolist() == [2]
    assert packed.targets_T[place:].unique().tolist() == [-100]
    assert packed.starts_T[place:].tolist() == list(range(place, 600))


def test_packed_documents_do_not_see_each_other(tokenizer: Tokenizer) -> None:
    model = build_model(model_preset("nano"), kernels="reference")
    mixture = Mixture(FIRST_WEIGHTS, chat=False)
    batch = batch_at(mixture, tokenizer, 1, 1, 600, 288)
    tokens, starts = batch.tokens_T, batch.starts_T
    with torch.no_grad():
        together = model(tokens[None], starts)[0]
    for start in starts.unique().tolist():
        where = starts == start
        with torch.no_grad():
            alone = model(tokens[None, where])[0]
        assert torch.allclose(together[where], alone, atol=1e-4)


def test_no_test_problem_is_ever_drawn_for_training() -> None:
    rng = random.Random(9)
    mixture = Mixture(FIRST_WEIGHTS, chat=True)
    drawn = [mixture.problem(rng) for _ in range(500)]
    assert {split_of(p.key) for p in drawn} == {"train"}
