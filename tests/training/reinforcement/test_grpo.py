"""The loop of reinforcement learning: it learns, resumes to the last bit and survives a kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from ingle.errors import ConfigError, IngleError
from ingle.models import build_model, load_model, save_model
from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import sums
from ingle.tasks.base import Verdict
from ingle.training.data import Mixture
from ingle.training.loop import Run
from ingle.training.opening import write_tokenizer
from ingle.training.optim import OptimConfig
from ingle.training.presets import model_preset
from ingle.training.reinforcement import grpo
from ingle.training.reinforcement.grpo import train_grpo
from ingle.training.reinforcement.objectives import objective_preset
from ingle.training.reinforcement.rollout import Completion, Reply
from ingle.training.reinforcement.run import GrpoRun

ASKED = Mixture({"sums": 1.0}, chat=True, levels=(1,))


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh nano model with a tokenizer."""
    folder = tmp_path_factory.mktemp("parent")
    write_tokenizer(Run("p", model_preset("nano"), ASKED, steps=1), folder)
    save_model(build_model(model_preset("nano"), seed=5), folder, torch.float32)
    return folder


def short(parent: Path, name: str = "small", **changes: object) -> GrpoRun:
    run = GrpoRun(
        "test", model_preset("nano"), parent, ASKED, steps=4, objective=objective_preset(name),
        prompts=3, group=4, limit=12, micro_tokens=256, save_every=2, keep=2, samples_every=1,
        optim=OptimConfig(muon=False, adam_lr=1e-3),
    )  # fmt: skip
    return replace(run, **changes)  # type: ignore[arg-type]


def pretend(setattr: Callable[..., None]) -> None:
    """A world that a model of noise can live in: its replies count as ended, and every verdict is
    a fixed coin for the text."""
    setattr(Completion, "whole", property(lambda _: True, lambda *_: None))
    setattr(grpo, "read_reply", lambda tokens, _: Reply("", " ".join(map(str, tokens))))
    setattr(sums, "verify", lambda _, text: Verdict(float(random.Random(text).random() < 0.5), ""))


@pytest.fixture
def any_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(partial(monkeypatch.setattr, raising=False))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder, kernels="reference").state_dict()


def logged(folder: Path) -> list[dict]:
    entries = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines()[1:])
    return [{k: v for k, v in e.items() if not k.startswith("seconds")} for e in entries]


def same(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert logged(one) == logged(other)
    assert (one / "samples.jsonl").read_text("utf-8") == (other / "samples.jsonl").read_text(
        "utf-8"
    )


@pytest.mark.parametrize("name", ["small", "grpo", "dapo", "gspo", "v32"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    parent: Path, tmp_path: Path, any_ending: None, name: str
) -> None:
    run = short(parent, name, reset=2 if name == "grpo" else 0, updates=2 if name == "gspo" else 1)
    train_grpo(run, tmp_path / "whole", compiled=False, processes=1)
    train_grpo(run, tmp_path / "parts", compiled=False, processes=1, stop_after=3)
    assert [entry["step"] for entry in logged(tmp_path / "parts")] == [0, 1, 2]
    train_grpo(run, tmp_path / "parts", compiled=False, processes=1)
    same(tmp_path / "whole", tmp_path / "parts")
    start = weights(parent)
    assert any(not torch.equal(start[k], v) for k, v in weights(tmp_path / "whole").items())
    entries = logged(tmp_path / "whole")
    assert {"pass@1", "pass@4", "entropy", "kl", "clipped", "zero_variance"} <= entries[0].keys()
    assert all(
        abs(entry["drift"]) < 1e-5 for entry in entries if name != "gspo" and "drift" in entry
    )
    if name in ("grpo", "v32"):
        assert entries[0]["kl"] == pytest.approx(0, abs=1e-6) and entries[-1]["kl"] > 0


def test_it_learns_what_is_rewarded(
    parent: Path, tmp_path: Path, any_ending: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rewarded: even token ids, of which a model of noise writes about half."""

    def verify(_: object, text: str) -> Verdict:
        ids = list(map(int, text.split()))
        return Verdict(sum(i % 2 == 0 for i in ids) / len(ids), "")

    monkeypatch.setattr(sums, "verify", verify)
    optim = OptimConfig(muon=False, adam_lr=6e-3)
    run = short(parent, steps=40, save_every=40, prompts=4, group=8, optim=optim)
    train_grpo(run, tmp_path, compiled=False, processes=1)
    accuracy = [entry["reward_accuracy"] for entry in logged(tmp_path)]
    assert sum(accuracy[:3]) / 3 < 0.6
    assert sum(accuracy[-20:]) / 20 > 0.7  # it swings at so high a rate; unlearned it stays at 0.5


def test_groups_that_teach_nothing_and_replies_cut_off_change_nothing(
    parent: Path, tmp_path: Path
) -> None:
    """A model of noise never ends its thought: all rewards of a group are equal."""
    train_grpo(short(parent, steps=2), tmp_path, compiled=False, processes=1)
    entries = logged(tmp_path)
    assert all(entry["zero_variance"] == 1.0 and entry["truncated"] > 0.5 for entry in entries)
    assert not any({"max_violation", "entropy"} & entry.keys() for entry in entries)
    assert "policy" not in entries[0]
    start = weights(parent)
    assert all(torch.equal(start[name], value) for name, value in weights(tmp_path).items())


def test_a_raw_base_is_asked_in_plain_text(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1-Zero: no token of the chat's format, the thought opened as in the base's text."""
    asked: list[list[int]] = []
    sample = grpo.Sampler.sample

    def spy(self: grpo.Sampler, prompts: list[list[int]], *rest: object) -> object:
        asked.extend(prompts)
        return sample(self, prompts, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(grpo.Sampler, "sample", spy)
    run = short(parent, steps=1, raw=True)
    train_grpo(run, tmp_path, compiled=False, processes=1)
    tokenizer, rng = Tokenizer.load(parent), random.Random("0:0:0")
    questions = [ASKED.problem(rng).question for _ in range(run.prompts)]
    assert [tokenizer.decode(prompt) for prompt in asked] == [f"{q}\n\n" for q in questions]
    assert all(prompt[-2] == tokenizer.special("<think>") for prompt in asked)


def test_dapo_draws_anew_for_groups_that_teach_nothing(
    parent: Path, tmp_path: Path, any_ending: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    coin = random.Random(4)
    verdicts = iter(float(coin.random() < 0.5) if i >= 12 else 0.0 for i in range(10_000))
    monkeypatch.setattr(sums, "verify", lambda *_: asked.append(1) or Verdict(next(verdicts), ""))
    train_grpo(short(parent, "dapo", steps=1), tmp_path, compiled=False, processes=1)
    (entry,) = logged(tmp_path)
    assert entry["rollouts"] > 12  # the first three groups were all wrong
    assert entry["zero_variance"] < 1.0 and "policy" in entry


def test_a_failing_verifier_leaves_the_last_checkpoint_whole(
    parent: Path, tmp_path: Path, any_ending: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = short(parent)
    train_grpo(run, tmp_path / "good", compiled=False, processes=1)
    train_grpo(run, tmp_path / "bad", compiled=False, processes=1, stop_after=2)
    with monkeypatch.context() as broken:
        broken.setattr(sums, "verify", lambda *_: Verdict(float("nan"), ""))
        with pytest.raises(IngleError, match="returned nan"):
            train_grpo(run, tmp_path / "bad", compiled=False, processes=1)
    train_grpo(run, tmp_path / "bad", compiled=False, processes=1)
    same(tmp_path / "good", tmp_path / "bad")


def test_impossible_runs_are_refused(parent: Path) -> None:
    with pytest.raises(ConfigError, match="group must be at least 2"):
        short(parent, group=1)
    with pytest.raises(ConfigError, match="multiple of save_every"):
        short(parent, reset=3)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_grpo import pretend, short
from ingle.training.reinforcement.grpo import train_grpo

if __name__ == "__main__":
    pretend(setattr)
    run = short(Path(sys.argv[1]), "grpo", steps=6, reset=2)
    train_grpo(run, Path(sys.argv[2]), compiled=False, processes=1)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same(parent: Path, tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED, "utf-8")

    def start(folder: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(script), str(parent), str(tmp_path / folder)]
        return subprocess.Popen([*command, str(Path(__file__).parent)], stderr=subprocess.DEVNULL)

    assert start("whole").wait(300) == 0
    rng = random.Random(3)
    for _ in range(3):
        process = start("killed")
        before = _steps(tmp_path / "killed")
        deadline = time.monotonic() + 60
        while _steps(tmp_path / "killed") <= before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(rng.random() * 0.3)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert start("killed").wait(300) == 0
    same(tmp_path / "whole", tmp_path / "killed")
    start_weights = weights(parent)
    ended = weights(tmp_path / "killed")
    assert any(not torch.equal(start_weights[name], ended[name]) for name in ended)


def _steps(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return len(path.read_text("utf-8").splitlines()) if path.exists() else 0
