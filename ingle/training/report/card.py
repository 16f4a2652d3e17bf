"""The model card of a run, README.md in its folder: what it is, how it was made, how good it is.

Everything in it is read from the folder and its evaluation; `Words` adds what no file knows. The
shipped reasoner's card (runs/ship.py) is this one, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingle.errors import IngleError
from ingle.models import read_config
from ingle.models.config import ModelConfig
from ingle.statistics import Estimate
from ingle.training.evaluation.comparison import Comparison, Row, compare, points
from ingle.training.report.charts import number
from ingle.training.report.history import WEIGHTS, Stage, digests_of_parent, lineage
from ingle.training.report.table import arrow, title_of

CARD = "README.md"
MARK = "<!-- written by ingle; the next evaluation writes it anew -->"
# Of a run's configuration: what the card says elsewhere, or what is a place on a disk.
_SAID = ("name", "model", "mixture", "parent", "teacher", "save_every", "samples_every")


@dataclass(frozen=True)
class Words:
    """What a person says about a model. front: the YAML ahead of a card. lead: what it is, behind
    the sentence on its architecture. asked: typical questions. made: how, ahead of the table of
    stages. limits: instead of the ones that hold for any model of ours. more: a section behind the
    results, with its heading."""

    title: str
    front: str = ""
    lead: str = ""
    asked: Sequence[str] = ()
    made: str = ""
    limits: str = ""
    more: str = ""


def card(folder: Path, evaluation: Mapping[str, Any] | None, words: Words | None = None,
         stages: Sequence[Stage] | None = None) -> str:  # fmt: skip
    """The card as Markdown. stages: those that made the model (default: what its folder tells)."""
    stages = lineage(folder) if stages is None else stages
    words = words or Words(stages[-1].name if stages else folder.name)
    front = f"---\n{words.front.strip()}\n---\n" if words.front else f"{MARK}\n"
    parts = [f"# {words.title}", _what(folder, stages, words)]
    if words.asked:
        parts += ["## What it was trained for", "\n".join(f"- {text}" for text in words.asked)]
    if evaluation is not None:
        parts += ["## How often it is right", *results(folder, evaluation)]
    parts.append(words.more)
    parts += ["## How it was made", *_made(folder, stages, words)]
    parts += ["## Limits", words.limits.strip() or _limits(evaluation, stages)]
    return front + "\n\n".join(part for part in parts if part) + "\n"


def _what(folder: Path, stages: Sequence[Stage], words: Words) -> str:
    try:
        said = _architecture(read_config(folder))
    except IngleError:  # an adapter's folder has no model of its own
        said = "An adapter: weights that are added to those of the model it was trained on."
    if words.lead:
        return f"{said} {words.lead}"
    if not stages:
        return said
    last = stages[-1]
    steps = f"{last.steps:,} step{'s' * (last.steps != 1)}"
    return f"{said} This is the run `{last.name}`: {last.kind}, {steps}."


def _architecture(config: ModelConfig) -> str:
    """One sentence."""
    organs = []
    if getattr(config, "kv_lora_rank", None):
        organs.append("multi-head latent attention")
    if getattr(config, "n_routed_experts", None):
        experts, chosen = config.n_routed_experts, config.num_experts_per_tok  # type: ignore[attr-defined]
        shared = getattr(config, "n_shared_experts", 0)
        organs.append(f"{experts} experts with {chosen} chosen and {shared} shared")
    if modules := getattr(config, "num_nextn_predict_layers", 0):
        organs.append(f"{modules} multi-token-prediction module{'s' * (modules > 1)}")
    with_organs = f" ({', '.join(organs)})" if organs else ""
    return (
        f"A model of the architecture `{config.model_type}`{with_organs} with "
        f"{config.count_parameters():,} parameters, {config.count_parameters(active=True):,} of "
        "them active for each token."
    )


def results(folder: Path, evaluation: Mapping[str, Any]) -> list[str]:
    """Paragraphs and tables of an evaluation, as `ingle eval --json` tells it; of both models where
    it was made against another."""
    before, after = evaluation["before"], evaluation["after"]
    measures = compare(evaluation)
    asked = after["asked"]
    answers = "One greedy answer" if asked["samples"] == 1 else f"{asked['samples']} answers"
    off = "" if asked.get("thinking", True) else ", thinking off"
    told = [
        f"{answers} to each problem (temperature {asked['temperature']:g}, seed "
        f"{after['seed']}, at most {asked['max_tokens']} tokens{off}), judged by verifiers. "
        "Problems of ingle's tasks come from the tenth of all that training never draws. In "
        "brackets: 95 % intervals, counted over problems."
    ]
    if before:
        same = "the same problems" if before["seed"] == after["seed"] else "other problems"
        digest = before.get("sha256")
        own = digest is not None and digest == digests_of_parent(folder).get(WEIGHTS)
        told.append(
            f"Before is `{before['model']}`, {'' if own else 'not '}the model it started from, "
            f"asked {same}; the interval of a difference with an arrow leaves zero out."
        )
    found = [" ".join(told)]
    for measure in measures:
        found += [_table(measure, after), _mean_sentence(measure)]
    return [*found, " ".join(_notes(after))]


def _notes(after: Mapping[str, Any]) -> list[str]:
    notes = []
    if after.get("contamination") is not None:
        notes.append(
            f"Contamination, the share of these questions that occur word for word among fresh "
            f"training problems: {100 * after['contamination']:.2f} %."
        )
    if after.get("cut"):
        notes.append(f"{100 * after['cut']:.1f} % of the answers were cut off (wrong).")
    if after.get("acceptance"):
        shares = ", ".join(f"{100 * share:.0f} %" for share in after["acceptance"])
        notes.append(f"Accepted drafts of the MTP module meanwhile, by position: {shares}.")
    return [*notes, f"Mean length of an answer: {after['mean_tokens']:.0f} tokens."]


def _table(measure: Comparison, after: Mapping[str, Any]) -> str:
    """One measure, a row a task; levels as bare numbers in the last column."""
    paired = any(row.gain is not None for row in measure.rows)
    rates = ["before", "after", "difference (points)"] if paired else ["right"]
    by_level = "after, by level" if paired else "by level"
    heads = [f"task ({measure.name})", "problems (distinct)", *rates, by_level]
    lines = [heads, ["---", *["---:"] * (len(heads) - 2), "---"]]
    for row in measure.rows:
        distinct = after["tasks"][row.task].get("distinct", row.n)
        levels = measure.levels.get(row.task, ())
        lines.append(
            [
                title_of(row),
                f"{row.n:,} ({distinct:,})",
                *_cells(row),
                ", ".join(map(_level, levels)),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Row) -> list[str]:
    if row.before is None or row.gain is None:
        return [_rate(row.after)]
    return [_rate(row.before), _rate(row.after), _gain(row.gain)]


def _level(row: Row) -> str:
    return f"{row.level}: {points(row.after.value):.1f}"


def _mean_sentence(measure: Comparison) -> str:
    row = measure.mean
    if row is None:
        return ""
    mean = f"**{points(row.after.value):.1f} %**"
    said = f"Mean {measure.name} over the tasks, small talk left out: {mean}"
    if row.before is not None and row.gain is not None:
        said += f", before {points(row.before.value):.1f} %: {_gain(row.gain)} points"
    return said + "."


def _rate(estimate: Estimate) -> str:
    low, high = points(estimate.low), points(estimate.high)
    return f"{points(estimate.value):.1f} % ({low:.1f} to {high:.1f})"


def _gain(gain: Estimate) -> str:
    low, high = points(gain.low), points(gain.high)
    return f"{arrow(gain)}{points(gain.value):+.1f} ({low:+.1f} to {high:+.1f})"


def _made(folder: Path, stages: Sequence[Stage], words: Words) -> list[str]:
    parts = [words.made]
    if stages:
        lines = [
            ["stage", "steps", "tokens", "minutes", "data"],
            ["---", *["---:"] * 3, "---"],
        ]
        for stage in stages:
            tokens = (
                f"{stage.tokens / 1e6:.1f}M" if stage.tokens >= 100_000 else f"{stage.tokens:,}"
            )
            lines.append([
                f"{stage.kind} (`{stage.name}`)", f"{stage.steps:,}", tokens,
                f"{stage.minutes:,.0f}", _data(stage.config.get("mixture") or {}),
            ])  # fmt: skip
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        parts.append(_balance(stages[-1]))
        parts.append(_settings(stages[-1]))
    return [*parts, _parent(folder)]


def _data(mixture: Mapping[str, Any]) -> str:
    """What a stage learned from, in one sentence."""
    if "rows" in mixture:
        left = f", {mixture['left_out']:,} left out" if mixture.get("left_out") else ""
        return f"{mixture['rows']:,} conversations{left}; SHA-256 `{mixture['sha256']}`"
    if "weights" not in mixture:
        return "not recorded"
    weights = ", ".join(f"{name} {weight:g}" for name, weight in mixture["weights"].items())
    levels = mixture.get("levels")
    said = [f"problems generated by ingle, by weight: {weights}"]
    said += [f"levels {', '.join(map(str, levels))}"] if levels else []
    for key, meaning in (
        ("harder", "from harder levels"), ("history", "with earlier turns"),
        ("no_think", "of the short answers without a thought"),
    ):  # fmt: skip
        said += [f"{100 * mixture[key]:g} % {meaning}"] if mixture.get(key) else []
    said += ["some traces with checks and mended slips"] if mixture.get("varied") else []
    return "; ".join(said)


def _balance(stage: Stage) -> str:
    if stage.balance is None:
        return ""
    dead = (
        ""
        if stage.dead is None
        else f" Experts that received no token in its last step: {stage.dead}."
    )
    return (
        "Routing balance at the end of the last stage: MaxVio (the busiest expert over the mean, "
        f"minus 1) {stage.balance:.2f}.{dead}"
    )


def _settings(stage: Stage) -> str:
    """Every choice of the last stage, folded away."""
    lines = [["setting", "value"], ["---", "---"]]
    for key, value in stage.config.items():
        if key in _SAID or value is None:
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
        lines.append([f"`{key}`", _plain(value)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"<details><summary>Settings of the last stage</summary>\n\n{table}\n\n</details>"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(map(_plain, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return {True: "yes", False: "no", None: "none"}.get(value, str(value))
    return number(value)


def _parent(folder: Path) -> str:
    """Which weights it started from: a name can be anything, a digest cannot."""
    digests = digests_of_parent(folder)
    if not digests:
        return ""
    name, digest = next(
        ((name, digest) for name, digest in digests.items() if name == WEIGHTS),
        next(iter(digests.items())),
    )
    return (
        f"It started from the model whose `{name}` has the SHA-256 `{digest}`; `provenance.json` "
        "has the digests of its other files, of the code and of the data."
    )


def _read_only_problems(stages: Sequence[Stage]) -> bool:
    """Whether all stages are known, from random weights on, and none had text but generated."""
    return (
        bool(stages)
        and not stages[0].config.get("parent")
        and all("weights" in (stage.config.get("mixture") or {}) for stage in stages)
    )


def _limits(evaluation: Mapping[str, Any] | None, stages: Sequence[Stage]) -> str:
    said = []
    if evaluation is None:
        said.append("It has not been evaluated.")
    else:
        said.append(
            "The figures hold for problems of these generators at these levels; what it does with "
            "anything else was not measured."
        )
        worse = [
            title_of(row)
            for measure in compare(evaluation)[:1]
            for row in measure.rows
            if row.gain is not None and row.gain.high < 0
        ]
        if worse:
            said.append(f"It is worse than before at: {', '.join(worse)}.")
    if _read_only_problems(stages):
        said.append("It knows nothing about the world: it has read nothing but such problems.")
    said.append("Every answer can be wrong, and it does not notice.")
    return " ".join(said)
