"""ingle eval as a command, on a tiny random model; what it measures is tested in tests/training."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ingle.cli.evaluate import _tasks
from ingle.cli.evaluation import render_mistakes
from ingle.cli.main import main
from ingle.models import build_model, read_config, save_model
from ingle.tasks import TASKS, TRANSFER, Problem
from ingle.training.data import Mixture
from ingle.training.loop import Run
from ingle.training.metrics import MetricsLog
from ingle.training.origin import origin_of
from ingle.training.report.record import folded
from ingle.training.tokenizer import build_tokenizer

QUICK = ["-n", "4", "--task", "sums", "--max-tokens", "4"]


@pytest.fixture
def beans(tmp_path: Path) -> Path:
    path = tmp_path / "beans.jsonl"
    rows = [{"question": f"Ann has {i} beans. How many?", "answer": f"#### {i}"} for i in range(9)]
    rows.append({"question": "How many beans are in " + "x" * 900, "answer": "#### 1"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["eval", *arguments])
    return code, *capsys.readouterr()


def test_json_holds_every_measure_and_is_repeatable(model_folder, capsys) -> None:
    options = [str(model_folder), *QUICK, "--samples", "5", "--json", "--mistakes", "2"]
    code, out, _ = run(capsys, *options)
    assert code == 0
    found, again = json.loads(out), json.loads(run(capsys, *options)[1])
    assert found["asked"] == {
        "samples": 5, "temperature": 1.0, "max_tokens": 4, "system": None, "thinking": True
    }  # fmt: skip
    sums = found["tasks"]["sums"]
    assert (sums["n"], sums["samples"]) == (4, 5)
    assert list(sums["pass"]) == list(sums["majority"]) == ["1", "2", "4"]
    assert list(sums["levels"]) == ["1", "2", "3"]
    assert len(sums["right_of_each"]) == 4
    assert len(found["mistakes"]) == 2
    assert found["cut"] == 1.0  # a random model never ends
    assert '"right_of_each": [ ' in out  # a list of numbers takes one line
    del found["seconds"], again["seconds"]
    assert found == again


def test_the_table_has_a_row_a_level(model_folder, capsys) -> None:
    code, out, _ = run(capsys, str(model_folder), *QUICK, "--samples", "4")
    assert code == 0
    head, *rows = out.splitlines()
    assert head.split()[:2] == ["task", "pass@1"]
    assert "pass@4" in head and "maj@4" in head
    assert [row.split("  ")[0] or row.split()[1] for row in rows[:4]] == ["sums", "1", "2", "3"]
    assert "100.0 % of the answers were cut" in out


def test_open_sets_are_asked_alone_unless_tasks_are_named(model_folder, beans, capsys) -> None:
    arguments = [str(model_folder), "--set", f"beans={beans}", "--max-tokens", "4", "--json"]
    found = json.loads(run(capsys, *arguments)[1])
    assert list(found["tasks"]) == ["beans"]
    assert found["tasks"]["beans"]["n"] == 10  # all there are
    assert found["too_long"] == 0.1  # the context holds 256 tokens
    assert (found["mean"], found["contamination"]) == (None, None)
    found = json.loads(run(capsys, *arguments, "-n", "3", "--task", "gcd")[1])
    assert {name: task["n"] for name, task in found["tasks"].items()} == {"gcd": 3, "beans": 3}


@pytest.mark.slow
def test_the_verb_runs_sealed(model_folder, beans) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ingle", "eval", str(model_folder), "--set", f"beans={beans}",
         "--max-tokens", "4"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "by chance" in done.stdout
    assert "Not sealed" not in done.stderr


@pytest.fixture
def run_folder(model_folder, tmp_path) -> Path:
    """A copy of the model that a run of one step has left, with another model as its parent."""
    parent, config = tmp_path / "parent", read_config(model_folder)
    save_model(build_model(config, seed=5), parent, torch.float32)
    build_tokenizer(parent)
    folder = tmp_path / "child"
    shutil.copytree(model_folder, folder)
    mixture = Mixture({"sums": 1.0}, chat=True)
    stage = Run("child", config, mixture, steps=1, parent=parent)
    MetricsLog(folder, stage, 0).write({"step": 0, "loss": 1.0, "seconds": 1.0})
    origin_of(stage, folder, 0).write(folder, 1)
    return folder


def test_against_the_parent_both_are_asked_the_same(run_folder, capsys) -> None:
    code, out, _ = run(capsys, str(run_folder), *QUICK, "--against", "parent", "--json")
    found = json.loads(out)
    assert code == 0 and set(found) == {"before", "after", "change"}
    before, after = found["before"], found["after"]
    assert (before["model"], after["model"]) == ("parent", "child")
    assert before["sha256"] != after["sha256"] and before["asked"] == after["asked"]
    assert found["change"]["tasks"]["sums"]["pass@1"]["value"] == 0.0  # both know nothing
    assert not (run_folder / "evaluation.json").exists()
    twice = json.loads(run(capsys, str(run_folder), *QUICK, "--json")[1])
    assert twice["tasks"] == after["tasks"]  # alone it is asked the same, too
    code, out, _ = run(capsys, str(run_folder), *QUICK, "--against", str(run_folder / "../parent"))
    head, row, *_ = out.splitlines()
    assert head.split()[:2] == ["pass@1", "before"] and row.split()[0] == "sums"
    assert "before: parent" in out and "every problem was put to both" in out


def test_what_is_recorded_lies_in_the_folder(run_folder, capsys) -> None:
    options = [str(run_folder), *QUICK, "--against", "parent", "--record"]
    code, out, _ = run(capsys, *options)
    assert code == 0 and "evaluation.json, README.md, report.html" in out
    kept = json.loads((run_folder / "evaluation.json").read_text("utf-8"))
    assert kept["before"]["model"] == "parent" and kept["after"]["asked"]["thinking"]
    assert "Before and after" in (run_folder / "report.html").read_text("utf-8")
    assert "the model it started from" in (run_folder / "README.md").read_text("utf-8")
    assert str(run_folder.parent) not in json.dumps(kept)


def test_thinking_can_be_off(model_folder, capsys) -> None:
    found = json.loads(run(capsys, str(model_folder), *QUICK, "--no-think", "--json")[1])
    assert found["asked"]["thinking"] is False
    thought = json.loads(run(capsys, str(model_folder), *QUICK, "--json", "--mistakes", "1")[1])
    alone = run(capsys, str(model_folder), *QUICK, "--no-think", "--json", "--mistakes", "1")[1]
    assert thought["mistakes"] != json.loads(alone)["mistakes"]


def test_a_model_cannot_write_on_the_terminal() -> None:
    problem = Problem("set", 1, "say \x1b]0;q\x07", "", "1", "set:1", {"number": 1})
    shown = render_mistakes([(problem, "a\x1b[2J\r\nb\u202e", "No.\x9b")])
    assert not any(not char.isprintable() and char != "\n" for char in shown)
    assert "a\\u{1b}[2J\\u{d}\nb\\u{202e}" in shown and "Gold: 1" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--record"], "name that folder as MODEL"),
        (["/nowhere", "--record"], "name that folder as MODEL"),
        (["--endpoint", "http://h/v1", "--endpoint-model", "x", "--record"], "name that folder"),
        (["--endpoint", "http://h/v1", "--endpoint-model", "x", "--against", "y"], "--endpoint is"),
        (["--against", "parent"], "does not say which model it started from"),
        (["--against", "/nowhere"], "/nowhere"),
        (["--task", "alchemy"], "No task 'alchemy'"),
        (["-n", "0"], "n must be at least 1"),
        (["--levels", "1,9"], "--levels takes"),
        (["--samples", "0"], "samples must be"),
        (["--samples", "2", "--temperature", "0"], "Greedy samples are all alike"),
        (["--set", "gsm8k"], "NAME=FILE"),
        (["--set", "sums=x"], "NAME=FILE"),
        (["--set", "a=x", "--set", "a=y"], "NAME=FILE"),
        (["--set", "a=/nowhere/x"], "cannot be read"),
        (["--endpoint-model", "x"], "belong to --endpoint"),
        (["--endpoint", "http://127.0.0.1:1/v1"], "--endpoint-model"),
        (["somewhere", "--endpoint", "http://h/v1", "--endpoint-model", "x"], "no MODEL beside"),
        (["--endpoint", "http://127.0.0.1:1/v1", "--endpoint-model", "x"], "add --unsealed"),
        (["--unsealed", "--endpoint", "nowhere", "--endpoint-model", "x"], "must look like"),
    ],
)
def test_what_cannot_be_done_is_refused_before_a_model_is_loaded(arguments, said, capsys) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 1
    assert said in err
    assert not out


def test_groups_of_tasks_are_names_too() -> None:
    assert _tasks(["trained"]) == list(TASKS)
    assert _tasks(["sums", "transfer", "sums"]) == ["sums", *TRANSFER]


def test_only_lists_of_numbers_are_folded() -> None:
    value = {"a": [1, -2.5e-7], "b": ["[\n1\n]", "x, y"], "c": [], "d": [[1, 2], [3]], "e": [None]}
    assert json.loads(folded(value)) == value
    assert '"a": [ 1, -2.5e-07 ]' in folded(value)
