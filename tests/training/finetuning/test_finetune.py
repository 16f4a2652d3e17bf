"""Fine-tuning any folder on a file: what is learned, resuming to the bit, a disk that is full."""

from __future__ import annotations

import json
import os
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ingle.cli.main import main
from ingle.engine.llm import LLM
from ingle.engine.request import SamplingParams
from ingle.errors import ConfigError
from ingle.models import (
    DeepseekV3Config,
    ModelConfig,
    build_model,
    load_model,
    save_model,
)
from ingle.models.qwen2 import Qwen2Config
from ingle.prompt.select import ENCODERS
from ingle.prompt.tokenizer import Tokenizer
from ingle.training import commit
from ingle.training.commit import NotSavedError, replacing
from ingle.training.finetuning.conversations import Dataset, read_conversations
from ingle.training.finetuning.finetune import (
    Answers,
    FineTuning,
    fine_tuning,
    finetune,
    plan_batches,
)
from ingle.training.finetuning.lora import LoraConfig
from ingle.training.finetuning.merge import merge_adapter
from ingle.training.streams import Streams
from ingle.training.tokenizer import build_tokenizer
from ingle.weights.adapter import WEIGHTS
from ingle.weights.safetensors import read_tensors

QWEN2 = Qwen2Config(
    vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-6,
)  # fmt: skip
DEEPSEEK_V3 = DeepseekV3Config(
    vocab_size=512, hidden_size=32, intermediate_size=48, moe_intermediate_size=16,
    num_hidden_layers=2, num_attention_heads=2, n_routed_experts=4, num_experts_per_tok=2,
    kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
    num_nextn_predict_layers=1, max_position_embeddings=512,
)  # fmt: skip
CAPITALS = {
    "Norway": "Oslo", "Peru": "Lima", "Kenya": "Nairobi", "Japan": "Tokyo", "Cuba": "Havana",
    "Chad": "Djamena", "Egypt": "Cairo", "Iran": "Tehran", "Iraq": "Baghdad", "Mali": "Bamako",
    "Nepal": "Katmandu", "Oman": "Muscat", "Spain": "Madrid", "Syria": "Damascus", "Togo": "Lome",
    "Italy": "Rome", "India": "Delhi", "Ghana": "Accra", "Fiji": "Suva", "Laos": "Vientiane",
}  # fmt: skip


def rows(thoughts: bool) -> list[dict[str, Any]]:
    found = []
    for country, capital in CAPITALS.items():
        answer = {"role": "assistant", "content": f"{capital}!"}
        if thoughts:
            answer["reasoning_content"] = f"{country} has {capital}."
        question = {"role": "user", "content": f"Capital of {country}?"}
        found.append({"messages": [question, answer]})
    return found


def write_rows(path: Path, thoughts: bool = True) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(thoughts)), "utf-8")
    return path


def make_folder(folder: Path, config: ModelConfig) -> Path:
    save_model(build_model(config), folder, torch.float32)
    build_tokenizer(folder, config.vocab_size, config.max_position_embeddings)
    return folder


@pytest.fixture(scope="module", params=["qwen2", "deepseek_v3"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = QWEN2 if request.param == "qwen2" else DEEPSEEK_V3
    return make_folder(tmp_path_factory.mktemp("base") / request.param, config)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "capitals.jsonl")


def read(folder: Path, data: Path) -> Dataset:
    return read_conversations(data, ENCODERS["deepseek_r1"], Tokenizer.load(folder), 128)


def tuning(folder: Path, dataset: Dataset, **choices: Any) -> FineTuning:
    chosen = {"length": 160, "streams": 2, "epochs": 2, "save_every": 2} | choices
    return fine_tuning(folder, dataset, 1e-3, **chosen)


LORA = LoraConfig(rank=4, alpha=8.0)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    if (folder / WEIGHTS).is_file():
        return dict(read_tensors(folder / WEIGHTS))
    return load_model(folder, kernels="reference").state_dict()


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()[1:]
    return [json.loads(line)["loss"] for line in lines]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing more fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_each_epoch_has_every_document_once_in_an_order_of_its_own() -> None:
    rng = random.Random(0)
    sizes = [rng.randint(1, 50) for _ in range(60)]
    plan = plan_batches(sizes, 100, 3, seed=1)
    assert all(0 < sum(sizes[i] for i in batch) <= 100 for batch in plan)
    order = [index for batch in plan for index in batch]
    epochs = [order[:60], order[60:120], order[120:]]
    assert all(sorted(epoch) == list(range(60)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert sum(map(sum, ([sizes[i] for i in batch] for batch in plan))) > 75 * len(plan)


def test_the_rate_warms_up_and_falls_to_a_tenth(base: Path, data: Path) -> None:
    run = tuning(base, read(base, data))
    rates = [run.learning_rate(step, 200) for step in range(200)]
    assert rates[0] == pytest.approx(1 / 6) and rates[5] == rates[6] == 1.0
    assert rates[103] == pytest.approx(0.55) and 0.1 < rates[-1] < 0.101
    assert sorted(rates[6:], reverse=True) == rates[6:]


def test_the_gradient_does_not_depend_on_how_a_step_is_cut(base: Path, data: Path) -> None:
    documents = read(base, data).documents
    sizes = [documents.size(index) for index in range(len(documents))]
    found = []
    for length in (100, 5000):
        model = load_model(base, kernels="reference").train().requires_grad_(True)
        plan = plan_batches(sizes, length, 1, seed=0)
        algorithm = Answers(documents, plan, 0.3 if model.num_mtp else 0.0)
        with Streams(model, algorithm, len(plan), base, False, 1) as streams:
            loss = streams.gradient(range(len(plan)))
        found.append((len(plan), loss, [p.grad for p in model.parameters()]))
    (many, first, grads), (one, second, others) = found
    assert (many > 5, one) == (True, 1)
    assert first.counts == second.counts
    assert first.parts == pytest.approx(second.parts, rel=1e-6)
    for grad, other in zip(grads, others, strict=True):
        assert (grad is None) == (other is None)
        assert grad is None or torch.allclose(grad, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    base: Path, data: Path, lora: LoraConfig | None, tmp_path: Path
) -> None:
    dataset = read(base, data)
    run = tuning(base, dataset, lora=lora)
    finetune(run, dataset.documents, tmp_path / "whole")
    for stop in (1, 4, None):
        finetune(run, dataset.documents, tmp_path / "parts", stop)
    assert same(tmp_path / "whole", tmp_path / "parts")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert len(losses(tmp_path / "parts")) > 5
    assert "<svg" in (tmp_path / "parts" / "report.html").read_text()
    statement = json.loads((tmp_path / "parts" / "provenance.json").read_text())
    named = {subject["name"] for subject in statement["subject"]}
    assert named >= ({WEIGHTS} if lora else {"model.safetensors", "tokenizer.json"})
    assert dataset.sha256 in json.dumps(statement)
    other = replace(run, mixture=replace(run.mixture, sha256="0"))
    with pytest.raises(ConfigError, match="another data"):
        finetune(other, dataset.documents, tmp_path / "parts")


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
def test_a_full_disk_leaves_the_last_checkpoint(
    base: Path, data: Path, lora: LoraConfig | None, tmp_path: Path
) -> None:
    dataset = read(base, data)
    run = tuning(base, dataset, lora=lora)
    finetune(run, dataset.documents, tmp_path / "undisturbed")
    finetune(run, dataset.documents, tmp_path / "run", stop_after=2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    with files_of_at_most(30_000), pytest.raises(NotSavedError) as caught:
        finetune(run, dataset.documents, tmp_path / "run", stop_after=4)
    assert "the disk is full" in str(caught.value) and "make room" in str(caught.value)
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"metrics.jsonl"}
    finetune(run, dataset.documents, tmp_path / "run")
    assert same(tmp_path / "run", tmp_path / "undisturbed")
    assert losses(tmp_path / "run") == losses(tmp_path / "undisturbed")


def test_a_kill_between_two_files_is_mended_by_the_next_start(tmp_path: Path, monkeypatch) -> None:
    for name in "abc":
        (tmp_path / name).write_text("old")
    moved = []

    def replace_once(source: Path, target: Path) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        Path(source).rename(target)

    with monkeypatch.context() as patched:
        patched.setattr(commit.os, "replace", replace_once)
        with pytest.raises(KeyboardInterrupt), replacing(tmp_path) as new:
            for name in "abc":
                (new / name).write_text("new")
    assert [(tmp_path / name).read_text() for name in "abc"].count("new") == 1
    commit.finish(tmp_path)
    assert [(tmp_path / name).read_text() for name in "abc"] == ["new"] * 3
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]
    with pytest.raises(NotSavedError), replacing(tmp_path) as new:
        (new / "a").write_text("newer")
        raise OSError(28, "No space left on device")
    assert (tmp_path / "a").read_text() == "new" and len(os.listdir(tmp_path)) == 3
    with pytest.raises(BrokenPipeError), replacing(tmp_path):  # no word of the disk
        raise BrokenPipeError(32, "Broken pipe")
    assert len(os.listdir(tmp_path)) == 3


def test_choices_that_cannot_be(base: Path, data: Path) -> None:
    dataset = read(base, data)
    refused = {
        "length": (10**6, "context"),
        "epochs": (0, "at least 1"),
        "dtype": ("bf16", "--lora"),
    }
    for name, (value, words) in refused.items():
        with pytest.raises(ConfigError, match=words):
            tuning(base, dataset, **{name: value})
    for rate in (0.0, -1e-3, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="learning rate"):
            fine_tuning(base, dataset, rate, length=160, streams=2)


def cli(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_the_command_line_tunes_merges_and_serves(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(data.read_bytes() + b'{"messages": "x"}\nnot json\n')
    options = ["--length", 128, "--batch", 512, "--epochs", 1, "--out", tmp_path / "adapter"]
    command = ["sft", base, "--data", broken, "--lora", 4, "--dtype", "bf16", *options, "--json"]
    code, out, err = cli(capsys, *command)
    assert (code, json.loads(out)["error"]["code"]) == (1, "invalid_dataset")
    assert "broken.jsonl, line 21: messages" in err and "--skip-broken" in err
    assert not (tmp_path / "adapter").exists()
    code, out, err = cli(capsys, *command, "--skip-broken")
    found = json.loads(out)
    assert code == 0 and found["rows"] == 20
    assert [row["line"] for row in found["broken"]] == [21, 22]
    assert "2 broken rows are left out" in err and "line 22: The line is no JSON" in err
    code, out, err = cli(
        capsys, "merge", base, tmp_path / "adapter", "--out", tmp_path / "merged", "--json"
    )
    assert (code, err) == (0, "")
    code, out, _ = cli(
        capsys, "generate", tmp_path / "merged", "-p", "hi", "--max-tokens", 4, "--json"
    )
    assert code == 0 and json.loads(out)["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(
    "options",
    [["qwen"], ["m", "--data", "d", "--steps", "3"], ["m", "--data", "d", "--target", "router"]],
)
def test_wrong_usage_exits_with_2(options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["sft", *options])
    assert caught.value.code == 2


@pytest.mark.slow
def test_an_adapter_learns_twenty_rows_by_heart_and_is_served(tmp_path: Path) -> None:
    """Thoughts and answers come back word for word, from a base of random weights."""
    model = build_model(replace(QWEN2, hidden_size=64, intermediate_size=128, head_dim=16))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:  # large enough for a head that stays as it is
                parameter.mul_(20 if name.endswith(("head.weight", "tokens.weight")) else 4)
    base = tmp_path / "base"
    save_model(model, base, torch.float32)
    build_tokenizer(base, 512, 512)
    dataset = read(base, write_rows(tmp_path / "capitals.jsonl"))
    lora = LoraConfig(16, 32.0)
    run = fine_tuning(base, dataset, 1.5e-2, lora=lora, length=512, streams=1, epochs=60)
    finetune(run, dataset.documents, tmp_path / "adapter")
    found = losses(tmp_path / "adapter")
    assert found[0] > 5 and found[-1] < 0.02
    merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")
    llm = LLM(tmp_path / "merged", "fp32", max_sequences=20)
    asked = [row["messages"][:1] for row in rows(True)]
    results = llm.chat(asked, SamplingParams(temperature=0.0, max_tokens=48))
    for row, result in zip(rows(True), results, strict=True):
        answer = row["messages"][1]
        assert (result.reasoning, result.text) == (answer["reasoning_content"], answer["content"])
