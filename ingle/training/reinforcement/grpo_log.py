"""What a step of reinforcement learning leaves in `metrics.jsonl` and `samples.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ingle.training.balance import Balance
from ingle.training.metrics import JsonLines, MetricsLog
from ingle.training.reinforcement.policy import PARTS
from ingle.training.reinforcement.run import Group, GrpoRun

SHOWN = 2  # sample rollouts each time


class GrpoLog:
    """Writes both files, shows progress, and knows which checkpoint was best.

    Best is the one with the highest moving average of accuracy over the last steps' rollouts, so
    that one lucky step makes none.
    """

    def __init__(self, folder: Path, run: GrpoRun, done: int) -> None:
        self.run = run
        self.metrics = MetricsLog(folder, run, done)
        self.samples = JsonLines(folder / "samples.jsonl", done)
        self.best = float("-inf")
        for entry in self.metrics.kept:
            if "step" in entry:
                self.metrics.average(entry["pass@1"])
                self.is_best(entry["step"] + 1)

    def is_best(self, step: int) -> bool:
        """Whether the checkpoint after so many steps is better than those before; asked in order
        for steps at which one is saved."""
        average = self.metrics.smooth
        if step % self.run.save_every or step < self.run.keep or average is None:
            return False
        better, self.best = average > self.best, max(self.best, average)
        return better

    def write(
        self, step: int, groups: Sequence[Group], losses: list[list[float]], norms: list[float],
        balance: Balance, seconds: dict[str, float], disagreement: float | None,
    ) -> None:  # fmt: skip
        """One line of numbers; every few steps two rollouts as they are. Where no group taught
        anything there is no loss, and no balance of experts to tell of. disagreement: of sampler
        and trainer on routing (routing.py), where it was measured."""
        run = self.run
        entry: dict[str, Any] = {"step": step} | numbers(groups)
        if losses:
            columns = zip(*losses, strict=True)
            entry |= {name: fmean(some) for name, some in zip(PARTS, columns, strict=True)}
            entry["grad_norm"] = fmean(norms)
            entry["max_violation"] = balance.max_violation
            entry["dead_experts"] = balance.dead_experts
        if disagreement is not None:
            entry["routing_disagreement"] = disagreement
        entry["lr"] = run.learning_rate(step)
        entry |= {f"seconds_{phase}": spent for phase, spent in seconds.items()}
        self.metrics.write(
            {k: round(v, 6) if isinstance(v, float) else v for k, v in entry.items()}
        )
        if step % run.samples_every == 0:
            for sample in samples(groups)[:SHOWN]:
                self.samples.write({"step": step} | sample)
        spent = sum(seconds.values())
        learned = f"entropy {entry['entropy']:.3f}" if losses else "nothing to learn from"
        self.metrics.show(
            step,
            f"{run.name} {step + 1}/{run.steps}  pass@1 {entry['pass@1']:.3f} "
            f"({self.metrics.average(entry['pass@1']):.3f})  "
            f"pass@{run.group} {entry[f'pass@{run.group}']:.3f}  "
            f"same {entry['zero_variance']:.2f}  {entry['length']:.0f} tokens  "
            f"{learned}  "
            f"{spent:.1f} s ({seconds['rollout']:.1f} rollout, {seconds['update']:.1f} update)  "
            f"{self.metrics.left(spent, run.steps - step - 1)}",
            every=5,
        )


def numbers(groups: Sequence[Group]) -> dict[str, float]:
    """Means over the rollouts of a step.

    pass@1: share that is right; pass@G: share of questions with a right one. zero_variance: share
    of groups that teach nothing; a loss of 0 or little means no error: with one update a batch the
    ratio is 1 and the advantages of a group sum to 0.
    """
    rewards = [reward for group in groups for reward in group.rewards]
    completions = [one for group in groups for one in group.completions]
    size = len(groups[0].rewards)
    right = [[r.accuracy > 0 for r in group.rewards] for group in groups]
    parts = [reward.parts() for reward in rewards]
    return {
        "reward": fmean(reward.total for reward in rewards),
        **{f"reward_{name}": fmean(part[name] for part in parts) for name in parts[0]},
        "pass@1": fmean(x for some in right for x in some),
        f"pass@{size}": fmean(any(some) for some in right),
        "zero_variance": fmean(not group.teaches for group in groups),
        "truncated": fmean(not one.whole for one in completions),
        "length": fmean(len(one.tokens) for one in completions),
        "rollouts": len(completions),
        "rollout_tokens": sum(len(one.tokens) for one in completions),
    }


def samples(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Rollouts to look at: the best and the worst of the first groups that teach."""
    found = []
    for group in sorted(groups, key=lambda one: not one.teaches):
        order = sorted(range(len(group.rewards)), key=lambda i: group.advantages[i])
        for index in (order[-1], order[0]):
            reply, reward = group.replies[index], group.rewards[index]
            answer = "(cut off)" if reply.answer is None else reply.answer.strip()
            found.append({
                "task": group.problem.task, "level": group.problem.level,
                "question": group.problem.question, "text": f"{reply.reasoning}\n-> {answer}",
                "reward": reward.parts(), "reason": reward.reason,
                "advantage": round(group.advantages[index], 4),
            })  # fmt: skip
    return found
