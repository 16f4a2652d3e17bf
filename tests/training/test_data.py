"""Documents, packing and the determinism that resuming rests on."""

from __future__ import annotations

import random

import torch

from ingle.models import build_model
from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import TASKS, sample, split_of
from ingle.training.data import Mixture, batch_at, chat_document, pack, pretrain_document
from ingle.training.presets import model_preset
from ingle.training.recipes import TASK_WEIGHTS


def test_the_mixture_names_every_task() -> None:
    assert TASK_WEIGHTS.keys() == TASKS.keys()


def test_a_batch_depends_on_seed_and_step_only(tokenizer: Tokenizer) -> None:
    mixture = Mixture(TASK_WEIGHTS, chat=True, history=0.3)
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
    mixture = Mixture(TASK_WEIGHTS, chat=False)
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
    mixture = Mixture(TASK_WEIGHTS, chat=True)
    drawn = [mixture.problem(rng) for _ in range(500)]
    assert {split_of(p.key) for p in drawn} == {"train"}
