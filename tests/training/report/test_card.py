"""The card of a run: everything in it stands in the run's folder; and how parents are found."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ingle.errors import ConfigError
from ingle.models import build_model, save_model
from ingle.models.deepseek_v3 import DeepseekV3Config
from ingle.privacy.digests import file_digest
from ingle.privacy.statement import PROVENANCE
from ingle.training.data import Mixture
from ingle.training.loop import Run
from ingle.training.metrics import MetricsLog
from ingle.training.origin import origin_of
from ingle.training.presets import model_preset
from ingle.training.report.card import MARK, Words, card, results
from ingle.training.report.history import (
    digests_of_parent,
    is_parent,
    lineage,
    parent_of,
    read_stage,
)
from ingle.training.report.record import folded, record
from ingle.weights.header import INDEX
from tests.weights.parts import PARTS, split_weights

PRE = Run("p", model_preset("nano"), Mixture({"sums": 1.0}, chat=False), steps=2)
STEP = {"loss": 1.0, "max_violation": 0.5, "dead_experts": 1, "trained_tokens": 90_000,
        "seconds": 60.0}  # fmt: skip


def leave(run: Run, folder: Path, seed: int) -> Path:
    """What a run leaves, as far as a card reads it."""
    folder.mkdir()
    log = MetricsLog(folder, run, 0)
    for step in range(run.steps):
        log.write({"step": step} | STEP)
    save_model(build_model(run.model, seed), folder, torch.float32)
    origin_of(run, folder, 0).write(folder, run.steps)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pre-training run and one that goes on from it."""
    root = tmp_path_factory.mktemp("out")
    parent = leave(PRE, root / "first", 1)
    mixture = Mixture({"sums": 1.0, "gcd": 2.0}, chat=True, harder=0.01, no_think=0.15, varied=True)
    child = leave(replace(PRE, name="c", parent=parent, mixture=mixture), root / "second", 2)
    return parent, child


def test_a_parent_whose_weights_are_in_parts_is_known_by_all_of_them(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    parent = tmp_path / "base"
    shutil.copytree(runs[0], parent)
    split_weights(parent)
    child = leave(replace(PRE, name="c", parent=parent), tmp_path / "child", 2)
    assert {INDEX, *PARTS} < set(digests_of_parent(child)) and parent_of(child) == parent
    last = parent / PARTS[-1]
    save_file({name: tensor + 1 for name, tensor in load_file(last).items()}, last)
    assert not is_parent(child, parent)
    last.unlink()
    assert not is_parent(child, parent)


def test_a_statement_that_names_another_place_is_nobodys_child(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    parent, child = runs
    shutil.copytree(child, tmp_path / "child")
    text = (child / PROVENANCE).read_text("utf-8")
    outside = f"parent/../{parent.name}/model.safetensors"
    (tmp_path / "child" / PROVENANCE).write_text(
        text.replace("parent/model.safetensors", outside), "utf-8"
    )
    assert is_parent(child, parent) and not is_parent(tmp_path / "child", parent)


def told(model: str, right: list[int], **more: Any) -> dict[str, Any]:
    sums = {"n": len(right), "samples": 1, "distinct": 3, "right_of_each": right,
            "pass": {"1": {}}, "levels": {}}  # fmt: skip
    asked = {"samples": 1, "temperature": 0.0, "max_tokens": 400, "system": None, "thinking": True}
    return {
        "model": model, "seed": 0, "asked": asked, "skills": ["sums", "gcd"], "cut": 0.25,
        "contamination": 0.0123, "mean_tokens": 31.4, "acceptance": [0.914],
        "tasks": {"sums": sums, "gcd": sums}, **more,
    }  # fmt: skip


def test_a_stage_is_read_from_its_metrics(runs: tuple[Path, Path]) -> None:
    first, second = map(read_stage, runs)
    assert first is not None and second is not None
    assert (first.kind, second.kind) == ("pre-training on worked examples", "fine-tuning on chats")
    assert (first.steps, first.tokens, first.minutes) == (2, 180_000, 2.0)
    assert (first.balance, first.dead) == (0.5, 1)
    assert read_stage(runs[0].parent) is None


def test_the_parent_is_the_folder_whose_weights_it_started_from(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    parent, child = runs
    assert parent_of(child) == parent and [s.name for s in lineage(child)] == ["p", "c"]
    with pytest.raises(ConfigError, match="does not say"):
        parent_of(parent)
    moved = tmp_path / "second"
    shutil.copytree(child, moved)
    assert parent_of(moved) == parent  # still where the run had it
    text = (moved / "metrics.jsonl").read_text("utf-8")
    (moved / "metrics.jsonl").write_text(text.replace(str(parent), "/nowhere/first"), "utf-8")
    with pytest.raises(ConfigError, match="first, from which second started, is not here"):
        parent_of(moved)
    shutil.copytree(parent, tmp_path / "first")
    assert parent_of(moved) == tmp_path / "first"  # moved together
    save_model(build_model(PRE.model, 3), tmp_path / "first", torch.float32)
    assert not is_parent(moved, tmp_path / "first")  # trained on since


def test_the_card_tells_what_the_folder_holds(runs: tuple[Path, Path]) -> None:
    parent, child = runs
    digest = file_digest(parent / "model.safetensors")
    evaluation = {
        "before": told("first", [1] * 30, sha256=digest),
        "after": told("second", [1] * 12 + [0] * 18),
    }
    text = card(child, evaluation)
    for said in (
        "# c\n", f"{DeepseekV3Config.model_type}", "8 experts with 2 chosen and 1 shared",
        "Before is `first`, the model it started from, asked the same problems",
        "Addition and subtraction | 30 (3) | 100.0 % (88.6 to 100.0) | 40.0 % (24.6 to 57.7) | "
        "\u25bc -60.0", "**40.0 %**", "Contamination", "1.23 %", "25.0 % of the answers were cut",
        "by position: 91 %", "31 tokens", "pre-training on worked examples (`p`) | 2 | 0.2M | 2 |",
        "sums 1, gcd 2; 1 % from harder levels; 15 % of the short answers without a thought",
        "MaxVio (the busiest expert over the mean, minus 1) 0.50",
        f"`model.safetensors` has the SHA-256 `{digest}`",
        "worse than before at: Addition and subtraction", "| `optim` | muon yes,",
    ):  # fmt: skip
        assert said in text, said
    assert str(parent.parent) not in text  # names no place on a disk
    other = evaluation | {"before": told("x", [1] * 30, sha256="0" * 64)}
    assert "`x`, not the model it started from" in card(child, other)


def test_a_card_says_what_a_model_cannot_know_only_where_all_it_read_is_known(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    parent, child = runs
    alone, known = tmp_path / "alone", "It knows nothing about the world"
    assert known in card(parent, None) and known in card(child, None)
    shutil.copytree(child, alone)
    told_nothing = (alone / "metrics.jsonl").read_text("utf-8").replace(str(parent), "/nowhere/x")
    (alone / "metrics.jsonl").write_text(told_nothing, "utf-8")
    assert known not in card(alone, None)  # may be anyone's model
    read = {"rows": 2, "sha256": "0" * 64, "left_out": 0}
    chats = replace(lineage(child)[1], config={"epochs": 1, "mixture": read, "parent": str(parent)})
    assert known not in card(child, None, stages=[lineage(child)[0], chats])
    assert "Every answer can be wrong" in card(alone, None)


def test_a_card_without_a_parent_or_an_evaluation(runs: tuple[Path, Path]) -> None:
    parent, _ = runs
    text = card(parent, {"before": None, "after": told("first", [1, 0])})
    assert "before" not in text and "SHA-256" not in text
    assert "It has not been evaluated." in card(parent, None)
    words = Words("Title", front="license: mit", lead="It adds.", asked=("1+1",), limits="None.")
    own = card(parent, None, words)
    assert own.startswith("---\nlicense: mit\n---\n# Title\n") and "- 1+1" in own
    assert own.endswith("## Limits\n\nNone.\n")
    both = {"before": told("first", [1, 0]), "after": told("first", [1, 1])}
    section = "\n\n".join(["## More", *results(parent, both)])
    longer = card(
        parent, {"before": None, "after": told("first", [1, 0])}, Words("T", more=section)
    )
    found = [longer.index(f"## {head}") for head in ("How often", "More", "How it was made")]
    assert found == sorted(found) and "+50.0" in longer[found[1] : found[2]]


def test_recording_leaves_a_file_a_page_and_a_card(runs: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs[1], folder)
    evaluation = {"before": told("first", [1, 0]), "after": told("second", [1, 1])}
    names = [path.name for path in record(folder, evaluation)]
    assert names == ["evaluation.json", "README.md", "report.html"]
    assert json.loads((folder / "evaluation.json").read_text("utf-8")) == evaluation
    assert "Before: first. After: second." in (folder / "report.html").read_text("utf-8")
    assert (folder / "README.md").read_text("utf-8").startswith(MARK)
    (folder / "README.md").write_text("# Mine\n")
    assert "README.md" not in [path.name for path in record(folder, evaluation)]
    assert (folder / "README.md").read_text() == "# Mine\n"
    (folder / "metrics.jsonl").unlink()
    assert [path.name for path in record(folder, evaluation)] == ["evaluation.json"]


def test_lists_of_numbers_take_a_line() -> None:
    assert folded({"a": [1, 0], "b": ["x"]}).splitlines()[1] == '  "a": [ 1, 0 ],'
