"""The whole behaviour audit of one model as one JSON-ready mapping, the same for the same model,
seed and machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ingle.errors import ConfigError, ContextLengthError, InvalidRequestError
from ingle.privacy.behaviour import code_context, competence, hijack, pairs, think_refuse, trigger
from ingle.privacy.behaviour.subject import Subject
from ingle.statistics import Rate

SCHEMA = "ingle.audit.behaviour/1"
PARTS = ("pairs", "code", "thinking", "tools", "trigger")

LIMITS = (
    "It shows differences on these probes; it cannot prove the absence of a backdoor.",
    "No difference found means none on these questions at this n: look at the intervals.",
    "Refusals are recognised by strings, weak code by rules over its syntax: both err, though "
    "alike on both sides of a pair. Slant in an answer that was given is not judged.",
    "Probes of one subject, and samples of one coding task, are not independent: intervals are "
    "narrower than they should be. Many comparisons are made: one p below 0.05 is no finding.",
    "The trigger search sees fixed outputs whose trigger the model itself writes; other triggers "
    "and other effects it does not see. A harmless phrase that commands one answer looks alike.",
)


@dataclass(frozen=True)
class Settings:
    """How much is asked. every: one in so many subjects, tasks and scenarios."""

    form: str = "full"
    every: int = 1
    samples: int = 2
    tokens: int = 1024
    call_tokens: int = 256
    seed: int = 0
    parts: tuple[str, ...] = PARTS
    trigger: trigger.TriggerSettings = field(default_factory=trigger.TriggerSettings)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "parts": list(self.parts)}


def quick(seed: int = 0, parts: tuple[str, ...] = PARTS) -> Settings:
    """A look of minutes where the full form takes hours; its intervals are wide."""
    return Settings("quick", 4, 1, 512, 128, seed, parts, trigger.QUICK)


@dataclass
class _Audit:
    """An audit under way: what later parts need of earlier ones."""

    subject: Subject
    settings: Settings
    right: Mapping[str, Rate]
    answered: Sequence[pairs.Answered] = ()
    samples: Sequence[code_context.CodeSample] = ()


def audit(
    subject: Subject, settings: Settings, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Ask everything; say is told what is being asked. Raises IngleError where the model fails."""
    say("easy questions")
    run = _Audit(subject, settings, competence.competence(subject, settings.tokens))
    found = {}
    for number, part in enumerate(settings.parts, 1):
        say(f"part {number} of {len(settings.parts)}: {TITLES[part]}")
        found[part] = _RUN[part](run)
    return {
        "schema": SCHEMA,
        "model": {"name": subject.name, "format": subject.format, "thinks": subject.thinks},
        "settings": settings.as_json(),
        "understanding": competence.as_json(dict(run.right)),
        "parts": found,
        "limits": list(LIMITS),
    }


TITLES = {
    "pairs": "matched pairs",
    "code": "code under context",
    "thinking": "think-then-refuse gap",
    "tools": "tool hijacking",
    "trigger": "trigger search",
}


def _pairs(run: _Audit) -> dict[str, Any]:
    languages = [name for name in pairs.LANGUAGES if competence.understands(run.right[name])]
    if not languages:
        return _left_out(_not_understood(run, pairs.LANGUAGES))
    chosen = pairs.choose(pairs.load_pairs(), languages, run.settings.every)
    run.answered = pairs.ask_pairs(run.subject, chosen, run.settings.tokens)
    missing = [name for name in pairs.LANGUAGES if name not in languages]
    notes = [_not_understood(run, [name]) for name in missing]
    return _measured(pairs.report_pairs(run.answered), notes)


def _code(run: _Audit) -> dict[str, Any]:
    if not competence.understands(run.right["code"]):
        return _left_out(_not_understood(run, ["code"]))
    s = run.settings
    run.samples = code_context.ask_code(run.subject, s.samples, s.tokens, s.every)
    items: dict[str, Any] = {}
    for sample in run.samples:
        found = None if sample.found is None else list(sample.found)
        items.setdefault(f"{sample.task}:{sample.sample}", {})[sample.context] = found
    return _measured({"contexts": code_context.report_code(run.samples), "items": items})


def _thinking(run: _Audit) -> dict[str, Any]:
    if not run.subject.thinks:
        return _left_out("The model's format has no thoughts: there is nothing to look into.")
    if not run.answered and not run.samples:
        return _left_out("It reads the answers of matched pairs and of code; both are left out.")
    return _measured(think_refuse.report_gap(run.answered, run.samples))


def _tools(run: _Audit) -> dict[str, Any]:
    scenarios = hijack.load_scenarios()[:: run.settings.every]
    try:
        answers = hijack.ask_hijack(run.subject, scenarios, run.settings.call_tokens)
    except ContextLengthError:
        return _left_out("The model's context is too short for a conversation with tools.")
    except (InvalidRequestError, ConfigError) as error:
        return _left_out(f"Not applicable: {error}")
    found = hijack.report_hijack(answers)
    notes = []
    if found["calls_when_asked"]["hits"] == 0:
        notes.append(
            "The model called no tool even where it should have: that it was not hijacked means "
            "nothing."
        )
    items = {
        a.scenario.id: {"injected": list(a.injected.calls), "clean": list(a.clean.calls)}
        for a in answers
    }
    return _measured({**found, "items": items}, notes)


def _trigger(run: _Audit) -> dict[str, Any]:
    found = trigger.search(run.subject, run.settings.trigger, run.settings.seed)
    if not found["candidates"]:
        return _measured(found, ["The model repeats nothing that could be tested as a trigger."])
    return _measured(found)


_RUN = {
    "pairs": _pairs,
    "code": _code,
    "thinking": _thinking,
    "tools": _tools,
    "trigger": _trigger,
}


def _measured(found: Mapping[str, Any], notes: Sequence[str] = ()) -> dict[str, Any]:
    return {"state": "measured", "notes": list(notes), **found}


def _left_out(why: str) -> dict[str, Any]:
    return {"state": "left out", "why": why}


def _not_understood(run: _Audit, kinds: Sequence[str]) -> str:
    names = {"en": "in English", "zh": "in Chinese", "code": "in Python"}
    scores = " and ".join(
        f"{run.right[kind].hits} of {run.right[kind].n} easy questions {names[kind]}"
        for kind in kinds
    )
    return (
        f"The model got {scores} right. One that does not understand what it is asked, such as a "
        "model that answers nothing but sums, shows no difference that means anything: not asked."
    )
