"""The page of a run: whole, the same for the same files, readable by eye and by screen reader."""

from __future__ import annotations

import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ingle.privacy.statement import canonical, make_statement
from ingle.statistics import wilson
from ingle.training.evaluation import evaluate
from ingle.training.evaluation.asking import Answer, Asking
from ingle.training.evaluation.evaluate import examine, task_exam
from ingle.training.report.charts import Series, area_chart, line_chart, number
from ingle.training.report.page import write_report

VOID = {"meta", "path", "polyline", "polygon", "circle", "br"}
OPTIONAL_END = {"tr", "td", "th", "dt", "dd", "html", "body"}


class Page(HTMLParser):
    """Checks nesting; collects texts, ids and references."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.labels += (found.get("aria-labelledby") or "").split()
        self.links += [value for name in ("href", "src") if (value := found.get(name))]
        assert not any(name.startswith("on") for name in found)
        if tag not in VOID | OPTIONAL_END:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID | OPTIONAL_END:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID | OPTIONAL_END:
            assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def page(folder: Path) -> tuple[str, Page]:
    text = write_report(folder).read_text("utf-8")
    return text, Page(text)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "TRAINING_DRAWS", 5)  # contamination is no matter here


@pytest.fixture
def learning(tmp_path: Path) -> Path:
    """What a run of reinforcement learning leaves."""
    rng, rows = random.Random(0), []
    for step in range(300):
        right = 0.4 + 0.3 * step / 300 + rng.gauss(0, 0.02)
        rows.append({
            "step": step, "reward": right + 0.05, "reward_accuracy": right, "reward_form": 0.05,
            "reward_length": -0.02, "pass@1": right, "pass@8": min(1.0, right + 0.2),
            "zero_variance": 0.3, "truncated": 0.02, "length": 70 - step / 10, "rollouts": 128,
            "rollout_tokens": 9000, "policy": rng.gauss(0, 0.01), "kl": 0.001 * step,
            "entropy": 0.3 - step / 2000, "clipped": 0.01, "drift": 1e-7, "grad_norm": 0.3,
            "lr": 1.0, "max_violation": 0.6, "dead_experts": 0, "seconds_rollout": 2.0 + step / 300,
            "seconds_reward": 0.1, "seconds_update": 1.2, "surprise": step % 7,
        })  # fmt: skip
    jsonl(tmp_path / "metrics.jsonl", [{"run": "mini-grpo", "config": {"steps": 300}}, *rows])
    jsonl(tmp_path / "samples.jsonl", [
        {"step": 10 * i, "question": f"What is {i} + <b>?", "text": f"{i}&\n-> {i}", "task": "sums",
         "level": 2, "reward": {"accuracy": 1.0, "form": 0.05, "length": -0.01, "language": 0.0},
         "advantage": -0.7071, "reason": "The answer is right."}
        for i in range(30)
    ])  # fmt: skip
    return tmp_path


def told(shares: dict[str, float], samples: int, seed: int = 0) -> dict[str, Any]:
    """An evaluation in which so many samples are right, as the command writes it."""
    rng = random.Random(f"{seed}{shares}")
    gold = {}
    exams = [task_exam(task, 30, seed) for task in shares]
    for exam in exams:
        gold |= {p.question: p for p in exam.problems}

    def ask(questions, asking):
        chosen = [gold[q.text] for q in questions]
        return [
            Answer(p.answer if rng.random() < shares[p.task] else "?", "", 5, "done")
            for p in chosen
        ]

    asking = Asking(samples, 1.0, seed=seed)
    asked = {"samples": samples, "temperature": 1.0, "max_tokens": 400, "system": None}
    head = {"model": f"out/<{samples}>", "seed": seed, "asked": asked}
    return json.loads(json.dumps(head | examine(ask, exams, asking).as_json()))


def test_every_number_of_a_run_is_drawn(learning: Path) -> None:
    text, found = page(learning)
    for title in ("Reward and its parts", "Entropy", "KL divergence", "clipped", "Tokens of a",
                  "teach nothing", "MaxVio", "no token", "by phase", "Gradient norm"):  # fmt: skip
        assert title in text
    assert text.count("<figure>") == 15
    assert "<h2>Other</h2>" in text and "<figcaption>surprise" in text
    assert text.count('class="area') == 3
    for name in ("total", "accuracy", "form", "pass@1", "pass@8", "rollout", "update"):
        assert f"{name} <b>" in text
    assert "1,152,000" not in text and "38,400" in text  # rollouts, in the summary
    assert found.tags.count("article") == 16


def test_pre_training_has_its_own_pictures_and_no_empty_ones(tmp_path: Path) -> None:
    rows = [
        {"step": i, "loss": 3 / (i + 1), "mtp_loss": 4 / (i + 1), "grad_norm": 1.0, "lr": 0.5,
         "max_violation": 1.2, "dead_experts": 1, "trained_tokens": 8000, "seconds": 0.9}
        for i in range(30)
    ]  # fmt: skip
    jsonl(tmp_path / "metrics.jsonl", [{"run": "nano", "config": {}}, *rows])
    text, found = page(tmp_path)
    assert found.tags.count("figure") == 7
    assert "Answers" not in text and "Other" not in text and "Sample" not in text
    assert "240,000" in text and "trained tokens" in text


def test_a_page_needs_nothing_from_elsewhere(learning: Path) -> None:
    (learning / "README.md").write_text("# card\n")
    text, found = page(learning)
    assert "script" not in found.tags and "link" not in found.tags and "img" not in found.tags
    assert "url(" not in text and "@import" not in text and "http" not in text
    assert set(found.links) == {"README.md", "metrics.jsonl", "samples.jsonl"}


def test_the_same_files_give_the_same_bytes(learning: Path) -> None:
    (learning / "evaluation.json").write_text(
        json.dumps({"before": told({"sums": 0.5}, 2), "after": told({"sums": 0.7}, 2)})
    )
    first = write_report(learning).read_bytes()
    assert write_report(learning).read_bytes() == first


def test_pictures_have_names_and_descriptions(learning: Path) -> None:
    text, found = page(learning)
    assert len(set(found.ids)) == len(found.ids)
    assert set(found.labels) == set(found.ids)
    assert text.count("<title id=") == text.count("<desc id=") == 15
    assert "pass@1: first 0.4" in text
    assert "prefers-color-scheme:dark" in text and '<html lang="en">' in text


def test_what_a_model_wrote_is_text_and_never_markup(learning: Path) -> None:
    rollout = {"step": 0, "question": "<script>q", "text": "</pre><img src=x onerror=y>",
               "reward": {"<i>": 1.0}, "advantage": 1.0, "reason": "<u>"}  # fmt: skip
    jsonl(learning / "samples.jsonl", [rollout])
    row = {"step": 0, '"><svg onload=z>': 1.0}
    jsonl(learning / "metrics.jsonl", [
        {"run": "<script>r", "config": {"x": "</pre><script>"}}, row, row | {"step": 1}
    ])  # fmt: skip
    text, found = page(learning)
    assert not {"script", "img", "i", "u"} & set(found.tags)
    assert "</pre><img src=x onerror=y>" in "".join(found.texts)
    assert "&lt;script&gt;r" in text


def test_lines_that_broke_off_and_numbers_that_are_none(tmp_path: Path) -> None:
    rows = [{"step": i, "loss": math.nan if i == 3 else 2.0 - i} for i in range(6)]
    jsonl(tmp_path / "metrics.jsonl", [{"run": "r", "config": {}}, *rows])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    text, _ = page(tmp_path)
    assert "1 not finite and left out" in text
    assert "nan" not in text.lower()
    (tmp_path / "metrics.jsonl").write_text('{"run": "r", "config": {}}\n')
    assert "No step yet" in page(tmp_path)[0]


def test_before_and_after_with_intervals(learning: Path) -> None:
    before = told({"sums": 0.4, "gcd": 0.5, "chat": 0.9}, 4)
    after = told({"sums": 0.9, "gcd": 0.5, "chat": 0.9}, 4)
    (learning / "evaluation.json").write_text(json.dumps({"before": before, "after": after}))
    text, found = page(learning)
    rows = re.findall(r'<tr class="">.*?(?=<tr|</table>)', text, re.S)
    assert found.tags.count("table") == 6  # pass@1, pass@4, maj@4, each by task and by level
    assert "Addition and subtraction, level 3" in text and "Everything else, level" not in text
    assert "<dt>mean maj@4<dd>" in text
    old, new = (e["tasks"]["sums"]["pass"]["1"]["value"] for e in (before, after))
    assert f"<td>{100 * old:.1f} <small>" in rows[0]
    assert f"\u25b2 {100 * (new - old):+.1f}" in rows[0]
    assert 'class="better"' in rows[0] and 'class="better"' not in rows[2]
    mean = sum(after["tasks"][t]["rate"] for t in ("sums", "gcd")) / 2
    assert "mean, small talk left out" in text
    assert f"<td>{100 * mean:.1f} " in text.partition("mean, small talk")[2].partition("<tr")[0]
    assert "out/&lt;4&gt;" in text


def test_the_same_problems_narrow_the_difference(learning: Path) -> None:
    """Twice the same outcomes: little doubt if the problems were the same (30 of them, twice each),
    and a wide interval if they were not."""
    before, after = told({"sums": 0.5}, 2), told({"sums": 0.5}, 2)
    widths = []
    for seed in (0, 1):
        after["seed"] = seed  # 1: another draw, so nothing is known about pairs
        (learning / "evaluation.json").write_text(json.dumps({"before": before, "after": after}))
        found = re.search(r"<td>\+0.0 <small>\((.*?) to (.*?)\)", page(learning)[0])
        assert found
        widths.append(float(found[2]) - float(found[1]))
    assert widths[0] == pytest.approx(100 * 2 * 1.96 * math.sqrt(0.5) / 32, abs=0.1)
    low, high = wilson(30, 60)
    assert widths[1] > 100 * (high - low)


def test_without_a_parent_there_is_one_column(learning: Path) -> None:
    after = told({"sums": 0.9, "gcd": 0.5}, 1)
    (learning / "evaluation.json").write_text(json.dumps({"before": None, "after": after}))
    text, found = page(learning)
    assert "<h2>Accuracy</h2>" in text and "Before and after" not in text
    assert "difference" not in text and 'scope="col">right (%)' in text
    assert found.tags.count("table") == 2


def test_figures_of_an_earlier_checkpoint_are_called_that(learning: Path) -> None:
    after = told({"sums": 0.9}, 1) | {"sha256": "ab" * 32}
    (learning / "evaluation.json").write_text(json.dumps({"before": None, "after": after}))
    statement = make_statement({"model.safetensors": "ab" * 32}, {}, 1, [], {})
    (learning / "provenance.json").write_bytes(canonical(statement))
    assert "earlier checkpoint" not in page(learning)[0]
    statement = make_statement({"model.safetensors": "cd" * 32}, {}, 2, [], {})
    (learning / "provenance.json").write_bytes(canonical(statement))
    assert "earlier checkpoint" in page(learning)[0]


@pytest.mark.parametrize("content", ["{}", "[", "[1]", '{"before": {}, "after": {}}', "null"])
def test_an_evaluation_that_is_none_is_named(learning: Path, content: str) -> None:
    (learning / "evaluation.json").write_text(content)
    assert "evaluation.json is not" in page(learning)[0]


def test_a_line_passes_through_its_points() -> None:
    chart = line_chart("n", "t", [Series("a", [(0, 1.0), (10, 3.0)])])
    (points,) = re.findall(r'<polyline class="line c0" points="(.*?)"', chart)
    (x0, y0), (x1, y1) = (map(float, p.split(",")) for p in points.split())
    assert x0 < x1 and y0 > y1  # upwards in a picture
    assert line_chart("n", "t", [Series("a", [(0, 1.0)])]) == ""
    assert line_chart("n", "t", [Series("a", [(0, math.nan), (1, math.inf)])]) == ""
    assert "<polyline" in line_chart("n", "t", [Series("a", [(5, 2.0), (5, 2.0)])])


def test_layers_lie_on_each_other() -> None:
    chart = area_chart(
        "n", "t", [Series("a", [(0, 1.0), (1, 1.0)]), Series("b", [(0, 2.0), (1, 2.0)])]
    )
    lower, upper = re.findall(r'<polygon class="area c\d" points="(.*?)"', chart)
    assert set(lower.split()[:2]) == set(upper.split()[2:])  # the top of one carries the next
    assert area_chart("n", "t", []) == ""


def test_a_phase_that_not_every_step_has_is_a_layer() -> None:
    """As saving is: the other phases stay whole, and it is 0 in between."""
    often, seldom = [(i, 1.0) for i in range(4)], [(2, 1.0)]
    chart = area_chart("n", "t", [Series("update", often), Series("save", seldom)])
    lower, upper = re.findall(r'<polygon class="area c\d" points="(.*?)"', chart)
    assert len(lower.split()) == len(upper.split()) == 8
    heights = [float(point.split(",")[1]) for point in upper.split()[:4]]
    assert heights[0] == heights[1] == heights[3] > heights[2]


def test_keys_that_differ_in_one_sign_have_ids_of_their_own(tmp_path: Path) -> None:
    rows = [{"step": i, "a@b": i, "a-b": i, "a b": i} for i in range(3)]
    jsonl(tmp_path / "metrics.jsonl", [{"run": "r", "config": {}}, *rows])
    found = page(tmp_path)[1]
    assert len(found.ids) == len(set(found.ids)) == 6


def test_half_a_surrogate_pair_is_no_reason_to_lose_the_page(learning: Path) -> None:
    jsonl(learning / "samples.jsonl", [{"step": 0, "question": "\ud800", "text": "lone"}])
    assert "lone" in page(learning)[0]


def test_long_runs_make_short_lines() -> None:
    chart = line_chart("n", "t", [Series("a", [(i, float(i % 9)) for i in range(100_000)])])
    assert len(chart) < 12_000


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.5, "0.5"), (3.14159, "3.142"), (100, "100"), (1234.5, "1,234"),
     (2e-7, "2.00e-07"), (-0.02, "-0.02"), (1e9, "1.00e+09"), (math.inf, "not finite")],
)  # fmt: skip
def test_numbers_for_people(value: float, text: str) -> None:
    assert number(value) == text
