"""Feed-forward of training: native against reference, and both against autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ingle.kernels import cpu, reference
from ingle.models import build_model
from ingle.models.layers.feedforward import feed_forward
from ingle.models.layers.moe import MoE
from ingle.training.presets import model_preset
from tests.kernels.cases import near

# tokens, width, inner, experts, chosen: none a multiple of a register block, an expert without
# rows, more tokens than a block holds, a depth beyond one pass
CASES = [
    (1, 8, 8, 1, 1),
    (7, 20, 12, 3, 2),
    (100, 33, 17, 5, 3),
    (5, 24, 40, 64, 2),
    (2500, 40, 21, 4, 4),
    (300, 530, 270, 2, 1),
]
cases = pytest.mark.parametrize("tokens,width,inner,experts,chosen", CASES)


Given = tuple[Tensor, list[Tensor], list[Tensor], Tensor, Tensor]


def inputs(
    tokens: int, width: int, inner: int, experts: int, chosen: int, first: int | None = None
) -> tuple[Given, Tensor]:
    """x, matrices, ids and weights, and the gradient of y. first: experts of the first stack,
    where there are two."""
    random = torch.Generator().manual_seed(tokens * width)
    x, grad = (torch.randn(tokens, width, generator=random) for _ in range(2))
    gate_up = torch.randn(experts, 2 * inner, width, generator=random) / width**0.5
    down = torch.randn(experts, width, inner, generator=random) / inner**0.5
    ids = torch.rand(tokens, experts, generator=random).argsort(-1)[:, :chosen].int()
    counts = [experts] if first is None else [first, experts - first]
    gate_ups, downs = ([t.clone() for t in m.split(counts)] for m in (gate_up, down))
    return (x, gate_ups, downs, ids, torch.rand(tokens, chosen, generator=random)), grad


def flat(found: Sequence[Tensor | list[Tensor]]) -> list[Tensor]:
    return [t for one in found for t in (one if isinstance(one, list) else [one])]


@cases
def test_native_equals_reference(
    tokens: int, width: int, inner: int, experts: int, chosen: int
) -> None:
    given, grad = inputs(tokens, width, inner, experts, chosen)
    expected, actual = reference.feed_forward(*given), cpu.feed_forward(*given)
    for mine, theirs in zip(actual, expected, strict=True):
        near(mine, theirs)
    wanted = reference.feed_forward_grad(*given, expected[1], grad)
    found = cpu.feed_forward_grad(*given, actual[1], grad)
    for mine, theirs in zip(flat(found), flat(wanted), strict=True):
        near(mine, theirs)
    frozen = cpu.feed_forward_grad(*given, actual[1], grad, learns=False)
    assert torch.equal(frozen[0], found[0]) and torch.equal(frozen[1], found[1])
    assert [t.numel() for t in flat(frozen[2:])] == [0, 0]


@pytest.mark.parametrize("first", [1, 4, 5])
def test_two_stacks_are_one(first: int) -> None:
    whole, grad = inputs(700, 33, 17, 6, 3)
    split, _ = inputs(700, 33, 17, 6, 3, first)
    for tier in (reference, cpu):
        wanted, found = tier.feed_forward(*whole), tier.feed_forward(*split)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
        ones = tier.feed_forward_grad(*whole, wanted[1], grad)
        twos = tier.feed_forward_grad(*split, wanted[1], grad)
        for one, two in zip(ones, twos, strict=True):
            joined = torch.cat(two) if isinstance(two, list) else two
            assert torch.equal(joined, one[0] if isinstance(one, list) else one)


@cases
def test_the_operator_is_what_torch_computes_token_by_token(
    tokens: int, width: int, inner: int, experts: int, chosen: int
) -> None:
    (x, (gate_up,), (down,), ids, weights), grad = inputs(
        min(tokens, 60), width, inner, experts, chosen
    )
    leaves = [t.requires_grad_() for t in (x, gate_up, down, weights)]
    y = feed_forward(x, [gate_up], [down], ids, weights)
    rows = []
    for n in range(len(x)):
        parts = []
        for k in range(chosen):
            gate, up = (gate_up[ids[n, k]] @ x[n]).chunk(2)
            parts.append(weights[n, k] * (down[ids[n, k]] @ (F.silu(gate) * up)))
        rows.append(sum(parts))
    plain = torch.stack(rows)  # type: ignore[arg-type]
    near(y.detach(), plain.detach())
    found, wanted = (torch.autograd.grad(out, leaves, grad) for out in (y, plain))
    for mine, theirs in zip(found, wanted, strict=True):
        near(mine, theirs)


def test_the_threads_do_not_change_a_bit() -> None:
    given, grad = inputs(3000, 64, 32, 6, 2, 5)
    before = cpu.get_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            cpu.set_threads(threads)
            y, pre = cpu.feed_forward(*given)
            results.append([y, pre, *flat(cpu.feed_forward_grad(*given, pre, grad))])
    finally:
        cpu.set_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_token_alone_is_the_same_token_among_others() -> None:
    (x, gate_ups, downs, ids, weights), _ = inputs(3000, 64, 32, 6, 2)
    together = cpu.feed_forward(x, gate_ups, downs, ids, weights)[0]
    for n in (0, 17, 2999):
        some = slice(n, n + 1)
        alone = cpu.feed_forward(x[some], gate_ups, downs, ids[some].contiguous(), weights[some])[0]
        assert torch.equal(alone[0], together[n])


@pytest.mark.parametrize("shared", [1, 2])
def test_shared_experts_in_the_mixture_are_those_beside_it(shared: int) -> None:
    """In training they are its last experts, which every token chooses, otherwise an MLP."""
    config = replace(model_preset("nano"), n_shared_experts=shared)
    x = torch.randn(3, 70, config.hidden_size, generator=torch.Generator().manual_seed(0))
    results = []
    for training in (True, False):
        torch.manual_seed(1)
        moe = MoE(config).train(training)
        for parameter in moe.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        leaf = x.clone().requires_grad_()
        y = moe(leaf)
        y.square().sum().backward()
        results.append([y.detach(), leaf.grad, *(p.grad for p in moe.parameters())])
    for mine, theirs in zip(*results, strict=True):
        assert mine is not None and theirs is not None
        near(mine, theirs, 3e-5)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_an_id_that_names_no_expert_is_refused(wrong: int) -> None:
    given, grad = inputs(10, 8, 8, 3, 2, 2)
    pre = cpu.feed_forward(*given)[1]
    given[3][7, 1] = wrong
    with pytest.raises(IndexError):
        cpu.feed_forward(*given)
    with pytest.raises(IndexError):
        cpu.feed_forward_grad(*given, pre, grad)


@pytest.mark.parametrize("frozen", ["", "mlp"])
def test_a_model_in_training_computes_what_it_computes_otherwise(frozen: str) -> None:
    """The products one by one are what runs outside training, and what is tested from outside."""
    tokens = torch.randint(0, 512, (1, 200), generator=torch.Generator().manual_seed(0))
    results = []
    for training in (True, False):
        model = build_model(model_preset("tiny"), seed=3).train(training)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not frozen or f".{frozen}." not in name)
        logits = model.logits(model.hidden(tokens))
        logits.logsumexp(-1).sum().backward()
        results.append([logits.detach(), *(p.grad for p in model.parameters())])
    for mine, theirs in zip(*results, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            near(mine, theirs, 3e-5)
