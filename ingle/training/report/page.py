"""One self-contained HTML page per run: no script, no external file, the same files the same bytes.

Read from the run's folder: `metrics.jsonl` (a head, then a line a step, whatever it holds),
`samples.jsonl` (rollouts, if it is there) and `evaluation.json` (before and after, if it is there).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ingle.training.evaluation.comparison import FILE
from ingle.training.report.charts import Series, area_chart, line_chart, number
from ingle.training.report.history import (
    METRICS,
    is_of_these_weights,
    numbers,
    read_lines,
    read_stage,
    seconds_of,
    tail_mean,
)
from ingle.training.report.style import STYLE
from ingle.training.report.table import before_and_after

MOST_SAMPLES = 16
# lines that are the run's size or its amounts, which the summary has
_AMOUNTS = ("step", "trained_tokens", "rollouts", "rollout_tokens")
_BESIDE = {
    "README.md": "model card", "provenance.json": "provenance statement",
    "bom.cdx.json": "bill of materials", "metrics.jsonl": "metrics", "samples.jsonl": "rollouts",
    "evaluation.json": "evaluation",
}  # fmt: skip


@dataclass(frozen=True)
class Chart:
    """One picture: keys of `metrics.jsonl` and what to call them. A key that ends in * stands for
    all keys that begin so, each called by its rest."""

    title: str
    keys: Mapping[str, str]
    from_zero: bool = False
    stacked: bool = False


SECTIONS: dict[str, tuple[Chart, ...]] = {
    "Answers": (
        Chart("Right: share of the rollouts, share of questions with a right one",
              {"pass@*": "pass@"}, True),
        Chart("Reward and its parts", {"reward": "total", "reward_*": ""}),
        Chart("Tokens of a rollout", {"length": "mean"}, True),
        Chart("Groups that teach nothing, rollouts cut off",
              {"zero_variance": "groups all alike", "truncated": "cut off"}, True),
    ),
    "Policy": (
        Chart("Entropy of the next token (nats)", {"entropy": "entropy"}),
        Chart("KL divergence from the reference (nats)", {"kl": "KL"}),
        Chart("Share of clipped tokens", {"clipped": "clipped"}, True),
        Chart("Mean |log-probability, trainer less sampler| (nats)", {"drift": "drift"}, True),
        Chart("Policy term of the loss", {"policy": "policy term"}),
    ),
    "Loss": (
        Chart("Loss of the next token (nats)", {"loss": "loss"}),
        Chart("Loss of the MTP module (nats)", {"mtp_loss": "MTP loss"}),
    ),
    "Routing balance": (
        Chart("MaxVio: busiest expert over the mean, minus 1", {"max_violation": "MaxVio"}, True),
        Chart("Experts that received no token", {"dead_experts": "dead experts"}, True),
    ),
    "Optimisation and time": (
        Chart("Gradient norm before clipping", {"grad_norm": "norm"}),
        Chart("Learning-rate factor", {"lr": "factor"}, True),
        Chart("Seconds of a step by phase", {"seconds_*": ""}, stacked=True),
        Chart("Seconds of a step", {"seconds": "seconds"}, True),
    ),
}  # fmt: skip


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` and return its path; needs `metrics.jsonl`."""
    lines = read_lines(folder / METRICS)
    head = next((x for x in lines if "config" in x), {"run": folder.name, "config": {}})
    steps = [x for x in lines if "step" in x]
    name = escape(str(head["run"]))
    config = escape(json.dumps(head["config"], indent=2))
    stage = read_stage(folder)
    kind = f'<p class="soft">{escape(stage.kind.capitalize())}.</p>' if stage else ""
    body = (
        f"<h1>{name}</h1>{kind}{_summary(steps)}{_evaluation(folder)}{_charts(steps)}"
        f"{_samples(read_lines(folder / 'samples.jsonl'))}"
        f"<h2>Configuration</h2><details><summary>Every field</summary><pre>{config}</pre>"
        f"</details>{_beside(folder)}"
    )
    out = folder / "report.html"
    out.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{name}</title><style>{STYLE}</style><body><main>{body}</main></body></html>\n",
        "utf-8",
        errors="replace",  # half a surrogate pair, which JSON can hold
    )
    return out


def _summary(steps: Sequence[Mapping[str, Any]]) -> str:
    if not steps:
        return "<p>No step yet.</p>"
    seconds = sum(map(seconds_of, map(numbers, steps)))
    tiles = {"steps": f"{steps[-1]['step'] + 1:,}", "minutes of steps": f"{seconds / 60:,.1f}"}
    for key, label in (("trained_tokens", "trained tokens"), ("rollouts", "rollouts")):
        if total := sum(numbers(x).get(key, 0) for x in steps):
            tiles[label] = f"{total:,.0f}"
    for key in ("loss", "pass@1", "reward", "max_violation"):
        if found := tail_mean(steps, key):
            label = "MaxVio" if key == "max_violation" else key
            tiles[f"{label}, last {found[1]} steps"] = number(found[0])
    return "<dl>" + "".join(f"<div><dt>{k}<dd>{v}</div>" for k, v in tiles.items()) + "</dl>"


def _charts(steps: Sequence[Mapping[str, Any]]) -> str:
    """Every section that has something to show; keys that none knows come last."""
    columns = _columns(steps)
    parts, seen = [], set(_AMOUNTS)
    for heading, charts in SECTIONS.items():
        drawn = []
        for chart in charts:
            named = _named(chart, columns)
            seen.update(named)
            drawn.append(_chart(chart, named, columns))
        parts.append(_section(heading, drawn))
    other = [_chart(Chart(k, {k: k}), {k: k}, columns) for k in columns if k not in seen]
    return "".join([*parts, _section("Other", other)])


def _columns(steps: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """(step, value) pairs of every number, by key in the order of their first appearance."""
    columns: dict[str, list[tuple[int, float]]] = {}
    for entry in steps:
        for key, value in numbers(entry).items():
            columns.setdefault(key, []).append((entry["step"], value))
    return columns


def _named(chart: Chart, columns: Mapping[str, Any]) -> dict[str, str]:
    """The chart's keys that the run has, with their labels."""
    found: dict[str, str] = {}
    for key, label in chart.keys.items():
        start = key.removesuffix("*")
        if start == key:
            found |= {key: label} if key in columns else {}
        else:
            found |= {k: label + k.removeprefix(start) for k in columns if k.startswith(start)}
    return found


def _chart(
    chart: Chart, named: Mapping[str, str], columns: Mapping[str, list[tuple[int, float]]]
) -> str:
    series = [Series(label, columns[key]) for key, label in named.items()]
    name = "chart-" + re.sub(r"[^a-zA-Z0-9]", lambda x: f"-{ord(x[0]):x}-", ",".join(named))
    if chart.stacked:
        return area_chart(name, chart.title, series)
    return line_chart(name, chart.title, series, chart.from_zero)


def _section(heading: str, charts: Sequence[str]) -> str:
    drawn = "".join(charts)
    return f'<h2>{escape(heading)}</h2><div class="charts">{drawn}</div>' if drawn else ""


def _evaluation(folder: Path) -> str:
    path = folder / FILE
    if not path.exists():
        return ""
    try:
        evaluation = json.loads(path.read_text("utf-8"))
        heading = "Before and after" if evaluation["before"] else "Accuracy"
        found = before_and_after(evaluation)
    except (LookupError, TypeError, ValueError, AttributeError):
        heading = "Before and after"
        found = (
            "<p>evaluation.json is not {before, after} as ingle eval --record writes them; the "
            "table is left out.</p>"
        )
        evaluation = None
    old = ""
    if evaluation and not is_of_these_weights(folder, evaluation):
        old = '<p class="worse">These figures are of an earlier checkpoint of this run.</p>'
    return f"<h2>{heading}</h2>{old}{found}"


def _samples(rollouts: Sequence[Mapping[str, Any]]) -> str:
    """At most MOST_SAMPLES, evenly from first to last."""
    shown = [row for row in rollouts if {"step", "question", "text"} <= row.keys()]
    if not shown:
        return ""
    most = min(len(shown), MOST_SAMPLES)
    places = [round(i * (len(shown) - 1) / max(1, most - 1)) for i in range(most)]
    note = f"<p>{len(shown):,} were kept; these lie evenly between the first and the last.</p>"
    return "<h2>Sample rollouts</h2>" + (note if most < len(shown) else "") + "".join(
        _sample(shown[place]) for place in places
    )  # fmt: skip


def _sample(row: Mapping[str, Any]) -> str:
    reward = row.get("reward")
    said = numbers(reward) if isinstance(reward, dict) else {}
    parts = [f"{name} {value:+.3g}" for name, value in said.items() if value]
    parts += [f"reward {sum(said.values()):.3g}"] if said else []
    parts += [f"advantage {row['advantage']:+.3g}"] if "advantage" in numbers(row) else []
    reason = f" {row['reason']}" if "reason" in row else ""
    task = f", {row['task']} level {row.get('level')}" if "task" in row else ""
    return (
        f"<article><h3>{escape(str(row['question']))}</h3>"
        f'<p class="parts soft">step {escape(str(row["step"]))}{escape(task)}: '
        f"{escape(', '.join(parts) + '.' + reason)}</p>"
        f"<pre>{escape(str(row['text']))}</pre></article>"
    )


def _beside(folder: Path) -> str:
    links = [
        f'<a href="{name}">{label}</a>' for name, label in _BESIDE.items()
        if (folder / name).exists()
    ]  # fmt: skip
    return f'<p class="soft">Beside this page: {", ".join(links)}.</p>' if links else ""
