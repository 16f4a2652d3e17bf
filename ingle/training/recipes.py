"""The stages of the shipped reasoner and those after them, as functions that return a full run.

Stage lengths are in steps of 8,192 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingle.errors import ConfigError
from ingle.models.read import read_config
from ingle.tasks import ALL_TASKS, TRAINED
from ingle.training.data import Mixture
from ingle.training.distill import DistillRun, Way
from ingle.training.loop import Run
from ingle.training.optim import OptimConfig
from ingle.training.presets import model_preset
from ingle.training.reinforcement.objectives import objective_preset
from ingle.training.reinforcement.run import GrpoRun

# Drawn more often where a small model errs more: long traces and searches.
FIRST_WEIGHTS = {
    "sums": 1.1,
    "products": 0.7,
    "gcd": 1.3,
    "base_conversion": 1.5,
    "sorting": 1.7,
    "spell_backward": 0.8,
    "letter_counting": 0.8,
    "countdown": 3.0,
    "chat": 0.3,
}

# All tasks from nothing: searches are the longest traces, small talk is one sentence.
TRAINED_WEIGHTS = {task: 1.0 for task in TRAINED} | {
    "countdown": 2.0, "countdown4": 3.0, "small_talk": 0.3,
}  # fmt: skip

# Where the shipped reasoner goes on to all of them: what it knows is kept up.
GROWING_WEIGHTS = {
    "sums": 0.7, "products": 0.5, "gcd": 0.6, "base_conversion": 1.0, "sorting": 0.8,
    "spell_backward": 0.5, "letter_counting": 0.4, "countdown": 2.0, "simple_equations": 1.0,
    "number_sequence": 3.0, "lcm": 0.6, "fraction_simplification": 1.1,
    "prime_factorization": 0.8, "count_bits": 0.4, "word_sorting": 2.2, "caesar_cipher": 2.0,
    "countdown4": 2.4, "mini_sudoku": 1.0, "maze": 1.4, "syllogism": 1.1, "knights_knaves": 1.2,
    "leg_counting": 0.5, "time_intervals": 1.0, "calendar_days": 0.8, "small_talk": 0.4,
}  # fmt: skip

# What reinforcement learning asks: the tasks with levels beyond the trained ones.
HARD_TASKS = ("sums", "products", "gcd", "base_conversion", "sorting", "countdown")
HARD_LEVELS = (4, 5)


@dataclass(frozen=True)
class Stage:
    """Steps of both stages and the peak rates of a preset."""

    pretrain_steps: int
    sft_steps: int
    optim: OptimConfig


_STAGES = {
    "nano": Stage(300, 600, OptimConfig(muon_lr=0.02, adam_lr=4e-3)),
    "mini": Stage(600, 5400, OptimConfig(muon_lr=0.02, adam_lr=3e-3)),
    "tiny": Stage(1250, 3000, OptimConfig(muon_lr=0.01, adam_lr=2e-3)),
}

_LONGEST = {"first": 512, "trained": 640}  # tokens of a document


def pretrain_run(preset: str, steps: int | None = None, seed: int = 0, tasks: str = "first") -> Run:
    """Worked examples as plain text, loss on every token, constant rate after the warm-up.

    tasks: "first" or "trained", see `mixture_of_stage`.
    """
    config = model_preset(preset)
    stage = _STAGES[preset]
    return Run(
        name=stage_name(preset, "pretrain", tasks), model=config,
        mixture=mixture_of_stage(tasks, chat=False), longest=_LONGEST[tasks],
        steps=steps or stage.pretrain_steps, optim=stage.optim, seed=seed,
        warmup=50, mtp_weight=0.3,
    )  # fmt: skip


def on_gpu(run: Run) -> Run:
    """The same stage on one GPU: in bf16, and with steps four times as large, which keep it busy.

    A larger step has a surer gradient, so rates grow too, by less than the square root of four.
    """
    optim = replace(run.optim, muon_lr=1.5 * run.optim.muon_lr, adam_lr=1.5 * run.optim.adam_lr)
    return replace(
        run, device="cuda", precision="bf16", batch_tokens=4 * run.batch_tokens, streams=1,
        optim=optim,
    )  # fmt: skip


def sft_run(
    preset: str, parent: Path, steps: int | None = None, seed: int = 1, tasks: str = "first"
) -> Run:
    """Chats in the serving format, loss on the last answer, rate decaying to zero throughout.

    The long decay is where accuracy comes from: see docs/log.md. tasks: as of `pretrain_run`.
    """
    config = model_preset(preset)
    stage = _STAGES[preset]
    return Run(
        name=stage_name(preset, "sft", tasks), model=config,
        mixture=mixture_of_stage(tasks, chat=True), longest=_LONGEST[tasks],
        steps=steps or stage.sft_steps, optim=stage.optim, seed=seed, parent=parent,
        warmup=20, decay=0.9, mtp_weight=0.2, bias_freeze=0.1,
    )  # fmt: skip


def stage_name(preset: str, stage: str, tasks: str = "first") -> str:
    """What a stage's run and, in out/, its folder are called."""
    return f"{preset}-{stage}" if tasks == "first" else f"{preset}-{tasks}-{stage}"


def mixture_of_stage(tasks: str, chat: bool) -> Mixture:
    """What a stage from nothing learns from; ConfigError for a name that is none.

    first: the tasks that are learned first, on trained levels only. trained: all tasks that
    are ever trained, with a hundredth from the levels beyond, so that reinforcement learning finds
    something to begin with there, some traces that check themselves or mend a slip, and, of short
    answers in chats, 15 % without a thought, so that thinking can be turned off.
    """
    history = 0.08 if chat else 0.0
    if tasks == "first":
        return Mixture(FIRST_WEIGHTS, chat, history)
    if tasks == "trained":
        no_think = 0.15 if chat else 0.0
        return Mixture(TRAINED_WEIGHTS, chat, history, harder=0.01, varied=True, no_think=no_think)
    raise ConfigError(f"No tasks {tasks!r}; choose from {', '.join(_LONGEST)}.")


def learn_run(parent: Path, steps: int, seed: int = 3) -> Run:
    """A fine-tuned model takes up the other trained tasks, at a constant rate."""
    mixture = Mixture(GROWING_WEIGHTS, chat=True, history=0.08, varied=True, no_think=0.05)
    return Run(
        name="learn", model=read_config(parent), mixture=mixture, longest=640, steps=steps,
        optim=OptimConfig(muon_lr=0.016, adam_lr=2.4e-3), seed=seed, parent=parent, warmup=20,
        mtp_weight=0.2,
    )  # fmt: skip


def settle_run(parent: Path, steps: int, seed: int = 4) -> Run:
    """What `learn_run` learns, more of it, with a rate that decays to zero."""
    return replace(
        learn_run(parent, steps, seed), name="settle", decay=1.0, bias_freeze=0.1,
    )  # fmt: skip


def edge_run(
    parent: Path, steps: int = 150, seed: int = 2, harder: float = 0.1, hasty: float = 0.0
) -> Run:
    """A cold start for reinforcement learning: fine-tuning goes on with some of the harder levels.

    Without any the model is never right there, and a group that is never right teaches nothing.
    hasty: share of answers without a thought, as a model that has read all kinds of text has them.
    """
    return Run(
        name="edge", model=read_config(parent), parent=parent,
        mixture=Mixture(FIRST_WEIGHTS, chat=True, history=0.08, harder=harder, hasty=hasty),
        steps=steps, optim=OptimConfig(muon_lr=0.004, adam_lr=6e-4), seed=seed, longest=640,
        warmup=10, decay=0.9, mtp_weight=0.2, bias_speed=0.0,
    )  # fmt: skip


def grpo_run(
    parent: Path, objective: str = "small", steps: int = 60, seed: int = 0,
    tasks: Sequence[str] = (), levels: Sequence[int] = HARD_LEVELS, rate: float = 3e-5,
) -> GrpoRun:  # fmt: skip
    """Reinforcement learning on levels beyond those that fine-tuning knew."""
    return GrpoRun(
        name=f"grpo-{objective}", model=read_config(parent), parent=parent,
        mixture=mixture_of(tasks or HARD_TASKS, levels),
        steps=steps, objective=objective_preset(objective), seed=seed, prompts=16, group=8,
        limit=640, longest=256, optim=OptimConfig(muon=False, adam_lr=rate), decay=0.5,
    )  # fmt: skip


# Chosen by what the fourth reasoner got wrong: searches, words in one token, rules to be found.
WEAK_TASKS = (
    "countdown", "countdown4", "knights_knaves", "maze", "word_sorting", "caesar_cipher",
    "number_sequence", "simple_equations",
)  # fmt: skip


def reinforce_run(parent: Path, steps: int, seed: int = 6) -> GrpoRun:
    """Reinforcement learning on the levels that a model was fine-tuned for, of WEAK_TASKS."""
    run = grpo_run(parent, "small", steps, seed, WEAK_TASKS, (1, 2, 3), rate=3e-5)
    return replace(run, name="reinforce")


def mixture_of(tasks: Sequence[str] = (), levels: Sequence[int] | None = None) -> Mixture:
    """Chats of some tasks in equal shares, or of all as the reasoner was trained on them."""
    weights = {name: 1.0 for name in tasks} or dict(TRAINED_WEIGHTS)
    for name in weights:
        if name not in ALL_TASKS:
            raise ConfigError(f"No task {name!r}; choose from {', '.join(ALL_TASKS)}.")
    return Mixture(weights, chat=True, levels=tuple(levels or ()))


def distill_run(
    way: Way, student: Path, teacher: Path, steps: int = 200, seed: int = 0,
    tasks: Sequence[str] = (), levels: Sequence[int] | None = None, top_k: int = 0,
) -> DistillRun:  # fmt: skip
    """A student learns from a teacher's probabilities, with the rates of fine-tuning; smaller ones
    where it reads its own text, whose gradient is noisier."""
    calm = OptimConfig(muon_lr=0.005, adam_lr=1e-3)
    return DistillRun(
        name=f"distill-{way}", way=way, model=read_config(student), parent=student,
        teacher=teacher, mixture=mixture_of(tasks, levels), steps=steps, seed=seed, top_k=top_k,
        optim=calm if way == "on-policy" else OptimConfig(muon_lr=0.01, adam_lr=2e-3),
    )  # fmt: skip
