"""`ingle grpo` and `ingle distill` as processes of their own, sealed."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ingle.cli import grpo
from ingle.models import build_model, save_model
from ingle.tasks import TRAINED
from ingle.training.data import Mixture
from ingle.training.loop import Run
from ingle.training.opening import write_tokenizer
from ingle.training.presets import model_preset
from ingle.training.recipes import HARD_TASKS

FILE = """
from pathlib import Path

from ingle.training.data import Mixture
from ingle.training.reinforcement.run import GrpoRun
from ingle.training.reinforcement.objectives import objective_preset
from ingle.training.presets import model_preset


def run():
    asked = Mixture({{"gcd": 1.0}}, chat=True, levels=(1,))
    objective = objective_preset("gspo")
    return GrpoRun(
        "mine", model_preset("nano"), Path({folder!r}), asked, 2, objective, prompts=2,
        group=2, limit=8,
    )
"""


def ingle(*words: str, code: int = 0) -> tuple[str, str]:
    made = subprocess.run(
        [sys.executable, "-m", "ingle", *words], capture_output=True, text=True, timeout=300
    )
    assert made.returncode == code, made.stderr
    return made.stdout, made.stderr


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nano")
    mixture = Mixture({"sums": 1.0}, chat=True)
    write_tokenizer(Run("p", model_preset("nano"), mixture, steps=1), folder)
    save_model(build_model(model_preset("nano"), seed=1), folder, torch.float32)
    return folder


@pytest.mark.parametrize(
    ("words", "tasks"),
    [
        ([], HARD_TASKS),
        (["--task", "maze", "--task", "gcd"], ("maze", "gcd")),
        (["--task", "all"], TRAINED),
    ],
)
def test_grpo_asks_the_tasks_it_is_told_to(
    nano: Path, words: list[str], tasks: tuple[str, ...]
) -> None:
    parser = argparse.ArgumentParser()
    grpo.add_arguments(parser)
    run = grpo._recipe(parser.parse_args(words), nano)
    assert tuple(run.mixture.weights) == tasks


@pytest.mark.slow
def test_grpo_by_options_and_by_a_file(nano: Path, tmp_path: Path) -> None:
    words = ["grpo", str(nano), "--steps", "1", "--task", "sums", "--levels", "1", "--no-compile"]
    out, _ = ingle(*words, "--out", str(tmp_path / "a"), "--json", "--objective", "dr_grpo",
                    "--quant", "int8")  # fmt: skip
    assert json.loads(out)["run"] == "grpo-dr_grpo"
    assert "routing_disagreement" in (tmp_path / "a" / "metrics.jsonl").read_text("utf-8")
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert {"model.safetensors", "metrics.jsonl", "samples.jsonl", "report.html"} <= names
    assert {"provenance.json", "bom.cdx.json", "tokenizer.json"} <= names
    statement = (tmp_path / "a" / "provenance.json").read_text("utf-8")
    assert str(nano) not in statement and "parent/model.safetensors" in statement

    script = tmp_path / "mine.py"
    script.write_text(FILE.format(folder=str(nano)), "utf-8")
    ingle("grpo", str(script), "--no-compile", "--out", str(tmp_path / "b"), "--stop-after", "1")
    out, _ = ingle("grpo", str(script), "--no-compile", "--out", str(tmp_path / "b"), "--json")
    assert json.loads(out) == {"run": "mine", "folder": str(tmp_path / "b"), "steps": 2}
    lines = (tmp_path / "b" / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line).get("step") for line in lines] == [None, 0, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["grpo", "--task", "chess"], "No task 'chess'"),
        (["grpo", "--levels", "6"], "numbers from 1 to 5"),
        (["grpo", "nothing.py"], "No file 'nothing.py'"),
        (["distill", "forward"], "--student"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    tmp_path: Path, words: list[str], said: str
) -> None:
    _, err = ingle(*words, "--out", str(tmp_path / "x"), code=1)
    assert said in err and "Traceback" not in err


@pytest.mark.slow
def test_distilling_by_traces_and_by_probabilities(nano: Path, tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    words = ["distill", "traces", "-n", "6", "--samples", "2", "--task", "letter_counting"]
    out, _ = ingle(*words, "--out", str(file), "--json")
    tally = json.loads(out)
    assert tally["asked"] == 6 and tally["solved"] >= 4  # the shipped reasoner knows its letters
    assert len(file.read_text("utf-8").splitlines()) == tally["rows"]

    words = ["distill", "on-policy", "--student", str(nano), "--teacher", str(nano), "--no-compile"]
    out, _ = ingle(*words, "--steps", "1", "--task", "sums", "--out", str(tmp_path / "d"), "--json")
    assert json.loads(out)["run"] == "distill-on-policy"
    _, line = (tmp_path / "d" / "metrics.jsonl").read_text("utf-8").splitlines()
    assert abs(json.loads(line)["divergence"]) < 1e-5  # it is its own teacher
    statement = (tmp_path / "d" / "provenance.json").read_text("utf-8")
    assert "teacher/model.safetensors" in statement


@pytest.mark.slow
def test_a_preset_learns_the_tasks_it_is_told_to(tmp_path: Path) -> None:
    words = ["train", "nano", "--tasks", "trained", "--steps", "1", "--no-compile", "--json"]
    out, err = ingle(*words, "--out", str(tmp_path / "p"))
    assert json.loads(out)["run"] == "nano-trained-pretrain"
    assert "Documents of more than 640 tokens are skipped: sorting level 5" in err
    words = ["sft", "nano", "--tasks", "trained", "--steps", "1", "--no-compile", "--json"]
    out, _ = ingle(*words, "--parent", str(tmp_path / "p"), "--out", str(tmp_path / "s"))
    assert json.loads(out)["run"] == "nano-trained-sft"
    head = json.loads((tmp_path / "s" / "metrics.jsonl").read_text("utf-8").splitlines()[0])
    mixture = head["config"]["mixture"]
    assert mixture["no_think"] == 0.15 and mixture["weights"]["countdown4"] == 3.0
    _, err = ingle("sft", str(tmp_path / "p"), "--data", "x.jsonl", "--tasks", "trained", code=2)
    assert "belong to a preset" in err
