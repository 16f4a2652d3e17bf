"""Two processes fine-tune a folder on a file as one does; adapters are for one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from launch import command, environment, logged, strayed, torchrun

from ingle.cli.main import main
from ingle.models import build_model, save_model
from ingle.models.config import ModelConfig
from ingle.models.qwen2 import Qwen2Config
from ingle.prompt.select import encoder_of
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.finetuning.conversations import read_conversations
from ingle.training.finetuning.finetune import plan_batches
from ingle.training.presets import model_preset
from ingle.training.tokenizer import build_tokenizer

pytestmark = pytest.mark.slow
TIED = Qwen2Config(
    vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
    tie_word_embeddings=True,
)  # fmt: skip
CHOICES = ("--length", "64", "--streams", "4", "--epochs", "2", "--save-every", "2", "--lr", "1e-3")


def batches(start: Path, data: Path) -> int:
    tokenizer = Tokenizer.load(start)
    found = read_conversations(data, encoder_of(start, tokenizer), tokenizer, 64).documents
    return len(plan_batches([found.size(index) for index in range(len(found))], 64, 2, 0))


def folder_of(config: ModelConfig, folder: Path) -> Path:
    save_model(build_model(config, seed=2), folder, torch.float32)
    build_tokenizer(folder)
    return folder


def conversations(file: Path, count: int) -> Path:
    """Short ones, of several lengths."""
    rows = [
        {"messages": [{"role": "user", "content": f"{n} and {n + 1}?"},
                      {"role": "assistant", "content": " ".join(map(str, range(n % 7 + 1)))}]}
        for n in range(count)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


@pytest.mark.parametrize(
    ("config", "experts", "rows", "last"),
    [(model_preset("nano"), 2, 38, 1), (TIED, 1, 42, 3)],
    ids=["mixture", "tied"],
)
def test_two_processes_fine_tune_as_one(
    config: ModelConfig, experts: int, rows: int, last: int, tmp_path: Path
) -> None:
    """last: batches of the last step; one process has none of them, or one of three."""
    start = folder_of(config, tmp_path / "start")
    data = conversations(tmp_path / "data.jsonl", rows)
    asked = ["sft", str(start), "--data", str(data), *CHOICES]
    said = torchrun(
        2, "-m", "ingle", *asked, "--out", tmp_path / "two", "--expert-parallel", str(experts),
        INGLE_CACHE=str(tmp_path / "state"),
    )  # fmt: skip
    assert said.count("conversations as") == 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main([*asked, "--out", str(tmp_path / "one"), "--unsealed"]) == 0
    torch.set_num_threads(threads)
    assert batches(start, data) % 4 == last
    one, two = logged(tmp_path / "one"), logged(tmp_path / "two")
    assert len(one) == len(two) > 3
    for mine, theirs in zip(one, two, strict=True):
        assert mine["trained_tokens"] == theirs["trained_tokens"]
        assert theirs["loss"] == pytest.approx(mine["loss"], abs=2e-5)  # logged with five digits
    assert strayed(start, tmp_path / "one", tmp_path / "two") < 0.01


def test_adapters_refuse_torchrun(tmp_path: Path) -> None:
    start = folder_of(TIED, tmp_path / "start")
    data = conversations(tmp_path / "data.jsonl", 4)
    found = subprocess.run(
        command(2, "-m", "ingle", "sft", start, "--data", data, "--lora", "2"),
        env=environment(INGLE_CACHE=str(tmp_path / "state")), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert found.returncode != 0
    assert "sft --lora runs in one process: start it without torchrun." in found.stderr
