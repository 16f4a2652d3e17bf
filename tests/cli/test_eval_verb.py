"""ingle eval as a command, on a tiny random model; what it measures is tested in tests/training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ingle.cli.evaluate import _folded, _tasks
from ingle.cli.main import main
from ingle.tasks import TASKS, TRANSFER

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
        "samples": 5, "temperature": 1.0, "max_tokens": 4, "system": None
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
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
    assert _tasks(["shipped"]) == list(TASKS)
    assert _tasks(["sums", "transfer", "sums"]) == ["sums", *TRANSFER]


def test_only_lists_of_numbers_are_folded() -> None:
    value = {"a": [1, -2.5e-7], "b": ["[\n1\n]", "x, y"], "c": [], "d": [[1, 2], [3]], "e": [None]}
    assert json.loads(_folded(json.dumps(value, indent=2))) == value
    assert '"a": [ 1, -2.5e-07 ]' in _folded(json.dumps(value, indent=2))
