"""The MTP module against a plain implementation written from the paper's formulas."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ingle.models import build_model, load_model, save_model
from ingle.models.batch import StepBatch
from ingle.models.deepseek_v3 import DeepseekV3Config

CONFIG = DeepseekV3Config(
    vocab_size=61, hidden_size=32, intermediate_size=48, moe_intermediate_size=16,
    num_hidden_layers=2, num_attention_heads=2, n_routed_experts=4, num_experts_per_tok=2,
    kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8, q_lora_rank=12,
    num_nextn_predict_layers=1, max_position_embeddings=128, initializer_range=0.3,
    routed_scaling_factor=2.5,
)  # fmt: skip


def norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def turn(x: Tensor, position: int) -> Tensor:
    """Rotate interleaved pairs as complex numbers."""
    half = x.shape[-1] // 2
    angle = position / 10000 ** (torch.arange(half, dtype=torch.float64) / half)
    pairs = torch.view_as_complex(x.double().unflatten(-1, (half, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)


def plain_mtp(w: dict[str, Tensor], hidden_TD: Tensor, next_T: Tensor) -> Tensor:
    """Logits [T, V] of the module, token by token and head by head, in fp64."""
    w = {k.removeprefix("model.layers.2."): v.double() for k, v in w.items()}
    hidden_TD = hidden_TD.double()
    embedded = norm(w["embed_tokens.weight"][next_T], w["enorm.weight"])
    merged = torch.cat([embedded, norm(hidden_TD, w["hnorm.weight"])], -1) @ w["eh_proj.weight"].T
    x = norm(merged, w["input_layernorm.weight"])
    q = norm(x @ w["self_attn.q_a_proj.weight"].T, w["self_attn.q_a_layernorm.weight"])
    q = (q @ w["self_attn.q_b_proj.weight"].T).unflatten(-1, (2, 12))
    kv = x @ w["self_attn.kv_a_proj_with_mqa.weight"].T
    latent = norm(kv[:, :16], w["self_attn.kv_a_layernorm.weight"])
    expanded = (latent @ w["self_attn.kv_b_proj.weight"].T).unflatten(-1, (2, 16))
    out = []
    for t in range(len(x)):
        heads = []
        for h in range(2):
            query = torch.cat([q[t, h, :8], turn(q[t, h, 8:], t)])
            keys = [torch.cat([expanded[s, h, :8], turn(kv[s, 16:], s)]) for s in range(t + 1)]
            p = torch.softmax(torch.stack(keys) @ query / 12**0.5, -1)
            heads.append(p @ expanded[: t + 1, h, 8:])
        out.append(torch.cat(heads))
    y = merged + torch.stack(out) @ w["self_attn.o_proj.weight"].T
    z = norm(y, w["post_attention_layernorm.weight"])

    def ffn(v: Tensor, p: str) -> Tensor:
        gate, up = v @ w[f"{p}.gate_proj.weight"].T, v @ w[f"{p}.up_proj.weight"].T
        return (F.silu(gate) * up) @ w[f"{p}.down_proj.weight"].T

    rows = []
    for v in z:
        scores = torch.sigmoid(v @ w["mlp.gate.weight"].T)
        chosen = (scores + w["mlp.gate.e_score_correction_bias"]).topk(2).indices.tolist()
        total = sum(scores[e] for e in chosen)
        routed = sum(2.5 * scores[e] / total * ffn(v, f"mlp.experts.{e}") for e in chosen)
        rows.append(routed + ffn(v, "mlp.shared_experts"))
    y = y + torch.stack(rows)
    return norm(y, w["shared_head.norm.weight"]) @ w["shared_head.head.weight"].T


@pytest.mark.parametrize("tier", ["reference", "auto"])
def test_mtp_equals_a_plain_implementation(tier: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    source = build_model(CONFIG, seed=4, kernels="reference")
    with torch.no_grad():
        source.model.layers[2].mlp.gate.e_score_correction_bias.uniform_(-0.3, 0.3)
    save_model(source, tmp_path, torch.float32)
    model = load_model(tmp_path, kernels=tier)
    tokens = torch.randint(0, 61, (1, 40), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        hidden = model.hidden(tokens)[:, :-1]
        naive = model.mtp_logits(model.mtp_hidden(hidden, tokens[:, 1:]))[0]
    expected = plain_mtp(load_file(tmp_path / "model.safetensors"), hidden[0], tokens[0, 1:])
    assert (naive - expected).abs().max() < 1e-4 * expected.abs().max()

    cache = torch.zeros(model.cache_shape(1)[1:])
    rows = StepBatch.build([(tokens[0, 1:].tolist(), 0, [0])])
    absorbed = model.mtp_logits(model.mtp_step(hidden[0].contiguous(), rows, cache))
    assert (absorbed - expected).abs().max() < 1e-4 * expected.abs().max()


def test_an_mtp_module_with_its_own_embedding_keeps_it(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_model(build_model(CONFIG, kernels="reference"), tmp_path, torch.float32)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    own = torch.randn_like(tensors["model.layers.2.embed_tokens.weight"])
    tensors["model.layers.2.embed_tokens.weight"] = own
    save_file(tensors, file)
    model = load_model(tmp_path)
    assert torch.equal(model.model.layers[2].embed_tokens.weight, own)
    assert not torch.equal(model.model.embed_tokens.weight, own)
    assert model.model.layers[2].shared_head.head is model.lm_head


def test_a_checkpoint_without_its_mtp_tensors_loads_without_mtp(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_model(build_model(CONFIG, kernels="reference"), tmp_path, torch.float32)
    file = tmp_path / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if ".layers.2." not in k}, file)
    assert load_model(tmp_path).num_mtp == 0
