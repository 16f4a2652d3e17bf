"""Does code get worse when it is said to be for somebody? Coding tasks by context.

Twenty small tasks in which a careless solution is an insecure one, with no context and with one
sentence on whom the code is for, which differs in the referent alone. What is generated is parsed
and judged by `code_rules`; it is never run.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from ingle.privacy.behaviour.code_rules import extract_code, findings, parse
from ingle.privacy.behaviour.refusals import declined, outcome
from ingle.privacy.behaviour.subject import Ask, Reply, Subject, question
from ingle.statistics import Paired, Rate

PLAIN, NONE = "plain", "none"


@dataclass(frozen=True)
class Tasks:
    """prompts: by (context, task id)."""

    contexts: tuple[str, ...]
    tasks: tuple[str, ...]
    prompts: dict[tuple[str, str], str]


@dataclass(frozen=True)
class CodeSample:
    """One answer. found: ids of the rules that fired; None where it has no code that parses."""

    context: str
    task: str
    sample: int
    prompt: str
    reply: Reply
    found: tuple[str, ...] | None

    @property
    def place(self) -> tuple[str, int]:
        return self.task, self.sample


def load_tasks() -> Tasks:
    """The tasks in every context, `none` first."""
    content = tomllib.loads((files(__package__) / "data" / "coding.toml").read_text("utf-8"))
    prompts = {}
    for task in content["tasks"]:
        prompts[NONE, task["id"]] = task["text"]
        for context, referent in content["contexts"].items():
            sentence = content["sentence"].replace("{}", referent)
            prompts[context, task["id"]] = f"{task['text']} {sentence}"
    contexts = (NONE, *content["contexts"])
    return Tasks(contexts, tuple(task["id"] for task in content["tasks"]), prompts)


def ask_code(subject: Subject, samples: int, tokens: int, every: int = 1) -> list[CodeSample]:
    """`samples` answers to each task in each context; the first greedy, the others drawn."""
    tasks = load_tasks()
    places = [
        (context, task, index)
        for task in tasks.tasks[::every]
        for context in tasks.contexts
        for index in range(samples)
    ]
    asks = [
        Ask(
            f"code:{task}:{index}",  # without the context: the same draws on both sides
            question(tasks.prompts[context, task]),
            tokens,
            temperature=0.8 if index else 0.0,
        )
        for context, task, index in places
    ]
    return [
        CodeSample(*place, tasks.prompts[place[:2]], reply, judge(reply))
        for place, reply in zip(places, subject.ask(asks), strict=True)
    ]


def judge(reply: Reply) -> tuple[str, ...] | None:
    """Ids of the rules that an answer's code breaks; None where it has no code that parses."""
    code = parse(extract_code(reply.content))
    return None if code is None else tuple(sorted(findings(code)))


def report_code(samples: Sequence[CodeSample]) -> dict[str, Any]:
    """By context: samples with a finding, and the same against the plain context, pair by pair."""
    by_context: dict[str, list[CodeSample]] = {}
    for sample in samples:
        by_context.setdefault(sample.context, []).append(sample)
    plain = {s.place: s for s in by_context.get(PLAIN, ())}
    return {name: _context(some, plain) for name, some in by_context.items()}


def _context(some: list[CodeSample], plain: dict[tuple[str, int], CodeSample]) -> dict[str, Any]:
    coded = [s.found for s in some if s.found is not None]
    refused = [declined(outcome(s.reply.content, s.reply.cut)) for s in some]
    rules = sorted({rule for found in coded for rule in found})
    report = {
        "samples": len(some),
        "with_code": Rate(len(coded), len(some)).as_json(),
        "declined": Rate(sum(refused), len(refused)).as_json(),
        "insecure": Rate(sum(map(bool, coded)), len(coded)).as_json(),
        "by_rule": {rule: sum(rule in found for found in coded) for rule in rules},
    }
    if some[0].context not in (NONE, PLAIN):
        pairs = [(s.found, plain[s.place].found) for s in some if s.place in plain]
        both = [(bool(a), bool(b)) for a, b in pairs if a is not None and b is not None]
        paired = Paired.count([a for a, _ in both], [b for _, b in both])
        report["against_plain"] = paired.as_json()
    return report
